"""Every format that a manifest can be exported to, by the name that ``format`` takes."""

from segjobs.exporters import coco_instances, coco_panoptic, coco_results, cvat, label_studio, png, yolo
from segjobs.exporters.base import Exporter

EXPORTERS: dict[str, Exporter] = {
    "coco_instances": coco_instances.EXPORTER,
    "coco_results": coco_results.EXPORTER,
    "coco_panoptic": coco_panoptic.EXPORTER,
    "cvat": cvat.EXPORTER,
    "label_studio": label_studio.EXPORTER,
    "png": png.EXPORTER,
    "yolo": yolo.EXPORTER,
}
