"""COCO results JSON: a list of detections with scores, as pycocotools' ``loadRes`` and evaluation servers take it.

    results.json   [{image_id, category_id, bbox, score, segmentation}, …]

The list holds no images and no names, so its integer ids only mean something beside the instances file that it is
scored against: ``ids_from`` takes that file's ids, by file_name and category name.
"""

from segjobs.exporters.base import Document, Exporter, Labelled, Series, Setting, Written, exact, to_json
from segjobs.exporters.coco_instances import whole
from segjobs.exporters.flatten import losses_of


def write(image: Labelled, setting: Setting) -> Written:
    """One image → one detection per object; crowd regions are no detections."""
    found = [segment for segment in image.segments if not segment.iscrowd]
    records = tuple(
        to_json(
            {
                "image_id": image.number,
                "category_id": setting.ids[segment.category_id],
                "bbox": whole(segment.bbox),
                "score": exact(segment.score),
                "segmentation": segment.segmentation,
            }
        )
        for segment in found
    )
    crowds = losses_of("crowd", [segment for segment in image.segments if segment.iscrowd])
    return Written(len(found), records=records, losses=crowds)


def _notes(setting: Setting) -> list[str]:
    if setting.config.ids_from is not None:
        return []
    return [
        "results name images by number: give ids_from=<instances JSON> if they are scored against a file that exists"
    ]


EXPORTER = Exporter(
    write,
    lambda setting: [Document("results.json", "", (Series("records", "[\n", ",\n", "\n]\n"),))],
    notes=_notes,
)
