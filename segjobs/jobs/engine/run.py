"""The run that every job is: plan → pending shards → stages → parts → run.json.

A job brings its items, its identity, its stages (blocks of planned items in, blocks of manifest rows out) and
who is to work on them (``executor.py``). This module publishes the plan, skips the shards whose parts stand, follows
those of the others (``shards.py``) and closes the run. Starting it again after anything continues it.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from segjobs import __version__
from segjobs.errors import StorageError
from segjobs.jobs.engine.adopt import adopt_run, moved_line, publish_plan
from segjobs.jobs.engine.executor import Executor, Stage
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.receipts import Receipts, as_published, recall
from segjobs.jobs.engine.shards import STAGES, Done, Job, Tally, publish, shards_of, verify
from segjobs.manifest.parts import (
    PART_MEND,
    PartInfo,
    Receipt,
    Run,
    check_parts,
    list_part_files,
    part_uri,
    write_run,
)
from segjobs.manifest.run_info import GpuUse, RunCounts, RunInfo, Timings
from segjobs.manifest.seal import damaged
from segjobs.storage import Storage


@dataclass
class Summary:
    """How a run ended. Seconds are of this attempt, counts of the run; ``start_seconds`` by phase of the start.

    ``gpus``: of this attempt, by UUID; none of which nothing is known.
    """

    uri: str
    run_id: str
    images: int = 0
    ok: int = 0
    segments: int = 0
    failures: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    already_done: int = 0
    seconds: float = 0.0
    first_shard_s: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict[str, float])
    start_seconds: dict[str, float] = field(default_factory=dict[str, float])
    gpus: dict[str, GpuUse] = field(default_factory=dict[str, GpuUse])
    complete_before: bool = False

    @property
    def failed(self) -> int:
        return self.images - self.ok

    def add(self, receipt: Receipt) -> None:
        self.images += receipt.part.rows
        self.ok += receipt.ok
        self.segments += receipt.segments
        self.failures.update(receipt.failures)
        for code, example in receipt.examples.items():
            self.examples[code] = min(example, self.examples.get(code, example))


class TallySink(Protocol):
    """What a job makes of its shards' tallies: files beside run.json, published before it."""

    def add(self, shard: int, tally: Tally) -> None:
        """Each shard's once, in any order, whether its part is new or an earlier attempt's."""
        ...

    def publish(self) -> None:
        """All parts stand."""
        ...


def run_job(
    storage: Storage,
    job: Job,
    stages: Sequence[Stage],
    progress: Progress,
    *,
    executor: Executor,
    tallies: TallySink | None = None,
) -> Summary:
    """Run the job to its end, or continue it; the manifest stands complete at ``job.uri`` after it.

    A signal stops it between shards, within ``job.grace_s``, and then has its usual effect. Raises the
    SegjobsError that stopped a worker, or ConflictError where the output is another run's.
    """
    start = time.monotonic()
    adopted = adopt_run(storage, job)
    if not adopted.planned:
        publish_plan(storage, job)
        adopted = adopt_run(storage, job)
    if adopted.moved:
        progress.note(f"{job.verb}: {moved_line(adopted.job.uri, adopted.moved)}")
    job, run, done = adopted.job, adopted.run, adopted.done
    if run is not None:
        return summary_of_finished(storage, job, run, progress)
    summary = Summary(job.uri, job.run_id)
    standing: dict[int, Done] = {}
    times: Counter[str] = Counter()
    shards = list(shards_of(job))
    pending = [(number, items) for number, items in shards if number not in done]
    summary.already_done = job.plan.items.num_rows - sum(items.num_rows for _, items in pending)
    attempt = executor.attempt(storage, job.uri, progress, job.run_id)
    meter = executor.meter(progress.verb)
    receipts = Receipts(storage, job)
    others = 0

    def take(one: Done) -> None:
        standing[one.number] = one
        summary.add(one.receipt)
        if tallies:
            tallies.add(one.number, one.tally)

    if done:
        with progress.phase("verifying", f"verifying {len(done)} shards that stand") as phase:
            there = [shard for shard in shards if shard[0] in done]
            known = recall(storage, job, there, done, progress) if job.verify == "receipts" else {}
            phase.outcome = f"{len(known)} by their receipts, {len(there) - len(known)} read whole"
            for one in known.values():
                take(one)
            for one in verify(executor, storage, job, [shard for shard in there if shard[0] not in known]):
                take(one)
                receipts.add(one)
    progress.start(total=job.plan.items.num_rows, done=summary.already_done)
    meter.begun(job.plan.items.num_rows - summary.already_done)
    try:
        progress.begin()
        with attempt.stopping(job.grace_s) as stopping:
            for one in publish(attempt, storage, job, pending, stages):
                if not summary.first_shard_s:
                    summary.first_shard_s = time.monotonic() - start
                take(one)
                receipts.add(one)
                times.update(one.spent)
                receipt = one.receipt
                meter.published(receipt, one.spent, ours=one.ours)
                progress.advance(ok=receipt.ok, failed=receipt.part.rows - receipt.ok, shard=one.number)
                if not one.ours:
                    others += 1
                    if others == 1:
                        progress.note(f"{job.verb}: another run of the same job is at work on {job.uri}; it is shared")
            if stopping.asked and len(standing) < len(shards):
                receipts.save()
                stopping.leave()
    except BaseException:
        receipts.save()
        raise
    finally:
        progress.stop()
    assert len(standing) == len(shards), "the stages lost a shard"  # noqa: S101
    summary.seconds = time.monotonic() - start
    summary.stage_seconds = {stage: round(times[stage] / 1000, 3) for stage in (*STAGES, "write")}
    summary.start_seconds = {phase: round(seconds, 3) for phase, seconds in progress.take_seconds().items()}
    if any(stage.gpus for stage in stages):
        summary.gpus = attempt.gpus()
    _check_there(executor, storage, job, standing)
    if tallies:
        tallies.publish()
    if not _close(storage, job, summary, [standing[number].receipt.part for number, _ in shards]):
        progress.note(f"{job.verb}: another run of the same job finished {job.uri} first; its run.json stands")
    return summary


