"""PASCAL VOC folders: SegmentationClass (and SegmentationObject) PNGs in, manifest segments out.

    VOC2012/ImageSets/Segmentation/*.txt  which images belong to the set; where there are none, all do
    VOC2012/SegmentationClass/*.png       palette PNG of class ids, 255 unlabelled   → semantic (the default)
    VOC2012/SegmentationObject/*.png      palette PNG of object ids, 255 unlabelled  → labels.task=instance

``labels.uri`` is the folder that holds these; ``input.uri`` is its JPEGImages, or wherever the photographs
are. An object's class is that of its pixels in SegmentationClass. The set's own splits are taken with
splits={train: train, val: val}.
"""

import json
from collections import Counter
from functools import partial

import numpy as np

from segjobs.config import LabelsConfig, digest
from segjobs.labels.base import (
    Finding,
    LabelRequest,
    Labels,
    Masks,
    UnknownId,
    check_size,
    match_files,
    read_label,
    read_whole,
)
from segjobs.labels.class_tables import ClassTable, class_table
from segjobs.labels.match_files import image_stem
from segjobs.labels.png import masks_from_ids
from segjobs.manifest.rle import encode_label_map
from segjobs.manifest.segments import Segment
from segjobs.sources.label_map import decode_label_png
from segjobs.storage import Storage, join
from segjobs.text import first_few

SETS = ("ImageSets", "Segmentation")


def voc_labels(request: LabelRequest) -> Labels:
    """Adapter of ``voc``: the text of an image is its class PNG's URI, or the JSON of object and class PNGs' URIs."""
    config, storage = request.config, request.storage
    table = class_table(_own_table(config))
    listed = _listed(request)
    classes = match_files(request, (".png",), folder=join(config.uri, "SegmentationClass"))
    # Photographs outside the set have no label, and are not missed; a label without photograph is.
    if config.task != "instance":
        read = partial(_read_classes, storage=storage, table=table, max_pixels=request.max_pixels)
        return Labels("semantic", table.categories, classes.uris, read, classes.digest, classes.leftovers, listed)
    objects = match_files(request, (".png",), folder=join(config.uri, "SegmentationObject"))
    texts = [
        json.dumps([one, two]) if one and two else None for one, two in zip(objects.uris, classes.uris, strict=True)
    ]
    read = partial(_read_objects, storage=storage, table=table, max_pixels=request.max_pixels)
    prints = digest(objects.digest, classes.digest)
    return Labels("instance", table.categories, texts, read, prints, objects.leftovers, listed)


def _own_table(config: LabelsConfig) -> LabelsConfig:
    """The config with VOC's classes, unless it names others."""
    named = config.categories is not None or config.table is not None
    return config if named else config.model_copy(update={"table": "voc"})


def _listed(request: LabelRequest) -> frozenset[str] | None:
    """The images that the set's own lists name; None where it has no lists."""
    folder = join(request.config.uri, *SETS)
    names: set[str] = set()
    files = sorted(name for name in request.storage.list_names(folder) if name.endswith(".txt"))
    for name in files:
        text = read_whole(request.storage, join(folder, name)).decode("utf-8-sig", "replace")
        names.update(line.strip() for line in text.splitlines())
    if not files:
        return None
    return frozenset(image_id for image_id in request.image_ids if image_stem(image_id).rpartition("/")[2] in names)


def _read_classes(uri: str, size_hw: tuple[int, int], *, storage: Storage, table: ClassTable, max_pixels: int) -> Masks:
    return masks_from_ids(decode_label_png(read_label(storage, uri), max_pixels=max_pixels), size_hw, table)


def _read_objects(
    text: str, size_hw: tuple[int, int], *, storage: Storage, table: ClassTable, max_pixels: int
) -> Masks:
    objects, classes = (decode_label_png(read_label(storage, uri), max_pixels=max_pixels) for uri in json.loads(text))
    check_size(objects.shape, size_hw)
    check_size(classes.shape, size_hw)
    return objects_of(objects, classes, table)


def objects_of(objects: np.ndarray, classes: np.ndarray, table: ClassTable) -> Masks:
    """Object ids and class ids, uint8 (H, W) → one segment per object, by id, without 0 and the void ids.

    An object has the class of most of its pixels. Objects on void or on background pixels are left out
    and counted. Raises UnknownId where the class is unknown and the table fails it.
    """
    background = table.categories[0].id if table.categories[0].name.strip("_").lower() == "background" else None
    index_of = {category.id: category for category in table.categories}
    segments, ignored, taken = [], [], Counter()
    for region in encode_label_map(objects, void=0):
        if region.index in table.void_ids:
            continue
        values, counts = np.unique(classes[objects == region.index], return_counts=True)
        class_id = int(values[counts.argmax()])
        if class_id in table.void_ids or class_id == background:
            ignored.append(region.index)
            continue
        category = index_of.get(class_id, table.unknown_class)
        if class_id not in index_of:
            taken[class_id] += 1
        if category is not None:
            segments.append(Segment.from_region(category, region, (objects.shape[0], objects.shape[1])))
    findings: tuple[Finding, ...] = ()
    if taken:
        found = ", ".join(first_few([f"{value} ({count} objects)" for value, count in sorted(taken.items())]))
        if table.unknown == "fail":
            raise UnknownId("LABEL_VALUE", f"class ids {found} are not in the class table; see labels.unknown")
        findings += (Finding("unknown_ids", taken.total(), f"class ids {found}"),)
    if ignored:
        detail = f"objects {', '.join(first_few([str(one) for one in ignored]))} lie on void or background"
        findings += (Finding("void", len(ignored), detail),)
    return Masks(segments, findings)
