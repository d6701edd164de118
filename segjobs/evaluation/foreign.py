"""Masks to score that other tools wrote: a folder of label PNGs or a COCO results JSON in, a text of each image out.

    predictions.uri → open_label_pngs │ open_coco_results → Foreign: texts by image_id, their classes, their digest
    a text + the image's size → Foreign.read, in a task anywhere → ForeignMasks

A text is a URI, or the JSON of one image's detections, so that no task holds more than its own.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from segjobs.config import EvaluateConfig, PredictionsConfig, digest, effective
from segjobs.errors import ConfigError, ItemError, ManifestError
from segjobs.labels.base import prints_of
from segjobs.labels.class_tables import ClassTable
from segjobs.labels.coco import CocoAnnotation, read_coco, segment_of
from segjobs.labels.json_text import parse_json
from segjobs.labels.match_files import match_labels, match_paths
from segjobs.labels.png import segments_from_ids
from segjobs.manifest.schema import Category, Task
from segjobs.manifest.segments import Segment
from segjobs.sources.label_map import decode_label_png
from segjobs.sources.read import read_file
from segjobs.storage import Storage

_MASKS, _LISTED = ("predictions.uri", "mask"), ("predictions.images", "file_name")
_READING = ("predictions.ids", "predictions.void_ids", "predictions.suffix", "max_pixels", "storage.max_item_bytes")
"""Keys that decide what a label PNG says."""


@dataclass(frozen=True)
class ForeignMasks:
    """One image's. ``number``: its place among its tool's images, by which that tool ranks equal scores."""

    segments: list[Segment]
    number: int | None = None


ForeignReader = Callable[[str, tuple[int, int]], ForeignMasks]
"""(text of an image, its size h, w in pixels) → its masks. Raises ItemError. Pickles small."""


@dataclass(frozen=True)
class Reference:
    """The truth that the masks are scored against: its classes, its task, every image_id of it."""

    categories: tuple[Category, ...]
    task: Task
    image_ids: list[str]


@dataclass(frozen=True)
class Foreign:
    """``texts``: image_id → text. ``digest``: of their bytes and of whatever decides what these say.

    ``categories``: the classes of the masks, under the ids that these carry. ``has_masks``: False of boxes alone.
    """

    task: Task
    categories: tuple[Category, ...]
    read: ForeignReader
    texts: Mapping[str, str]
    digest: str
    has_masks: bool = True


# --- label PNGs --------------------------------------------------------------------------------


def open_label_pngs(
    config: EvaluateConfig, predictions: PredictionsConfig, storage: Storage, truth: Reference
) -> Foreign:
    """Label maps matched to the truth's images by their stems. Raises ConfigError where none is or none matches."""
    ids = [category.id for category in truth.categories] if predictions.ids is None else predictions.ids
    if len(ids) != len(truth.categories):
        raise ConfigError(
            f"predictions.ids: {len(ids)} ids for {len(truth.categories)} classes of the truth; expected one each, in "
            "order"
        )
    files = {file.path: file for file in storage.walk(predictions.uri) if file.path.lower().endswith(".png")}
    if not files:
        raise ConfigError(f"predictions.uri: {predictions.uri}: no .png below it")
    matches = match_labels(truth.image_ids, sorted(files), suffix=predictions.suffix, named=_MASKS)
    categories = tuple(replace(category, id=value) for category, value in zip(truth.categories, ids, strict=True))
    table = ClassTable(categories, tuple(predictions.void_ids))
    texts = {image_id: files[path].uri for image_id, path in matches.label_of.items()}
    texts |= {path: files[path].uri for path in matches.unused}
    reading = effective("evaluate", config)
    return Foreign(
        "semantic",
        categories,
        partial(_read_png, storage=storage, table=table, max_pixels=config.max_pixels),
        texts,
        digest(prints_of(files.values()), {key: reading[key] for key in _READING}),
    )


def _read_png(
    uri: str, size_hw: tuple[int, int], *, storage: Storage, table: ClassTable, max_pixels: int
) -> ForeignMasks:
    data = read_file(storage, uri, what="the mask")
    return ForeignMasks(segments_from_ids(decode_label_png(data, max_pixels=max_pixels), size_hw, table))


# --- COCO results ------------------------------------------------------------------------------


