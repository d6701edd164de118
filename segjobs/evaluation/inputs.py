"""Open the two sides of an evaluation: what the config names in, a pairing and its ranges of image_id out.

truth: a manifest ┐
                  ├─→ classes matched by name → Pairing, ranges
predictions: a manifest, a folder of label PNGs, or COCO results ┘
"""

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from segjobs.config import EvaluateConfig, PredictionsConfig, digest, nearest
from segjobs.errors import ConfigError, ManifestError
from segjobs.evaluation.pairing import Pairing, Range, ScoredSide, ranges
from segjobs.evaluation.report_types import CountSettings, Inputs, ScoredRun
from segjobs.labels.base import prints_of
from segjobs.labels.class_tables import ClassTable
from segjobs.labels.coco import CocoAnnotation, CocoImage, CocoIndex, read_coco, segments_for
from segjobs.labels.match_files import match_paths
from segjobs.labels.png import match_labels, segments_from_ids
from segjobs.manifest.parts import PartInfo, Run, footer_of, open_run, read_part
from segjobs.manifest.plan import read_plan
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.narrow import is_list, is_object
from segjobs.sources.decode import decode_label_png
from segjobs.sources.read import read_file
from segjobs.storage import Storage, join
from segjobs.text import spelling


def open_pairing(
    config: EvaluateConfig, storage: Storage, predictions: PredictionsConfig, truth_uri: str
) -> tuple[Pairing, list[Range], Inputs]:
    """Open both sides and match their classes; the truth's table is the evaluation's.

    Gives the pairing, the ranges to score, and what their counts are of.
    Raises ManifestError, or ConfigError with every class that does not match.
    """
    truth_run = open_run(storage, truth_uri)
    footer = footer_of(truth_run)
    categories = footer.categories
    own = {category.id: number for number, category in enumerate(categories)}
    truth = ScoredSide("truth", footer.task, own, truth_run)
    if predictions.format == "manifest":
        run = open_run(storage, predictions.uri)
        theirs = footer_of(run)
        index = match_categories(theirs.categories, categories, config.rename)
        side = ScoredSide("predictions", theirs.task, index, run)
        spans = ranges(truth_run.parts, run.parts)
        about = _about_run(run)
    else:
        open_foreign = _open_png if predictions.format == "png" else _open_coco_results
        side, texts, prints = open_foreign(config, predictions, storage, truth_run)
        spans = _with_foreign(ranges(truth_run.parts, ()), texts)
        about = ScoredRun(uri=predictions.uri, run_id=None, model=None, parts_digest=prints)
    pairing = Pairing(
        storage=storage,
        truth=truth,
        predictions=side,
        categories=categories,
        boundary=config.boundary,
        dispute_score=config.disputes.min_score,
        dispute_px=config.disputes.min_px,
    )
    disputes = config.disputes.min_score, config.disputes.min_px
    counts = CountSettings(boundary=config.boundary, rename=config.rename, disputes=disputes)
    return pairing, spans, Inputs(truth=_about_run(truth_run), predictions=about, counts=counts, parts=len(spans))


def match_categories(
    predicted: Sequence[Category], truth: Sequence[Category], rename: Mapping[str, str | None]
) -> dict[int, int | None]:
    """Ids of the predictions → class indices of the truth, by name: as written, else whatever its spelling.

    Case, spaces, hyphens and underscores make no difference where the exact name is not there.
    ``rename`` says it otherwise; a class renamed to nothing counts as not predicted (None).
    Raises ConfigError with every class that does not match, and the nearest names.
    """
    exact = {category.name: number for number, category in enumerate(truth)}
    loose: dict[str, list[int]] = defaultdict(list)
    for name, number in exact.items():
        loose[spelling(name)].append(number)
    problems = [
        f"rename: {name!r} is no class of the predictions; {nearest(name, [c.name for c in predicted])}"
        for name in rename
        if name not in {category.name for category in predicted}
    ]
    index: dict[int, int | None] = {}
    for category in predicted:
        name = rename.get(category.name, category.name)
        candidates = [] if name is None else [exact[name]] if name in exact else loose[spelling(name)]
        if name is not None and len(candidates) != 1:
            problems.append(
                f"predictions: class {name!r} is not in the truth; {nearest(name, exact)} "
                f"(rename.{category.name}=NAME says which it is, =null that it is none)"
            )
        index[category.id] = candidates[0] if candidates else None
    if problems:
        raise ConfigError(*problems)
    return index


def _about_run(run: Run) -> ScoredRun:
    return ScoredRun(
        uri=run.uri,
        run_id=run.info.run_id,
        model=run.info.model_label,
        parts_digest=digest([part.sha256 for part in run.parts]),
    )


# --- what other tools wrote --------------------------------------------------------------------


def _with_foreign(spans: Sequence[Range], texts: Mapping[str, str]) -> list[Range]:
    """Hand each range the texts of its image_ids; those without truth go where they would stand."""
    image_ids = sorted(texts)
    found: list[Range] = []
    for span in spans:
        begin = 0 if span.low is None else bisect_left(image_ids, span.low)
        end = len(image_ids) if span.high is None else bisect_left(image_ids, span.high)
        found.append(replace(span, foreign={image_id: texts[image_id] for image_id in image_ids[begin:end]}))
    return found


