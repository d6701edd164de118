"""COCO instances JSON: bytes in, the annotations of each image and from them manifest segments out.

    bytes → read_coco → CocoIndex → match_images → which entry belongs to which image
    an entry + the image's size → masks_of → one segment per object

A segment's ``bbox`` and ``area`` are the rasterised mask's. What the JSON says of either is kept beside them
(``stated_bbox``, ``stated_area``), since pycocotools scores by it: its ``area`` is the polygon's, which differs by up
to a fifth on small objects.

| in the JSON | becomes |
|---|---|
| polygons of several parts | their union: a part inside another changes nothing (a hole needs RLE) |
| a polygon part of fewer than three points | nothing: it has no inside (pycocotools reads four numbers as a box) |
| an annotation without any mask (no ``segmentation``, or an empty one) | no segment; listed in ``without_mask`` |
| a file of boxes where no annotation has a mask | objects of area 0 with their boxes, for scores by boxes |
| a mask that covers no pixel (thinner than the raster) | no segment; with a ``bbox`` one of area 0, for scores alone |
| counts as a list or a string, crowd or not | the same mask |
| ``iscrowd`` | a crowd region; with ``labels.crowds=as_objects`` an object like others (CVAT's brush marks all) |
| an image without annotations | zero segments: nothing is in it |
| an annotation of an image that is not listed | nothing; listed in ``orphans`` |
| an image that is listed more than once | one image, with the objects of all its entries; listed in ``listed_twice`` |
| no ``file_name`` | the last part of ``coco_url`` (LVIS, whose lists of classes not looked for are not read) |
| ids as numbers in one place and as texts in another | the same ids |
| two classes of one name, one of them without annotations | the other (Roboflow lists the project among its classes) |
| a polygon that leaves the frame | its part inside |
"""

import hashlib
import json
import posixpath
from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from segjobs.config import LabelsConfig
from segjobs.errors import ConfigError, ItemError, ManifestError, MaskSizeError
from segjobs.labels.base import (
    Finding,
    LabelRequest,
    Labels,
    Masks,
    Policy,
    leftover,
    policy_of,
    read_whole,
    resolve,
    turned_hint,
)
from segjobs.labels.json_text import flag, parse_json
from segjobs.labels.match_files import FileMatches, match_paths
from segjobs.labels.paint import as_task
from segjobs.labels.polygons import outside
from segjobs.manifest.coco_api import Box
from segjobs.manifest.rle import encode_polygons, encoded, from_uncompressed
from segjobs.manifest.schema import Category, palette_color
from segjobs.manifest.segments import Segment
from segjobs.narrow import is_list, is_object
from segjobs.storage import Storage
from segjobs.text import first_few, size_text

_LARGEST_ID = 2**31 - 1  # int32, as the manifest's category_id
_LARGEST_NUMBER = 1e15  # of pixels: a double holds what is smaller, and NaN is not


