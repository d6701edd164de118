"""A label map that comes in bands of rows: each band in, kept as runs; one Region per class of the whole image out.

Neither the image's label map nor a mask of it is ever held: a band of H rows leaves its column-major runs, 10 bytes
each, which are joined where they touch once the last band is there. The codes are those of ``rle.encode_label_map``.
"""

from dataclasses import dataclass

import numpy as np

from segjobs.errors import ItemError
from segjobs.manifest.rle import LARGEST_RUN, VOID, Region, encode_runs


@dataclass(frozen=True)
class _Runs:
    """Of one band, by class: where each begins in the image's column-major pixels, and its length (N,)."""

    values: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


class LabelBands:
    """Bands of an image of ``size_hw``, from its top row to its last. Raises ItemError TOO_LARGE (COCO's 2^32 - 1)."""

    def __init__(self, size_hw: tuple[int, int]) -> None:
        height, width = size_hw
        if height * width > LARGEST_RUN:
            raise ItemError("TOO_LARGE", f"{width}x{height} pixels: COCO's run-length code ends at {LARGEST_RUN}")
        self._size_hw = size_hw
        self._rows = 0
        self._bands: list[_Runs] = []

    def add(self, ids: np.ndarray) -> None:
        """uint16 (h, W) class indices of the next h rows; ``VOID`` is left out."""
        height = len(ids)
        flat = ids.ravel(order="F")
        changes = flat[1:] != flat[:-1]
        changes[height - 1 :: height] = True  # the next column begins elsewhere in the image
        bounds = np.concatenate(([0], np.flatnonzero(changes) + 1, [flat.size]))
        values, starts, lengths = flat[bounds[:-1]], bounds[:-1], np.diff(bounds)
        order = np.argsort(values, kind="stable")
        order = order[values[order] != VOID]
        column, row = np.divmod(starts[order], height)
        places = column * self._size_hw[0] + row + self._rows
        self._bands.append(_Runs(values[order], places.astype(np.uint32), lengths[order].astype(np.uint32)))
        self._rows += height

    def regions(self) -> list[Region]:
        """One Region per class present, by index, once all rows were added."""
        assert self._rows == self._size_hw[0], "bands cover the image"  # noqa: S101
        classes = np.unique(np.concatenate([np.unique(band.values) for band in self._bands])).tolist()
        return [self._region(index) for index in classes]

    def _region(self, index: int) -> Region:
        starts: list[np.ndarray] = []
        lengths: list[np.ndarray] = []
        for band in self._bands:
            one = slice(*np.searchsorted(band.values, [index, index + 1]).tolist())
            starts.append(band.starts[one])
            lengths.append(band.lengths[one])
        start = np.concatenate(starts)
        order = np.argsort(start, kind="stable")
        start = start[order].astype(np.int64)
        end = start + np.concatenate(lengths)[order]
        opens = np.concatenate(([True], start[1:] != end[:-1]))
        closes = np.concatenate((opens[1:], [True]))
        counts, area, bbox = encode_runs(start[opens], end[closes], self._size_hw)
        return Region(index, counts, area, bbox)
