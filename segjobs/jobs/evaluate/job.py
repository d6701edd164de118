"""Score predictions, compare two models, gate a release: two or three manifests in, a report out.

    truth × predictions ─→ scores/ (counts by image, resumable) ─→ figures, intervals ─→ report.json, tables
    truth × baseline    ─→ the same ────────────────────────────────────┘ paired differences → gate

Without truth the baseline takes its place: the report then tells how far two models agree and how the
classes' areas and counts drift.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from segjobs import __version__
from segjobs.config import EvaluateConfig, PredictionsConfig, nearest
from segjobs.errors import ConfigError, ManifestError
from segjobs.evaluation import report as report_sections
from segjobs.evaluation.estimates import all_figures, area_shares
from segjobs.evaluation.inputs import open_pairing
from segjobs.evaluation.pairing import Pairing, Range
from segjobs.evaluation.scores import TAKES_PART, Census, Scores, column_of, keep, take_census
from segjobs.evaluation.slices import Slices, open_slices
from segjobs.jobs.engine.cluster import connect
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.standing import check_names, publish_same, read_standing_json
from segjobs.jobs.evaluate.console import headlines, main_figures, tables
from segjobs.jobs.evaluate.score import score
from segjobs.manifest.schema import Category
from segjobs.metrics.bootstrap import Resampling, paired, with_intervals
from segjobs.metrics.gate import Figure, Rule, judge, parse_rules
from segjobs.results import EvaluateResult
from segjobs.storage import Storage, join

SCHEMA_VERSION = 2
CONVENTION = "dataset"
_STATUSES = (*TAKES_PART, "no_truth", "extra")
_EXAMPLES = 5
_CHANGED = 10
_IMAGE_COLUMNS = ("image_id", "uri", "status", "message", "width", "height", "confidence")
_SCORE_COLUMNS = ("labelled_px", "correct_px", "pixel_accuracy", "mean_iou")


@dataclass(frozen=True)
class _Entry:
    """One manifest of predictions with its place: where its scores are, or are to be."""

    uri: str
    pairing: Pairing
    spans: list[Range]
    of: dict[str, Any]


def evaluate(config: EvaluateConfig) -> EvaluateResult:
    """Score as ``config`` says, or read the standing report; prints tables on standard error.

    Raises ManifestError, ConfigError or ConflictError.
    """
    progress = Progress("evaluate")
    storage = Storage(config.storage)
    with progress.phase("opening", "opening the manifests"):
        entries = _open(config, storage)
    categories = entries[0].pairing.categories
    rules = _check(config, categories)
    slices = open_slices(config.slices, storage, categories)
    identity = _identity(config, entries, slices)
    report = _standing_report(storage, config.output.uri, identity)
    if report is None:
        connect(config.compute, progress)
        for entry in entries:
            _score(storage, entry, progress)
        with progress.phase("adding up", "adding up"):
            report = _report(config, entries, slices, rules)
        report["identity"] = identity
        _publish_tables(storage, config.output.uri, report, entries[0])
        _publish(storage, join(config.output.uri, "report.json"), json.dumps(report, ensure_ascii=False).encode())
    else:
        progress.note(f"nothing to do: {join(config.output.uri, 'report.json')} is there")
    _print(report, config.output.uri)
    return EvaluateResult(
        uri=config.output.uri,
        images=report["images"],
        scores=main_figures(report),
        gate={verdict["rule"]: verdict["passed"] for verdict in report["gate"]},
    )


# --- before the start --------------------------------------------------------------------------


def _open(config: EvaluateConfig, storage: Storage) -> list[_Entry]:
    """The predictions and, where there is truth too, the baseline."""
    reference = config.truth or config.baseline
    assert reference is not None, "the config has one of them"  # noqa: S101
    pairing, spans, of = open_pairing(config, storage, config.predictions, reference.uri)
    entries = [_Entry(config.output.uri, pairing, spans, of)]
    if config.truth is None or config.baseline is None:
        return entries
    earlier = _earlier(storage, config.baseline.uri)
    if earlier is None:
        baseline = PredictionsConfig(uri=config.baseline.uri)
        pairing, spans, of = open_pairing(config, storage, baseline, config.truth.uri)
        return [*entries, _Entry(join(config.output.uri, "baseline"), pairing, spans, of)]
    if earlier["truth"]["parts_digest"] != of["truth"]["parts_digest"] or earlier["counts"] != of["counts"]:
        raise ConfigError(
            f"baseline.uri: {config.baseline.uri} scored another truth ({earlier['truth']['uri']}) or with other "
            "boundary or dispute settings: name its manifest of predictions instead, which is then scored again"
        )
    if not storage.exists(join(config.baseline.uri, "report.json")):  # its missing scores are not this job's to make
        raise ConfigError(f"baseline.uri: {config.baseline.uri}: the evaluation is not finished; run its command again")
    return [*entries, _Entry(config.baseline.uri, pairing, spans, earlier)]


def _earlier(storage: Storage, uri: str) -> dict[str, Any] | None:
    """What an earlier evaluation at ``uri`` scored, None where there is none."""
    return read_standing_json(storage, _scores_uri(uri))


def _scores_uri(uri: str) -> str:
    return join(uri, "scores.json")


def _check(config: EvaluateConfig, categories: Sequence[Category]) -> list[Rule]:
    """The gate's rules. Raises ConfigError for whatever names a class or a baseline that is not there."""
    names = [category.name for category in categories]
    problems = [
        f"ignore_classes: {name!r} is no class of the truth; {nearest(name, names)}"
        for name in config.ignore_classes
        if name not in names
    ]
    rules: list[Rule] = []
    try:
        rules = parse_rules(config.gate, names, config.bootstrap.confidence if config.bootstrap.resamples else None)
    except ConfigError as error:
        problems += error.problems
    if config.truth is None and config.gate:
        problems.append("gate: without truth there is no figure to hold a rule against")
    problems += [
        f"gate: {rule.text!r}: a drop needs baseline.uri" for rule in rules if rule.drop and config.baseline is None
    ]
    if problems:
        raise ConfigError(*problems)
    return rules


