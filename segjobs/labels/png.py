"""Label maps stored as PNG (PASCAL VOC, CamVid, Cityscapes), TIFF or GIF: pixel ids in, manifest segments out.

    folder of labels → match_labels → which label belongs to which image
    LabelsConfig → class_table → what each pixel id means
    decoded ids + class table → segments_from_ids → one segment per class present

A map of more than 16 million pixels is read by bands of rows, if it is a TIFF, and never held whole: LabelBands.

A pixel whose id is void is covered by no segment. Other files than PNGs are label maps where the folder has no PNG.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from segjobs.labels.base import LabelRequest, Labels, Masks, check_size, match_files, opened_label
from segjobs.labels.class_tables import LARGEST_ID, UNKNOWN, ClassTable, class_table, masks_from_indices, unknown_ids
from segjobs.labels.match_files import match_labels
from segjobs.manifest.bands import LabelBands
from segjobs.manifest.segments import Segment
from segjobs.sources.label_map import decode_label_png
from segjobs.sources.windows import Windows, open_label_map, rows_of
from segjobs.storage import Storage

_MOST_WHOLE_PX = 2**24

__all__ = ["ClassTable", "class_table", "match_labels", "png_labels", "segments_from_ids"]


def png_labels(request: LabelRequest) -> Labels:
    """Adapter of ``png``: the text of an image is the URI of its label map."""
    table = class_table(request.config)
    files = match_files(request, (".png",), others=(".tif", ".tiff", ".gif", ".bmp"))
    read = _Reader(request.storage, table, request.max_pixels, files.large)
    return Labels("semantic", table.categories, files.uris, read, files.digest, files.leftovers, any_size=True)


@dataclass(frozen=True)
class _Reader:
    """See ``base.LabelReader``."""

    storage: Storage
    table: ClassTable
    max_pixels: int
    large: frozenset[str]

    def __call__(self, uri: str, size_hw: tuple[int, int]) -> Masks:
        with opened_label(self.storage, uri, large=uri in self.large) as data:
            if uri not in self.large and size_hw[0] * size_hw[1] <= min(_MOST_WHOLE_PX, self.max_pixels):
                return masks_from_ids(decode_label_png(data[:], max_pixels=self.max_pixels), size_hw, self.table)
            return masks_from_windows(open_label_map(data, max_pixels=self.max_pixels), size_hw, self.table)


def segments_from_ids(ids: np.ndarray, size_hw: tuple[int, int], table: ClassTable) -> list[Segment]:
    """The segments of ``masks_from_ids``."""
    return masks_from_ids(ids, size_hw, table).segments


def masks_from_ids(ids: np.ndarray, size_hw: tuple[int, int], table: ClassTable) -> Masks:
    """Pixel ids, integer (H, W), of an image of ``size_hw`` → one segment per class present, by category.

    Raises ItemError LABEL_SHAPE where the label's size is not the image's, LABEL_VALUE where the
    table fails unknown ids and there are any.
    """
    check_size(ids.shape, size_hw)
    return masks_from_indices(_indices(ids, table), table, values_of=lambda unknown: _counted(ids[unknown]))


def masks_from_windows(ids: Windows, size_hw: tuple[int, int], table: ClassTable) -> Masks:
    """``masks_from_ids`` of a map that is read by bands of rows."""
    check_size(ids.size_hw, size_hw)
    found, strangers = LabelBands(size_hw), Counter[str]()
    for top, band in rows_of(ids):
        indices = _indices(band, table)
        unknown = indices == UNKNOWN
        if unknown.any():
            strangers.update(_counted(band[unknown]))
            indices = np.where(unknown, np.uint16(table.unknown_index), indices)
        found.add(indices, top=top)
    findings = unknown_ids(dict(sorted(strangers.items(), key=lambda one: int(one[0]))), table)
    return Masks([Segment.from_region(table.categories[one.index], one, size_hw) for one in found.regions()], findings)


def _indices(ids: np.ndarray, table: ClassTable) -> np.ndarray:
    # Ids outside 16 bits all fall on the table's last entry, which no class can have.
    return table.index_of[ids if ids.dtype.itemsize <= 2 else np.clip(ids, -1, LARGEST_ID + 1)]


def _counted(ids: np.ndarray) -> dict[str, int]:
    values, counts = np.unique(ids, return_counts=True)
    return {str(value): count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}