@dataclass(frozen=True, slots=True)
class CocoAnnotation:
    """One object. ``segmentation``: a list of polygons, or a dict of ``size`` and ``counts``, as in the JSON, null of a
    box alone; its ``bbox`` and ``area`` are null where it has none."""

    id: object
    category_id: int
    iscrowd: bool
    segmentation: object
    bbox: object = None
    area: object = None


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One entry of ``images`` with its annotations. ``size_hw`` is None where the JSON has no size."""

    size_hw: tuple[int, int] | None
    annotations: tuple[CocoAnnotation, ...]


@dataclass(frozen=True)
class CocoIndex:
    """A COCO file by image. ``images`` is keyed by ``file_name``; the rest of the JSON is not kept.

    ``orphans``: ids of annotations whose image is not listed. ``without_mask``: ids of annotations
    that have a box at most. ``listed_twice``: names of images that have several entries. ``namesakes``: categories
    left out, since another has their name and they have no annotation. ``boxes_only``: no annotation has a mask, and
    some have a box.
    """

    categories: tuple[Category, ...]
    images: dict[str, CocoImage]
    orphans: tuple[object, ...] = ()
    without_mask: tuple[object, ...] = ()
    listed_twice: tuple[str, ...] = ()
    namesakes: tuple[str, ...] = ()
    boxes_only: bool = False


def read_coco(data: bytes, *, name: str = "COCO JSON") -> CocoIndex:
    """Read a COCO instances file; ``name`` stands for it in messages.

    Categories keep the file's own ids, which may have gaps, in its order, with palette colours.
    Raises ManifestError where it is no such file, naming the entries that are wrong.
    """
    try:
        raw = parse_json(data)
    except ValueError as error:
        raise ManifestError(f"{name}: not readable as JSON: {error}") from None
    if isinstance(raw, list):
        raise ManifestError(f"{name}: a list, as COCO results are; expected instances with images and annotations")
    sections = [
        _Section(key, raw.get(key) if isinstance(raw, dict) else None)
        for key in ("categories", "images", "annotations")
    ]
    categories, images, annotations = sections
    for section in sections:
        section.check_list(name)
    images = images.with_names()
    annotations.check(name, {"image_id": (int, str), "category_id": int}, unique=())
    categories, namesakes = categories.without_namesakes({entry["category_id"] for entry in annotations.entries})
    categories.check(name, {"id": int, "name": str}, unique=("id", "name"))
    images.check(name, {"id": (int, str), "file_name": str}, unique=("id",))

    too_large = [str(entry["id"]) for entry in categories.entries if not 0 <= entry["id"] <= _LARGEST_ID]
    if too_large:
        raise ManifestError(f"{name}: category ids {', '.join(first_few(too_large))}: expected 0 to {_LARGEST_ID}")

    by_image: dict[str, list[CocoAnnotation]] = defaultdict(list)
    known = {str(entry["id"]) for entry in images.entries}
    orphans, without_mask = [], []
    boxes_only = not any(entry.get("segmentation") for entry in annotations.entries) and any(
        entry.get("bbox") for entry in annotations.entries
    )
    for position, entry in enumerate(annotations.entries):
        annotation_id = entry.get("id", f"annotations[{position}]")
        if str(entry["image_id"]) not in known:
            orphans.append(annotation_id)
        elif not entry.get("bbox" if boxes_only else "segmentation"):
            without_mask.append(annotation_id)
        else:
            by_image[str(entry["image_id"])].append(
                CocoAnnotation(
                    annotation_id,
                    entry["category_id"],
                    _crowd(name, position, entry),
                    None if boxes_only else entry["segmentation"],
                    entry.get("bbox"),
                    entry.get("area"),
                )
            )
    found, listed_twice = _by_name(name, images.entries, by_image)
    return CocoIndex(
        categories=tuple(
            # From colour 1 on: colour 0 is black, the background's, which is no object.
            Category(entry["id"], entry["name"], palette_color(position + 1))
            for position, entry in enumerate(categories.entries)
        ),
        images=found,
        orphans=tuple(orphans),
        without_mask=tuple(without_mask),
        listed_twice=listed_twice,
        namesakes=namesakes,
        boxes_only=boxes_only,
    )


def _by_name(
    name: str, entries: Sequence[dict[str, Any]], by_image: Mapping[str, Sequence[CocoAnnotation]]
) -> tuple[dict[str, CocoImage], tuple[str, ...]]:
    """The images by their file name, with the annotations of all their entries; and the names of several entries."""
    images: dict[str, CocoImage] = {}
    repeated: dict[str, None] = {}
    for entry in entries:
        key, size_hw = entry["file_name"], _size_hw(entry)
        own = tuple(by_image.get(str(entry["id"]), ()))
        if key in images:
            repeated[key] = None
            if images[key].size_hw != size_hw:
                raise ManifestError(f"{name}: {key!r} is listed with two sizes; expected one entry an image")
            own = (*images[key].annotations, *own)
        images[key] = CocoImage(size_hw, own)
    return images, tuple(repeated)


def _crowd(name: str, position: int, entry: dict[str, Any]) -> bool:
    try:
        return flag(entry.get("iscrowd"))
    except TypeError as error:
        raise ManifestError(f"{name}: annotations[{position}].iscrowd: {error}") from None


def without_crowds(index: CocoIndex) -> CocoIndex:
    """The file as if no annotation were a crowd region."""
    images = {
        name: replace(image, annotations=tuple(replace(one, iscrowd=False) for one in image.annotations))
        for name, image in index.images.items()
    }
    return replace(index, images=images)


def match_images(index: CocoIndex, image_ids: Sequence[str]) -> FileMatches:
    """Match images (paths relative to their root) to the ``file_name`` of the JSON's entries.

    Whole paths decide; where not one agrees, bare file names. Raises ConfigError where nothing
    matches, or where a bare name is not unique.
    """
    return match_paths(image_ids, list(index.images), image_key=_normal, label_key=_normal)


def masks_of(
    image: CocoImage, size_hw: tuple[int, int], categories: Sequence[Category], policy: Policy | None = None
) -> Masks:
    """The objects of one entry, on an image of ``size_hw`` pixels → segments.

    In the file's order, with score 1, as of any human label. Raises ItemError LABEL_SHAPE where the
    entry or a mask has another size, LABEL_VALUE where a category is unknown (and ``policy`` fails it)
    or a mask is malformed.
    """
    if image.size_hw not in (None, size_hw):
        turned = turned_hint(image.size_hw, size_hw)
        raise ItemError(
            "LABEL_SHAPE",
            f"the JSON says {size_text(image.size_hw)}, the image has {size_text(size_hw)} pixels{turned}",
        )
    known = {category.id: category for category in categories}
    keys = [annotation.category_id for annotation in image.annotations]
    resolved, findings = resolve(keys, known, policy or Policy(), what="category ids")
    segments: list[Segment] = []
    empty: list[object] = []
    boxes: list[object] = []
    cut: list[object] = []
    for annotation, category in zip(image.annotations, resolved, strict=True):
        if category is None:
            continue
        segment = segment_of(annotation, category, size_hw)
        if segment.area or segment.stated_bbox:
            segments.append(segment)
        if not annotation.segmentation:
            boxes.append(annotation.id)
        elif not segment.area:
            empty.append(annotation.id)
        if is_list(annotation.segmentation) and any(outside(p, size_hw) for p in annotation.segmentation):
            cut.append(annotation.id)
    crowds = [annotation.id for annotation in image.annotations if annotation.iscrowd]
    for check, ids in (("boxes_alone", boxes), ("empty_masks", empty), ("outside_frame", cut), ("crowds", crowds)):
        if ids:
            findings += (Finding(check, len(ids), f"annotation {', '.join(first_few([str(one) for one in ids]))}"),)
    return Masks(segments, findings)


def coco_labels(request: LabelRequest) -> Labels:
    """Adapter of ``coco``: the text of an image is the JSON of its entry, so that no task holds the whole file."""
    data = read_whole(request.storage, request.config.uri)
    index = read_coco(data, name=request.config.uri)
    if index.boxes_only:
        _check_boxes(request.config)
    if request.config.crowds == "as_objects":
        index = without_crowds(index)
    matches = match_images(index, request.image_ids)
    names = [matches.label_of.get(image_id) for image_id in request.image_ids]
    images = index.images
    if request.config.frame == "mixed":
        images = {name: replace(image, size_hw=None) for name, image in images.items()}
    texts = [json.dumps(asdict(images[name])) if name is not None else None for name in names]
    read = partial(_read, categories=index.categories, policy=policy_of(request.config, index.categories))
    leftovers = (
        *leftover("labels_without_image", matches.unused),
        *leftover("orphans", index.orphans),
        *leftover("without_mask", index.without_mask),
        *leftover("listed_twice", index.listed_twice),
        *leftover("namesakes", index.namesakes),
    )
    sha256 = hashlib.sha256(data).hexdigest()
    labels = Labels(
        "instance", index.categories, texts, read, sha256, leftovers, size_of=_own_size, boxes_only=index.boxes_only
    )
    return as_task(labels, request.config)


def _check_boxes(config: LabelsConfig) -> None:
    """Raise ConfigError where what is asked for needs masks."""
    if config.task == "semantic":
        raise ConfigError(f"labels.task: {config.uri} has boxes alone, and classes are painted of masks; drop it")
    if config.frame == "stored":
        raise ConfigError(f"labels.frame: {config.uri} has boxes alone, and stored turns masks only; drop it")


def coco_images(config: LabelsConfig, storage: Storage) -> list[str]:
    """The names of the file's images, as paths: image_ids where there are no photographs."""
    index = read_coco(read_whole(storage, config.uri), name=config.uri)
    return sorted({_normal(name) for name in index.images})


