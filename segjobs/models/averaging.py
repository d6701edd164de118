"""Several passes of semantic networks as one Segmenter: their probabilities averaged once, at one resolution.

    image ─→ a tensor a pass ─→ pass after pass: logits ─→ softmax ─→ mirrored back ─→ added to the mean ─→ its
    logarithm, which goes the way back to the image's size that logits go

The mean is weighted by model: each counts alike, whatever its views. Its resolution is the finest that a pass gives for
the image; coarser probabilities are interpolated bilinearly. Beside the mean, one pass's logits are held. So the mean
over passes that agree is what each of them says, and tiles are blended as those of one network.

Reference: mmsegmentation's ``SegTTAModel`` and Ren et al.'s practice before it average softmax as well, at the image's
size (https://mmsegmentation.readthedocs.io/en/latest/api.html#mmseg.models.SegTTAModel).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from segjobs.config import LossConfig
from segjobs.errors import ConfigError, ItemError
from segjobs.manifest.rows import Uncertainty
from segjobs.manifest.schema import ModelCard
from segjobs.models import batching
from segjobs.models.base import LabelMap, Prediction, RawOutput, Target, Views
from segjobs.models.passes import Pass, views_of
from segjobs.models.semantic import SemanticSegmenter
from segjobs.models.uncertainty import of_logits
from segjobs.models.upsample_device import upsampled

_TINY = torch.finfo(torch.float32).tiny  # a probability of 0 has no logarithm


@dataclass(frozen=True)
class Averaged:
    """Raw output of one image. ``logits``: logarithms of the mean, float32 (C, h, w), on the device.

    ``home``: the number of the pass at whose resolution they are. ``error``: of a pass that failed at the image.
    """

    logits: torch.Tensor
    home: int
    error: ItemError | None = None


class AveragingSegmenter:
    """See ``base.Segmenter``. It is not trained."""

    same_size_batches = True

    def __init__(self, passes: Sequence[Pass], card: ModelCard) -> None:
        self.card = card
        self.module = networks_of(passes)
        self._passes = passes
        plain = replace(card, preprocessing={"resize": "native", "mean": [0.0] * 3, "std": [1.0] * 3})
        # Without a network: the way from a model's own resolution to the image's.
        self._straight_home = SemanticSegmenter(nn.Module(), plain, resizing=lambda image: image)

    def preprocess(self, image: np.ndarray) -> Views:
        """uint8 (H, W, 3) RGB → a tensor for each pass. Raises ItemError."""
        return views_of(self._passes, image)

    def forward(self, batch: Sequence[Views]) -> list[Averaged]:
        """Images of the same shapes for every pass → the mean of each, on the device."""
        means = [_Mean() for _ in batch]
        for number in range(len(self._passes)):
            self._add(number, batch, means)
        return [mean.result() for mean in means]

    def postprocess(self, output: Averaged, size_hw: tuple[int, int]) -> LabelMap:
        """The mean of one image → its label map. Raises ItemError."""
        return self._home(output).postprocess(output.logits, size_hw)

    def logits(self, output: Averaged, size_hw: tuple[int, int]) -> torch.Tensor:
        """See ``base.GivesLogits``. Raises ItemError."""
        return self._home(output).logits(output.logits, size_hw)

    def uncertainty(self, output: Averaged, size_hw: tuple[int, int]) -> Uncertainty:
        """See ``base.GivesUncertainty``: of the mean."""
        return of_logits(output.logits)

    def predict(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Images uint8 (H, W, 3) RGB of any sizes → one LabelMap each."""
        return batching.predict(self, images)

    def set_loss(self, config: LossConfig, amounts: Sequence[int] | None = None) -> None:
        """Nothing to choose: see ``loss``."""

    def loss(self, images: Sequence[np.ndarray], targets: Sequence[Target]) -> torch.Tensor:
        """Raises ConfigError."""
        raise not_trained(self.card)

    def _add(self, number: int, batch: Sequence[Views], means: "Sequence[_Mean]") -> None:
        """A pass over the batch; its logits are let go behind it."""
        one = self._passes[number]
        tensors = [views.tensors[number] for views in batch]
        for run in batching.same_size_runs(tensors, len(tensors), same_size=one.segmenter.same_size_batches):
            outputs = one.segmenter.forward(tensors[run])
            for mean, views, output in zip(means[run], batch[run], outputs, strict=True):
                mean.add(number, one, output, views.size_hw)

    def _home(self, output: Averaged) -> SemanticSegmenter:
        """Whose way back to the image's size the mean goes."""
        if output.error is not None:
            raise output.error
        segmenter = self._passes[output.home].segmenter
        return segmenter if isinstance(segmenter, SemanticSegmenter) else self._straight_home


class _Mean:
    """The weighted sum of the probabilities of one image's passes so far, float32 (C, h, w)."""

    def __init__(self) -> None:
        self._sum = torch.empty(0)
        self._home = -1
        self._error: ItemError | None = None

    @torch.inference_mode()
    def add(self, number: int, one: Pass, output: RawOutput, size_hw: tuple[int, int]) -> None:
        if self._error is not None:
            return
        try:
            planes = one.planes(output, size_hw)
        except ItemError as error:  # a model of the user's looks for NaN by itself
            self._error = error
            return
        share = planes.softmax(dim=0).mul_(one.weight)
        share[0] += 0 * planes.sum()  # NaN where a logit is infinite, which a probability of 0 would hide
        if self._home < 0:
            self._sum, self._home = share, number
            return
        grid, other = (one.shape[1] * one.shape[2] for one in (self._sum, share))
        if other > grid:
            self._sum, share, self._home = share, self._sum, number
        if share.shape != self._sum.shape:
            share = upsampled(share, (self._sum.shape[1], self._sum.shape[2]))
        self._sum.add_(share.to(self._sum.device))

    @torch.inference_mode()
    def result(self) -> Averaged:
        return Averaged(self._sum.clamp_(min=_TINY).log_(), self._home, self._error)


def networks_of(passes: Sequence[Pass]) -> nn.Module:
    """The networks of all passes, each once."""
    return nn.ModuleList({id(one.segmenter.module): one.segmenter.module for one in passes}.values()).eval()


def not_trained(card: ModelCard) -> ConfigError:
    return ConfigError(f"{card.label}: several passes are not trained together; train its models one by one")
