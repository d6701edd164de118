"""Boxes and small masks of objects → each mask at its image's pixels: as a crop, or as the runs of a batch at once.

The paste is torchvision's ``paste_masks_in_image``: a mask of 28x28, with a rim of one zero, is interpolated bilinearly
to its box, widened as much and cut off to whole pixels. ``_between`` and ``_mixed`` are its one definition; a crop is

    mask ─→ its columns mixed ─→ of these the rows

and ``runs_at`` finds where the pixels of all objects of a batch pass a threshold, column by column, without a crop:

    boxes of a batch ─→ windows, in strips of columns ─→ their pixels, all behind each other ─→ places of change ─┐
                                        runs of each object ←─ one copy to the host, 4 bytes a place ←────────────┘

Two ways lead to the same places. A GPU computes every pixel, in steps that its memory has room for, and is asked for
nothing before the copy. On a CPU the pixels between four numbers of a mask count as one where these, and so all of
them, are on the same side of the threshold: those at the outline are left. There the runs of 100 objects on 640x480
pixels take a quarter of what their crops take.

The same bits come from every device, so that a mask does not depend on the machine: each product and each sum is an
operation of torch for itself, rounded to float32 as IEEE has it, where a fused kernel rounds once for both
(``F.interpolate`` does on CPUs with FMA, differently for small sizes, and on GPUs). From torchvision's own
paste a pixel's value differs by the rounding of two weights, 4e-6 at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar, overload

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.models.detection.roi_heads import expand_boxes

from segjobs.models.upsample_device import to_host

_RIM = 1
_STEP_BYTES = 2**30  # of a GPU's memory at once
_BYTES_A_PIXEL = 64  # of indices, values and sides, while a step is computed
_PLACES_A_COLUMN = 4
"""Room for so many changes in a column comes to the host: a mask without holes has two. Where that is too little, a
second copy follows."""
_DOUBT = 1e-6  # that the mix of two probabilities, rounded, may lie outside of both


@dataclass(frozen=True)
class RoiMasks:
    """Objects of one image: mask probabilities float32 (N, 1, m, m) in [0, 1] or NaN, on any device; on the host their
    boxes, float32 (N, 4) x, y, x, y in pixels, which may reach over the frame of ``size_hw``."""

    masks: torch.Tensor
    boxes_xyxy: np.ndarray
    size_hw: tuple[int, int]


class MaskRuns(NamedTuple):
    """Column-major runs of an image's objects: the pixel x·H + y that each begins at, ascending within an object, and
    that behind its end, int64 (R,). Those of object n are ``first[n]`` to ``first[n + 1]``; an empty mask has none."""

    starts: np.ndarray
    ends: np.ndarray
    first: np.ndarray


@dataclass(frozen=True)
class _Side:
    """Windows along one side of an image, int64 (N,): the pixel that each begins at, which may be negative; pixels of
    it; the first of these that the image shows, and how many it shows."""

    begin: np.ndarray
    length: np.ndarray
    hidden: np.ndarray
    shown: np.ndarray

    def part(self, which: slice | np.ndarray) -> "_Side":
        return _Side(self.begin[which], self.length[which], self.hidden[which], self.shown[which])


def _windows(boxes_xyxy: np.ndarray, size_hw: tuple[int, int], mask_side: int) -> tuple[_Side, _Side]:
    """Rows and columns of each object's window."""
    scale = (mask_side + 2 * _RIM) / mask_side
    # Whole pixels, both ends inclusive; torchvision truncates as here.
    ends = expand_boxes(torch.from_numpy(boxes_xyxy), scale).to(torch.int64).numpy()
    sides: list[_Side] = []
    for axis, pixels in ((1, size_hw[0]), (0, size_hw[1])):
        begin = ends[:, axis]
        length = np.maximum(ends[:, axis + 2] - begin + 1, 1)
        hidden = np.maximum(-begin, 0)
        sides.append(_Side(begin, length, hidden, np.maximum(np.minimum(length, pixels - begin) - hidden, 0)))
    return sides[0], sides[1]