def _identity(config: EvaluateConfig, entries: Sequence[_Entry], slices: Slices) -> dict[str, Any]:
    """What a report is of: equal values, equal report."""
    settings = ("missing", "rename", "ignore_classes", "gate", "bootstrap", "disputes")
    raw = config.model_dump(mode="json")
    return {
        "version": SCHEMA_VERSION,
        "scored": [{side: entry.of[side]["parts_digest"] for side in ("truth", "predictions")} for entry in entries],
        "counts": entries[0].of["counts"],
        "slices": slices.digest,
        **{name: raw[name] for name in settings},
    }


def _standing_report(storage: Storage, uri: str, identity: dict[str, Any]) -> dict[str, Any] | None:
    report = read_standing_json(storage, join(uri, "report.json"))
    if report is not None:
        check_names(f"{uri} holds a report with", report.get("identity", {}), identity)
    return report


# --- scoring -----------------------------------------------------------------------------------


def _score(storage: Storage, entry: _Entry, progress: Progress) -> None:
    """Publish the entry's scores, or what is missing of them."""
    about = {**entry.of, "parts": len(entry.spans)}
    _publish(storage, _scores_uri(entry.uri), json.dumps(about, sort_keys=True, ensure_ascii=False).encode())
    run = entry.pairing.truth.run
    assert run is not None  # noqa: S101
    progress.start(total=run.info.counts.images, done=0)
    progress.begin()
    try:
        for ok, others in score(entry.pairing, entry.spans, entry.uri):
            progress.advance(ok=ok, failed=others)
    finally:
        progress.stop()


def _publish(storage: Storage, uri: str, data: bytes) -> None:
    publish_same(storage, uri, data, "is there and differs: it belongs to another evaluation")


# --- the report --------------------------------------------------------------------------------


