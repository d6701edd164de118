"""What a verb gives back: values for a program, and the text that its command prints on standard output.

    job ─→ Result ─┬→ segjobs.label(…) and the like return it
                   └→ segjobs label … prints ``text()`` into a pipe or file, and exits with ``exit_code``

A failure of the whole is an exception (``errors.py``). What a result tells in ``exit_code`` is data: more images failed
than allowed (3), or a rule of the gate is missed (4).
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from segjobs.errors import ExitCode, SegjobsError
from segjobs.redact import redact
from segjobs.text import visible


class Result(Protocol):
    """What every verb gives."""

    @property
    def exit_code(self) -> ExitCode:
        """DONE, TOO_MANY_FAILED or GATE_MISSED."""
        ...

    def text(self) -> str:
        """Whole lines for standard output: one JSON object each, or what a dry run says."""
        ...


@dataclass(frozen=True)
class RunResult:
    """A manifest that stands complete: what ``label`` gives, and ``prepare`` for each split.

    ``uri``: its folder. ``failures``: error code → how many images. ``segments``: masks of all images.
    ``already_done``: images that an earlier attempt had published. ``seconds``: of this attempt, 0 where there was
    nothing to do; ``stage_seconds``: where they went, summed over all threads; ``gpus``: UUID → ``busy_percent`` of the
    time, over so many ``seconds``, and ``used_bytes`` of ``total_bytes`` of memory at most; empty without GPUs.
    ``exit_code``: TOO_MANY_FAILED where more than ``max_failed_fraction`` of the images failed, else DONE.
    """

    uri: str
    run_id: str
    images: int
    ok: int
    failed: int
    failures: Mapping[str, int]
    segments: int
    already_done: int
    seconds: float
    stage_seconds: Mapping[str, float]
    gpus: Mapping[str, Mapping[str, float]]
    exit_code: ExitCode

    def text(self) -> str:
        names = ("run_id", "images", "ok", "failed", "failures", "segments", "already_done", "seconds", "stage_seconds")
        names += ("gpus",)
        fields = {name: getattr(self, name) for name in names}
        return _line({"output": self.uri, **fields, "exit_code": int(self.exit_code)})


@dataclass(frozen=True)
class PrepareResult:
    """What ``prepare`` gives: a manifest of truth for each split, by its name; without splits one, named ``""``.

    The counts are those of all of them.
    """

    manifests: Mapping[str, RunResult]

    @property
    def images(self) -> int:
        return sum(run.images for run in self.manifests.values())

    @property
    def ok(self) -> int:
        return sum(run.ok for run in self.manifests.values())

    @property
    def failed(self) -> int:
        return sum(run.failed for run in self.manifests.values())

    @property
    def failures(self) -> Mapping[str, int]:
        """Error code → how many images."""
        return dict(sum((Counter(run.failures) for run in self.manifests.values()), Counter[str]()))

    @property
    def exit_code(self) -> ExitCode:
        """TOO_MANY_FAILED where it is a manifest's, else DONE."""
        return max(run.exit_code for run in self.manifests.values())

    def text(self) -> str:
        return "".join(run.text() for run in self.manifests.values())


@dataclass(frozen=True)
class TrainResult:
    """A model directory, which ``label`` and ``train`` take as ``model.weights``.

    ``uri``: the folder. ``steps``, ``seconds``: of the whole training, all attempts together. ``score``: the
    validation's, in [0, 1], of the weights that were kept; None where nothing was held back to score on.
    """

    uri: str
    steps: int
    seconds: float
    score: float | None
    exit_code: ExitCode = ExitCode.DONE

    def text(self) -> str:
        record = {"output": self.uri, "steps": self.steps, "seconds": self.seconds, "score": self.score}
        return _line({**record, "exit_code": int(self.exit_code)})


