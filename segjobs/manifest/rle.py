"""COCO run-length codes: label maps, crops and polygons in; ``counts`` strings out, and back to runs or pixels.

A mask is its alternating run lengths in column-major order, background first. The ``counts`` string
writes each length (from the fourth on: minus the length two before) in groups of five bits, low
group first, one printable character each: ``48 + bits``, plus 32 where more follow. Every string
here is byte for byte what pycocotools writes (its ``maskApi.c``: rleEncode, rleToString).

Scoring reads runs and never pixels: ``label_runs`` turns an image's segments into one partition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeGuard

import numpy as np

from segjobs.errors import ManifestError, MaskSizeError
from segjobs.manifest import coco_api
from segjobs.text import shorten, size_text

VOID = 65535
"""In a label map and in ``label_runs``: this pixel has no class (unlabelled, ignore)."""

Box = tuple[int, int, int, int]

LARGEST_RUN = 2**32 - 1
"""Run lengths are uint32 in pycocotools, so a difference of two has 33 bits: seven groups of five."""
_MOST_GROUPS = 7
_SHOWN = 40
_LABEL_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16))


class Encoded(NamedTuple):
    """One mask: COCO ``counts``, ``area`` and ``bbox`` (x, y, w, h), in pixels."""

    counts: str
    area: int
    bbox: Box


@dataclass(frozen=True)
class Region:
    """All pixels of one class: its ``index``, COCO ``counts``, ``area`` and ``bbox`` (x, y, w, h) in pixels."""

    index: int
    counts: str
    area: int
    bbox: Box


def encode_label_map(ids: np.ndarray, *, void: int = VOID) -> list[Region]:
    """uint8 or uint16 (H, W) class indices → one Region per class present, by index; ``void`` is left out."""
    if ids.ndim != 2 or ids.dtype not in _LABEL_TYPES:
        raise ValueError(f"expected a uint8 or uint16 label map (H, W), got {ids.dtype} {ids.shape}")
    if ids.size == 0:
        return []
    flat = ids.ravel(order="F")
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    (regions,) = encode_label_runs([(starts, flat[starts], (ids.shape[0], ids.shape[1]))], void=void)
    return regions


def encode_label_runs(
    maps: Sequence[tuple[np.ndarray, np.ndarray, tuple[int, int]]], *, void: int = VOID
) -> list[list[Region]]:
    """Label maps of several images as their column-major runs → the Regions of each, as of ``encode_label_map``.

    Of each image: the first pixel of every run, int64 (N ≥ 1,) ascending from 0; its class index, uint8 or uint16 (N,),
    another one than the run's before; the image's height and width. All images are encoded by one pass of numpy, which
    computes in compiled code without holding the interpreter.
    """
    parts = [_by_class(*one, void) for one in maps]
    filled = [number for number, part in enumerate(parts) if part[0].size]
    found: list[list[Region]] = [[] for _ in maps]
    if not filled:
        return found
    starts, ends, values, first = (np.concatenate([parts[number][field] for number in filled]) for field in range(4))
    runs = [parts[number][0].size for number in filled]
    groups = [parts[number][3].size for number in filled]
    first += np.repeat(np.cumsum(runs) - runs, groups)
    totals = np.repeat([maps[number][2][0] * maps[number][2][1] for number in filled], groups)
    heights = np.repeat([maps[number][2][0] for number in filled], runs)
    counts = _encode_groups(starts, ends, first, totals)
    areas = np.add.reduceat(ends - starts, first).tolist()
    boxes = boxes_of(starts, ends, first, heights)
    owners: list[int] = np.repeat(filled, groups).tolist()
    indices: list[int] = values[first].tolist()
    for owner, index, code, area, box in zip(owners, indices, counts, areas, boxes, strict=True):
        found[owner].append(Region(index, code, area, box))
    return found


def _by_class(
    starts: np.ndarray, values: np.ndarray, size_hw: tuple[int, int], void: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """An image's runs in the order of their classes, without ``void``: starts, ends, values, and each class's first."""
    # A stable sort of 8 or 16 bits is numpy's radix sort; it keeps each class's runs in their order.
    order = np.argsort(values, kind="stable")
    order = order[values[order] != void]
    ends = np.append(starts[1:], size_hw[0] * size_hw[1])[order]
    values = values[order]
    first = np.flatnonzero(np.diff(values, prepend=values[:1] ^ 1))
    return starts[order], ends, values, first


def encode_crop(mask: np.ndarray, corner_xy: tuple[int, int], size_hw: tuple[int, int]) -> Encoded:
    """One object's mask, bool (h, w) with its top left corner at ``corner_xy`` of an image ``size_hw``.

    Gives the code of the mask pasted to the whole image, which is never made.
    Raises ValueError where the window leaves the image.
    """
    (height, width), (left, top), (image_height, image_width) = mask.shape, corner_xy, size_hw
    if not (0 <= left <= image_width - width and 0 <= top <= image_height - height):
        raise ValueError(
            f"a {width}x{height} window at x={left}, y={top} leaves the {image_width}x{image_height} image"
        )
    # One background row under the window ends the runs at each column's end. In a window of full
    # height they go on into the next column, as they do in the image.
    stride = height if height == image_height else height + 1
    flat = np.zeros((width, stride), bool)
    flat[:, :height] = mask.T
    starts, ends = _foreground(flat.ravel())
    if starts.size == 0:
        return Encoded(counts_from_runs([image_height * image_width]), 0, (0, 0, 0, 0))
    if stride == height:
        starts, ends = starts + left * image_height, ends + left * image_height
    else:
        columns = starts // stride
        shift = columns * (image_height - stride) + left * image_height + top
        starts, ends = starts + shift, ends + shift
    return encode_runs(starts, ends, size_hw)


def encode_runs(starts: np.ndarray, ends: np.ndarray, size_hw: tuple[int, int]) -> Encoded:
    """A mask's runs, int64 (N ≥ 1,): the column-major pixel that each begins at, ascending, and that behind its end.

    Runs that touch are one run each already.
    """
    (code,) = encode_masks(starts, ends, np.array([0, len(starts)]), [size_hw])
    return code


def encode_masks(
    starts: np.ndarray, ends: np.ndarray, first: np.ndarray, sizes_hw: Sequence[tuple[int, int]]
) -> list[Encoded]:
    """``encode_runs`` of N masks at once, whose runs lie behind each other, those of mask n from ``first[n]`` up to
    ``first[n + 1]``, int64 (N + 1,); none of an empty mask. ``sizes_hw``: of each mask's image.
    """
    sizes = np.array(sizes_hw, np.int64).reshape(-1, 2)
    runs = np.diff(first)
    filled = np.flatnonzero(runs)
    found = [Encoded("", 0, (0, 0, 0, 0))] * len(sizes_hw)
    for number in np.flatnonzero(runs == 0).tolist():
        found[number] = Encoded(counts_from_runs([int(sizes[number].prod())]), 0, (0, 0, 0, 0))
    if filled.size:
        groups = first[filled]
        codes = _encode_groups(starts, ends, groups, sizes[filled].prod(axis=1))
        areas = np.add.reduceat(ends - starts, groups).tolist()
        boxes = boxes_of(starts, ends, groups, np.repeat(sizes[filled, 0], runs[filled]))
        for number, code, area, box in zip(filled.tolist(), codes, areas, boxes, strict=True):
            found[number] = Encoded(code, area, box)
    return found


def encode_polygons(polygons: Sequence[object], size_hw: tuple[int, int]) -> str:
    """The union of polygons (each x, y, x, y, … in pixels), rasterised as COCO does it → counts.

    Raises ManifestError for a part with fewer than three points, an odd number of coordinates, or a
    coordinate that is not finite or more than one image size outside (its edges would be drawn
    pixel by pixel).
    """
    height, width = size_hw
    if not polygons or height * width == 0:
        return counts_from_runs([height * width])
    checked: list[list[float]] = []
    for part in polygons:
        try:
            points = np.asarray(part)
        except ValueError:  # of several lengths
            points = np.empty(0, object)
        if points.size and points.dtype.kind not in "iuf":  # texts, nulls, numbers beyond all floats
            raise ManifestError(f"polygon {_show(part)}: expected numbers x, y, x, y, …")
        points = points.astype(np.float64)
        if points.ndim != 1 or points.size < 6 or points.size % 2:
            raise ManifestError(f"polygon {_show(part)}: expected an even number of coordinates, 6 or more")
        reach = np.maximum(np.abs(points[0::2] - width / 2) / width, np.abs(points[1::2] - height / 2) / height)
        if not (reach <= 1.5).all():
            raise ManifestError(f"polygon {_show(part)}: a coordinate is far outside the {width}x{height} image")
        checked.append(points.tolist())
    return coco_api.polygons(checked, size_hw)["counts"]


def from_uncompressed(counts: Sequence[object]) -> str:
    """COCO's uncompressed counts (a JSON list of run lengths, as crowds have) → counts string."""
    if not _whole(counts):
        raise ManifestError(f"counts {_show(counts)}: expected a list of whole numbers")
    return counts_from_runs(counts)


