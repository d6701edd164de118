"""The table of models: what each name stands for. Neither torch nor a network is imported before one is built."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from segjobs.config import nearest
from segjobs.errors import ConfigError
from segjobs.manifest.schema import Options, Task
from segjobs.plugins import installed, load

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelSpec:
    """What a name stands for.

    ``builder``: the function of this folder that makes the network, such as ``unet.unet`` (another package's:
    ``package.module:function``), and what it is given before ``options``; it is imported when it is called.
    ``options``: every option with its default. ``resize``: the default rule (see ``resize.py``). ``divisor``: sides of
    the input are multiples of it; ``least``: and at least so long. ``published``: the torchvision model whose weights
    ``default`` takes.
    """

    task: Task
    builder: Sequence[str | int]
    options: Options = field(default_factory=dict[str, object])
    resize: str = "short:520"
    divisor: int = 1
    least: int = 1
    published: str | None = None

    def network(self, options: Options, num_classes: int) -> "nn.Module":
        """The network with random weights."""
        where, *given = self.builder
        module, _, function = str(where).rpartition(":")
        if not module:
            name, _, function = function.partition(".")
            module = f"segjobs.models.{name}"
        return getattr(import_module(module), function)(*given, options, num_classes)


def _own_fcn(stride: int) -> ModelSpec:
    # Five halvings: sides must be multiples of 2^5.
    return ModelSpec("semantic", ("fcn.fcn_vgg16", stride), {"hidden": 4096}, "native", 32)


def _torchvision(name: str, function: str, **options: object) -> ModelSpec:
    return ModelSpec("semantic", (function, name), options, published=name)


def _smp(*builder: str, divisor: int = 32, least: int = 1, **options: object) -> ModelSpec:
    # The deepest encoder stage, or the output stride where that is fixed, is the divisor.
    return ModelSpec("semantic", builder, {"encoder": "resnet34", **options}, "native", divisor, least)


_DETECTION = {
    "box_score_thresh": 0.05,
    "box_nms_thresh": 0.5,
    "box_detections_per_img": 100,
    "box_batch_size_per_image": 512,  # regions that the heads learn from: fewer are faster on a CPU
}

MODELS: dict[str, ModelSpec] = {
    "fcn8s_vgg16": _own_fcn(8),
    "fcn16s_vgg16": _own_fcn(16),
    "fcn32s_vgg16": _own_fcn(32),
    "fcn_resnet50": _torchvision("fcn_resnet50", "fcn.fcn_resnet", aux_loss=False),
    "fcn_resnet101": _torchvision("fcn_resnet101", "fcn.fcn_resnet", aux_loss=False),
    "deeplabv3_resnet50": _torchvision("deeplabv3_resnet50", "deeplab.deeplabv3", aux_loss=False),
    "deeplabv3_resnet101": _torchvision("deeplabv3_resnet101", "deeplab.deeplabv3", aux_loss=False),
    "deeplabv3_mobilenet_v3_large": _torchvision("deeplabv3_mobilenet_v3_large", "deeplab.deeplabv3", aux_loss=False),
    "lraspp_mobilenet_v3_large": _torchvision("lraspp_mobilenet_v3_large", "deeplab.deeplabv3"),
    "unet": _smp("unet.unet", decoder_channels=[256, 128, 64, 32, 16]),
    "unetplusplus": _smp("unet.unetplusplus", decoder_channels=[256, 128, 64, 32, 16]),
    "deeplabv3plus": _smp("deeplab.deeplabv3plus", divisor=16),
    "manet": _smp("unet.smp_network", "MAnet"),
    "linknet": _smp("unet.smp_network", "Linknet"),
    "fpn": _smp("unet.smp_network", "FPN"),
    "pspnet": _smp("unet.smp_network", "PSPNet", divisor=8),
    "deeplabv3": _smp("unet.smp_network", "DeepLabV3", divisor=8),
    "pan": _smp("unet.smp_network", "PAN", divisor=16, least=128),  # it pools features of 1/16 by 8
    "upernet": _smp("unet.smp_network", "UPerNet"),
    "segformer": _smp("unet.smp_network", "Segformer"),
    "dpt": _smp("unet.dpt", encoder="tu-vit_base_patch16_224"),
    "maskrcnn_resnet50_fpn": ModelSpec(
        "instance",
        ("maskrcnn.maskrcnn",),
        {"frozen_norm": True, **_DETECTION},
        "short:800",
        published="maskrcnn_resnet50_fpn",
    ),
    "maskrcnn_resnet50_fpn_v2": ModelSpec(
        "instance", ("maskrcnn.maskrcnn_v2",), _DETECTION, "short:800", published="maskrcnn_resnet50_fpn_v2"
    ),
}


FROM_WEIGHTS = {"hf": "hf", "onnx": "onnx", "smp": "smp"}
"""Names whose weights bring architecture, classes and preprocessing along → the module of this folder for them.

It has ``describe`` (ModelConfig → ModelCard, on the driver) and ``build`` (→ Segmenter), as ``registry`` calls them.
"""


def get_spec(name: str) -> ModelSpec:
    """The entry of ``MODELS``, or what an installed package brings. Raises ConfigError with the nearest names."""
    spec = MODELS.get(name) or load("segjobs.models", name, _as_spec, "a ModelSpec (segjobs/models/table.py)")
    if spec is None:
        names = [*MODELS, *FROM_WEIGHTS, *installed("segjobs.models")]
        raise ConfigError(
            f"model.name {name!r} is no model; {nearest(name, names)} (one of your own: package.module:factory)"
        )
    return spec


def _as_spec(thing: object) -> ModelSpec | None:
    return thing if isinstance(thing, ModelSpec) else None