@dataclass(frozen=True)
class EvaluateResult:
    """An evaluation; ``uri/report.json`` has all of it.

    ``images``: status of the pair → how many. ``scores``: name → headline figure, in [0, 1], None where it is not
    defined. ``gate``: rule → whether it is met. ``exit_code``: GATE_MISSED where one is not; TOO_MANY_FAILED where more
    than ``max_failed_fraction`` of the predictions failed, or nothing was scored; else DONE.
    """

    uri: str
    images: Mapping[str, int]
    scores: Mapping[str, float | None]
    gate: Mapping[str, bool]
    exit_code: ExitCode = ExitCode.DONE

    def text(self) -> str:
        record = {"output": self.uri, "images": self.images, **self.scores, "gate": self.gate}
        return _line({**record, "exit_code": int(self.exit_code)})


@dataclass(frozen=True)
class ReportResult:
    """A page: its ``uri``, and its size in ``bytes``."""

    uri: str
    bytes: int
    exit_code: ExitCode = ExitCode.DONE

    def text(self) -> str:
        return _line({"page": self.uri, "bytes": self.bytes, "exit_code": int(self.exit_code)})


@dataclass(frozen=True)
class ExportResult:
    """A manifest in another tool's format, below ``uri``.

    ``failures``: error code → how many images. ``segments``: masks that the format holds. ``losses``: kind of what it
    cannot hold (``segjobs.exporters.base.LOSSES``) → how often. ``exit_code``: TOO_MANY_FAILED where more than
    ``max_failed_fraction`` of the images failed, else DONE.
    """

    uri: str
    format: str
    images: int
    ok: int
    failed: int
    failures: Mapping[str, int]
    segments: int
    losses: Mapping[str, int]
    seconds: float
    exit_code: ExitCode

    def text(self) -> str:
        names = ("format", "images", "ok", "failed", "failures", "segments", "losses", "seconds")
        fields = {name: getattr(self, name) for name in names}
        return _line({"output": self.uri, **fields, "exit_code": int(self.exit_code)})


@dataclass(frozen=True)
class CheckResult:
    """What a model holds of what every model must. ``model``: its label.

    ``faults``: check → why it does not hold, None where it does or does not apply. ``exit_code``: GATE_MISSED where one
    does not hold, else DONE.
    """

    model: str
    faults: Mapping[str, str | None]
    exit_code: ExitCode

    def text(self) -> str:
        return _line({"model": self.model, "faults": self.faults, "exit_code": int(self.exit_code)})


@dataclass(frozen=True)
class DemoResult:
    """What each step of the demonstration gave, its mIoU on held-out scenes, and the picture of them."""

    steps: tuple[Result, ...]
    mean_iou: float
    contact_sheet: str
    exit_code: ExitCode = ExitCode.DONE

    def text(self) -> str:
        own = {"mean_iou": self.mean_iou, "contact_sheet": self.contact_sheet, "exit_code": int(self.exit_code)}
        return "".join(step.text() for step in self.steps) + _line(own)


@dataclass(frozen=True)
class BenchResult:
    """The bench's figures, as JSON holds them."""

    figures: Mapping[str, object]
    exit_code: ExitCode = ExitCode.DONE

    def text(self) -> str:
        return _line({**self.figures, "exit_code": int(self.exit_code)})


@dataclass(frozen=True)
class CompareResult:
    """Two benches' figures by name: ``a``, ``b``, their ``ratio`` (b ÷ a) and the ``verdict`` on b."""

    figures: Mapping[str, Mapping[str, object]]
    exit_code: ExitCode = ExitCode.DONE

    def text(self) -> str:
        return _line({"figures": dict(self.figures), "exit_code": int(self.exit_code)})


