"""Logits of one image at the network's resolution → label map and confidence at the image's.

The definition is plain: interpolate every class bilinearly (align_corners=False), take the argmax (ties go to the
lowest index); torchvision's networks interpolate to their input's size first, and so does ``by_way_of``; the
confidence is the winner's softmax probability at the network's resolution (of ``scores``: its share of their sum),
interpolated the same way. ``upsample_on_device`` computes just that, for a GPU. ``upsample_on_cpu`` gives the same
labels faster, since on a CPU it runs next to the network: 21 classes of 65x87 to 480x640 pixels took torch 70 ms on one
core.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F

_PRUNE_BELOW = 4
"""Look for candidates where the image has at least this many times the logits' pixels: below, the search costs more
than the interpolations that it saves."""


def upsample_on_device(
    logits: torch.Tensor, size_hw: tuple[int, int], *, by_way_of: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """float32 (C, h, w) on any device → uint16 ids and float32 confidence in [0, 1], both (H, W)."""
    inner = logits[None] if by_way_of is None else _interpolate(logits[None], by_way_of)
    ids = _interpolate(inner, size_hw)[0].argmax(0)
    confidence = _interpolate(logits.softmax(0)[None], size_hw)[0].gather(0, ids[None])[0]
    small, confidence = _to_host(ids.to(torch.uint8 if len(logits) <= 256 else torch.int32), confidence)
    return small.numpy().astype(np.uint16), confidence.numpy()


def _to_host(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """By way of pinned memory: a GPU copies there twice as fast, and is waited for once."""
    if not tensors[0].is_cuda:
        return list(tensors)
    found = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
    for one, tensor in zip(found, tensors, strict=True):
        one.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream().synchronize()
    return found


def _interpolate(planes: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(planes, size_hw, mode="bilinear", align_corners=False)


def upsample_on_cpu(
    logits: np.ndarray, size_hw: tuple[int, int], *, by_way_of: tuple[int, int] | None = None, scores: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """float32 (C, h, w), finite → uint16 ids and float32 confidence in [0, 1], both (H, W).

    ``scores``: the planes are no logits but positive scores, such as sums of probabilities.

    Per plane, OpenCV interpolates some 15 times as fast as torch and differs from it in the last bits only; so do
    the labels, where two classes tie.
    """
    steps = [step for step in (by_way_of, size_hw) if step is not None]
    if len(logits) * max(height * width for height, width in steps) >= _PRUNE_BELOW * logits.size:
        channels = candidates(logits, steps=len(steps))
    else:
        channels = np.arange(len(logits))
    first, *others = channels.tolist()
    best = _resize(logits[first], steps)
    ids = np.full(size_hw, first, np.uint8 if len(logits) <= 256 else np.uint16)
    for channel in others:
        plane = _resize(logits[channel], steps)
        # Channels ascend, so a later winner is the larger number: a maximum is a masked store that vectorises.
        np.maximum(ids, (plane > best) * ids.dtype.type(channel), out=ids)
        np.maximum(best, plane, out=best)
    weights = logits
    if not scores:
        weights = logits - logits.max(axis=0)
        np.exp(weights, out=weights)
    return ids.astype(np.uint16), _confidence(weights, ids, channels)


def upsampled(
    logits: torch.Tensor, size_hw: tuple[int, int], *, by_way_of: tuple[int, int] | None = None
) -> torch.Tensor:
    """float32 (C, h, w) → (C, H, W) on the same device: the interpolated logits themselves, a copy of them."""
    steps = [step for step in (by_way_of, size_hw) if step is not None]
    if logits.is_cuda:
        planes = logits[None]
        for step in steps:
            planes = _interpolate(planes, step)
        return planes[0]
    found = np.empty((len(logits), *size_hw), np.float32)
    for plane, small in zip(found, logits.contiguous().numpy(), strict=True):
        plane[:] = _resize(small, steps)
    return torch.from_numpy(found)


def _resize(plane: np.ndarray, steps: Sequence[tuple[int, int]]) -> np.ndarray:
    for height, width in steps:
        plane = cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
    return plane


def candidates(logits: np.ndarray, *, steps: int = 1) -> np.ndarray:
    """Ascending indices of the channels of float32 (C, h, w) that may win a pixel of the upsampled map.

    A bilinear value is a convex combination of the 2x2 corners of its cell, so in each cell a class reaches at most
    its largest corner, and the winner at least the largest, over classes, of the smallest corner. A second
    interpolation mixes pixels of neighbouring cells: then the corners are those of 2x2 cells.
    """
    highest = lowest = logits
    for _ in range(steps):
        highest = _over_cells(np.maximum, highest)
        lowest = _over_cells(np.minimum, lowest)
    margin = 1e-5 * np.abs(logits).max()  # the rounding of an interpolation is below 1e-6 of the largest value
    return np.flatnonzero((highest >= lowest.max(axis=0) - margin).any(axis=(1, 2)))


def _over_cells(extreme: np.ufunc, logits: np.ndarray) -> np.ndarray:
    """Maximum or minimum over the 2x2 corners of every cell: (C, h, w) → (C, max(h-1, 1), max(w-1, 1))."""
    if logits.shape[1] > 1:
        logits = extreme(logits[:, 1:], logits[:, :-1])
    if logits.shape[2] > 1:
        logits = extreme(logits[:, :, 1:], logits[:, :, :-1])
    return logits


def _confidence(weights: np.ndarray, ids: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """The winner's probability at each pixel, its weight's share of all: float32, shaped as ``ids``."""
    total = np.maximum(weights.sum(axis=0), np.finfo(np.float32).tiny)  # scores may all be 0
    if ids.shape == total.shape:
        return weights.max(axis=0) / total  # nothing was interpolated
    confidence = np.zeros(ids.shape, np.float32)
    for channel in channels.tolist():
        won = (ids == channel).view(np.uint8)
        if not won.any():
            continue
        plane = cv2.resize(weights[channel] / total, ids.shape[::-1], interpolation=cv2.INTER_LINEAR)
        cv2.copyTo(plane, won, confidence)
    return np.minimum(confidence, 1, out=confidence)