def _whole(runs: Sequence[object]) -> TypeGuard[Sequence[int]]:
    try:
        return all(isinstance(run, int) for run in runs)
    except TypeError:
        return False


def counts_from_runs(runs: np.ndarray | Sequence[int]) -> str:
    """Alternating run lengths, background first → counts string. Raises ManifestError outside 0 … 2^32 - 1."""
    try:
        lengths = np.asarray(runs, np.int64)
    except OverflowError:
        raise ManifestError(f"run lengths {_show(runs)}: expected 0 to {LARGEST_RUN}") from None
    if lengths.size and not (lengths.min() >= 0 and lengths.max() <= LARGEST_RUN):
        raise ManifestError(f"run lengths {_show(runs)}: expected 0 to {LARGEST_RUN}")
    deltas = lengths.copy()
    deltas[3:] -= lengths[1:-2]
    return delta_text(deltas)


def delta_text(deltas: np.ndarray) -> str:
    """Run lengths as a code has them, from the fourth on less the length two before, int64 (N,) → their characters."""
    return _characters(deltas)[0].tobytes().decode("ascii")


def runs(counts: str) -> np.ndarray:
    """Counts string → int64 (N,) alternating run lengths, background first; ManifestError where malformed."""
    try:
        symbols = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise ManifestError(f"counts {_show(counts)}: not a COCO run-length code") from None
    if symbols.size == 0:
        return symbols
    ends = np.flatnonzero(symbols & 32 == 0)
    if symbols.min() < 0 or symbols.max() > 63 or ends.size == 0 or ends[-1] != symbols.size - 1:
        raise ManifestError(f"counts {_show(counts)}: not a COCO run-length code")
    first = np.concatenate(([0], ends[:-1] + 1))
    groups = ends - first + 1
    if groups.max() > _MOST_GROUPS:
        raise ManifestError(f"counts {_show(counts)}: a run length of more than 32 bits")
    place = 5 * (np.arange(symbols.size) - np.repeat(first, groups))
    lengths = np.add.reduceat((symbols & 31) << place, first)
    lengths -= ((symbols[ends] & 16) != 0) * (1 << (5 * groups))
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    if lengths.min() < 0 or lengths.max() > LARGEST_RUN:
        raise ManifestError(f"counts {_show(counts)}: a run length outside 0 to {LARGEST_RUN}")
    return lengths


