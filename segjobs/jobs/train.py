"""Train a semantic model on images with label maps: samples in, a fitted Segmenter out.

    samples → random crops and flips → the model's own loss → AdamW on one cycle of learning rates

All samples are held in memory: this is for small sets and fine-tuning on one machine.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from segjobs.models.base import VOID, LabelMap, Segmenter

Sample = tuple[np.ndarray, np.ndarray]
"""uint8 (H, W, 3) RGB and uint16 (H, W) class indices, ``VOID`` where unlabelled."""


@dataclass(frozen=True)
class FitSettings:
    """How to train. ``crop_px``: edge of the square crops; smaller images are padded with VOID."""

    steps: int
    batch_size: int = 8
    crop_px: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    seed: int = 0


def fit(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    settings: FitSettings,
    *,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Train ``segmenter.module`` in place and leave it in eval mode. ``on_step`` gets (step, loss).

    The learning rate rises for a tenth of the steps and falls by a cosine to zero (Smith and Topin
    2018, https://arxiv.org/abs/1708.07120, as torch's OneCycleLR has it). Raises ValueError where the
    loss is not finite.
    """
    module = segmenter.module.train()
    optimiser = torch.optim.AdamW(module.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1
    )
    for step, (images, targets) in enumerate(_batches(samples, settings), 1):
        loss = segmenter.loss(images, targets)
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item()} at step {step}: lower the learning rate")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if on_step:
            on_step(step, loss.item())
    module.eval()


def _batches(samples: Sequence[Sample], settings: FitSettings) -> Iterator[tuple[list[np.ndarray], list[LabelMap]]]:
    """``settings.steps`` batches; every sample is seen once before any is seen again."""
    rng = np.random.default_rng(settings.seed)
    order: list[int] = []
    for _ in range(settings.steps):
        crops = []
        for _ in range(settings.batch_size):
            order = order or rng.permutation(len(samples)).tolist()
            crops.append(_augment(samples[order.pop()], settings.crop_px, rng))
        yield [image for image, _ in crops], [LabelMap(ids) for _, ids in crops]


def _augment(sample: Sample, crop_px: int, rng: np.random.Generator) -> Sample:
    """A random square crop, flipped either way at random."""
    image, ids = sample
    short = [(0, max(0, crop_px - side)) for side in ids.shape]
    if any(after for _, after in short):
        image = np.pad(image, [*short, (0, 0)])
        ids = np.pad(ids, short, constant_values=VOID)
    top, left = (int(rng.integers(0, side - crop_px + 1)) for side in ids.shape)
    window = np.s_[top : top + crop_px, left : left + crop_px]
    image, ids = image[window], ids[window]
    for axis in (0, 1):
        if rng.random() < 0.5:
            image, ids = np.flip(image, axis), np.flip(ids, axis)
    return np.ascontiguousarray(image), np.ascontiguousarray(ids)
