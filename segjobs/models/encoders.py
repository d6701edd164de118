"""The encoders of segmentation_models_pytorch (smp) by name, without importing it: the driver checks names here."""

import difflib

from segjobs.errors import ConfigError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation (RGB, of values in [0, 1]) that ImageNet's networks are trained with."""

_NORMALISATION = {
    "dpn": ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "xception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Encoders (by the start of their names) whose published weights do not expect ImageNet's."""

# fmt: off
ENCODERS = frozenset({
    "densenet121", "densenet161", "densenet169", "densenet201", "dpn107", "dpn131", "dpn68", "dpn68b", "dpn92",
    "dpn98", "efficientnet-b0", "efficientnet-b1", "efficientnet-b2", "efficientnet-b3", "efficientnet-b4",
    "efficientnet-b5", "efficientnet-b6", "efficientnet-b7", "inceptionresnetv2", "inceptionv4", "mit_b0",
    "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5", "mobilenet_v2", "mobileone_s0", "mobileone_s1",
    "mobileone_s2", "mobileone_s3", "mobileone_s4", "resnet101", "resnet152", "resnet18", "resnet34",
    "resnet50", "resnext101_32x16d", "resnext101_32x32d", "resnext101_32x48d", "resnext101_32x4d",
    "resnext101_32x8d", "resnext50_32x4d", "se_resnet101", "se_resnet152", "se_resnet50", "se_resnext101_32x4d",
    "se_resnext50_32x4d", "senet154", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19",
    "vgg19_bn", "xception",
})
# fmt: on
"""smp's own encoders; importing smp to ask for them takes seconds. ``tu-NAME`` gives any of timm's."""


def check_encoder(encoder: str) -> None:
    """Raise ConfigError where smp has no such encoder."""
    if encoder not in ENCODERS and not encoder.startswith("tu-"):
        near = difflib.get_close_matches(encoder, ENCODERS, n=3) or ["resnet18", "resnet34", "mobilenet_v2"]
        raise ConfigError(
            f"model.options.encoder {encoder!r} is no encoder; near it: {', '.join(near)} (or tu-NAME for timm's)"
        )


def normalisation(encoder: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (RGB, of values in [0, 1]) that go with an encoder."""
    for start, mean_std in _NORMALISATION.items():
        if encoder.startswith(start):
            return mean_std
    return IMAGENET
