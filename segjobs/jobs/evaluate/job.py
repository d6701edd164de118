"""Score predictions, compare two models, gate a release: two or three manifests in, a report out.

    truth × predictions ─→ scores/ (counts by image, resumable) ─→ figures, intervals ─→ report.json, tables
    truth × baseline    ─→ the same ────────────────────────────────────┘ paired differences → gate

Without truth the baseline takes its place: the report then tells how far two models agree and how the
classes' areas and counts drift. What an evaluation is stands in ``segjobs/evaluation``; here it runs on Ray.
"""

from segjobs.config import EvaluateConfig
from segjobs.errors import ExitCode
from segjobs.evaluation.entries import Entry, open_evaluation
from segjobs.evaluation.output import REPORT, output_files
from segjobs.evaluation.report import make_report
from segjobs.evaluation.report_types import Report
from segjobs.evaluation.scored_parts import inputs_uri
from segjobs.evaluation.scores import TAKES_PART
from segjobs.jobs.engine.cluster import connect
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.shared_disk import check_shared
from segjobs.jobs.engine.standing import check_writable, publish_same
from segjobs.jobs.engine.terminal import Terminal
from segjobs.jobs.engine.waits import TASK, Waits
from segjobs.jobs.evaluate.adopt import adopt
from segjobs.jobs.evaluate.console import headlines, main_figures, status_words, tables
from segjobs.jobs.evaluate.score import score
from segjobs.manifest.seal import sealed_text
from segjobs.results import EvaluateResult
from segjobs.storage import Storage, join


def evaluate(config: EvaluateConfig) -> EvaluateResult:
    """Score as ``config`` says, or read the standing report; prints tables on standard error.

    Raises ManifestError, ConfigError or ConflictError.
    """
    progress = Progress("evaluate")
    storage = Storage(config.storage)
    with progress.phase("opening", "opening the manifests"):
        evaluation = open_evaluation(config, storage)
    report = adopt(storage, evaluation)
    if report is None:
        check_writable(config.output.uri)
        connect(config.compute, progress)
        reads = {"predictions.uri": config.predictions.uri, "truth.uri": config.truth.uri if config.truth else None}
        check_shared(storage, config.output.uri, reads)
        for entry in evaluation.entries:
            _score(entry, progress)
        with progress.phase("adding up", "adding up"):
            report = make_report(evaluation)
        for uri, data in output_files(evaluation, report):
            _publish(storage, uri, data)
    else:
        progress.note(f"nothing to do: {join(config.output.uri, REPORT)} is there")
    _print(report, config.output.uri)
    return EvaluateResult(
        uri=config.output.uri,
        images={str(status): count for status, count in report.images.items()},
        scores=main_figures(report),
        gate={verdict.rule: verdict.passed for verdict in report.gate},
        exit_code=exit_code(report, config.max_failed_fraction),
    )


def exit_code(report: Report, most: float) -> ExitCode:
    """GATE_MISSED, or TOO_MANY_FAILED where nothing was scored or more predictions failed than the share ``most``.

    The share is of the images that have truth.
    """
    if not all(verdict.passed for verdict in report.gate):
        return ExitCode.GATE_MISSED
    whole = sum(report.images[status] for status in TAKES_PART)
    failed = not report.images["ok"] or report.images["failed"] > most * whole
    return ExitCode.TOO_MANY_FAILED if failed else ExitCode.DONE


def _score(entry: Entry, progress: Progress) -> None:
    """Publish the entry's scores, or what is missing of them."""
    storage = entry.pairing.storage
    _publish(storage, inputs_uri(entry.uri), sealed_text(entry.inputs.to_json()))
    run = entry.pairing.truth.run
    assert run is not None  # noqa: S101
    progress.start(total=run.info.counts.images, done=0)
    progress.begin()
    try:
        with Waits(progress, [TASK]):
            for ok, others in score(entry.pairing, entry.spans, entry.uri):
                progress.advance(ok=ok, failed=others)
    finally:
        progress.stop()


def _publish(storage: Storage, uri: str, data: bytes) -> None:
    publish_same(storage, uri, data, "is there and differs: it is of another evaluation, which overwrite=true replaces")


# --- for people --------------------------------------------------------------------------------


def _print(report: Report, uri: str) -> None:
    console = Terminal()
    for table in tables(report):
        console.print(table, soft_wrap=False)
    lines = [
        *headlines(report),
        f"convention {report.convention!r}, missing={report.missing}; images: "
        + ", ".join(f"{count} {status}" for status, count in report.images.items() if count or status == "ok"),
        *(f"  {status}: {', '.join(map(repr, names))}" for status, names in report.examples.items()),
        *(f"  {status_words(one)}" for one in report.failures),
        *(f"note: {note}" for note in report.notes),
        *(f"gate: {verdict.rule}: {verdict.message}" for verdict in report.gate),
        f"report: {join(uri, REPORT)}, per_class.parquet, per_image.parquet",
    ]
    for line in lines:
        console.print(line)
