"""Every format that a manifest can be exported to, by the name that ``format`` takes."""

from segjobs.exporters import coco_instances, coco_panoptic, coco_results, cvat, label_studio, png, yolo
from segjobs.exporters.base import Target

TARGETS: dict[str, Target] = {
    "coco_instances": coco_instances.TARGET,
    "coco_results": coco_results.TARGET,
    "coco_panoptic": coco_panoptic.TARGET,
    "cvat": cvat.TARGET,
    "label_studio": label_studio.TARGET,
    "png": png.TARGET,
    "yolo": yolo.TARGET,
}