def _between(
    place: torch.Tensor, length: torch.Tensor, cells: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels of windows of ``length``, int64 (n,) → the cells before and behind each, and the weights of these.

    Bilinear interpolation with half-pixel centres, in the order in which torch computes it.
    """
    # A tensor of the number: a number by a tensor would be multiplied by its reciprocal.
    scale = torch.full(length.shape, cells, dtype=torch.float32, device=length.device) / length.float()
    at = (scale * (place.float() + 0.5) - 0.5).clamp(min=0)
    before = at.to(torch.int64).clamp(max=cells - 1)
    share = (at - before).clamp(0, 1)
    return before, (before + 1).clamp(max=cells - 1), 1 - share, share


Floats = TypeVar("Floats", torch.Tensor, np.ndarray)


def _mixed(before: Floats, behind: Floats, *weights: Floats) -> Floats:
    return before * weights[0] + behind * weights[1]


class MaskCrops(Sequence[np.ndarray]):
    """Each object's mask probability inside its window, float32 (h, w), interpolated when it is asked for.

    100 objects on a 12-megapixel photo would be gigabytes; the caller looks at one after the other, and at those
    only that its thresholds keep. ``corners_xy``: int32 (N, 2), the windows' top left corners.
    """

    def __init__(self, objects: RoiMasks) -> None:
        self._masks = F.pad(objects.masks[:, 0].float().cpu(), (_RIM,) * 4).numpy()
        rows, columns = _windows(objects.boxes_xyxy, objects.size_hw, objects.masks.shape[-1])
        self._heights, self._widths = (self._seen(side, self._masks.shape[1]) for side in (rows, columns))
        height, width = objects.size_hw
        corners = (columns.begin.clip(0, width), rows.begin.clip(0, height))
        self.corners_xy = np.stack(corners, axis=1).astype(np.int32)

    def __len__(self) -> int:
        return len(self.corners_xy)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        mask, (top, bottom, *heights), (left, right, *widths) = (
            self._masks[index],
            self._heights[index],
            self._widths[index],
        )
        columns = _mixed(mask.take(left, axis=1), mask.take(right, axis=1), *widths)
        return _mixed(columns.take(top, axis=0), columns.take(bottom, axis=0), *(one[:, None] for one in heights))

    @staticmethod
    def _seen(side: _Side, cells: int) -> list[tuple[np.ndarray, ...]]:
        """Of each object ``_between`` for the pixels along a side that the image shows."""
        owner, place = _ragged(side.shown)
        found = _arrays(place + side.hidden[owner], side.length[owner], cells)
        cuts = np.cumsum(side.shown)[:-1]
        return list(zip(*(np.split(one, cuts) for one in found), strict=True)) if len(side.shown) else []


@dataclass(frozen=True)
class _Strips:
    """Columns of windows, as many as are computed at once; only what the image shows. All int64, (S,).

    ``owner``: the object's number in the batch. ``rows``, ``columns``: the window's. ``origin``: the image's pixel,
    counted by columns, of the first. ``stride``: the image's height.
    """

    owner: np.ndarray
    rows: _Side
    columns: _Side
    origin: np.ndarray
    stride: np.ndarray

    @property
    def pixels(self) -> np.ndarray:
        """Of each strip, with one behind each column that no mask covers: there ends a run at the column's end."""
        return self.columns.shown * (self.rows.shown + 1)

    def part(self, which: slice) -> "_Strips":
        rows, columns = self.rows.part(which), self.columns.part(which)
        return _Strips(self.owner[which], rows, columns, self.origin[which], self.stride[which])


def runs_at(threshold: float, images: Sequence[RoiMasks], *, by_pixel: bool | None = None) -> list[MaskRuns]:
    """The runs of the pixels whose mask probability is ``threshold`` or more, of each image's objects in order.

    All masks are on one device. What a window leaves of the image is not in the mask. ``by_pixel``: which of the two
    ways; by default what suits the device. One copy to the host, and one more where masks have more runs than there
    was room for. Raises torch.OutOfMemoryError.
    """
    counts = [len(one.boxes_xyxy) for one in images]
    if not sum(counts):
        return [_no_runs() for _ in images]
    masks = F.pad(torch.cat([one.masks[:, 0].float() for one in images]), (_RIM,) * 4)
    steps = _steps(images)
    find = _by_pixel if (masks.is_cuda if by_pixel is None else by_pixel) else _by_cell
    at = float(np.float32(threshold))  # as numpy compares float32 with it
    rooms = [int(_PLACES_A_COLUMN * step.columns.shown.sum()) for step in steps]
    answers = to_host([find(masks, step, at, room) for step, room in zip(steps, rooms, strict=True)])
    found = [(np.zeros(0, np.int64),) * 3]
    for step, answer in zip(steps, answers, strict=True):
        if answer[0] >= len(answer):  # rare: more changes than there was room for
            (answer,) = to_host([find(masks, step, at, int(answer[0]))])
        found.append(_runs_of(step, answer[1 : 1 + answer[0]].astype(np.int64)))
    starts, ends, owner = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _by_image(starts, ends, owner, counts)


def _steps(images: Sequence[RoiMasks]) -> list[_Strips]:
    """What the images show of all windows, in strips of a step's size at most, by steps."""
    most = _STEP_BYTES // _BYTES_A_PIXEL
    strips = _strips(images, most)
    ends = np.cumsum(strips.pixels)
    steps: list[_Strips] = []
    first = 0
    while first < len(ends):
        done = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, done + most, side="right")), first + 1)
        steps.append(strips.part(slice(first, last)))
        first = last
    return steps


