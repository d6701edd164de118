"""Every format that a manifest can be exported to, by the name that ``format`` takes, and what packages add to it."""

from segjobs.config import nearest
from segjobs.errors import ConfigError
from segjobs.exporters import (
    coco_instances,
    coco_panoptic,
    coco_results,
    cvat,
    geojson,
    kaggle,
    label_studio,
    labelme,
    png,
    yolo,
)
from segjobs.exporters.base import Exporter
from segjobs.plugins import installed, load

EXPORTERS: dict[str, Exporter] = {
    "coco_instances": coco_instances.EXPORTER,
    "coco_results": coco_results.EXPORTER,
    "coco_panoptic": coco_panoptic.EXPORTER,
    "cvat": cvat.EXPORTER,
    "geojson": geojson.EXPORTER,
    "kaggle": kaggle.EXPORTER,
    "label_studio": label_studio.EXPORTER,
    "labelme": labelme.EXPORTER,
    "png": png.EXPORTER,
    "yolo": yolo.EXPORTER,
}


def get_exporter(name: str) -> Exporter:
    """The entry of ``EXPORTERS``, or what an installed package brings. Raises ConfigError with the nearest names."""
    expected = "an Exporter (segjobs/exporters/base.py)"
    exporter = EXPORTERS.get(name) or load("segjobs.exporters", name, _as_exporter, expected)
    if exporter is None:
        raise ConfigError(f"format {name!r} is none; {nearest(name, [*EXPORTERS, *installed('segjobs.exporters')])}")
    return exporter


def _as_exporter(thing: object) -> Exporter | None:
    return thing if isinstance(thing, Exporter) else None