def open_coco_results(predictions: PredictionsConfig, storage: Storage, truth: Reference) -> Foreign:
    """Detections with masks, or with boxes alone. Raises ConfigError or ManifestError for what is no such file."""
    assert predictions.images is not None, "the config has it with this format"  # noqa: S101
    described = _json(storage, predictions.images, "predictions.images")
    if not isinstance(described, dict):
        raise ManifestError(f"{predictions.images}: expected a COCO JSON with images and categories")
    index = read_coco(json.dumps({**described, "annotations": []}).encode(), name=predictions.images)
    names = {entry["id"]: entry["file_name"] for entry in cast(Any, described["images"])}
    by_image, has_masks = _detections(_json(storage, predictions.uri, "predictions.uri"), predictions.uri)
    strangers = sorted(map(str, by_image.keys() - names.keys()))
    if strangers:
        raise ManifestError(f"{predictions.uri}: image_id {strangers[0]} is not in {predictions.images}")
    if not has_masks and truth.task == "semantic":
        raise ConfigError(
            f"predictions.uri: {predictions.uri} has boxes alone, which can only be scored against objects; the truth "
            "is semantic"
        )
    matches = match_paths(truth.image_ids, list(names.values()), image_key=str, label_key=str, named=_LISTED)
    numbers = {names[number]: (place, number) for place, number in enumerate(_in_order(names))}
    unused = {name: name for name in matches.unused if by_image.get(numbers[name][1])}
    texts: dict[str, str] = {}
    for key, name in {**matches.label_of, **unused}.items():
        place, number = numbers[name]
        texts[key] = json.dumps({"number": place, "detections": by_image.get(number, [])})
    classes = [(category.id, category.name) for category in index.categories]
    read = partial(_read_detections, categories=index.categories)
    return Foreign("instance", index.categories, read, texts, digest(sorted(texts.items()), classes), has_masks)


def _in_order(ids: Mapping[Any, str]) -> list[Any]:
    """Image ids as pycocotools goes through them: by size, texts behind numbers."""
    return sorted(ids, key=lambda one: (isinstance(one, str), one))


def _detections(results: Any, uri: str) -> tuple[dict[Any, list[Any]], bool]:
    """The entries of a results file by image id, and whether they have masks."""
    if not isinstance(results, list):
        raise ManifestError(f"{uri}: expected a JSON list of detections, as COCO results are")
    entries = cast(list[Any], results)
    by_image: dict[Any, list[Any]] = defaultdict(list)
    without: list[int] = []
    for position, entry in enumerate(entries):
        there = cast(dict[str, Any], entry) if isinstance(entry, dict) else dict[str, Any]()
        missing = {"image_id", "category_id", "score"} - set(there)
        if not missing and not there.get("segmentation"):
            without.append(position)
            missing = set[str]() if there.get("bbox") else {"segmentation or bbox"}
        if missing:
            raise ManifestError(f"{uri}: entry {position} lacks {', '.join(sorted(missing))}")
        for key in ("image_id", "category_id"):
            if isinstance(there[key], bool) or not isinstance(there[key], int | float | str):
                raise ManifestError(f"{uri}: entry {position}: {key} {there[key]!r}, expected a number")
        by_image[there["image_id"]].append(there)
    if 0 < len(without) < len(entries):
        raise ManifestError(f"{uri}: entry {without[0]} has no segmentation, others have: masks are all or none")
    return by_image, not without


def _read_detections(text: str, size_hw: tuple[int, int], *, categories: Sequence[Category]) -> ForeignMasks:
    known = {category.id: category for category in categories}
    whole = json.loads(text)
    found = [_segment(entry, place, known, size_hw) for place, entry in enumerate(whole["detections"])]
    return ForeignMasks(found, whole["number"])


_LARGEST_SCORE = 1e30  # of a float32; NaN is none either


def _segment(entry: Any, place: int, known: Mapping[int, Category], size_hw: tuple[int, int]) -> Segment:
    """One detection; where it has a box alone, its mask covers nothing."""
    category = known.get(entry["category_id"])
    if category is None:
        raise ItemError("LABEL_VALUE", f"detection {place}: category id {entry['category_id']!r} is not in the JSON")
    score = entry["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) <= _LARGEST_SCORE:
        raise ItemError("LABEL_VALUE", f"detection {place}: score {score!r}, expected a number")
    one = CocoAnnotation(place, entry["category_id"], False, entry.get("segmentation"), entry.get("bbox"))
    return replace(segment_of(one, category, size_hw), score=float(score))


def _json(storage: Storage, uri: str, key: str) -> Any:
    try:
        return parse_json(storage.read(uri))
    except OSError as error:
        raise ConfigError(f"{key}: {uri}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ManifestError(f"{uri}: not readable as JSON: {error}") from None
