"""Label maps stored as PNG (PASCAL VOC, CamVid, Cityscapes), TIFF or GIF: pixel ids in, manifest segments out.

    folder of labels → match_labels → which label belongs to which image
    LabelsConfig → class_table → what each pixel id means
    decoded ids + class table → segments_from_ids → one segment per class present

A pixel whose id is void is covered by no segment. Other files than PNGs are label maps where the folder has no PNG.
"""

from functools import partial

import numpy as np

from segjobs.labels.base import LabelRequest, Labels, Masks, check_size, match_files, read_label
from segjobs.labels.class_tables import LARGEST_ID, ClassTable, class_table, masks_from_indices
from segjobs.labels.match_files import match_labels
from segjobs.manifest.segments import Segment
from segjobs.sources.label_map import decode_label_png
from segjobs.storage import Storage

__all__ = ["ClassTable", "class_table", "match_labels", "png_labels", "segments_from_ids"]


def png_labels(request: LabelRequest) -> Labels:
    """Adapter of ``png``: the text of an image is the URI of its label map."""
    table = class_table(request.config)
    files = match_files(request, (".png",), others=(".tif", ".tiff", ".gif", ".bmp"))
    read = partial(_read, storage=request.storage, table=table, max_pixels=request.max_pixels)
    return Labels("semantic", table.categories, files.uris, read, files.digest, files.leftovers)


def _read(uri: str, size_hw: tuple[int, int], *, storage: Storage, table: ClassTable, max_pixels: int) -> Masks:
    ids = decode_label_png(read_label(storage, uri), max_pixels=max_pixels)
    return masks_from_ids(ids, size_hw, table)


def segments_from_ids(ids: np.ndarray, size_hw: tuple[int, int], table: ClassTable) -> list[Segment]:
    """The segments of ``masks_from_ids``."""
    return masks_from_ids(ids, size_hw, table).segments


def masks_from_ids(ids: np.ndarray, size_hw: tuple[int, int], table: ClassTable) -> Masks:
    """Pixel ids, integer (H, W), of an image of ``size_hw`` → one segment per class present, by category.

    Raises ItemError LABEL_SHAPE where the label's size is not the image's, LABEL_VALUE where the
    table fails unknown ids and there are any.
    """
    check_size(ids.shape, size_hw)
    # Ids outside 16 bits all fall on the table's last entry, which no class can have.
    indices = table.index_of[ids if ids.dtype.itemsize <= 2 else np.clip(ids, -1, LARGEST_ID + 1)]
    return masks_from_indices(indices, table, values_of=lambda unknown: _counted(ids[unknown]))


def _counted(ids: np.ndarray) -> dict[str, int]:
    values, counts = np.unique(ids, return_counts=True)
    return {str(value): count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}
