"""Logits of one image at the network's resolution → label map and confidence at the image's.

The definition is plain: interpolate every class bilinearly (align_corners=False), take the argmax (ties go to the
lowest index); torchvision's networks interpolate to their input's size first, and so does ``by_way_of``; the
confidence is the winner's softmax probability at the network's resolution (of ``scores``: its share of their sum),
interpolated the same way. ``upsample_device.py`` computes just that, for a GPU. ``upsample_on_cpu`` gives the same
labels faster, since on a CPU it runs next to the network: 21 classes of 65x87 to 480x640 pixels took torch 70 ms on one
core. Where masks alone are asked for, ``run_finder.py`` does without the label map. No torch here: exported networks do
without.
"""

from collections.abc import Sequence

import cv2
import numpy as np

PRUNE_FROM = 4
"""Look for candidates where the image has at least this many times the logits' pixels: below, the search costs more
than the interpolations that it saves."""


def upsample_on_cpu(
    logits: np.ndarray, size_hw: tuple[int, int], *, by_way_of: tuple[int, int] | None = None, scores: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """float32 (C, h, w), finite → uint16 ids and float32 confidence in [0, 1], both (H, W).

    ``scores``: the planes are no logits but positive scores, such as sums of probabilities.

    Per plane, OpenCV interpolates some 15 times as fast as torch and differs from it in the last bits only; so do
    the labels, where two classes tie.
    """
    steps = steps_to(size_hw, by_way_of)
    channels = candidates(logits, steps=len(steps)) if is_much_smaller(logits, steps) else np.arange(len(logits))
    first, *others = channels.tolist()
    best = resize_plane(logits[first], steps)
    ids = np.full(size_hw, first, np.uint8 if len(logits) <= 256 else np.uint16)
    for channel in others:
        plane = resize_plane(logits[channel], steps)
        # Channels ascend, so a later winner is the larger number: a maximum is a masked store that vectorises.
        np.maximum(ids, (plane > best) * ids.dtype.type(channel), out=ids)
        np.maximum(best, plane, out=best)
    return ids.astype(np.uint16), _confidence(probabilities(logits, scores=scores), ids, channels)


def upsampled_array(
    logits: np.ndarray, size_hw: tuple[int, int], *, by_way_of: tuple[int, int] | None = None
) -> np.ndarray:
    """float32 (C, h, w) → (C, H, W): the interpolated logits themselves, a copy of them."""
    steps = steps_to(size_hw, by_way_of)
    found = np.empty((len(logits), *size_hw), np.float32)
    for plane, small in zip(found, logits, strict=True):
        plane[:] = resize_plane(small, steps)
    return found


def probabilities(logits: np.ndarray, *, scores: bool = False) -> np.ndarray:
    """float32 (C, h, w) → the same: their softmax over the channels; of ``scores`` each one's share of their sum."""
    if not scores:
        logits = np.exp(logits - logits.max(axis=0))
    return logits / np.maximum(logits.sum(axis=0), np.finfo(np.float32).tiny)  # scores may all be 0


def steps_to(size_hw: tuple[int, int], by_way_of: tuple[int, int] | None) -> list[tuple[int, int]]:
    """Heights and widths that logits are interpolated to, one after the other."""
    return [step for step in (by_way_of, size_hw) if step is not None]


def is_much_smaller(logits: np.ndarray, steps: Sequence[tuple[int, int]]) -> bool:
    """Whether float32 (C, h, w) have so few pixels that it pays to find out which classes can win any."""
    return max(height * width for height, width in steps) >= PRUNE_FROM * logits[0].size


def resize_plane(plane: np.ndarray, steps: Sequence[tuple[int, int]]) -> np.ndarray:
    """float32 (h, w) → (H, W) of the last of ``steps``, by way of the others."""
    for height, width in steps:
        plane = cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
    return plane


def candidates(logits: np.ndarray, *, steps: int = 1) -> np.ndarray:
    """Ascending indices of the channels of float32 (C, h, w) that may win a pixel of the upsampled map.

    A bilinear value is a convex combination of the 2x2 corners of its cell, so in each cell a class reaches at most
    its largest corner, and the winner at least the largest, over classes, of the smallest corner. A second
    interpolation mixes pixels of neighbouring cells: then the corners are those of 2x2 cells.
    """
    count, height, width = logits.shape
    cell_hw = min(height, steps + 1), min(width, steps + 1)
    window = np.ones(cell_hw, np.uint8)
    planes = np.ascontiguousarray(logits).reshape(-1, width)  # one below the other: cells over two of them are cut off
    highest, lowest = (
        extreme(planes, window, anchor=(0, 0)).reshape(count, height, width)[
            :, : height - cell_hw[0] + 1, : width - cell_hw[1] + 1
        ]
        for extreme in (cv2.dilate, cv2.erode)
    )
    margin = 1e-5 * max(float(logits.max()), -float(logits.min()))  # an interpolation's rounding is below 1e-6 of it
    return np.flatnonzero((highest >= lowest.max(axis=0) - np.float32(margin)).any(axis=(1, 2)))


def _confidence(chances: np.ndarray, ids: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """The winner's probability at each pixel: float32, shaped as ``ids``."""
    if ids.shape == chances.shape[1:]:
        return chances.max(axis=0)  # nothing was interpolated
    confidence = np.zeros(ids.shape, np.float32)
    for channel in channels.tolist():
        won = (ids == channel).view(np.uint8)
        if not won.any():
            continue
        plane = cv2.resize(chances[channel], ids.shape[::-1], interpolation=cv2.INTER_LINEAR)
        cv2.copyTo(plane, won, confidence)
    return np.minimum(confidence, 1, out=confidence)
