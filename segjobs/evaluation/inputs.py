"""Open the two sides of an evaluation: what the config names in, a pairing and its ranges of image_id out.

truth: a manifest ┐
                  ├─→ classes matched by name, images by image_id → Pairing, ranges
predictions: a manifest, a folder of label PNGs, or COCO results (foreign.py) ┘
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import replace

from segjobs.config import EvaluateConfig, PredictionsConfig, digest
from segjobs.errors import ManifestError
from segjobs.evaluation.classes import match_categories
from segjobs.evaluation.foreign import Foreign, Reference, open_coco_results, open_label_pngs
from segjobs.evaluation.pairing import Pairing, Range, ScoredSide, ranges
from segjobs.evaluation.report_types import CountSettings, Inputs, ScoredRun
from segjobs.manifest.parts import Run, find_run, footer_of, image_ids_of, list_parts, open_run
from segjobs.manifest.table_files import has_table
from segjobs.storage import Storage

COUNTING = 2
"""Of the rules by which images are counted; 2 since areas and boxes that COCO's JSON states are those of objects."""


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
    truth = ScoredSide("truth", footer.task, own, truth_run, has_masks=not footer.boxes_only)
    if predictions.format == "manifest":
        if predictions is config.predictions:
            _check_is_manifest(storage, predictions.uri)
        run = open_run(storage, predictions.uri)
        theirs = footer_of(run)
        index = match_categories(theirs.categories, categories, config.rename)
        _check_meeting(storage, truth_run, run)
        side = ScoredSide("predictions", theirs.task, index, run, has_masks=not theirs.boxes_only)
        spans = ranges(truth_run.parts, run.parts)
        about = _about_run(run)
    else:
        found, index = _open_foreign(config, storage, predictions, truth_run)
        side = ScoredSide("predictions", found.task, index, foreign=found.read, has_masks=found.has_masks)
        spans = _with_foreign(ranges(truth_run.parts, ()), found.texts)
        about = ScoredRun(uri=predictions.uri, run_id=None, model=None, parts_digest=found.digest)
    pairing = Pairing(
        storage=storage,
        truth=truth,
        predictions=side,
        categories=categories,
        boundary=config.boundary,
        dispute_score=config.disputes.min_score,
        dispute_px=config.disputes.min_px,
    )
    if not (pairing.has_masks or pairing.has_detections):
        boxes, other = (truth_uri, side) if footer.boxes_only else (predictions.uri, truth)
        raise ManifestError(
            f"{boxes} has boxes alone, which are scored as objects against objects; the {other.name} are {other.task}"
        )
    about_truth = _about_run(truth_run)
    return pairing, spans, Inputs(truth=about_truth, predictions=about, counts=count_settings(config), parts=len(spans))


def count_settings(config: EvaluateConfig) -> CountSettings:
    """What of the config changes the counts of an image."""
    disputes = config.disputes.min_score, config.disputes.min_px
    return CountSettings(boundary=config.boundary, rename=config.rename, disputes=disputes, rules=COUNTING)


def _about_run(run: Run) -> ScoredRun:
    return ScoredRun(
        uri=run.uri,
        run_id=run.info.run_id,
        model=run.info.model_label,
        parts_digest=digest([part.sha256 for part in run.parts]),
    )


def _check_is_manifest(storage: Storage, uri: str) -> None:
    if find_run(storage, uri) is None and not list_parts(storage, uri) and not has_table(storage, uri):
        raise ManifestError(
            f"predictions.uri: {uri}: no manifest here; expected a folder with run.json and parts/, or, of other "
            "tools' masks, predictions.format=png or coco_results"
        )


# --- whose images they are -----------------------------------------------------------------------


def _check_meeting(storage: Storage, truth: Run, predictions: Run) -> None:
    """Raise ManifestError unless some image_id is on both sides."""
    ends = [{one for part in run.parts for one in (part.first_id, part.last_id)} for run in (truth, predictions)]
    if ends[0] & ends[1] or not any(ends):
        return
    right, found = (image_ids_of(storage, run) for run in (truth, predictions))
    if set(right).isdisjoint(found):
        (one, ours), (two, theirs) = ((run.uri, _such(ids)) for run, ids in ((truth, right), (predictions, found)))
        raise ManifestError(
            f"no image_id is in both: {one} has {ours}, {two} has {theirs}; an image_id is the path below input.uri "
            "with its extension: label the very files that the truth is of"
        )


def _such(ids: Sequence[str]) -> str:
    return f"{len(ids)} such as {ids[0]!r}" if ids else "no image"


# --- what other tools wrote --------------------------------------------------------------------


def _open_foreign(
    config: EvaluateConfig, storage: Storage, predictions: PredictionsConfig, truth: Run
) -> tuple[Foreign, dict[int, int | None]]:
    """Another tool's masks, and its category ids → class indices."""
    footer = footer_of(truth)
    reference = Reference(footer.categories, footer.task, image_ids_of(storage, truth))
    if predictions.format == "png":
        found = open_label_pngs(config, predictions, storage, reference)
        return found, {category.id: number for number, category in enumerate(found.categories)}
    found = open_coco_results(predictions, storage, reference)
    return found, match_categories(found.categories, footer.categories, config.rename)


def _with_foreign(spans: Sequence[Range], texts: Mapping[str, str]) -> list[Range]:
    """Hand each range the texts of its image_ids; those without truth go where they would stand."""
    image_ids = sorted(texts)
    found: list[Range] = []
    for span in spans:
        begin = 0 if span.low is None else bisect_left(image_ids, span.low)
        end = len(image_ids) if span.high is None else bisect_left(image_ids, span.high)
        found.append(replace(span, foreign={image_id: texts[image_id] for image_id in image_ids[begin:end]}))
    return found
