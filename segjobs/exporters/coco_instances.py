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
from segjobs.exporters.outline import joined, parts_of, signed_area
from segjobs.manifest.segments import Segment


def write(image: Labelled, setting: Setting) -> Written:
    """One image → its entry and one annotation per object."""
    entries, losses = annotations(image, setting)
    records = tuple(map(without_id, entries))
    return Written(len(records), image=to_json(image_entry(image)), records=records, losses=losses)


def image_entry(image: Labelled) -> dict[str, object]:
    """COCO's entry of an image."""
    height, width = image.size_hw
    return {"id": image.number, "file_name": image.image_id, "width": width, "height": height}


def annotations(image: Labelled, setting: Setting) -> tuple[list[dict[str, object]], tuple[Loss, ...]]:
    """COCO's annotation of each segment, without its id, and what their masks lose."""
    entries: list[dict[str, object]] = []
    losses: list[Loss] = []
    for segment in image.segments:
        segmentation, holes = _segmentation(segment, setting.config.coco.segmentation)
        entry = {
            "image_id": image.number,
            "category_id": setting.ids[segment.category_id],
            "iscrowd": int(segment.iscrowd),
            "area": segment.area if segment.stated_area is None else whole([segment.stated_area])[0],
            "bbox": box_of(segment),
            "segmentation": segmentation,
        }
        entries.append({**entry, "score": exact(segment.score)} if setting.by_model else entry)
        if holes:
            losses.append(Loss("holes", segment.category_id, len(holes), -sum(map(signed_area, holes))))
    return entries, tuple(losses)


def _segmentation(segment: Segment, kind: SegmentationKind) -> tuple[object, list[np.ndarray]]:
    """The mask as COCO has it, and the holes that polygons join to the ring around them."""
    if kind == "rle":
        return segment.segmentation, []
    if kind == "counts" or segment.iscrowd:
        return {"size": list(segment.size_hw), "counts": segment.runs(segment.size_hw).tolist()}, []
    parts = parts_of(segment.mask())
    return [joined(part).ravel().tolist() for part in parts], [hole for _, *holes in parts for hole in holes]


def box_of(segment: Segment) -> list[float]:
    """The object's own box where it is stated, else its mask's."""
    return whole(segment.bbox if segment.stated_bbox is None else segment.stated_bbox)


def whole(values: Iterable[float]) -> list[float]:
    """Numbers with no fraction as integers."""
    return [int(value) if value == int(value) else value for value in values]


def without_id(entry: dict[str, object]) -> str:
    """The text of an annotation from its first key on: the id goes before that, when it is known."""
    return to_json(entry)[1:]


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
