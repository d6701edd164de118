"""COCO as CVAT's importer ("COCO 1.0", which is Datumaro's) reads it: upload the JSON, or the folder as a zip.

    annotations/instances_default.json

CVAT finds a label by the category's name, which the task must have, and a frame by the image's path *without
extension*: ``a.jpg`` and ``a.png`` are one frame to it, which is counted as a loss. Masks come in as masks (or, by
``coco.segmentation=polygons``, as polygons, which people can drag), with
``attributes`` that a label may or may not declare; ``occluded`` is the shape's own flag.
"""

from segjobs.exporters.base import Exporter, Labelled, Loss, Setting, Written, exact, to_json
from segjobs.exporters.coco_instances import annotations, document, image_entry, without_id


def write(image: Labelled, setting: Setting) -> Written:
    """One image → its entry and one annotation per object, with CVAT's attributes."""
    entries, losses = annotations(image, setting)
    for entry, segment in zip(entries, image.segments, strict=True):
        attributes = {"occluded": False, "source": "auto" if setting.by_model else "manual"}
        entry["attributes"] = attributes | ({"score": exact(segment.score)} if setting.by_model else {})
    losses += (Loss("name", None, 1),) if image.shares_name else ()
    records = tuple(map(without_id, entries))
    return Written(len(records), image=to_json(image_entry(image)), records=records, losses=losses)


EXPORTER = Exporter(write, lambda setting: [document("annotations/instances_default.json", setting)], by_stem=True)