def gather(executor: Executor, storage: Storage, job: Job, tallies: TallySink) -> None:
    """Hand the tallies of a finished run's parts to ``tallies``; nothing is published."""
    for done_shard in verify(executor, storage, job, shards_of(job)):
        tallies.add(done_shard.number, done_shard.tally)


# --- the end -----------------------------------------------------------------------------------


def _check_there(executor: Executor, storage: Storage, job: Job, standing: Mapping[int, Done]) -> None:
    """Raise StorageError where a part that a worker has published is not to be seen from the driver.

    And ManifestError where one is not any more what its receipt says: those that are listed with another size, time
    or etag are read.
    """
    if not standing:
        return
    listed = list_part_files(storage, job.uri)
    unseen = sorted(set(standing) - set(listed))
    if unseen:
        raise StorageError(
            f"{part_uri(job.uri, unseen[0])}: a worker has published it, and it is not there for the driver, as "
            f"{len(unseen)} of {len(standing)} parts: the nodes have disks of their own. Take an output.uri that all "
            "share (s3://bucket/prefix, or a disk mounted at one path everywhere) and run the command again"
        )
    moved = {number for number, one in standing.items() if not as_published(one, listed[number])}
    for one in verify(executor, storage, job, [shard for shard in shards_of(job) if shard[0] in moved]):
        if one.receipt.part != standing[one.number].receipt.part:
            raise damaged(part_uri(job.uri, one.number), "it was replaced while the run was at work", mend=PART_MEND)


def _close(storage: Storage, job: Job, summary: Summary, parts: Sequence[PartInfo]) -> bool:
    """Publish run.json; False where it stands already."""
    info = RunInfo(
        run_id=job.run_id,
        verb=job.verb,
        version=__version__,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        counts=RunCounts(summary.images, summary.ok, summary.failed, summary.segments),
        failures=dict(sorted(summary.failures.items())),
        examples=dict(sorted(summary.examples.items())),
        timings=Timings(round(summary.seconds, 3), summary.stage_seconds, summary.start_seconds, summary.gpus or None),
        identity={**job.identity, "input": job.plan.digest},
        footer=job.footer,
        config=job.config,
    )
    return write_run(storage, Run(job.uri, tuple(parts), info))


def summary_of_finished(storage: Storage, job: Job, run: Run, progress: Progress) -> Summary:
    """The summary of a run that an earlier command finished, whose parts are read where ``job.verify`` asks for it.

    Raises ManifestError where one of them is not the one in run.json.
    """
    if job.verify == "full":
        with progress.phase("verifying", f"verifying {len(run.parts)} parts") as phase:
            check_parts(storage, run)
            phase.outcome = "each is as run.json has it"
    counts = run.info.counts
    return Summary(
        job.uri,
        job.run_id,
        images=counts.images,
        ok=counts.ok,
        segments=counts.segments,
        failures=Counter(run.info.failures),
        examples=dict(run.info.examples),
        already_done=counts.images,
        complete_before=True,
    )
