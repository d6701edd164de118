"""PASCAL VOC folders: SegmentationClass (and SegmentationObject) PNGs in, manifest segments out.

    VOC2012/ImageSets/Segmentation/*.txt  which images belong to the set; where there are none, all do
    VOC2012/SegmentationClass/*.png       class ids, 255 unlabelled, or class colours   → semantic (the default)
    VOC2012/SegmentationObject/*.png      object ids, 255 unlabelled, or a colour each  → labels.task=instance
    VOC2012/labelmap.txt                  CVAT's names and colours of the classes, where it is there

``labels.uri`` is the folder that holds these; ``input.uri`` is its JPEGImages, or wherever the photographs are. Palette
and grey PNGs are read by their ids, RGB ones (CVAT, Datumaro) by their colours: those of labelmap.txt, else VOC's
colour map. An object's class is that of its pixels in SegmentationClass. The set's own splits are taken with
splits={train: train, val: val}.
"""

import json
from collections import Counter
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np

from segjobs.config import LabelsConfig, digest, nearest
from segjobs.errors import ConfigError, ItemError
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
from segjobs.labels.class_tables import ClassTable, Color, class_table
from segjobs.labels.match_files import image_stem, is_named, names_of
from segjobs.labels.png import masks_from_ids
from segjobs.labels.rgb import ColorTable
from segjobs.labels.rgb import masks_of as masks_of_colors
from segjobs.manifest.rle import VOID, encode_label_map, paint
from segjobs.manifest.schema import palette_color
from segjobs.manifest.segments import Segment
from segjobs.sources.label_map import decode_color_map, decode_label_png
from segjobs.storage import Storage, join
from segjobs.text import first_few

SETS = ("ImageSets", "Segmentation")
_LABELMAP = "labelmap.txt"
_VOID_COLOR = (224, 224, 192)
_BLACK = (0, 0, 0)


@dataclass(frozen=True)
class _Reader:
    """How the PNGs of a set are read: by ids, or where they are RGB, by colours."""

    storage: Storage
    colors: ColorTable
    max_pixels: int

    @property
    def table(self) -> ClassTable:
        return self.colors.table

    def classes(self, uri: str, size_hw: tuple[int, int]) -> Masks:
        return self._classes_of(self._pixels(read_label(self.storage, uri)), size_hw)

    def objects(self, text: str, size_hw: tuple[int, int]) -> Masks:
        files = [read_label(self.storage, uri) for uri in json.loads(text)]
        objects, classes = map(self._pixels, files)
        table, findings = self.table, ()
        if objects.ndim == 3:
            objects = _numbered(objects, table.void_ids)
        if classes.ndim == 3:
            painted = self._classes_of(classes, size_hw)
            findings = painted.findings
            classes = paint([(one.category_id, one.counts) for one in painted.segments], size_hw)
            table = replace(table, void_ids=(*table.void_ids, VOID))
        check_size(objects.shape, size_hw)
        check_size(classes.shape, size_hw)
        found = objects_of(objects, classes, table)
        return Masks(found.segments, findings + found.findings)

    def _pixels(self, data: bytes) -> np.ndarray:
        """Ids (H, W), or where they are none, colours (H, W, 3)."""
        try:
            return decode_label_png(data, max_pixels=self.max_pixels)
        except ItemError as error:
            if error.code != "UNSUPPORTED_MODE":
                raise
            return decode_color_map(data, max_pixels=self.max_pixels)

    def _classes_of(self, pixels: np.ndarray, size_hw: tuple[int, int]) -> Masks:
        if pixels.ndim == 2:
            return masks_from_ids(pixels, size_hw, self.table)
        check_size(pixels.shape[:2], size_hw)
        return masks_of_colors(pixels, self.colors)


def voc_labels(request: LabelRequest) -> Labels:
    """Adapter of ``voc``: the text of an image is its class PNG's URI, or the JSON of object and class PNGs' URIs."""
    config, storage = request.config, request.storage
    reader = _Reader(storage, _color_table(config, storage), request.max_pixels)
    categories = reader.table.categories
    listed = _listed(request)
    classes = match_files(request, (".png",), folder=join(config.uri, "SegmentationClass"))
    # Photographs outside the set have no label, and are not missed; a label without photograph is.
    if config.task != "instance":
        return Labels("semantic", categories, classes.uris, reader.classes, classes.digest, classes.leftovers, listed)
    objects = match_files(request, (".png",), folder=join(config.uri, "SegmentationObject"))
    texts = [
        json.dumps([one, two]) if one and two else None for one, two in zip(objects.uris, classes.uris, strict=True)
    ]
    prints = digest(objects.digest, classes.digest)
    return Labels("instance", categories, texts, reader.objects, prints, objects.leftovers, listed)


