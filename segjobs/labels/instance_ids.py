"""Instance-id maps (PNG or TIFF of 8, 16 or 32 bits): each value but 0 is one object of one class.

    decoded ids → masks_of → one segment per id, by id

0 is background, ``labels.void_ids`` are covered by no segment either. Objects keep their ids' order, not the
ids. Only the first page of a TIFF is read.
"""

from functools import partial

import numpy as np

from segjobs.errors import ConfigError, ItemError
from segjobs.labels.base import LabelRequest, Labels, Masks, check_size, match_files, read_label
from segjobs.labels.class_tables import named_categories
from segjobs.manifest.rle import VOID, encode_label_map
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.sources.label_map import decode_label_png
from segjobs.storage import Storage


def instance_ids_labels(request: LabelRequest) -> Labels:
    """Adapter of ``instance_ids``: the text of an image is the URI of its id map."""
    config = request.config
    names = config.categories or ["object"]
    if len(names) != 1:
        raise ConfigError(
            f"labels.categories: {len(names)} names; an id map tells objects apart, not classes: give one"
        )
    (category,) = named_categories(config.model_copy(update={"categories": names}), first_color=1)
    files = match_files(request, (".png", ".tif", ".tiff"))
    read = partial(
        _read,
        storage=request.storage,
        category=category,
        void_ids=tuple(config.void_ids or ()),
        max_pixels=request.max_pixels,
    )
    return Labels("instance", (category,), files.uris, read, files.digest, files.leftovers)


def _read(
    uri: str,
    size_hw: tuple[int, int],
    *,
    storage: Storage,
    category: Category,
    void_ids: tuple[int, ...],
    max_pixels: int,
) -> Masks:
    ids = decode_label_png(read_label(storage, uri), max_pixels=max_pixels)
    check_size(ids.shape, size_hw)
    return masks_of(ids, category, void_ids)


def masks_of(ids: np.ndarray, category: Category, void_ids: tuple[int, ...] = ()) -> Masks:
    """Ids, integer (H, W) → one segment per id but 0 and ``void_ids``, in ascending order of id.

    Raises ItemError LABEL_VALUE where ids are negative, or more than 16 bits can number.
    """
    if ids.dtype.itemsize > 2:
        values, ids = np.unique(ids, return_inverse=True)
        if values[0] < 0 or values.size >= VOID:
            raise ItemError(
                "LABEL_VALUE", f"{values.size} ids from {values[0]}: expected 0 and up to {VOID - 1} objects"
            )
        background = {number for number, value in enumerate(values.tolist()) if value in (0, *void_ids)}
        ids = ids.astype(np.uint16)
    else:
        background = {0, *void_ids}
    size_hw = (ids.shape[0], ids.shape[1])
    # 65535 is an id like any other here, so what encode_label_map leaves out is the background.
    return Masks(
        [
            Segment.from_region(category, region, size_hw)
            for region in encode_label_map(ids, void=0)
            if region.index not in background
        ]
    )
