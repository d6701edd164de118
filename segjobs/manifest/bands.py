"""A label map that comes in pieces: each piece in, kept as runs; one Region per class of the whole image out.

    a piece (h, W') ─→ its runs in each column, by class ─→ column by column: joined where they touch ─→ counts

Neither the image's label map nor a mask of it is ever held, only 6 bytes a run (8 of pieces of more than 65,535 rows);
the code of a class is written a few columns at a time. The codes are those of ``rle.encode_label_map``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from segjobs.errors import ItemError
from segjobs.manifest.rle import LARGEST_RUN, VOID, Box, Region, boxes_of, delta_text

_RUNS_AT_ONCE = 2**18  # of a class that are joined and written: some 100 bytes each meanwhile


@dataclass(frozen=True)
class _Runs:
    """Of one piece: where each begins in the image's column-major pixels, uint32 (N,), and its length (N,).

    ``classes``: uint16 (K,) ascending; those of class k are ``bounds[k]`` to ``bounds[k + 1]``, ascending.
    """

    classes: np.ndarray
    bounds: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def of(self, index: int) -> slice:
        """The runs of a class."""
        place = int(np.searchsorted(self.classes, index))
        here = place < len(self.classes) and self.classes[place] == index
        return slice(int(self.bounds[place]), int(self.bounds[place + 1])) if here else slice(0, 0)


class LabelBands:
    """Pieces of an image of ``size_hw``, in any order. Raises ItemError TOO_LARGE (COCO's 2^32 - 1)."""

    def __init__(self, size_hw: tuple[int, int]) -> None:
        height, width = size_hw
        if height * width > LARGEST_RUN:
            raise ItemError("TOO_LARGE", f"{width}x{height} pixels: COCO's run-length code ends at {LARGEST_RUN}")
        self._size_hw = size_hw
        self._covered_px = 0
        self._pieces: list[_Runs] = []

    def add(self, ids: np.ndarray, *, top: int, left: int = 0) -> None:
        """uint16 (h, w) class indices with their corner at ``top`` and ``left``; ``VOID`` is left out."""
        height = len(ids)
        flat = ids.ravel(order="F")
        changes = flat[1:] != flat[:-1]
        changes[height - 1 :: height] = True  # the next column begins elsewhere in the image
        bounds = np.concatenate(([0], np.flatnonzero(changes) + 1, [flat.size]))
        values, starts, lengths = flat[bounds[:-1]], bounds[:-1], np.diff(bounds)
        order = np.argsort(values, kind="stable")
        order = order[values[order] != VOID]
        values = values[order]
        classes, first = np.unique(values, return_index=True)
        column, row = np.divmod(starts[order], height)
        places = (column + left) * self._size_hw[0] + row + top
        narrow = np.uint16 if height <= np.iinfo(np.uint16).max else np.uint32
        self._pieces.append(
            _Runs(classes, np.append(first, values.size), places.astype(np.uint32), lengths[order].astype(narrow))
        )
        self._covered_px += ids.size

    def regions(self) -> list[Region]:
        """One Region per class present, by index, once all pixels were added."""
        assert self._covered_px == self._size_hw[0] * self._size_hw[1], "pieces cover the image"  # noqa: S101
        classes = np.unique(np.concatenate([piece.classes for piece in self._pieces])).tolist()
        return [self._region(index) for index in classes]

    def _region(self, index: int) -> Region:
        code = _Code(self._size_hw)
        for starts, lengths in self._by_columns(index):
            order = np.argsort(starts, kind="stable")
            start = starts[order].astype(np.int64)
            code.add(start, start + lengths[order])
        return code.region(index)

    def _by_columns(self, index: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Starts and lengths of a class's runs, a few columns of the image at a time."""
        runs = [(piece.starts[own], piece.lengths[own]) for piece in self._pieces if (own := piece.of(index)).stop]
        height, width = self._size_hw
        steps = min(width, 1 + sum(len(starts) for starts, _ in runs) // _RUNS_AT_ONCE)
        for step in range(steps):
            place = np.array([width * n // steps * height for n in (step, step + 1)], np.uint32)
            spans = [slice(*np.searchsorted(starts, place).tolist()) for starts, _ in runs]
            some = [(starts[span], lengths[span]) for (starts, lengths), span in zip(runs, spans, strict=True)]
            if any(len(starts) for starts, _ in some):
                yield np.concatenate([starts for starts, _ in some]), np.concatenate([length for _, length in some])


class _Code:
    """One mask's counts, written as its runs come: ``rle.encode_runs`` of all of them."""

    def __init__(self, size_hw: tuple[int, int]) -> None:
        self._size_hw = size_hw
        self._open = (0, 0)  # the last run, which may go on; none at first
        self._end = 0  # of the last run that is written
        self._written = 0  # lengths
        self._last = np.zeros(2, np.int64)  # of these
        self._texts: list[str] = []
        self._area = 0
        self._boxes: list[Box] = []

    def add(self, starts: np.ndarray, ends: np.ndarray) -> None:
        """Runs int64 (N ≥ 1,) ascending, behind those before; where they touch they are one."""
        if self._open[1]:
            starts, ends = np.append(self._open[0], starts), np.append(self._open[1], ends)
        opens = np.concatenate(([True], starts[1:] != ends[:-1]))
        closes = np.concatenate((opens[1:], [True]))
        starts, ends = starts[opens], ends[closes]
        self._open = (int(starts[-1]), int(ends[-1]))
        self._write(starts[:-1], ends[:-1])

    def region(self, index: int) -> Region:
        """All runs were added."""
        self._write(*(np.array([place]) for place in self._open))
        if tail := self._size_hw[0] * self._size_hw[1] - self._end:
            self._append(np.array([tail]))
        left, top = (min(box[axis] for box in self._boxes) for axis in (0, 1))
        right, bottom = (max(box[axis] + box[axis + 2] for box in self._boxes) for axis in (0, 1))
        return Region(index, "".join(self._texts), self._area, (left, top, right - left, bottom - top))

    def _write(self, starts: np.ndarray, ends: np.ndarray) -> None:
        if not starts.size:
            return
        gaps = starts - np.append(self._end, ends[:-1])
        self._append(np.stack([gaps, ends - starts], axis=1).ravel())
        self._end = int(ends[-1])
        self._area += int((ends - starts).sum())
        self._boxes += boxes_of(starts, ends, np.zeros(1, np.int64), self._size_hw[0])

    def _append(self, lengths: np.ndarray) -> None:
        """The next lengths, background and foreground by turns; from the fourth on they are differences."""
        known = np.concatenate([self._last, lengths])
        deltas = lengths - known[:-2]
        deltas[: max(3 - self._written, 0)] = lengths[: max(3 - self._written, 0)]
        self._texts.append(delta_text(deltas))
        self._last = known[-2:]
        self._written += lengths.size