def _strips(images: Sequence[RoiMasks], most: int) -> _Strips:
    sides = [_windows(one.boxes_xyxy, one.size_hw, one.masks.shape[-1]) for one in images]
    rows, columns = (
        _Side(
            begin=np.concatenate([two[axis].begin for two in sides]),
            length=np.concatenate([two[axis].length for two in sides]),
            hidden=np.concatenate([two[axis].hidden for two in sides]),
            shown=np.concatenate([two[axis].shown for two in sides]),
        )
        for axis in (0, 1)
    )
    stride = np.repeat([one.size_hw[0] for one in images], [len(one.boxes_xyxy) for one in images])
    # A window of more pixels than a step has is cut between columns.
    width = np.maximum(most // (rows.shown + 1), 1)
    pieces = np.where(rows.shown > 0, -(-columns.shown // width), 0)
    owner = np.repeat(np.arange(len(pieces)), pieces)
    before = (np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * width[owner]
    rows, columns = rows.part(owner), columns.part(owner)
    columns = replace(columns, hidden=columns.hidden + before, shown=np.minimum(columns.shown - before, width[owner]))
    stride = stride[owner]
    origin = (columns.begin + columns.hidden) * stride + rows.begin + rows.hidden
    return _Strips(owner, rows, columns, origin, stride)


def _by_pixel(masks: torch.Tensor, step: _Strips, threshold: float, room: int) -> torch.Tensor:
    """Masks with their rim (N, m, m) → int32 (1 + room,): the number of places at which they begin and end by turns,
    and the places: pixels of the step's strips behind each other, column by column, with the one behind each column.
    """
    rows, columns = step.rows, step.columns
    table = np.stack(
        [step.owner, rows.length, rows.hidden, rows.shown + 1, columns.length, columns.hidden, columns.shown]
    )
    owner, length, hidden, height, wide, aside, width = torch.from_numpy(table).to(masks.device, non_blocking=True)
    strip, place = _repeated(width, int(columns.shown.sum()))
    left, right, *weights = _between(place + aside[strip], wide[strip], masks.shape[2])
    of = owner[strip]
    mixed = _mixed(masks[of, :, left], masks[of, :, right], *(weight[:, None] for weight in weights))
    of, place = _repeated(height, int((rows.shown + 1).sum()))
    above, below, *weights = _between(place + hidden[of], length[of], masks.shape[1])
    column, row = _repeated(height[strip], int(step.pixels.sum()))
    strip = strip[column]
    at = (height.cumsum(0) - height)[strip] + row
    values = _mixed(mixed[column, above[at]], mixed[column, below[at]], *(weight[at] for weight in weights))
    changes = (values >= threshold) & (row < height[strip] - 1)
    changes[1:] ^= changes[:-1].clone()
    places = torch.nonzero_static(changes, size=room, fill_value=0)[:, 0]
    return torch.cat([changes.sum()[None], places]).to(torch.int32)


def _by_cell(masks: torch.Tensor, step: _Strips, threshold: float, room: int) -> torch.Tensor:
    """The same on a CPU, of all places: by the cells between four numbers of a mask.

    A cell whose corners are all on one side of the threshold is there as a whole. So along a column the mask is looked
    at where cells are not, and where another side begins.
    """
    numbers, side = masks.numpy()[step.owner], masks.shape[1]
    row_of, place = _ragged(step.rows.shown)
    above, _, *shares = _arrays(place + step.rows.hidden[row_of], step.rows.length[row_of], side)
    heights = np.zeros((len(numbers), side + 1), np.int64)  # pixels of each row of cells, and the one behind
    heights[:, :-1] = np.bincount(row_of * side + above, minlength=heights[:, :-1].size).reshape(-1, side)
    heights[:, -1] = 1
    tops = np.cumsum(heights, axis=1) - heights
    kept, sides, counts = _looked_at(numbers, heights[:, :-1] > 0, threshold)

    strip, place = _ragged(step.columns.shown)
    left, right, *weights = _arrays(place + step.columns.hidden[strip], step.columns.length[strip], side)
    group = strip * side + left
    column, number = _ragged(counts[group])
    piece = (np.cumsum(counts) - counts)[group][column] + number
    row, doubtful = kept[piece], sides[piece] == _DOUBTFUL
    strips = strip[column]
    height, top = heights[strips, row], tops[strips, row]

    which = np.flatnonzero(doubtful)
    of, upper, across = strips[which], row[which], column[which]
    lower, weights = np.minimum(upper + 1, side - 1), [weight[across] for weight in weights]
    left, right = left[across], right[across]
    ends = [_mixed(numbers[of, line, left], numbers[of, line, right], *weights) for line in (upper, lower)]
    pixel, more = _ragged(height[which])
    at = (np.cumsum(step.rows.shown) - step.rows.shown)[of][pixel] + top[which][pixel] + more
    values = _mixed(ends[0][pixel], ends[1][pixel], *(share[at] for share in shares))

    of, more = _ragged(np.where(doubtful, height, 1))
    states = (sides[piece] == _INSIDE)[of]
    states[doubtful[of]] = values >= threshold
    changes = np.flatnonzero(np.diff(states, prepend=False))
    of, more = of[changes], more[changes]
    pixels = step.pixels
    begin = (np.cumsum(pixels) - pixels)[strips[of]] + place[column[of]] * (step.rows.shown[strips[of]] + 1)
    places = begin + top[of] + more
    return torch.from_numpy(np.concatenate(([len(places)], places)).astype(np.int32))


_OUTSIDE, _INSIDE, _DOUBTFUL = range(3)


def _looked_at(numbers: np.ndarray, seen: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks float32 (S, m, m), which rows of their cells have pixels, bool (S, m) → of each column of cells those that
    are looked at, from the top to the bottom, int64 (K,) and their sides, uint8 (K,); how many, int64 (S·m,).

    Cell m is what lies below a mask: outside.
    """
    low, high = (_over_corners(bound, numbers.transpose(0, 2, 1)) for bound in (np.minimum, np.maximum))
    sides = np.zeros((low.shape[0], low.shape[1], low.shape[2] + 1), np.uint8)
    sides[:, :, :-1] = _DOUBTFUL  # NaN too
    sides[:, :, :-1][low >= threshold + _DOUBT] = _INSIDE
    sides[:, :, :-1][high < threshold - _DOUBT] = _OUTSIDE
    there = np.ones((len(seen), 1, sides.shape[2]), bool)
    there[:, 0, :-1] = seen
    cells = np.flatnonzero(np.broadcast_to(there, sides.shape))
    sides = sides.ravel()[cells]
    # Below what is above a column, outside as well, begins the next one: nothing changes there.
    kept = (sides == _DOUBTFUL) | (np.diff(sides, prepend=np.uint8(_OUTSIDE)) != 0)
    column, row = np.divmod(cells[kept], there.shape[2])
    return row, sides[kept], np.bincount(column, minlength=low.shape[0] * low.shape[1])


def _over_corners(bound: np.ufunc, numbers: np.ndarray) -> np.ndarray:
    """The least or the largest number of each cell's four corners, (S, m, m); the last are their own neighbours."""
    along = numbers.copy()
    bound(numbers[:, :-1], numbers[:, 1:], out=along[:, :-1])
    both = along.copy()
    bound(along[:, :, :-1], along[:, :, 1:], out=both[:, :, :-1])
    return both


def _arrays(place: np.ndarray, length: np.ndarray, cells: int) -> list[np.ndarray]:
    return [one.numpy() for one in _between(torch.from_numpy(place), torch.from_numpy(length), cells)]


def _ragged(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``_repeated`` for numpy."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]


def _repeated(counts: torch.Tensor, total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 (n,) that sum up to ``total`` → each number from 0 to n - 1 as often, and how often it was there before."""
    owner = torch.repeat_interleave(counts, output_size=total)
    return owner, torch.arange(total, device=counts.device) - (counts.cumsum(0) - counts)[owner]


def _runs_of(step: _Strips, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places at which masks begin and end by turns → starts and ends of runs as the image's pixels, and their owners.

    Each column's runs end with it.
    """
    starts, lengths = places[0::2], places[1::2] - places[0::2]
    ends = np.cumsum(step.pixels)
    strip = np.searchsorted(ends, starts, side="right")
    column, row = np.divmod(starts - (ends - step.pixels)[strip], step.rows.shown[strip] + 1)
    pixels = step.origin[strip] + column * step.stride[strip] + row
    return pixels, pixels + lengths, step.owner[strip]


def _by_image(starts: np.ndarray, ends: np.ndarray, owner: np.ndarray, counts: Sequence[int]) -> list[MaskRuns]:
    """Runs of all objects in order → of each image, those that touch, in windows as high as it, as one."""
    opens = np.ones(len(starts), bool)
    opens[1:] = (starts[1:] != ends[:-1]) | (owner[1:] != owner[:-1])
    starts, ends, owner = starts[opens], ends[np.roll(opens, -1)], owner[opens]
    first = np.searchsorted(owner, np.arange(sum(counts) + 1))
    found: list[MaskRuns] = []
    done = 0
    for count in counts:
        bounds = first[done : done + count + 1]
        part = slice(bounds[0], bounds[-1])
        found.append(MaskRuns(starts[part], ends[part], bounds - bounds[0]))
        done += count
    return found


def _no_runs() -> MaskRuns:
    return MaskRuns(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(1, np.int64))