def _image_ids(storage: Storage, run: Run) -> list[str]:
    """Every image_id of a manifest, from its plan where it has one."""
    try:
        plan, _ = read_plan(storage.read(join(run.uri, "plan.parquet")))
        return plan.items["image_id"].to_pylist()
    except (FileNotFoundError, NotADirectoryError, pa.ArrowException):
        parts: Sequence[PartInfo] = run.parts
        return [
            i for part in parts for i in read_part(storage, run, part, columns=("image_id",))["image_id"].to_pylist()
        ]


def _open_png(
    config: EvaluateConfig, predictions: PredictionsConfig, storage: Storage, truth: Run
) -> tuple[ScoredSide, dict[str, str], str]:
    """Label PNGs: the text of an image is the URI of its mask; the digest is of all files' sizes and times."""
    categories = footer_of(truth).categories
    ids = [category.id for category in categories] if predictions.ids is None else predictions.ids
    if len(ids) != len(categories):
        raise ConfigError(
            f"predictions.ids: {len(ids)} ids for {len(categories)} classes of the truth; expected one each, in order"
        )
    files = {file.path: file for file in storage.walk(predictions.uri) if file.path.lower().endswith(".png")}
    if not files:
        raise ConfigError(f"predictions.uri: {predictions.uri}: no .png below it")
    matches = match_labels(_image_ids(storage, truth), sorted(files), suffix=predictions.suffix)
    table = ClassTable(
        tuple(replace(category, id=value) for category, value in zip(categories, ids, strict=True)),
        tuple(predictions.void_ids),
    )
    index = {value: number for number, value in enumerate(ids)}
    read = partial(_png_segments, storage=storage, table=table, max_pixels=config.max_pixels)
    texts = {image_id: files[path].uri for image_id, path in matches.label_of.items()}
    texts |= {path: files[path].uri for path in matches.unused}
    return ScoredSide("predictions", "semantic", index, foreign=read), texts, digest(prints_of(files.values()))


def _png_segments(
    uri: str, size_hw: tuple[int, int], *, storage: Storage, table: ClassTable, max_pixels: int
) -> list[Segment]:
    data = read_file(storage, uri, what="the mask")
    return segments_from_ids(decode_label_png(data, max_pixels=max_pixels), size_hw, table)


def _open_coco_results(
    config: EvaluateConfig, predictions: PredictionsConfig, storage: Storage, truth: Run
) -> tuple[ScoredSide, dict[str, str], str]:
    """COCO results: the text of an image is the JSON list of its detections; the digest is of all texts."""
    assert predictions.images is not None, "the config has it with this format"  # noqa: S101
    described = _json(storage, predictions.images, "predictions.images")
    index = read_coco(json.dumps({**described, "annotations": []}).encode(), name=predictions.images)
    results: object = _json(storage, predictions.uri, "predictions.uri")
    if not is_list(results):
        raise ManifestError(f"{predictions.uri}: expected a JSON list of detections, as COCO results are")
    by_image: dict[object, list[object]] = defaultdict(list)
    for position, entry in enumerate(results):
        keys = set(entry) if is_object(entry) else set[str]()
        missing = {"image_id", "category_id", "score", "segmentation"} - keys
        if missing or not is_object(entry):
            raise ManifestError(f"{predictions.uri}: entry {position} lacks {', '.join(sorted(missing))}")
        by_image[entry["image_id"]].append(entry)
    names = {entry["id"]: entry["file_name"] for entry in described["images"]}
    strangers = sorted(map(str, by_image.keys() - names.keys()))
    if strangers:
        raise ManifestError(f"{predictions.uri}: image_id {strangers[0]} is not in {predictions.images}")
    matches = match_paths(_image_ids(storage, truth), list(names.values()), image_key=str, label_key=str)
    numbers = {name: number for number, name in names.items()}
    names_of = {**matches.label_of, **{name: name for name in matches.unused if by_image.get(numbers[name])}}
    texts = {key: json.dumps(by_image.get(numbers[name], [])) for key, name in names_of.items()}
    read = partial(_result_segments, categories=index.categories)
    own = match_categories(index.categories, footer_of(truth).categories, config.rename)
    return ScoredSide("predictions", "instance", own, foreign=read), texts, digest(sorted(texts.items()))


def _result_segments(text: str, size_hw: tuple[int, int], *, categories: tuple[Category, ...]) -> list[Segment]:
    entries = json.loads(text)
    found: list[Segment] = []
    for number, entry in enumerate(entries):
        one = CocoImage(size_hw, (CocoAnnotation(number, entry["category_id"], False, entry["segmentation"]),))
        segments = segments_for(CocoIndex(categories, {"": one}), "", size_hw)
        found += [replace(segment, score=float(entry["score"])) for segment in segments]
    return found


def _json(storage: Storage, uri: str, key: str) -> Any:
    try:
        return json.loads(storage.read(uri))
    except OSError as error:
        raise ConfigError(f"{key}: {uri}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ManifestError(f"{uri}: not readable as JSON: {error}") from None
