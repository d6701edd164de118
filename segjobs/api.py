"""The verbs from Python, and what they write as values: what ``segjobs.label(…)`` and ``segjobs.open_manifest`` are.

    keywords, a YAML file or a dict ─→ config ─→ the verb's job ─→ its result
    uri of a manifest ─→ Manifest

All verbs take their config alike. A keyword is a key of the verb's YAML file (``segjobs init VERB`` prints it): a text
for a section is its ``uri`` (a model's its ``name``), a dict is the section's keys, and a dotted key reaches into one.
``config`` is a YAML file or a dict, over which the keywords are laid:

    label(input="photos/", output="out/run1", model={"name": "unet", "weights": "models/unet1"})
    label(config="label.yaml", output="out/run2", **{"postprocess.fill_holes": True})

A verb runs or continues its job, as the command does, and returns when it is done: with the result, whose
``exit_code`` is DONE, TOO_MANY_FAILED or GATE_MISSED, or with a SegjobsError for what stops the whole. It prints
progress and a summary on standard error, and nothing on standard output. It leaves the process as it found it: Ray
Data's settings, loggers, filters of warnings, the environment, signal handlers. Where a signal stops it, what is
published stays, and the same call continues. A Ray that this process has initialised is used as it is, and goes on.

Ray, torch and pyarrow are imported when a function needs them.
"""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from segjobs.config import (
    EditsConfig,
    EvaluateConfig,
    ExportConfig,
    LabelConfig,
    NightlyConfig,
    PrepareConfig,
    ReportConfig,
    ReviewConfig,
    StorageConfig,
    TrainConfig,
    make_config,
)
from segjobs.errors import ExitCode, SegjobsError
from segjobs.results import (
    DryRun,
    EditsResult,
    EvaluateResult,
    ExportResult,
    NightlyResult,
    PrepareResult,
    ReportResult,
    ReviewResult,
    RunResult,
    TrainResult,
    ending_text,
    failure_text,
)

if TYPE_CHECKING:
    from segjobs.manifest.manifest import Manifest
    from segjobs.storage import Storage

Made = TypeVar("Made")
Result = TypeVar("Result")

Given = str | os.PathLike[str] | Mapping[str, Any] | None
"""A section: its ``uri`` (or ``name``), or its keys. As ``config``: a YAML file, or all keys."""


def _run(job: Callable[[Made], Result | DryRun], made: Made) -> Result:
    """``job(made)``, which is no dry run; the caller's process is left as it was.

    Whom ``notify`` names is told of the end, as by the command.
    """
    from segjobs.jobs.engine.guest import as_guest

    with _notifying(job, made) as ended, as_guest():
        result = job(made)
        assert not isinstance(result, DryRun)  # noqa: S101
        ended.append(result)
    return result


@contextmanager
def _notifying(job: Callable[..., Any], made: Any) -> Generator[list[Any]]:
    """``job``: named as its verb. The result is appended to what is given; without one, an exception says why."""
    from segjobs.notify import tell

    ended: list[Any] = []
    verb, code, text = job.__name__, ExitCode.BUG, ""
    try:
        yield ended
    except SegjobsError as error:
        text, code = failure_text(error), error.exit_code
        raise
    except Exception as error:
        text = ending_text(f"a bug: {type(error).__name__}: {error}", code)
        raise
    except BaseException:
        code = ExitCode.STOPPED
        text = ending_text("stopped; the same call continues", code)
        raise
    finally:
        if ended:
            text, code = ended[0].text(), ended[0].exit_code
        tell(made.notify, verb, text, code)


def prepare(
    *, input: Given = None, labels: Given = None, output: Given = None, config: Given = None, **keys: Any
) -> PrepareResult:
    """Turn somebody's labels into a manifest of truth, or one for each of ``splits``.

    ``prepare(input="images/", labels={"uri": "masks/", "format": "png", "categories": [...]}, output="out/truth")``.
    Raises a SegjobsError.
    """
    settings = {"input": input, "labels": labels, "output": output, **keys}
    made = make_config(PrepareConfig, "prepare()", config, settings)
    from segjobs.jobs.prepare.job import prepare as job

    return _run(job, made)


def train(
    *,
    data: Given = None,
    validation: Given = None,
    model: Given = None,
    output: Given = None,
    config: Given = None,
    **keys: Any,
) -> TrainResult:
    """Learn a model from a manifest of truth or of predictions: ``train(data="out/truth/train", model="unet", …)``.

    ``output`` becomes a model directory. Raises a SegjobsError.
    """
    settings = {"data": data, "validation": validation, "model": model, "output": output, **keys}
    made = make_config(TrainConfig, "train()", config, settings)
    from segjobs.jobs.train.job import train as job

    return _run(job, made)


