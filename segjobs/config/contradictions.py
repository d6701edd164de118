"""Keys of a config that fit each by itself and not together: a checked config in, ``(key, what is wrong)`` out.

What can be said from the config alone is said here, all at once and before anything is opened; what depends on a
manifest or on label files is said by the job that has read them.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from segjobs.config import LabelsConfig

Contradiction = tuple[str, str]

# A key that means something to these values of ``format`` only, and would have no effect with the others.
_OF_LABELS = {
    "masks": ("coco_panoptic",),
    "table": ("png", "rgb", "voc"),
    "ids": ("png", "voc"),
    "void_ids": ("png", "voc", "instance_ids"),
    "colors": ("rgb",),
    "void_colors": ("rgb",),
    "void_names": ("labelme",),
    "background": ("labelme",),
    "line_width_px": ("labelme",),
    "threshold": ("binary",),
    "task": ("binary", "voc", "labelme"),
    "categories": ("png", "rgb", "binary", "instance_ids", "voc", "yolo", "labelme"),
    "class_file": ("png", "rgb", "binary", "instance_ids", "voc", "yolo", "labelme"),
}
_OF_PREDICTIONS = {"ids": ("png",), "void_ids": ("png",), "suffix": ("png",), "images": ("coco_results",)}
_OF_EXPORT = {"png": ("png",), "yolo": ("yolo",), "label_studio": ("label_studio",)}
_OF_EXPORT |= {"ids_from": ("coco_instances", "coco_results", "coco_panoptic")}


def contradictions(config: Any) -> Iterator[Contradiction]:
    """Every contradiction of a job's config."""
    yield from _of_storage(config)
    if hasattr(config, "labels"):
        yield from _without_effect(config.labels, _OF_LABELS, "labels.")
        yield from _of_labels(config.labels)
    if hasattr(config, "missing"):  # evaluate
        yield from _of_evaluate(config)
    if hasattr(config, "evaluation"):
        yield from _of_report(config)
    if hasattr(config, "ids_from"):
        yield from _without_effect(config, _OF_EXPORT, "")


def _without_effect(section: Any, of: Mapping[str, tuple[str, ...]], prefix: str) -> Iterator[Contradiction]:
    defaults = type(section).model_fields
    for key, formats in of.items():
        given = getattr(section, key) != defaults[key].get_default(call_default_factory=True)
        if given and section.format not in formats:
            yield (
                f"{prefix}{key}",
                f"has no effect with {prefix}format={section.format}, only with {', '.join(formats)}; drop it",
            )


def _of_storage(config: BaseModel) -> Iterator[Contradiction]:
    storage: Any = getattr(config, "storage", None)
    if storage and storage.s3.anonymous and storage.s3.profile is not None:
        yield "storage.s3.profile", "storage.s3.anonymous=true sends no credentials; drop one"


def _of_labels(labels: "LabelsConfig") -> Iterator[Contradiction]:
    if (labels.unknown == "map") != (labels.unknown_class is not None):
        yield "labels.unknown_class", "labels.unknown=map needs it, and nothing else takes it"
    if labels.class_file is not None and (labels.categories is not None or labels.table is not None):
        yield "labels.class_file", "labels.categories or labels.table names the classes already; drop one"
    for key in ("categories", "ids", "colors"):
        if labels.table is not None and getattr(labels, key) is not None:
            yield f"labels.{key}", f"labels.table={labels.table} says it already; drop one"


def _of_evaluate(config: Any) -> Iterator[Contradiction]:
    if config.truth is None and config.baseline is None:
        yield "truth.uri", "missing; name a manifest of truth, or baseline.uri to compare two models without"
    if config.predictions.format == "coco_results" and config.predictions.images is None:
        yield (
            "predictions.images",
            "missing; COCO results hold numbers only: name the COCO JSON whose images and categories they refer to",
        )
    yield from _without_effect(config.predictions, _OF_PREDICTIONS, "predictions.")


def _of_report(config: Any) -> Iterator[Contradiction]:
    if config.evaluation.uri is None and config.predictions.uri is None:
        yield "evaluation.uri, predictions.uri", "give one: what evaluate wrote, or a run"
    if config.evaluation.uri is None and config.truth.uri is not None:
        yield "truth.uri", "a page shows truth of an evaluation: give evaluation.uri"
