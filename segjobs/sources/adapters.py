"""Which adapter reads which format: the one table that ``labels.format`` picks from."""

from collections.abc import Callable

from segjobs.sources.binary import binary_labels
from segjobs.sources.coco import coco_labels
from segjobs.sources.coco_panoptic import coco_panoptic_labels
from segjobs.sources.instance_ids import instance_ids_labels
from segjobs.sources.labelme import labelme_labels
from segjobs.sources.labels import LabelRequest, Labels
from segjobs.sources.png import png_labels
from segjobs.sources.rgb import rgb_labels
from segjobs.sources.voc import voc_labels
from segjobs.sources.yolo import yolo_labels

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