def label(
    *, input: Given = None, model: Given = None, output: Given = None, config: Given = None, **keys: Any
) -> RunResult:
    """Segment images: ``label(input="photos/", model="deeplabv3_resnet50", output="out/run1")``.

    ``output`` becomes a manifest: ``open_manifest(result.uri)``. Raises a SegjobsError.
    """
    made = make_config(LabelConfig, "label()", config, {"input": input, "model": model, "output": output, **keys})
    from segjobs.jobs.label.job import label as job

    return _run(job, made)


def nightly(
    *, input: Given = None, model: Given = None, collection: Given = None, config: Given = None, **keys: Any
) -> NightlyResult:
    """Bring a collection of masks up to date: ``nightly(input="photos/", model="unet", collection="out/street")``.

    Every night the same: ``open_manifest("out/street")`` has the masks of now, and ``open_manifest("out/street@7")``
    those of version 7. Raises a SegjobsError.
    """
    settings = {"input": input, "model": model, "collection": collection, **keys}
    made = make_config(NightlyConfig, "nightly()", config, settings)
    from segjobs.jobs.nightly.job import nightly as job

    return _run(job, made)


def edits(*, collection: Given = None, labels: Given = None, config: Given = None, **keys: Any) -> EditsResult:
    """Take people's corrections into a collection of masks, whose rows no model takes the place of any more.

    ``edits(collection="out/street", labels={"uri": "tasks.json", "format": "label_studio"})``. Raises a SegjobsError.
    """
    made = make_config(EditsConfig, "edits()", config, {"collection": collection, "labels": labels, **keys})
    from segjobs.jobs.edits.job import edits as job

    return _run(job, made)


def review(*, collection: Given = None, config: Given = None, **keys: Any) -> ReviewResult:
    """Pick images of a collection for people, and write their tasks: ``review(collection="out/street", count=200)``.

    Raises a SegjobsError.
    """
    made = make_config(ReviewConfig, "review()", config, {"collection": collection, **keys})
    from segjobs.jobs.review.job import review as job

    return _run(job, made)


def evaluate(
    *,
    predictions: Given = None,
    truth: Given = None,
    baseline: Given = None,
    output: Given = None,
    config: Given = None,
    **keys: Any,
) -> EvaluateResult:
    """Score predictions: ``evaluate(predictions="out/run1", truth="out/truth", output="out/scores")``.

    A ``baseline`` is an earlier evaluation or another manifest to compare with; ``gate`` a list of rules, which the
    result's ``gate`` and ``exit_code`` answer. Raises a SegjobsError.
    """
    settings = {"predictions": predictions, "truth": truth, "baseline": baseline, "output": output, **keys}
    made = make_config(EvaluateConfig, "evaluate()", config, settings)
    from segjobs.jobs.evaluate.job import evaluate as job

    return _run(job, made)


def report(
    *,
    evaluation: Given = None,
    predictions: Given = None,
    truth: Given = None,
    output: Given = None,
    config: Given = None,
    **keys: Any,
) -> ReportResult:
    """Make the HTML page of an evaluation, or of a run: ``report(evaluation="out/scores", output="out/scores")``.

    Raises a SegjobsError.
    """
    settings = {"evaluation": evaluation, "predictions": predictions, "truth": truth, "output": output, **keys}
    made = make_config(ReportConfig, "report()", config, settings)
    from segjobs.jobs.report.job import report as job

    return _run(job, made)


def export(
    *, manifest: Given = None, format: str | None = None, output: Given = None, config: Given = None, **keys: Any
) -> ExportResult:
    """Write a manifest for another tool: ``export(manifest="out/run1", format="coco_instances", output="out/coco")``.

    Raises a SegjobsError.
    """
    settings = {"manifest": manifest, "format": format, "output": output, **keys}
    made = make_config(ExportConfig, "export()", config, settings)
    from segjobs.jobs.export.job import export as job

    return _run(job, made)


def open_manifest(uri: str | os.PathLike[str], *, storage: Mapping[str, Any] | None = None) -> "Manifest":
    """The manifest at ``uri``, a run's folder or s3://bucket/prefix: its rows, their masks, and tables of them.

    Or a collection, ``out/street``, as it is now, or a version of one, ``out/street@7``.

    ``storage``: keys of the config's section, such as ``{"s3": {"endpoint_url": …}}``; None takes local files and S3
    with the environment's credentials. Raises ManifestError where none is there or it is not finished, ConfigError,
    and StorageError where the store cannot be read.
    """
    from segjobs.manifest.manifest import Manifest

    return Manifest(_storage(storage), os.fspath(uri))


def read_rows(
    uri: str | os.PathLike[str], *, columns: Sequence[str] | None = None, storage: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Every row of the manifest at ``uri`` as a dict, in order of image_id, one part in memory at a time.

    ``columns``: these alone. Else as ``open_manifest``, whose rows know their masks.
    """
    from segjobs.manifest.parts import read_rows as rows

    return rows(_storage(storage), os.fspath(uri), columns=columns)


def _storage(section: Mapping[str, Any] | None) -> "Storage":
    from segjobs.storage import Storage

    return Storage(make_config(StorageConfig, "storage", None, section or {}))