@dataclass(frozen=True)
class NightlyResult:
    """A night of a collection.

    ``version``: of its table that has the night, None where the gate holds it. ``counts``: change → images. ``run``:
    the night's run, None where nothing was labelled; ``failures``: of it, error code → images. ``gate``: rule → whether
    it is met. ``exit_code``: GATE_MISSED where one is not, TOO_MANY_FAILED, else DONE.
    """

    uri: str
    night: str
    version: int | None
    counts: Mapping[str, int]
    run: str | None
    failures: Mapping[str, int]
    gate: Mapping[str, bool]
    page: str
    exit_code: ExitCode

    def text(self) -> str:
        names = ("night", "version", "counts", "run", "failures", "gate", "page")
        fields = {name: getattr(self, name) for name in names}
        return _line({"collection": self.uri, **fields, "exit_code": int(self.exit_code)})


@dataclass(frozen=True)
class EditsResult:
    """People's corrections in a collection.

    ``version``: of its table that has them; ``new``: this command wrote it. ``run``: the corrections as a manifest.
    ``counts``: what became of the images that the labels name: ``taken``, of these ``accepted`` as the model made them;
    and those whose row stays: ``failed``, ``changed`` (of other bytes, or gone, since they were labelled),
    ``unaltered`` (with ``unaltered=leave``), ``newer`` (masks of a later command), ``there`` (an earlier command took
    them), and ``not_in_collection``. ``failures``: error code → images.
    ``exit_code``: TOO_MANY_FAILED where more than ``max_failed_fraction`` failed, else DONE.
    """

    uri: str
    version: int
    new: bool
    run: str
    counts: Mapping[str, int]
    failures: Mapping[str, int]
    exit_code: ExitCode

    def text(self) -> str:
        names = ("version", "new", "run", "counts", "failures")
        fields = {name: getattr(self, name) for name in names}
        return _line({"collection": self.uri, **fields, "exit_code": int(self.exit_code)})


@dataclass(frozen=True)
class ReviewResult:
    """Images that were picked for people.

    ``review``: its number, and ``folder``, where its ``files`` lie; None where there was nothing to send. ``left_out``:
    reason → images: ``human``, ``failed``, ``sent`` before, ``near_duplicates`` of others, those whose picture cannot
    be shown by their error code, and ``not_written``, which the format cannot hold. ``exit_code``: TOO_MANY_FAILED
    where those are more than ``max_failed_fraction``, else DONE.
    """

    uri: str
    review: int | None
    folder: str | None
    images: int
    left_out: Mapping[str, int]
    files: tuple[str, ...]
    exit_code: ExitCode = ExitCode.DONE

    def text(self) -> str:
        names = ("review", "folder", "images", "left_out", "files")
        fields = {name: getattr(self, name) for name in names}
        return _line({"collection": self.uri, **fields, "exit_code": int(self.exit_code)})


@dataclass(frozen=True)
class CollectionResult:
    """What was done with a collection, or found in it. ``uri``: with the version that was looked at.

    ``do``: as the command says it; ``figures``: as JSON holds them.
    """

    uri: str
    do: str
    figures: Mapping[str, object]
    exit_code: ExitCode = ExitCode.DONE

    def text(self) -> str:
        return _line({"collection": self.uri, "do": self.do, **self.figures, "exit_code": int(self.exit_code)})


@dataclass(frozen=True)
class DryRun:
    """What a job would do: name → value, for each manifest or export. Nothing was written."""

    tables: tuple[Mapping[str, str | int], ...]
    exit_code: ExitCode = ExitCode.DONE

    def text(self) -> str:
        return "".join(
            "".join(f"{name + ':':14}{visible(str(value))}\n" for name, value in table.items())
            + "dry run: nothing was written\n"
            for table in self.tables
        )


def failure_text(error: SegjobsError) -> str:
    """The line of a job that an error has stopped, in the place of a result's."""
    return ending_text(str(error), error.exit_code)


def ending_text(why: str, code: ExitCode) -> str:
    """The line of a job that ended without a result."""
    return _line({"error": redact(why), "exit_code": int(code)})


def _line(record: Mapping[str, object]) -> str:
    return visible(json.dumps(record, ensure_ascii=False)) + "\n"
