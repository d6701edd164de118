"""Architectures of segmentation_models_pytorch (smp), with random weights and any of its encoders.

Papers: U-Net, Ronneberger et al. 2015 (https://arxiv.org/abs/1505.04597), U-Net++, Zhou et al. 2018
(https://arxiv.org/abs/1807.10165), DPT, Ranftl et al. 2021 (https://arxiv.org/abs/2103.13413); those of the others
stand in smp's documentation. smp is asked for architectures only: its weights, and even the means and
deviations of its encoders, come from a hub.
"""

from torch import nn

from segjobs.errors import ConfigError
from segjobs.manifest.schema import Options

_MISFITS = (LookupError, ValueError, TypeError, AttributeError, RuntimeError, AssertionError, NotImplementedError)
"""What smp and timm raise of options that give no network."""


def unet(options: Options, num_classes: int) -> nn.Module:
    """smp's Unet on ``options["encoder"]``, logits at the input's size.

    ``options["decoder_channels"]``: of its five stages, the coarsest first. Half of smp's take 0.6 of its time.
    """
    return smp_network("Unet", options, num_classes)


def unetplusplus(options: Options, num_classes: int) -> nn.Module:
    """smp's UnetPlusPlus, with the same options."""
    return smp_network("UnetPlusPlus", options, num_classes)


def dpt(options: Options, num_classes: int) -> nn.Module:
    """smp's DPT on a vision transformer of timm (``tu-vit_…``), which takes images of any size."""
    return smp_network("DPT", {"dynamic_img_size": True, **options}, num_classes)


def smp_network(architecture: str, options: Options, num_classes: int) -> nn.Module:
    """One of smp's architectures with random weights. Raises ConfigError where the options do not fit it."""
    import segmentation_models_pytorch as smp  # here: the import takes seconds (timm), and other models do without

    others = dict(options)
    encoder = others.pop("encoder")
    try:
        return smp.create_model(architecture, encoder_name=encoder, encoder_weights=None, classes=num_classes, **others)
    except _MISFITS as error:
        raise ConfigError(f"model.options.encoder {encoder!r} does not fit {architecture}: {error}") from error
