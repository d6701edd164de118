"""COCO results JSON: a list of detections with scores, as pycocotools' ``loadRes`` and evaluation servers take it.

    results.json   [{image_id, category_id, score, segmentation}, …]
    boxes.json     [{image_id, category_id, bbox, score}, …], the same detections by their boxes alone

Two files, since ``loadRes`` takes the box's area for the detection's where an entry has both, and then sorts masks into
other size classes: mask AP is that of the first file, box AP that of the second.

The lists hold no images and no names, so their integer ids only mean something beside the instances file that they are
scored against: ``ids_from`` takes that file's ids, by file_name and category name.
"""

from segjobs.exporters.base import Document, Exporter, Labelled, Series, Setting, Written, exact, to_json
from segjobs.exporters.coco_instances import box_of
from segjobs.exporters.flatten import without_crowds

_SEPARATOR = ",\n"


def write(image: Labelled, setting: Setting) -> Written:
    """One image → one detection per object in either file; crowd regions are no detections."""
    found, crowds = without_crowds(image)
    masks, boxes = [], []
    for segment in found:
        head = {"image_id": image.number, "category_id": setting.ids[segment.category_id]}
        score = {"score": exact(segment.score)}
        masks.append(to_json({**head, **score, "segmentation": segment.segmentation}))
        boxes.append(to_json({**head, "bbox": box_of(segment), **score}))
    return Written(len(found), image=_SEPARATOR.join(boxes) or None, records=tuple(masks), losses=crowds)


def _documents(setting: Setting) -> list[Document]:
    return [
        Document("results.json", "", (Series("records", "[\n", _SEPARATOR, "\n]\n"),)),
        Document("boxes.json", "", (Series("image", "[\n", _SEPARATOR, "\n]\n"),)),
    ]


def _notes(setting: Setting) -> list[str]:
    if setting.config.ids_from is not None:
        return []
    return [
        "results name images by number: give ids_from=<instances JSON> if they are scored against a file that exists"
    ]


EXPORTER = Exporter(write, _documents, notes=_notes)
