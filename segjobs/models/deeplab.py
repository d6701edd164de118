"""DeepLab v3, LR-ASPP (torchvision) and DeepLab v3+ (segmentation_models_pytorch), with random weights.

Papers: Chen et al. 2017 (v3, https://arxiv.org/abs/1706.05587), Chen et al. 2018 (v3+,
https://arxiv.org/abs/1802.02611), Howard et al. 2019 (LR-ASPP, https://arxiv.org/abs/1905.02244).
"""

import torchvision
from torch import nn

from segjobs.manifest.schema import Options
from segjobs.models.semantic import StrideLogits
from segjobs.models.unet import smp_network


def deeplabv3(name: str, options: Options, num_classes: int) -> nn.Module:
    """torchvision's ``deeplabv3_*`` or ``lraspp_*`` network, logits at stride 8 (MobileNet: 16; LR-ASPP: 8)."""
    return StrideLogits(
        torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes, **options)
    )


def deeplabv3plus(options: Options, num_classes: int) -> nn.Module:
    """smp's DeepLabV3Plus on ``options["encoder"]``, logits at the input's size."""
    return smp_network("DeepLabV3Plus", options, num_classes)
