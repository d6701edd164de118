"""What a person reads when a run ends, and the result that its verb gives."""

from dataclasses import asdict

from segjobs.errors import ExitCode
from segjobs.jobs.engine.adopt import Adopted, moved_line
from segjobs.jobs.engine.gpu_use import gpu_line
from segjobs.jobs.engine.run import Summary
from segjobs.jobs.engine.terminal import Terminal
from segjobs.results import DryRun, RunResult
from segjobs.storage import join
from segjobs.text import shorten

_MESSAGE_CHARS = 160


def print_summary(summary: Summary, max_failed_fraction: float) -> RunResult:
    """Tell how a run ended, on standard error; its result.

    That ends with TOO_MANY_FAILED where more than ``max_failed_fraction`` of the images failed, else with DONE.
    """
    allowed = summary.failed <= max_failed_fraction * summary.images
    code = ExitCode.DONE if allowed else ExitCode.TOO_MANY_FAILED
    console = Terminal()
    for line in _lines(summary, max_failed_fraction, allowed=allowed):
        console.print(line)
    return RunResult(
        uri=summary.uri,
        run_id=summary.run_id,
        images=summary.images,
        ok=summary.ok,
        failed=summary.failed,
        failures=dict(sorted(summary.failures.items())),
        segments=summary.segments,
        already_done=summary.already_done,
        seconds=round(summary.seconds, 3),
        stage_seconds=summary.stage_seconds,
        gpus={uuid: asdict(one) for uuid, one in summary.gpus.items()},
        exit_code=code,
    )


def _lines(summary: Summary, max_failed_fraction: float, *, allowed: bool) -> list[str]:
    lines: list[str] = []
    if summary.complete_before:
        lines.append(f"nothing to do: run {summary.run_id} is complete")
    lines.append(f"{summary.images} images: {summary.ok} ok, {summary.failed} failed, {summary.segments} segments")
    for failure, count in sorted(summary.failures.items()):
        image_id, message = summary.examples[failure]
        lines.append(f"  {failure} {count}: {image_id!r}: {_shorten(message)}")
    if not allowed:
        lines.append(f"more than max_failed_fraction={max_failed_fraction:g} of the images failed")
    if summary.already_done and not summary.complete_before:
        lines.append(f"{summary.already_done} of them were done by an earlier attempt")
    labelled = summary.images - summary.already_done
    if summary.seconds and labelled:
        rate = labelled / summary.seconds
        lines.append(f"{summary.seconds:.1f} s, {rate:.1f} images/s (first shard after {summary.first_shard_s:.1f} s)")
        lines.append(_time_line(summary.start_seconds, summary.stage_seconds))
        if summary.gpus:
            lines.append(gpu_line(summary.gpus))
    lines.append(f"manifest: {join(summary.uri, 'run.json')} and parts/")
    return lines


def _time_line(start_seconds: dict[str, float], stage_seconds: dict[str, float]) -> str:
    total = sum(stage_seconds.values()) or 1.0
    shares = ", ".join(f"{stage} {seconds / total:.0%}" for stage, seconds in stage_seconds.items() if seconds)
    phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in start_seconds.items())
    if not start_seconds:
        return f"where the time went, over all threads: {shares}"
    total_s = sum(start_seconds.values())
    return f"where the time went: start {total_s:.1f} s ({phases}); then, over all threads: {shares}"


def _shorten(text: str) -> str:
    return shorten(" ".join(text.split()), _MESSAGE_CHARS)


def dry_run_of(adopted: Adopted, model: str, where: str) -> DryRun:
    """What the job would do."""
    job, plan = adopted.job, adopted.job.plan
    finished = sum(items.num_rows for number, items in plan.shards() if number in adopted.done)
    table = {
        "output": job.uri,
        "run_id": job.run_id,
        "images": plan.items.num_rows,
        "bytes": plan.num_bytes,
        "shards": plan.num_shards,
        "already done": f"{len(adopted.done)} shards, {finished} images",
        "model": model,
        "device": where,
        **({"left out": moved_line(adopted.job.uri, adopted.moved)} if adopted.moved else {}),
    }
    return DryRun((table,))
