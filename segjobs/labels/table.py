"""Which adapter reads which format: the one table that ``labels.format`` picks from."""

from collections.abc import Callable

from segjobs.labels.base import LabelRequest, Labels
from segjobs.labels.binary import binary_labels
from segjobs.labels.coco import coco_labels
from segjobs.labels.coco_panoptic import coco_panoptic_labels
from segjobs.labels.instance_ids import instance_ids_labels
from segjobs.labels.labelme import labelme_labels
from segjobs.labels.png import png_labels
from segjobs.labels.rgb import rgb_labels
from segjobs.labels.voc import voc_labels
from segjobs.labels.yolo import yolo_labels

ADAPTERS: dict[str, Callable[[LabelRequest], Labels]] = {
    "png": png_labels,
    "rgb": rgb_labels,
    "binary": binary_labels,
    "instance_ids": instance_ids_labels,
    "voc": voc_labels,
    "coco": coco_labels,
    "coco_panoptic": coco_panoptic_labels,
    "yolo": yolo_labels,
    "labelme": labelme_labels,
}
