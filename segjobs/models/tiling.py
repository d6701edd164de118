"""Overlapping tiles of a huge image: a size in, the tiles and where they meet out; their logits blended at the seams.

    │←── tile 0 ──────────┆▒▒▒▒▒▒▒┆──│
                    │──┆▒▒▒▒▒▒▒┆────────── tile 1 ──→│
                       └ seam ┘

Two neighbours meet in a seam in the middle of their overlap, in which one's logits cross over into the other's; an
eighth of the overlap on either side of the seam, the pixels next to a tile's edge, is thrown away: there a network has
seen the padding of its convolutions. So at most two tiles share a pixel of an axis. Where two tiles agree, the blend is
what both say, bit by bit.

gaussian    the tiles' weights are Gaussians of an eighth of the tile (as nnU-Net's, Isensee et al. 2021, and MONAI's
            sliding windows), whose ratio is a logistic curve
linear      the weight falls from 1 to 0 along the seam
none        the seam has no width: each pixel is of the tile whose edge is farther

What is held is one tile, and the seams to the right of it and below its row: (C, seam, W) numbers. So that these do not
grow with the image, a wide one is worked on in blocks of columns of tiles, each from the top to the bottom; the last
column of a block is computed again for the seam to the next.

Logits are arrays, or a GPU's tensors, which stay there. Torch is imported for these alone: an exported network does
without.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from segjobs.config import TilesConfig
from segjobs.models.base import LabelMap, Logits
from segjobs.models.upsample import upsample_on_cpu

_STRIDE = 32
"""Tiles begin at multiples of it, the last ones apart: a network of such strides sees a pixel as in the whole image."""
_ALIGNED_FROM = 8 * _STRIDE  # a smaller step would lose too much of itself
_KEPT_OF_OVERLAP = 0.75
_SIGMA_OF_SIZE = 1 / 8
_BLOCK_BYTES = 5 * 2**25
_LEAST_OF_BLOCK = 8  # columns of tiles: one of so many is computed twice
_BYTES_OF_PIXEL = 12  # of a row of tiles: two copies of the pixels, label map and confidence
_ROWS_AT_ONCE = 64  # that are compared, so that no copy of a tile's logits is made


@dataclass(frozen=True)
class Axis:
    """Tiles along one side of an image. ``starts``: the first pixel of each; ``size``: pixels of each, all alike.

    ``seams``: first pixel and the one behind the last of what two neighbours share, (tiles - 1).
    """

    length: int
    size: int
    starts: tuple[int, ...]
    seams: tuple[tuple[int, int], ...]

    def used(self, number: int) -> tuple[int, int]:
        """First pixel and the one behind the last for which the tile's logits count."""
        begin = self.seams[number - 1][0] if number else 0
        end = self.seams[number][1] if number < len(self.seams) else self.length
        return begin, end

    def finished(self, number: int) -> tuple[int, int]:
        """The pixels that no later tile changes and that were not finished before the tile."""
        begin = self.seams[number - 1][0] if number else 0
        end = self.seams[number][0] if number < len(self.seams) else self.length
        return begin, end


