"""Fully convolutional networks: FCN-32s, -16s and -8s on VGG-16, and torchvision's on ResNet.

Architecture of the VGG family: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation",
CVPR 2015 (https://arxiv.org/abs/1411.4038); layer by layer as the authors' reference implementation,
https://github.com/shelhamer/fcn.berkeleyvision.org (voc-fcn32s, voc-fcn16s, voc-fcn8s). Three things differ:

- The reference pads the image by 100 pixels and crops every score map by a fixed offset. Here the input is padded to
  a multiple of 32 and convolutions keep the size, so that a score cell lies exactly over its 32x32 pixels and no
  offsets are needed. At 480x640 that saves 40% of the convolutions.
- The score layer on fc7 starts from small random values, not from zeros, so that gradients reach fc7 at once. The
  skip scores start from zeros as in the paper: they must not disturb the coarser prediction.
- All transposed convolutions may learn; the paper fixes the last one.
"""

from typing import Literal

import torch
import torchvision
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from segjobs.manifest.schema import Options
from segjobs.models.semantic import StrideLogits

Stride = Literal[8, 16, 32]
_POOL3, _POOL4 = 17, 24  # torchvision's VGG-16 `features`: the layer after pool3, and after pool4


def bilinear_kernel(factor: int) -> torch.Tensor:
    """float32 (2·factor, 2·factor): the transposed convolution that upsamples by ``factor``, bilinearly."""
    centre = factor - 0.5
    line = 1 - (torch.arange(2 * factor) - centre).abs() / factor
    return line[:, None] * line[None, :]


class FCN(nn.Module):
    """Logits at the input's size from an image whose sides are multiples of 32.

    ``stride``: of the finest scores used: 32 (fc7 only), 16 (and pool4) or 8 (and pool3).
    ``hidden``: channels of fc6 and fc7, the paper's 4096; they hold 119 of FCN's 134 million weights.
    """

    def __init__(self, num_classes: int, *, stride: Stride, hidden: int = 4096) -> None:
        super().__init__()
        self.features = make_layers(cfgs["D"])  # VGG-16 without the classifier, whose 120 million weights go unused
        self.fc6 = nn.Conv2d(512, hidden, kernel_size=7, padding=3)
        self.fc7 = nn.Conv2d(hidden, hidden, kernel_size=1)
        self.dropout = nn.Dropout2d(0.5)
        self.score_fr = nn.Conv2d(hidden, num_classes, kernel_size=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                _zero_bias(layer)
        nn.init.normal_(self.score_fr.weight, std=0.01)
        self.score_pool4 = _skip_score(512, num_classes) if stride <= 16 else None
        self.score_pool3 = _skip_score(256, num_classes) if stride == 8 else None
        self.upscore2 = _upsampling(num_classes, 2) if stride <= 16 else None
        self.upscore_pool4 = _upsampling(num_classes, 2) if stride == 8 else None
        self.upscore = _upsampling(num_classes, stride)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """float32 (N, 3, h, w) → logits (N, C, h, w)."""
        pool3 = self.features[:_POOL3](batch)
        pool4 = self.features[_POOL3:_POOL4](pool3)
        hidden = self.features[_POOL4:](pool4)
        hidden = self.dropout(self.fc6(hidden).relu())
        hidden = self.dropout(self.fc7(hidden).relu())
        score = self.score_fr(hidden)
        if self.upscore2 is not None and self.score_pool4 is not None:
            score = self.upscore2(score) + self.score_pool4(pool4)
        if self.upscore_pool4 is not None and self.score_pool3 is not None:
            score = self.upscore_pool4(score) + self.score_pool3(pool3)
        return self.upscore(score)


def fcn_vgg16(stride: Stride, options: Options, num_classes: int) -> nn.Module:
    """FCN-8s, -16s or -32s with random weights."""
    return FCN(num_classes, stride=stride, **options)


def fcn_resnet(name: str, options: Options, num_classes: int) -> nn.Module:
    """torchvision's ``fcn_resnet50`` or ``fcn_resnet101``, random weights, logits at stride 8."""
    return StrideLogits(
        torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=num_classes, **options)
    )


def _skip_score(channels: int, num_classes: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, num_classes, kernel_size=1)
    nn.init.zeros_(layer.weight)
    _zero_bias(layer)
    return layer


def _upsampling(num_classes: int, factor: int) -> nn.ConvTranspose2d:
    """n cells → n·factor pixels, each cell's centre over the centre of its pixels; classes start unmixed."""
    layer = nn.ConvTranspose2d(
        num_classes, num_classes, kernel_size=2 * factor, stride=factor, padding=factor // 2, bias=False
    )
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.weight[range(num_classes), range(num_classes)] = bilinear_kernel(factor)
    return layer


def _zero_bias(layer: nn.Conv2d) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
