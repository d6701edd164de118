"""Logits of one image at the network's resolution → the runs of its label map at the image's, which is not made.

The definition is ``upsample.upsample_on_cpu``'s: labels are the argmax of bilinearly interpolated logits, the
confidence is the winner's probability, interpolated. Along a column of the image an interpolation is piecewise linear
in the pixel, and its kinks (``nodes``) lie a network's stride apart. So

    logits at the nodes of all columns → winners there ─┬→ equal at both ends of a piece → so is each pixel between
                                                        └→ else → where two straight lines cross, a division each

A value between two ends is a convex combination of theirs: a class that leads at both leads between them. Only where a
third class leads at the crossing are a piece's pixels looked at one by one. Sums of the confidence are differences of
its prefix sums along a column, at the ends of runs. A mask of 480x640 pixels with 21 classes of 32x43 took 3.4 ms of a
core as a label map that is encoded; as runs that a batch encodes it takes a seventh.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from segjobs.models.base import LabelRuns
from segjobs.models.upsample import candidates, is_much_smaller, probabilities, steps_to, upsample_on_cpu

_NOISY = 1 / 4
"""Where a larger share of the image's pixels would be looked at one by one, a label map is made after all. Of noise in
21 classes at 480x640 the runs took 36 ms of a core without one, and 14 with it."""
_STRAIGHT = 1e-9  # of an interpolation's weights: below it a kink is rounding


@dataclass(frozen=True)
class _Axis:
    """How the pixels of a column come from the logits' rows.

    ``nodes``: int64 (n,), the first pixel, the last, and each at which the interpolation has a kink; ``weights``:
    float32 (n, h), the interpolation at those; ``gaps``: int64 (n,), pixels from a node to the next, of the last node
    to the next column; ``sums``: float32 (H + 1, h), prefix sums over pixels of the weights of the one-step
    interpolation.
    """

    nodes: np.ndarray
    weights: np.ndarray
    gaps: np.ndarray
    sums: np.ndarray


def find_runs(logits: np.ndarray, size_hw: tuple[int, int], *, by_way_of: tuple[int, int] | None = None) -> LabelRuns:
    """float32 (C, h, w), finite → the runs of its label map of ``size_hw``.

    The same as of ``upsample_on_cpu``, but where two classes are equal up to the rounding of an interpolation.
    """
    steps = steps_to(size_hw, by_way_of)
    if not is_much_smaller(logits, steps):
        return runs_of(*upsample_on_cpu(logits, size_hw, by_way_of=by_way_of))
    height, (heights, widths) = size_hw[0], zip(*steps, strict=True)
    axis = _axis(logits.shape[1], heights)
    channels = candidates(logits, steps=len(steps))
    starts, values = np.zeros(1, np.int64), np.zeros(1, np.uint8)
    if len(channels) > 1:
        at_nodes = np.matmul(logits[channels].transpose(0, 2, 1), axis.weights.T)
        planes = _along_rows(at_nodes, widths).reshape(len(channels), -1)
        winners = _winners(planes)
        cells = np.flatnonzero(winners[1:] != winners[:-1])
        changes = _changes(planes, winners, cells, axis, size_hw)
        if changes is None:
            return runs_of(*upsample_on_cpu(logits, size_hw, by_way_of=by_way_of))
        starts, values = changes
        starts = np.concatenate(([0], starts))
        values = np.concatenate((winners[:1], values))
    chances = probabilities(logits)[channels].transpose(0, 2, 1)
    sums = _sums(_along_rows(chances, widths[-1:]), starts, values, axis, height)
    return LabelRuns(size_hw, starts, channels.astype(np.uint16)[values], sums)


def runs_of(ids: np.ndarray, confidence: np.ndarray) -> LabelRuns:
    """uint16 and float32 (H, W), not empty → the runs of that label map."""
    flat = cv2.transpose(ids).ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    sums = np.add.reduceat(cv2.transpose(confidence).ravel(), starts, dtype=np.float64)
    return LabelRuns((ids.shape[0], ids.shape[1]), starts, flat[starts], sums)


@lru_cache(maxsize=256)
def _axis(length: int, heights: tuple[int, ...]) -> _Axis:
    whole = np.eye(length)
    for height in heights:
        whole = _interpolated(whole, height)
    bends = np.abs(np.diff(whole, 2, axis=0)).max(axis=1, initial=0) > _STRAIGHT
    nodes = np.unique(np.concatenate(([0], np.flatnonzero(bends) + 1, [len(whole) - 1])))
    sums = np.zeros((len(whole) + 1, length))
    np.cumsum(_interpolated(np.eye(length), heights[-1]), axis=0, out=sums[1:])
    return _Axis(nodes, whole[nodes].astype(np.float32), np.diff(nodes, append=nodes[-1] + 1), sums.astype(np.float32))


def _interpolated(rows: np.ndarray, height: int) -> np.ndarray:
    """float64 (h, n) → (height, n), bilinear, align_corners=False."""
    at = np.clip((np.arange(height) + 0.5) * len(rows) / height - 0.5, 0, len(rows) - 1)
    low = np.minimum(at.astype(np.intp), max(len(rows) - 2, 0))
    share = (at - low)[:, None]
    return (1 - share) * rows[low] + share * rows[np.minimum(low + 1, len(rows) - 1)]


def _along_rows(planes: np.ndarray, widths: tuple[int, ...]) -> np.ndarray:
    """float32 (K, w, n) → (K, W, n), interpolated along the second axis by way of ``widths``."""
    found = np.empty((len(planes), widths[-1], planes.shape[2]), np.float32)
    for plane, out in zip(planes, found, strict=True):
        part = np.ascontiguousarray(plane)
        for width in widths[:-1]:
            part = cv2.resize(part, (part.shape[1], width), interpolation=cv2.INTER_LINEAR)
        cv2.resize(part, (part.shape[1], widths[-1]), dst=out, interpolation=cv2.INTER_LINEAR)
    return found


def _winners(planes: np.ndarray) -> np.ndarray:
    """(K, N) → which of the K leads, the lowest of equal ones: uint8 or uint16 (N,)."""
    best = planes[0].copy()
    winners = np.zeros(best.shape, np.uint8 if len(planes) <= 256 else np.uint16)
    for number, plane in enumerate(planes[1:], 1):
        np.maximum(winners, (plane > best) * winners.dtype.type(number), out=winners)
        np.maximum(best, plane, out=best)
    return winners


def _changes(
    planes: np.ndarray, winners: np.ndarray, cells: np.ndarray, axis: _Axis, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Where the label changes inside ``cells``, the pieces whose ends differ: column-major pixels, the new label.

    None where that is noise.
    """
    columns, nodes = np.divmod(cells, len(axis.nodes))
    begin, gaps = columns * size_hw[0] + axis.nodes[nodes], axis.gaps[nodes]
    before, after = winners[cells], winners[cells + 1]
    wide = np.flatnonzero(gaps > 1)
    starts = begin + 1  # neighbours: the label changes between them
    one, two, cell, gap = before[wide], after[wide], cells[wide], gaps[wide]
    one_at, two_at = planes[one, cell], planes[two, cell]
    ahead, behind = one_at - two_at, planes[two, cell + 1] - planes[one, cell + 1]
    share = ahead / np.maximum(ahead + behind, np.finfo(np.float32).tiny)
    crossing = one_at + share * (planes[one, cell + 1] - one_at)
    steps = np.where(one < two, np.floor(share * gap) + 1, np.ceil(share * gap))  # of equals the lowest leads
    starts[wide] = begin[wide] + np.clip(steps, 1, gap).astype(np.int64)
    crowded = np.zeros(len(cell), bool)
    level = crossing + 1e-5 * np.abs(crossing).max(initial=0)
    behind_cell = cell + 1
    for plane in planes:
        first = plane.take(cell)
        crowded |= first + share * (plane.take(behind_cell) - first) > level
    if not crowded.any():
        return starts, after
    if np.count_nonzero(crowded) * (gap[crowded].max() + 1) > _NOISY * size_hw[0] * size_hw[1]:
        return None
    more = _pixel_by_pixel(planes, cell[crowded], gap[crowded], begin[wide[crowded]])
    kept = np.ones(len(cells), bool)
    kept[wide[crowded]] = False
    starts, after = np.concatenate((starts[kept], more[0])), np.concatenate((after[kept], more[1]))
    order = np.argsort(starts, kind="stable")
    return starts[order], after[order]


