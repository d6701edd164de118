"""COCO instances JSON: one annotation per object, its mask as run-length code, holes and parts included.

    instances.json   info, licenses, categories, annotations, images (in this order, so that it can be streamed)

Image ids count the manifest's images from 1 in the order of image_id, failed ones too, so that two manifests of one
collection agree; ``ids_from`` takes another file's. Annotation ids count from 1: pycocotools takes an object of id 0
for none. ``coco.segmentation`` says how a mask is written:

| value | mask | crowds |
|---|---|---|
| ``rle`` | pycocotools' compressed code | the same |
| ``counts`` | the lengths of its runs, in plain numbers, as COCO's own crowds have it | the same |
| ``polygons`` | a polygon a part along the edges of its pixels: COCO's rasteriser gives back the mask | ``counts`` |

A polygon is one ring, so holes are joined to it by bridges that are walked to and fro and enclose nothing; they are
counted, since a reader of another making may draw them. ``area`` and ``bbox`` are those that the labels state, where
they do, else the mask's. ``score`` is added where a model made the labels; pycocotools ignores it, other tools show it.
"""

from collections.abc import Iterable

import numpy as np

from segjobs.config.export import SegmentationKind
from segjobs.exporters.base import Document, Exporter, Labelled, Loss, Series, Setting, Written, exact, to_json
from segjobs.exporters.outline import joined, parts_of, signed_area, window_of
from segjobs.manifest.segments import Segment


def write(image: Labelled, setting: Setting) -> Written:
    """One image → its entry and one annotation per object."""
    records = tuple(_without_id(annotation(segment, image, setting)) for segment in image.segments)
    losses = bridged_holes(image, setting)
    return Written(len(image.segments), image=to_json(image_entry(image)), records=records, losses=losses)


def image_entry(image: Labelled) -> dict[str, object]:
    """COCO's entry of an image."""
    height, width = image.size_hw
    return {"id": image.number, "file_name": image.image_id, "width": width, "height": height}


def annotation(segment: Segment, image: Labelled, setting: Setting) -> dict[str, object]:
    """COCO's annotation of a segment, without its id."""
    entry = {
        "image_id": image.number,
        "category_id": setting.ids[segment.category_id],
        "iscrowd": int(segment.iscrowd),
        "area": segment.area if segment.stated_area is None else whole([segment.stated_area])[0],
        "bbox": box_of(segment),
        "segmentation": _segmentation(segment, setting.config.coco.segmentation),
    }
    return {**entry, "score": exact(segment.score)} if setting.by_model else entry


def _segmentation(segment: Segment, kind: SegmentationKind) -> object:
    if kind == "rle":
        return segment.segmentation
    if kind == "polygons" and not segment.iscrowd:
        return [joined(part).ravel().tolist() for part in _parts(segment)]
    return {"size": list(segment.size_hw), "counts": segment.runs(segment.size_hw).tolist()}


def _parts(segment: Segment) -> list[list[np.ndarray]]:
    """The rings of each part, in pixels of the image."""
    corner_xy, mask = window_of(segment.mask())
    return [[ring + corner_xy for ring in part] for part in parts_of(mask)]


def bridged_holes(image: Labelled, setting: Setting) -> tuple[Loss, ...]:
    """The holes that polygons join to the ring around them."""
    if setting.config.coco.segmentation != "polygons":
        return ()
    losses = []
    for segment in image.segments:
        holes = [] if segment.iscrowd else [ring for _, *inner in _parts(segment) for ring in inner]
        if holes:
            losses.append(Loss("holes", segment.category_id, len(holes), -sum(map(signed_area, holes))))
    return tuple(losses)


def box_of(segment: Segment) -> list[float]:
    """The object's own box where it is stated, else its mask's."""
    return whole(segment.bbox if segment.stated_bbox is None else segment.stated_bbox)


def whole(values: Iterable[float]) -> list[float]:
    """Numbers with no fraction as integers."""
    return [int(value) if value == int(value) else value for value in values]


def _without_id(entry: dict[str, object]) -> str:
    return to_json(entry)[1:]  # the id goes before the first key, when it is known


def document(path: str, setting: Setting, *, things: bool = False) -> Document:
    """A COCO file of images and annotations. ``things``: categories say whether they are things or stuff."""
    head = {"info": setting.about, "licenses": [], "categories": category_entries(setting, things=things)}
    return Document(
        path,
        to_json(head)[:-1] + ",\n",
        (
            Series("records", '"annotations":[\n', ",\n", "\n],\n", numbered=not things),
            Series("image", '"images":[\n', ",\n", "\n]}\n"),
        ),
    )


def category_entries(setting: Setting, *, things: bool = False) -> list[dict[str, object]]:
    """COCO's list of categories, in the manifest's order, with their colours."""
    entries: list[dict[str, object]] = []
    for category in setting.categories:
        entry: dict[str, object] = {
            "id": setting.ids[category.id],
            "name": category.name,
            "supercategory": "",
            "color": list(category.color),
        }
        if things:
            isthing = setting.task != "semantic" if category.isthing is None else category.isthing
            entry["isthing"] = int(isthing)
        entries.append(entry)
    return entries


EXPORTER = Exporter(write, lambda setting: [document("instances.json", setting)])
