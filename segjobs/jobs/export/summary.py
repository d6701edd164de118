"""What an export holds and loses: rows of its parts in; sums for export.json, and lines for a person, out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import pyarrow as pa

from segjobs.config import ExportConfig
from segjobs.errors import ExitCode
from segjobs.exporters.base import LOSSES, Exporter, LossKind, Setting
from segjobs.jobs.engine.terminal import Terminal
from segjobs.jobs.export.documents import PublishedFile
from segjobs.manifest.parts import Run
from segjobs.manifest.schema import Footer
from segjobs.results import DryRun, ExportResult
from segjobs.storage import join

_MESSAGE_CHARS = 160
_SHOWN = 5


class LossRow(TypedDict):
    """What one class loses in a way."""

    kind: LossKind
    category_id: int | None
    category: str | None
    count: int
    pixels: int


class ExportedImages(TypedDict):
    """Images by what became of them."""

    images: int
    ok: int
    failed: int


class ExportReport(TypedDict):
    """What export.json holds besides the plan."""

    version: str
    source: str
    task: str
    categories: list[dict[str, object]]
    images: ExportedImages
    segments: int
    failures: dict[str, int]
    examples: Mapping[str, tuple[str, str]]
    losses: list[LossRow]
    files: list[PublishedFile]
    seconds: float


@dataclass
class ExportTally:
    """What an export holds, over all images. ``losses``: kind and class → count and pixels."""

    images: int = 0
    ok: int = 0
    segments: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    losses: dict[tuple[str, int | None], list[int]] = field(default_factory=dict)

    def add(self, rows: pa.Table) -> None:
        """The rows of the next part (``EXPORT_SCHEMA``)."""
        self.images += rows.num_rows
        self.segments += sum(rows["segments"].to_pylist())
        for image_id, error, losses in zip(
            *(rows[name].to_pylist() for name in ("image_id", "error", "losses")), strict=True
        ):
            if error:
                self.failures[error["code"]] += 1
                self.examples.setdefault(error["code"], (image_id, error["message"]))
            else:
                self.ok += 1
            for loss in losses:
                sums = self.losses.setdefault((loss["kind"], loss["category_id"]), [0, 0])
                sums[0] += loss["count"]
                sums[1] += loss["pixels"]

    def loss_rows(self, footer: Footer) -> list[LossRow]:
        """The losses by kind and class, in the order of ``LOSSES`` and of the manifest's categories."""
        names: dict[int | None, str | None] = {category.id: category.name for category in footer.categories}
        return [
            {"kind": kind, "category_id": i, "category": name, "count": sums[0], "pixels": sums[1]}
            for kind in LOSSES
            for i, name in (names | {None: None}).items()
            if (sums := self.losses.get((kind, i)))
        ]


def dry_run_of(config: ExportConfig, run: Run, exporter: Exporter, setting: Setting, done: int) -> DryRun:
    """What the export would do."""
    files = [document.path for document in exporter.documents(setting)]
    table = {
        "output": config.output.uri,
        "format": config.format,
        "manifest": f"{run.uri} ({setting.task}, run {run.info.run_id})",
        "images": run.info.counts.images,
        "classes": len(setting.categories),
        "files": ", ".join(files + ([f"{exporter.folder}/*{exporter.suffix}"] if exporter.folder else [])),
        "already done": f"{done} of {len(run.parts)} parts",
    }
    return DryRun((table,))


def print_summary(report: ExportReport, config: ExportConfig) -> ExportResult:
    """Tell what was exported, on standard error; its result."""
    images = report["images"]
    allowed = images["failed"] <= config.max_failed_fraction * images["images"]
    code = ExitCode.DONE if allowed else ExitCode.TOO_MANY_FAILED
    lines = [f"{images['images']} images: {images['ok']} ok, {images['failed']} failed, {report['segments']} segments"]
    for failure, count in report["failures"].items():
        image_id, message = report["examples"][failure]
        lines.append(f"  {failure} {count}: {image_id!r}: {' '.join(message.split())[:_MESSAGE_CHARS]}")
    if images["failed"]:
        lines.append(f"  nothing was written for these; all of them: {join(config.output.uri, 'failures.jsonl')}")
    if not allowed:
        lines.append(f"more than max_failed_fraction={config.max_failed_fraction:g} of the images failed")
    lines += _loss_lines(report["losses"], config.format, ok=images["ok"], failed=images["failed"])
    lines.append(f"export: {', '.join(join(config.output.uri, file['path']) for file in report['files'])}")
    console = Terminal()
    for line in lines:
        console.print(line)
    return ExportResult(
        uri=config.output.uri,
        format=config.format,
        images=images["images"],
        ok=images["ok"],
        failed=images["failed"],
        failures=report["failures"],
        segments=report["segments"],
        losses={kind: sum(loss["count"] for loss in found) for kind, found in _by_kind(report["losses"]).items()},
        seconds=report["seconds"],
        exit_code=code,
    )


def _by_kind(losses: Sequence[LossRow]) -> dict[LossKind, list[LossRow]]:
    """The losses of each kind that there is, in the order of ``LOSSES``."""
    return {kind: own for kind in LOSSES if (own := [loss for loss in losses if loss["kind"] == kind])}


def _loss_lines(losses: Sequence[LossRow], name: str, *, ok: int, failed: int) -> list[str]:
    if not losses:
        if failed:
            return [f"{name} holds all of the other {ok} images" if ok else f"{name} holds no image: none is ok"]
        return [f"{name} holds all of it"]
    lines = [f"what {name} cannot hold (export.json has it for every class):"]
    for kind, found in _by_kind(losses).items():
        lines.append(f"  {_amount(found)} {LOSSES[kind]}")
        classes = sorted(
            (loss for loss in found if loss["category"]), key=lambda loss: -loss["pixels"] or -loss["count"]
        )
        shown = [f"{loss['category']} {_amount([loss])}" for loss in classes[:_SHOWN]]
        more = [f"{len(classes) - _SHOWN} more classes"] if len(classes) > _SHOWN else []
        if shown:
            lines.append(f"    {', '.join(shown + more)}")
    return lines


def _amount(losses: Sequence[LossRow]) -> str:
    count, pixels = sum(loss["count"] for loss in losses), sum(loss["pixels"] for loss in losses)
    return f"{count:,} ({pixels:,} px)" if pixels else f"{count:,}"
