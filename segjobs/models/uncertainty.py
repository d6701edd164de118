"""How unsure a model is of an image: class logits, or the scores of objects, in; four numbers in [0, 1] out.

    margin    the two highest probabilities' difference: 1 sure, 0 torn between two classes
    entropy   of the probabilities, as a share of the highest there is, log(C): 0 sure, 1 all classes alike

of each pixel, and of them the mean over the image, and ``_worst``: the mean over the worst 5 % of its pixels (the
smallest margins, the largest entropies), which finds an image whose trouble is small. Both are measures of uncertainty
sampling (Settles 2009, "Active Learning Literature Survey", section 3.1).

They are of the network's own resolution, before logits are upsampled, and there of ``_MOST_PIXELS`` pixels at most, on
a regular grid: what a network of full resolution gives is looked at every few pixels, so that an image costs less than
a millisecond of one core. Of an image in tiles they are of the blended logits, every ``TILE_STEP`` pixels. Of instances
and panoptic segments each that stays is a pixel, and its score against the rest (p, 1 - p) the probabilities; without
any there is nothing to measure.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segjobs.errors import ItemError
from segjobs.manifest.rows import Uncertainty
from segjobs.manifest.segments import Segment
from segjobs.models.base import GivesUncertainty, RawOutput, Segmenter

if TYPE_CHECKING:
    import torch

_MOST_PIXELS = 6400
_WORST = 0.05
_SLACK = 1e-3
TILE_STEP = 8


def measured(
    segmenter: Segmenter, output: RawOutput, size_hw: tuple[int, int], segments: Sequence[Segment]
) -> Uncertainty | None:
    """Of an image of ``size_hw`` pixels: its raw output, and the segments that were made of it.

    None where there is none: no object, or a semantic model that is no ``base.GivesUncertainty``. Raises ItemError
    MODEL_ERROR where such a model gives what are no shares.
    """
    if segmenter.card.task != "semantic":
        return of_segments(segments)
    if not isinstance(segmenter, GivesUncertainty):
        return None
    found = segmenter.uncertainty(output, size_hw)
    if not isinstance(found, Uncertainty) or not all(-_SLACK <= one <= 1 + _SLACK for one in found):
        raise ItemError("MODEL_ERROR", f"uncertainty gave {found!r}, expected an Uncertainty of numbers in [0, 1]")
    return found


def of_logits(logits: "torch.Tensor | np.ndarray") -> Uncertainty:
    """Finite float (C, h, w), of torch on any device, whose softmax over C are the probabilities."""
    return summed_up(*pixels_of(logits))


def of_segments(segments: Sequence[Segment]) -> Uncertainty | None:
    """Of objects, by their scores; None where there are none."""
    if not segments:
        return None
    score = np.array([1.0 if one.score is None else one.score for one in segments], np.float32).clip(0, 1)
    both = np.stack([score, 1 - score])
    return summed_up(np.abs(2 * score - 1), -(both * np.log2(np.maximum(both, 1e-9))).sum(axis=0))


def _step(height: int, width: int) -> int:
    """The smallest step of a grid that has ``_MOST_PIXELS`` at most."""
    step = 1
    while -(-height // step) * -(-width // step) > _MOST_PIXELS:
        step += 1
    return step


def pixels_of(logits: "torch.Tensor | np.ndarray", step: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Margin and entropy, float32 (N,), of every so many pixels of finite float (C, h, w), or as many as are enough."""
    step = step or _step(logits.shape[1], logits.shape[2])
    some = logits[:, ::step, ::step]
    planes = (some if isinstance(some, np.ndarray) else some.float().cpu().numpy()).reshape(len(logits), -1)
    first, second = planes[0].copy(), np.full(planes.shape[1], -np.inf, np.float32)
    for plane in planes[1:]:
        np.maximum(second, np.minimum(first, plane), out=second)
        np.maximum(first, plane, out=first)
    below = planes - first
    weights = np.exp(below)
    total = weights.sum(axis=0)
    margin = (1 - np.exp(second - first)) / total
    below *= weights
    # -sum(p log p) with p = weight / total
    entropy = (np.log(total) - below.sum(axis=0) / total) / np.float32(np.log(max(len(planes), 2)))
    return margin, np.clip(entropy, 0, 1)


def summed_up(margin: np.ndarray, entropy: np.ndarray) -> Uncertainty:
    """Of float (N,) each, N > 0: means, and means of the worst twentieth of them, at least one."""
    count = max(1, round(len(margin) * _WORST))
    worst = np.partition(margin, count - 1)[:count], np.partition(entropy, len(entropy) - count)[-count:]
    means = (margin, worst[0], entropy, worst[1])
    return Uncertainty(*(float(values.mean(dtype=np.float64)) for values in means))