def _report(config: EvaluateConfig, entries: Sequence[_Entry], slices: Slices, rules: Sequence[Rule]) -> dict[str, Any]:
    pairing = entries[0].pairing
    categories = pairing.categories
    ignored = frozenset(n for n, category in enumerate(categories) if category.name in config.ignore_classes)
    sides = [Scores(entry.pairing.storage, entry.uri, len(entry.spans), categories, ignored) for entry in entries]
    keep(sides, skip=config.missing == "skip")
    census = take_census(sides[0], _EXAMPLES)
    _check_missing(config, census)
    resampling = Resampling(config.bootstrap.resamples, config.bootstrap.seed)
    confidence = config.bootstrap.confidence
    figures = [all_figures(s, entry.pairing, resampling) for s, entry in zip(sides, entries, strict=True)]
    found = with_intervals(figures[0].estimates, confidence=confidence)
    differences = None
    if len(figures) > 1:
        differences = paired(figures[0].estimates, figures[1].estimates, confidence=confidence)
    images = column_of(sides[0], (*_IMAGE_COLUMNS, *_SCORE_COLUMNS))
    report: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "version": __version__,
        "task": pairing.task,
        "convention": CONVENTION,
        "missing": config.missing,
        "ignored": config.ignore_classes,
        "truth": entries[0].of["truth"],
        "predictions": entries[0].of["predictions"],
        "agreement": config.truth is None,
        "images": {status: census.statuses[status] for status in _STATUSES},
        "scored_images": images.num_rows,
        "examples": census.examples,
        "categories": [asdict(category) for category in categories],
        "bootstrap": config.bootstrap.model_dump() if config.bootstrap.resamples else None,
        "semantic": report_sections.semantic(found, categories, figures[0], census, images),
        "instance": report_sections.instance(found, categories, census) if pairing.has_detections else None,
        "panoptic": report_sections.panoptic(found, categories) if pairing.has_objects else None,
        "slices": slices.rows(sides[0], pairing, figures[0].estimates, config.bootstrap),
        "drift": None,
        "comparison": None,
        "gate": [],
        "disputes": report_sections.disputes(sides[0], config.disputes.limit) if config.disputes.limit else [],
    }
    if config.truth is None:
        shares = area_shares(figures[0].counts, resampling)
        report["drift"] = report_sections.drift(paired(*shares, confidence=confidence), categories, census)
    if differences is not None:
        report["comparison"] = {
            "baseline": entries[1].of["predictions"],
            **report_sections.comparison(differences, categories),
            **report_sections.changed_images(sides, _CHANGED),
        }
    named = _by_key(found, categories), _by_key(differences or {}, categories, value="difference")
    report["gate"] = [asdict(judge(rule, *named)) for rule in rules]
    return report


def _check_missing(config: EvaluateConfig, census: Census) -> None:
    absent = [(status, census.examples[status][0]) for status in ("missing", "failed") if census.statuses[status]]
    if config.missing == "error" and absent:
        status, image_id = absent[0]
        count = sum(census.statuses[status] for status in ("missing", "failed"))
        raise ManifestError(
            f"{count} image(s) of the truth have no prediction, such as {image_id!r} ({status}): missing=error stops "
            "here; worst counts them as wrong, skip leaves them out"
        )


def _by_key(
    found: dict[str, Any], categories: Sequence[Category], value: str = "value"
) -> dict[tuple[str, str | None], Figure]:
    """Figures as the gate asks for them, by name and class."""
    figures: dict[tuple[str, str | None], Figure] = {}
    for name, entry in found.items():
        entries = entry if isinstance(entry, list) else [entry]
        keys = [category.name for category in categories] if isinstance(entry, list) else [None]
        for key, one in zip(keys, entries, strict=True):
            figures[name, key] = Figure(one[value], one["low"], one["high"])
    return figures


def _publish_tables(storage: Storage, uri: str, report: dict[str, Any], entry: _Entry) -> None:
    """``per_class.parquet``, and ``per_image.parquet``: every image of either manifest with its own scores."""
    whole = Scores(storage, entry.uri, len(entry.spans), entry.pairing.categories)
    sink = pa.BufferOutputStream()
    tables = whole.whole(*_IMAGE_COLUMNS, *_SCORE_COLUMNS)
    first = next(tables, None)
    if first is not None:
        with pq.ParquetWriter(sink, first.schema, compression="zstd") as writer:
            writer.write_table(first)
            for table in tables:
                writer.write_table(table)
        _publish(storage, join(uri, "per_image.parquet"), sink.getvalue().to_pybytes())
    sink = pa.BufferOutputStream()
    rows = list(report_sections.flat_rows(report["semantic"]["per_class"]))
    pq.write_table(pa.Table.from_pylist(rows, schema=report_sections.PER_CLASS_SCHEMA), sink, compression="zstd")
    _publish(storage, join(uri, "per_class.parquet"), sink.getvalue().to_pybytes())


# --- for people --------------------------------------------------------------------------------


def _print(report: dict[str, Any], uri: str) -> None:
    console = Console(stderr=True, highlight=False)
    for table in tables(report):
        console.print(table)
    images = report["images"]
    lines = [
        *headlines(report),
        f"convention {report['convention']!r}, missing={report['missing']}; images: "
        + ", ".join(f"{count} {status}" for status, count in images.items() if count or status == "ok"),
        *(f"  {status}: {', '.join(map(repr, names))}" for status, names in report["examples"].items()),
        *(f"gate: {verdict['rule']}: {verdict['message']}" for verdict in report["gate"]),
        f"report: {join(uri, 'report.json')}, per_class.parquet, per_image.parquet",
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