def _color_table(config: LabelsConfig, storage: Storage) -> ColorTable:
    """The classes by id and by colour: the config's, else those of labelmap.txt, else VOC's. Raises ConfigError."""
    named = config.categories is not None or config.table is not None
    colors: dict[str, Color] = {}
    if config.table is None and storage.exists(uri := join(config.uri, _LABELMAP)):
        colors = _labelmap(read_whole(storage, uri).decode("utf-8-sig", "replace"), uri)
    if not named:
        config = config.model_copy(update={"categories": list(colors)} if colors else {"table": "voc"})
    table = class_table(config)
    strangers = [category.name for category in table.categories if colors and category.name not in colors]
    if strangers:
        raise ConfigError(f"labels.categories: {strangers[0]!r} is not in {_LABELMAP}; {nearest(strangers[0], colors)}")
    drawn = tuple(replace(category, color=colors.get(category.name, category.color)) for category in table.categories)
    unknown = next((one for one in drawn if table.unknown_class and one.id == table.unknown_class.id), None)
    void = () if _VOID_COLOR in colors.values() else (_VOID_COLOR,)
    return ColorTable(replace(table, categories=drawn, unknown_class=unknown), void)


def _labelmap(text: str, uri: str) -> dict[str, Color]:
    """CVAT's ``name:r,g,b:parts:actions`` lines. Raises ConfigError."""
    colors: dict[str, Color] = {}
    for number, line in enumerate(text.split("\n"), 1):
        name, _, rest = line.strip().partition(":")
        if not name or name.startswith("#"):
            continue
        words = rest.partition(":")[0].split(",")
        if len(words) != 3 or not all(word.strip().isdecimal() and int(word) <= 255 for word in words):
            raise ConfigError(f"labels.uri: {uri}: line {number}: {line.strip()[:60]!r}: expected name:r,g,b::")
        color = (int(words[0]), int(words[1]), int(words[2]))
        if name in colors or color in colors.values():
            raise ConfigError(f"labels.uri: {uri}: line {number}: {name!r} or its colour is listed before")
        colors[name] = color
    return colors


def _listed(request: LabelRequest) -> frozenset[str] | None:
    """The images that the set's own lists name, by path or by file name; None where it has no lists."""
    folder = join(request.config.uri, *SETS)
    names: set[str] = set()
    files = sorted(name for name in request.storage.list_names(folder) if name.endswith(".txt"))
    for name in files:
        names |= names_of(read_whole(request.storage, join(folder, name)).decode("utf-8-sig", "replace"))
    if not files:
        return None
    listed = frozenset(image_id for image_id in request.image_ids if is_named(image_stem(image_id), names))
    if request.image_ids and not listed:
        raise ConfigError(
            f"labels.uri: {folder}: none of its {len(names)} names{f', such as {min(names)!r},' if names else ''} "
            f"is an image of the input, such as {request.image_ids[0]!r}"
        )
    return listed


def _numbered(colors: np.ndarray, void_ids: tuple[int, ...]) -> np.ndarray:
    """Objects by colour, uint8 (H, W, 3) → ids, uint16 (H, W), in the order of VOC's colour map; 0 where none is."""
    codes = colors[..., 0].astype(np.int32) << 16 | colors[..., 1].astype(np.int32) << 8 | colors[..., 2]
    values, places = np.unique(codes, return_inverse=True)
    order = {palette_color(index): index for index in range(256)}
    found = [(value >> 16, value >> 8 & 255, value & 255) for value in values.tolist()]
    objects = sorted(
        (place for place, color in enumerate(found) if color not in (_BLACK, _VOID_COLOR)),
        key=lambda place: (order.get(found[place], 256), found[place]),
    )
    if len(objects) >= VOID - len(void_ids):
        raise ItemError("LABEL_VALUE", f"{len(objects)} colours: expected one an object")
    ids = np.zeros(len(values), np.uint16)
    ids[objects] = list(islice((number for number in count(1) if number not in void_ids), len(objects)))
    return ids[places].reshape(codes.shape)


def objects_of(objects: np.ndarray, classes: np.ndarray, table: ClassTable) -> Masks:
    """Object ids and class ids, uint8 (H, W) → one segment per object, by id, without 0 and the void ids.

    An object has the class of most of its pixels. Objects on void or on background pixels are left out
    and counted. Raises UnknownId where the class is unknown and the table fails it.
    """
    background = next((one.id for one in table.categories if one.name.strip("_").lower() == "background"), None)
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
