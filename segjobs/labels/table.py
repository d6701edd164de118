"""Which adapter reads which format: the one table that ``labels.format`` picks from, and what packages add to it."""

from collections.abc import Callable
from typing import cast

from segjobs.config import LabelsConfig, nearest
from segjobs.errors import ConfigError
from segjobs.labels.ade20k import ade20k_labels
from segjobs.labels.base import LabelRequest, Labels
from segjobs.labels.binary import binary_labels
from segjobs.labels.coco import coco_images, coco_labels
from segjobs.labels.coco_panoptic import coco_panoptic_labels
from segjobs.labels.cvat import cvat_labels
from segjobs.labels.instance_ids import instance_ids_labels
from segjobs.labels.kaggle import kaggle_labels
from segjobs.labels.label_studio import label_studio_labels
from segjobs.labels.labelme import labelme_labels
from segjobs.labels.png import png_labels
from segjobs.labels.qupath import qupath_labels
from segjobs.labels.rgb import rgb_labels
from segjobs.labels.sa1b import sa1b_labels
from segjobs.labels.via import via_labels
from segjobs.labels.voc import voc_labels
from segjobs.labels.yolo import yolo_labels
from segjobs.plugins import installed, load
from segjobs.storage import Storage

Adapter = Callable[[LabelRequest], Labels]

ADAPTERS: dict[str, Adapter] = {
    "png": png_labels,
    "rgb": rgb_labels,
    "binary": binary_labels,
    "instance_ids": instance_ids_labels,
    "voc": voc_labels,
    "coco": coco_labels,
    "coco_panoptic": coco_panoptic_labels,
    "yolo": yolo_labels,
    "labelme": labelme_labels,
    "label_studio": label_studio_labels,
    "cvat": cvat_labels,
    "via": via_labels,
    "kaggle": kaggle_labels,
    "qupath": qupath_labels,
    "sa1b": sa1b_labels,
    "ade20k": ade20k_labels,
}

IMAGES: dict[str, Callable[[LabelsConfig, Storage], list[str]]] = {"coco": coco_images}
"""The names of the images, of the formats whose file says them with their sizes: for ``input.uri=null``."""


def get_adapter(name: str) -> Adapter:
    """The entry of ``ADAPTERS``, or what an installed package brings. Raises ConfigError with the nearest names."""
    expected = "a function of a LabelRequest (segjobs/labels/base.py)"
    adapter = ADAPTERS.get(name) or load("segjobs.labels", name, _as_adapter, expected)
    if adapter is None:
        known = [*ADAPTERS, *installed("segjobs.labels")]
        raise ConfigError(f"labels.format {name!r} is no format; {nearest(name, known)}")
    return adapter


def _as_adapter(thing: object) -> Adapter | None:
    return cast(Adapter, thing) if callable(thing) else None
