"""Instance-id maps (PNG or TIFF of 8 to 64 bits): each value but 0 is one object, of one class or as its id says.

    decoded ids → masks_of         → one segment per id, by id: all of one class
                → masks_of_classes → one segment per id, by id: class = id // labels.divisor

0 is background, ``labels.void_ids`` are covered by no segment either. Objects keep their ids' order, not the ids.

With ``labels.divisor=1000`` (Cityscapes, KITTI MOTS) ``labels.categories`` and ``labels.ids`` name the classes, and an
id below the divisor is a region of uncounted objects of that class: a crowd. ``labels.table=cityscapes_ids`` says all
of it for Cityscapes, whose stuff (road, sky) is no object; ``labels.suffix=_gtFine_instanceIds`` takes it by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError, ItemError
from segjobs.labels.base import (
    LabelRequest,
    Labels,
    Masks,
    Policy,
    check_size,
    match_files,
    policy_of,
    read_label,
    resolve,
)
from segjobs.labels.class_tables import BUILT_IN, CITYSCAPES_THINGS, built_in_categories, class_table, named_categories
from segjobs.manifest.rle import VOID, encode_label_map
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.sources.label_map import decode_label_png
from segjobs.storage import Storage

_OWN_SUFFIX = "instanceIds"  # of cityscapesScripts, with Fine, Coarse or gtFine before it
_DIVISOR = 1000


@dataclass(frozen=True)
class ObjectClasses:
    """What ids say of classes. ``known``: class id → category; ``void``: class ids and ids that are no objects."""

    divisor: int
    known: Mapping[int, Category]
    void: frozenset[int]
    policy: Policy


def instance_ids_labels(request: LabelRequest) -> Labels:
    """Adapter of ``instance_ids``: the text of an image is the URI of its id map."""
    config = request.config
    unnamed = config.categories is None and config.table is None and config.divisor is None
    if unnamed and config.suffix.endswith(_OWN_SUFFIX):
        config = config.model_copy(update={"table": "cityscapes_ids"})
    classes, categories = None, ()
    if config.table is not None or config.divisor is not None:
        classes, categories = _classes(config)
    else:
        names = config.categories or ["object"]
        if len(names) != 1:
            raise ConfigError(
                f"labels.categories: {len(names)} names; an id map tells objects apart, not classes: give one, "
                "or labels.divisor=1000 where class = id // 1000"
            )
        categories = named_categories(config.model_copy(update={"categories": names}), first_color=1)
    files = match_files(request, (".png", ".tif", ".tiff"))
    read = partial(
        _read,
        storage=request.storage,
        meaning=classes or categories[0],
        void_ids=tuple(config.void_ids or ()),
        max_pixels=request.max_pixels,
    )
    return Labels("instance", categories, files.uris, read, files.digest, files.leftovers)


def _classes(config: LabelsConfig) -> tuple[ObjectClasses, tuple[Category, ...]]:
    divisor = config.divisor or _DIVISOR
    if config.table is not None:
        built_in = BUILT_IN[config.table]
        void = built_in.void_ids if config.void_ids is None else tuple(config.void_ids)
        known = dict(zip(built_in.pixel_ids, built_in_categories(built_in), strict=True))
        stuff = [pixel_id for pixel_id in known if pixel_id not in CITYSCAPES_THINGS]
        things = {pixel_id: known[pixel_id] for pixel_id in CITYSCAPES_THINGS}
        policy = policy_of(config, list(things.values()))
        return ObjectClasses(divisor, things, frozenset({0, *void, *stuff}), policy), tuple(things.values())
    if config.ids is None:
        config = config.model_copy(update={"ids": [*range(1, len(config.categories or ()) + 1)]})
    table = class_table(config.model_copy(update={"void_ids": config.void_ids or []}))
    if 0 in (config.ids or ()):
        raise ConfigError("labels.ids: 0 is background in an id map; classes are numbered from 1")
    known = {category.id: category for category in table.categories}
    return ObjectClasses(
        divisor, known, frozenset({0, *table.void_ids}), policy_of(config, table.categories)
    ), table.categories


def _read(
    uri: str,
    size_hw: tuple[int, int],
    *,
    storage: Storage,
    meaning: Category | ObjectClasses,
    void_ids: tuple[int, ...],
    max_pixels: int,
) -> Masks:
    ids = decode_label_png(read_label(storage, uri), max_pixels=max_pixels)
    check_size(ids.shape, size_hw)
    if isinstance(meaning, ObjectClasses):
        return masks_of_classes(ids, meaning)
    return masks_of(ids, meaning, void_ids)


def masks_of(ids: np.ndarray, category: Category, void_ids: tuple[int, ...] = ()) -> Masks:
    """Ids, integer (H, W) → one segment per id but 0 and ``void_ids``, in ascending order of id.

    Raises ItemError LABEL_VALUE where ids are negative, or more than 16 bits can number.
    """
    values, places = _numbered(ids)
    background = {number for number, value in enumerate(values) if value in (0, *void_ids)}
    size_hw = (ids.shape[0], ids.shape[1])
    return Masks(
        [
            Segment.from_region(category, region, size_hw)
            for region in encode_label_map(places)
            if region.index not in background
        ]
    )


def masks_of_classes(ids: np.ndarray, classes: ObjectClasses) -> Masks:
    """Ids, integer (H, W) → one segment per object of a known class, in ascending order of id; raises as ``masks_of``.

    Raises UnknownId where a class is unknown and the policy fails it.
    """
    values, places = _numbered(ids)
    class_ids = [value // classes.divisor if value >= classes.divisor else value for value in values]
    kept = [n for n, value in enumerate(values) if not {value, class_ids[n]} & classes.void]
    resolved, findings = resolve([class_ids[n] for n in kept], classes.known, classes.policy, what="class ids")
    category_of = dict(zip(kept, resolved, strict=True))
    size_hw = (ids.shape[0], ids.shape[1])
    segments = [
        Segment.from_region(category, region, size_hw, iscrowd=values[region.index] < classes.divisor)
        for region in encode_label_map(places)
        if (category := category_of.get(region.index)) is not None
    ]
    return Masks(segments, findings)


def _numbered(ids: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The ids that occur, ascending, and which of them each pixel has, uint16 (H, W)."""
    if ids.dtype in (np.uint8, np.uint16):  # counted instead of sorted: a tenth of the time
        values = np.flatnonzero(np.bincount(ids.ravel()))
        table = np.zeros(int(values[-1]) + 1, np.uint16)
        table[values] = np.arange(values.size)
        places = table[ids]
    else:
        values, places = np.unique(ids, return_inverse=True)
    if values[0] < 0 or values.size >= VOID:
        raise ItemError("LABEL_VALUE", f"{values.size} ids from {values[0]}: expected 0 and up to {VOID - 1} objects")
    return values.tolist(), places.reshape(ids.shape).astype(np.uint16)