def _pixel_by_pixel(
    planes: np.ndarray, cells: np.ndarray, gaps: np.ndarray, begin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The changes in pieces in which a third class leads somewhere."""
    steps = np.arange(gaps.max() + 1)
    share = np.minimum(steps / gaps[:, None], 1).astype(np.float32)
    first, last = planes[:, cells, None], planes[:, cells + 1, None]
    # The other end's own value at the end: what leads there is known.
    labels = _winners(np.where(share == 1, last, first + share * (last - first)).reshape(len(planes), -1))
    labels = labels.reshape(share.shape)
    piece, step = np.nonzero(labels[:, 1:] != labels[:, :-1])
    return begin[piece] + step + 1, labels[piece, step + 1]


def _sums(planes: np.ndarray, starts: np.ndarray, values: np.ndarray, axis: _Axis, height: int) -> np.ndarray:
    """Of float32 (K, W, h), probabilities by column and the logits' rows: float64 (N,), each run's sum of them."""
    width = planes.shape[1]
    heads = np.arange(width) * height  # a run may go on in the next column: its parts are summed one by one
    run = np.searchsorted(starts, heads, side="right") - 1
    places = np.concatenate((starts, heads))
    order = np.argsort(places, kind="stable")
    places, of_run = places[order], np.concatenate((np.arange(len(starts)), run))[order]
    columns, first = np.divmod(places, height)
    last = np.append(places[1:], width * height) - columns * height
    parts = np.einsum("nh,nh->n", axis.sums[last] - axis.sums[first], planes[values[of_run], columns])
    return np.bincount(of_run, weights=parts, minlength=len(starts))