def cut(length: int, config: TilesConfig) -> Axis:
    """Tiles of at most ``config.size`` along a side of ``length`` pixels."""
    assert config.size is not None, "images are tiled"  # noqa: S101
    size = min(config.size, length)
    least = round(size * config.overlap)
    step = size - least
    step = step // _STRIDE * _STRIDE if step >= _ALIGNED_FROM else step
    starts = [*range(0, length - size, step), length - size]
    middles = [(one + size + other) // 2 for one, other in pairwise(starts)]
    apart = min((other - one for one, other in pairwise(middles)), default=size)
    width = 0 if config.blend == "none" else min(int((size - step) * _KEPT_OF_OVERLAP), apart)
    seams = [(middle - width // 2, middle - width // 2 + width) for middle in middles]
    return Axis(length, size, tuple(starts), tuple(seams))


def blocks(rows: Axis, columns: Axis, classes: int) -> list[range]:
    """Columns of tiles that are worked on together, in even blocks. ``classes``: of the logits to blend, or 0."""
    seam = max((end - begin for begin, end in rows.seams), default=0)
    bytes_of_column = rows.size * _BYTES_OF_PIXEL + 4 * classes * seam
    most = max(_LEAST_OF_BLOCK, _BLOCK_BYTES * len(columns.starts) // (bytes_of_column * columns.length))
    number = -(-len(columns.starts) // most)
    bounds = [len(columns.starts) * n // number for n in range(number + 1)]
    return [range(first, last) for first, last in pairwise(bounds)]


class Blender:
    """Tiles of a block of columns in, row by row and from left to right; the logits that are finished with each out.

    ``block``: by default all columns. Of a later block, each row begins with ``begin`` on the tile before it.
    """

    def __init__(self, rows: Axis, columns: Axis, config: TilesConfig, block: range | None = None) -> None:
        block = range(len(columns.starts)) if block is None else block
        self._rows = rows
        self._columns = columns
        self._begin, self._end = columns.finished(block.start)[0], columns.finished(block.stop - 1)[1]
        self._blend = config.blend
        self._left: Logits = np.empty(0, np.float32)
        self._above: Logits | None = None

    def begin(self, row: int, column: int, logits: Logits) -> None:
        """float32 (C, size, size) of the last tile of the block before: what it gives to the seam."""
        top, bottom = (side - self._rows.starts[row] for side in self._rows.used(row))
        left, right = (side - self._columns.starts[column] for side in self._columns.seams[column])
        self._left = _copy(logits[:, top:bottom, left:right])

    def add(self, row: int, column: int, logits: Logits) -> Logits:
        """float32 (C, size, size) of a tile, which is written over → (C, h, w), what it finishes.

        That is ``Axis.finished`` of the row and of the column.
        """
        with _writable(logits):
            return self._add(row, column, logits)

    def _add(self, row: int, column: int, logits: Logits) -> Logits:
        (top, bottom), (left, right) = self._rows.used(row), self._columns.used(column)
        first_row, first_column = self._rows.starts[row], self._columns.starts[column]
        tile = logits[:, top - first_row : bottom - first_row, left - first_column : right - first_column]
        if column:
            _cross(self._left, tile, self._shares(self._columns, column))
        done = self._columns.finished(column)[1] - left
        self._left = _copy(tile[:, :, done:])
        tile = tile[:, :, :done]
        above = self._above_columns(tile, left, done)
        if row:
            _cross(above.swapaxes(1, 2), tile.swapaxes(1, 2), self._shares(self._rows, row))
        done = self._rows.finished(row)[1] - top
        if row < len(self._rows.seams):
            above[:] = tile[:, done:]  # pyright: ignore[reportArgumentType]  of the same kind
        return tile[:, :done]

    def _above_columns(self, tile: Logits, left: int, width: int) -> Logits:
        """The seam above the tile, or below it: (C, seam, width), a view of what is held of a whole row of them."""
        if self._above is None:
            seam = self._rows.seams[0][1] - self._rows.seams[0][0] if self._rows.seams else 0
            self._above = _empty(tile, (len(tile), seam, self._end - self._begin))
        return self._above[:, :, left - self._begin : left - self._begin + width]

    def _shares(self, axis: Axis, number: int) -> np.ndarray:
        """The later tile's share of the sum of both weights, float64 (seam,), ascending along the seam before it."""
        begin, end = axis.seams[number - 1]
        centres = np.arange(end - begin) + 0.5
        if self._blend == "linear":
            return centres / (end - begin)
        apart = axis.starts[number] - axis.starts[number - 1]
        return 1 / (1 + np.exp(((end - begin) / 2 - centres) * apart / (_SIGMA_OF_SIZE * axis.size) ** 2))


def _cross(before: Logits, tile: Logits, shares: np.ndarray) -> None:
    """Blend the first columns of ``tile`` with the same of the tile ``before``, (C, h, seam); both are written over.

    From the nearer tile's value on, by a share of the difference: where there is none, the value stays bit by bit.
    """
    half = int(np.searchsorted(shares, 0.5))
    nearer, farther = _beside(tile, shares[:half]), _beside(tile, 1 - shares[half:])
    # A plane after the other stays in a core's cache; a GPU is asked for all at once.
    for old, new in zip(before, tile, strict=True) if isinstance(tile, np.ndarray) else [(before, tile)]:
        first = new[..., :half]
        first -= old[..., :half]
        first *= nearer
        first += old[..., :half]
        last, change = new[..., half : old.shape[-1]], old[..., half:]
        change -= last
        change *= farther
        last += change


def _beside(logits: Logits, values: np.ndarray) -> Logits:
    """``values`` as float32, where ``logits`` are."""
    if isinstance(logits, np.ndarray):
        return values.astype(np.float32)
    return logits.new_tensor(values)


def _copy(logits: Logits) -> Logits:
    return logits.copy() if isinstance(logits, np.ndarray) else logits.clone()


def _empty(logits: Logits, shape: tuple[int, int, int]) -> Logits:
    return np.empty(shape, np.float32) if isinstance(logits, np.ndarray) else logits.new_empty(shape)


def _writable(logits: Logits) -> AbstractContextManager[object]:
    """In which they are written over: those of torch's inference mode in that alone."""
    if isinstance(logits, np.ndarray):
        return nullcontext()
    import torch

    return torch.inference_mode()


def label_map_of(logits: Logits) -> LabelMap:
    """Blended logits (C, h, w) → the label map of these pixels: the winner of each, and its softmax probability."""
    if not isinstance(logits, np.ndarray):
        from segjobs.models.upsample_device import upsample_on_device

        return LabelMap(*upsample_on_device(logits, (logits.shape[1], logits.shape[2])))
    ids = np.empty(logits.shape[1:], np.uint16)
    confidence = np.empty(ids.shape, np.float32)
    for top in range(0, len(ids), _ROWS_AT_ONCE):
        rows = slice(top, top + _ROWS_AT_ONCE)
        some = np.ascontiguousarray(logits[:, rows])
        ids[rows], confidence[rows] = upsample_on_cpu(some, (some.shape[1], some.shape[2]))
    return LabelMap(ids, confidence)