def covering_runs(counts: str, size_hw: tuple[int, int]) -> np.ndarray:
    """``runs`` of a mask on an image of ``size_hw`` pixels. Raises MaskSizeError where they do not cover it."""
    lengths = runs(counts)
    covered = int(lengths.sum())
    if covered != size_hw[0] * size_hw[1]:
        raise MaskSizeError(f"a mask of {covered} pixels on an image of {size_text(size_hw)}")
    return lengths


def encoded(counts: str, size_hw: tuple[int, int]) -> Encoded:
    """Counts string → the same with its area and box (all zero where it is empty); raises as ``covering_runs``."""
    bounds = np.cumsum(covering_runs(counts, size_hw))
    starts, ends = bounds[: bounds.size // 2 * 2 : 2], bounds[1::2]
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    if starts.size == 0:
        return Encoded(counts, 0, (0, 0, 0, 0))
    (box,) = boxes_of(starts, ends, np.zeros(1, np.int64), size_hw[0])
    return Encoded(counts, int((ends - starts).sum()), box)


def decode(counts: str, size_hw: tuple[int, int]) -> np.ndarray:
    """Counts string → bool (H, W). Raises ManifestError where malformed or not of this size."""
    return paint([(1, counts)], size_hw, 0).astype(bool)


def label_runs(
    segments: Sequence[tuple[int, str]], size_hw: tuple[int, int], void: int = VOID
) -> tuple[np.ndarray, np.ndarray]:
    """Segments (class index, counts) of one image → its column-major pixels cut into runs of one class.

    Gives (ends, values): run k covers pixels ``ends[k - 1]`` (0 for the first) to ``ends[k]``, int64
    ascending up to H·W, and has class ``values[k]``, int32, ``void`` where no segment covers.
    Raises ManifestError where a code is malformed, is of another size, or two segments overlap.
    """
    height, width = size_hw
    total = height * width
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    classes: list[np.ndarray] = []
    for index, counts in segments:
        bounds = np.cumsum(covering_runs(counts, size_hw))
        starts.append(bounds[: bounds.size // 2 * 2 : 2])
        ends.append(bounds[1::2])
        classes.append(np.full(bounds.size // 2, index, np.int32))
    if not segments:
        starts, ends, classes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    start, end, value = np.concatenate(starts), np.concatenate(ends), np.concatenate(classes)
    filled = end > start
    start, end, value = start[filled], end[filled], value[filled]
    order = np.argsort(start, kind="stable")
    start, end, value = start[order], end[order], value[order]
    clash = np.flatnonzero(start[1:] < end[:-1])
    if clash.size:
        x, y = divmod(int(start[clash[0] + 1]), height)
        pair = f"{value[clash[0]]} and {value[clash[0] + 1]}"
        raise ManifestError(f"segments of classes {pair} overlap at x={x}, y={y}: a label map has one class per pixel")
    # Each segment run is preceded by a void run, which is dropped where it is empty.
    bounds = np.append(np.stack([start, end], axis=1).ravel(), total)
    labels = np.append(np.stack([np.full_like(value, void), value], axis=1).ravel(), np.int32(void))
    kept = np.diff(bounds, prepend=0) > 0
    return bounds[kept], labels[kept]


def paint(segments: Sequence[tuple[int, str]], size_hw: tuple[int, int], void: int = VOID) -> np.ndarray:
    """Segments (class index, counts) of one image → uint16 (H, W) label map; raises as ``label_runs``."""
    height, width = size_hw
    ends, values = label_runs(segments, size_hw, void)
    flat = np.repeat(values.astype(np.uint16), np.diff(ends, prepend=0))
    return np.ascontiguousarray(flat.reshape(width, height).T)


def _foreground(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool (N,) → first pixel of each run of True, and the pixel after its last."""
    bounds = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        bounds = np.concatenate(([0], bounds))
    if flat.size and flat[-1]:
        bounds = np.append(bounds, flat.size)
    return bounds[0::2], bounds[1::2]


def _encode_groups(starts: np.ndarray, ends: np.ndarray, first: np.ndarray, totals: np.ndarray) -> list[str]:
    """Foreground runs of several masks behind each other (mask g's from ``first[g]``) → their counts.

    ``totals``: of each mask, the pixels of its image.
    """
    pairs = np.diff(first, append=starts.size)
    last = first + pairs - 1
    opens = np.zeros(starts.size, bool)
    opens[first] = True
    gaps = starts.copy()
    gaps[1:] -= ends[:-1]
    gaps[first] = starts[first]
    lengths = ends - starts
    tails = totals - ends[last]
    # Differences to the length two before. A mask's first gap, first length and second gap (its
    # first three codes) are written as they are, and so is a tail that comes third.
    gap_codes, length_codes = gaps.copy(), lengths.copy()
    third = np.zeros(starts.size, bool)
    third[1:] = opens[:-1]
    gap_codes[1:] -= np.where(opens | third, 0, np.roll(gaps, 1))[1:]
    length_codes[1:] -= np.where(opens, 0, np.roll(lengths, 1))[1:]
    tail_codes = tails - np.where(pairs > 1, gaps[last], 0)

    sizes = 2 * pairs + (tails > 0)
    offsets = np.cumsum(sizes) - sizes
    place = np.arange(0, 2 * starts.size, 2) + np.repeat(offsets - 2 * first, pairs)
    codes = np.empty(int(sizes.sum()), np.int64)
    codes[place] = gap_codes
    codes[place + 1] = length_codes
    tailed = tails > 0
    codes[(offsets + sizes - 1)[tailed]] = tail_codes[tailed]
    characters, code_ends = _characters(codes)
    text = characters.tobytes().decode("ascii")
    cuts = [0, *code_ends[offsets + sizes - 1].tolist()]
    return [text[begin:end] for begin, end in pairwise(cuts)]


def _characters(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed codes, int64 (N,) → their characters, uint8, and where each code's characters end, (N,)."""
    magnitude = codes ^ (codes >> 63)
    groups = np.ones(codes.size, np.int64)
    limit, larger = 16, np.flatnonzero(magnitude >= 16)
    while larger.size:
        groups[larger] += 1
        limit <<= 5
        larger = larger[magnitude[larger] >= limit]
    ends = np.cumsum(groups)
    characters = np.empty(int(ends[-1]) if ends.size else 0, np.uint8)
    place, rest, left = ends - groups, codes, groups
    while rest.size:
        more = left > 1
        characters[place] = (rest & 31) + 48 + 32 * more
        place, rest, left = place[more] + 1, rest[more] >> 5, left[more] - 1
    return characters, ends


def boxes_of(starts: np.ndarray, ends: np.ndarray, first: np.ndarray, heights: np.ndarray | int) -> list[Box]:
    """Bounding boxes (x, y, w, h) of grouped foreground runs in columns of ``heights`` pixels, all or each run's."""
    left, top = np.divmod(starts, heights)
    right, bottom = np.divmod(ends - 1, heights)
    wraps = right > left  # reaches the foot of one column and the head of the next
    top = np.where(wraps, 0, top)
    bottom = np.where(wraps, heights - 1, bottom)
    last = np.append(first[1:], starts.size) - 1
    x, y = left[first], np.minimum.reduceat(top, first)
    w, h = right[last] - x + 1, np.maximum.reduceat(bottom, first) - y + 1
    return list(zip(x.tolist(), y.tolist(), w.tolist(), h.tolist(), strict=True))


def _show(value: object) -> str:
    return shorten(repr(value), _SHOWN)
