"""COCO instances JSON: one annotation per object, its mask as run-length code, holes and parts included.

    instances.json   info, licenses, categories, annotations, images (in this order, so that it can be streamed)

Image ids count the manifest's images from 1 in the order of image_id, failed ones too, so that two manifests of one
collection agree; ``ids_from`` takes another file's. Annotation ids count from 1: pycocotools takes an object of id 0
for none. ``area`` and ``bbox`` are those that the labels state, where they do, else the mask's. ``score`` is added
where a model made the labels; pycocotools ignores it, other tools show it.
"""

from collections.abc import Iterable

from segjobs.exporters.base import Document, Exporter, Labelled, Series, Setting, Written, exact, to_json
from segjobs.manifest.segments import Segment


def write(image: Labelled, setting: Setting) -> Written:
    """One image → its entry and one annotation per object."""
    records = tuple(_without_id(annotation(segment, image, setting)) for segment in image.segments)
    return Written(len(image.segments), image=to_json(image_entry(image)), records=records)


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
        "segmentation": segment.segmentation,
    }
    return {**entry, "score": exact(segment.score)} if setting.by_model else entry


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