def _own_size(text: str) -> tuple[int, int]:
    size_hw = json.loads(text)["size_hw"]
    if size_hw is None or min(size_hw) < 1:
        raise ItemError(
            "LABEL_SHAPE", "the JSON says no width and height of this image, and there is no photograph: input.uri"
        )
    height, width = size_hw
    return height, width


def _read(text: str, size_hw: tuple[int, int], *, categories: tuple[Category, ...], policy: Policy) -> Masks:
    entry = json.loads(text)
    annotations = tuple(CocoAnnotation(**annotation) for annotation in entry["annotations"])
    image = CocoImage(tuple(entry["size_hw"]) if entry["size_hw"] else None, annotations)
    return masks_of(image, size_hw, categories, policy)


def segment_of(annotation: CocoAnnotation, category: Category, size_hw: tuple[int, int]) -> Segment:
    """The object of an annotation, of area 0 where its mask covers no pixel. Raises as ``masks_of``.

    The area of a box alone is the box's, where the annotation states none.
    """
    try:
        nothing = {"size": list(size_hw), "counts": [size_hw[0] * size_hw[1]]}
        code = encoded(_counts(annotation.segmentation or nothing, size_hw), size_hw)
        segment = Segment.from_region(category, code, size_hw, iscrowd=annotation.iscrowd)
        box, area = _stated_box(annotation.bbox), _stated_area(annotation.area)
        if box is not None and area is None and not annotation.segmentation:
            area = box[2] * box[3]
        return replace(segment, stated_bbox=box, stated_area=area)
    except MaskSizeError as error:
        raise ItemError("LABEL_SHAPE", f"annotation {annotation.id}: {error}") from None
    except ManifestError as error:
        raise ItemError("LABEL_VALUE", f"annotation {annotation.id}: {error}") from None


def _counts(shape: object, size_hw: tuple[int, int]) -> str:
    """The counts string of a mask in any of COCO's three notations."""
    if is_list(shape):
        return encode_polygons([part for part in shape if not _is_degenerate(part)], size_hw)
    counts = shape.get("counts") if is_object(shape) else None
    if not is_object(shape) or not (isinstance(counts, str) or is_list(counts)):
        raise ManifestError("expected a list of polygons, or size and counts")
    size = shape.get("size")
    if size != list(size_hw):
        raise MaskSizeError(f"mask of size {size}, expected [h, w] = {list(size_hw)}, as the image has")
    return counts if isinstance(counts, str) else from_uncompressed(counts)


def _stated_box(value: object) -> Box | None:
    if value is None or value == []:
        return None
    numbers = [float(one) for one in value if _is_number(one)] if is_list(value) else []
    if not is_list(value) or len(value) != 4 or len(numbers) != 4:
        raise ManifestError(f"bbox {value!r}: expected four numbers, x, y, w, h")
    x, y, w, h = numbers
    return x, y, w, h


def _stated_area(value: object) -> float | None:
    if value is None:
        return None
    if not _is_number(value):
        raise ManifestError(f"area {value!r}: expected a number of pixels")
    return float(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST_NUMBER


def _is_degenerate(part: object) -> bool:
    return is_list(part) and len(part) in (0, 2, 4)


@dataclass(frozen=True)
class _Section:
    """One of the JSON's three lists."""

    key: str
    entries: Any

    def check_list(self, name: str) -> None:
        """Raise ManifestError unless it is a list."""
        if not isinstance(self.entries, list):
            raise ManifestError(f"{name}: no list {self.key!r}; expected a COCO instances file")

    def with_names(self) -> "_Section":
        """Images with the last part of ``coco_url`` for a ``file_name`` that is not there, as in LVIS."""
        entries = []
        for entry in self.entries:
            url = entry.get("coco_url") if isinstance(entry, dict) else None
            named = not isinstance(url, str) or entry.get("file_name") is not None
            entries.append(entry if named else {**entry, "file_name": posixpath.basename(urlsplit(url).path)})
        return _Section(self.key, entries)

    def without_namesakes(self, used: Container[int]) -> tuple["_Section", tuple[str, ...]]:
        """Categories without those of a repeated name that nothing has, one of each name at least; and these."""
        of_name = Counter(str(entry.get("name")) for entry in self.entries if isinstance(entry, dict))
        kept, dropped = [], []
        for entry in self.entries:
            name = str(entry.get("name")) if isinstance(entry, dict) else ""
            if of_name[name] > 1 and isinstance(entry.get("id"), int) and entry["id"] not in used:
                of_name[name] -= 1
                dropped.append(f"{name} (id {entry['id']})")
            else:
                kept.append(entry)
        return _Section(self.key, kept), tuple(dropped)

    def check(self, name: str, required: dict[str, type | tuple[type, ...]], unique: Sequence[str]) -> None:
        """Raise ManifestError unless every entry has the required keys, of their types and unique."""
        problems = []
        seen: dict[str, dict[object, int]] = {key: {} for key in unique}
        for position, entry in enumerate(self.entries):
            for key, kind in required.items():
                value = entry.get(key) if isinstance(entry, dict) else None
                if not isinstance(value, kind) or isinstance(value, bool):
                    kinds = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
                    problems.append(f"{self.key}[{position}].{key}: {value!r}, expected {kinds}")
                elif key in seen and seen[key].setdefault(str(value), position) != position:
                    first = seen[key][str(value)]
                    problems.append(f"{self.key}[{position}].{key}: {value!r} is {self.key}[{first}]'s too")
        if problems:
            raise ManifestError(f"{name}: {'; '.join(first_few(problems))}")


def _size_hw(entry: dict[str, Any]) -> tuple[int, int] | None:
    height, width = entry.get("height"), entry.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _normal(path: str) -> str:
    return posixpath.normpath(path.replace("\\", "/"))
