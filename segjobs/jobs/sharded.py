"""The run that every job is: plan → pending shards → Ray Data stages → parts → run.json.

A job brings its items, its identity and its stages (blocks of planned items in, blocks of manifest
rows out). This module publishes the plan, skips the shards whose parts stand, appends the writer,
follows the receipts and closes the run. Starting it again after anything continues it.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from segjobs import __version__
from segjobs.config import digest
from segjobs.errors import ConflictError, ManifestError, StorageError
from segjobs.jobs.attempts import Attempts, open_attempts
from segjobs.jobs.blocks import dataset_of, map_blocks, rows_of
from segjobs.jobs.drain import Drain
from segjobs.jobs.progress import Progress
from segjobs.manifest.parts import (
    PartInfo,
    Receipt,
    Run,
    crash_at,
    find_run,
    list_parts,
    part_bytes,
    part_uri,
    publish_part,
    receipt_of,
    write_run,
)
from segjobs.manifest.plan import Plan, read_plan, write_plan
from segjobs.manifest.schema import FOOTER_KEY, Footer
from segjobs.storage import Storage, is_remote, join

STAGES = ("read", "decode", "forward", "encode")
_CPUS_PER_WORKER = 4  # that writes or verifies parts
TIMES_SCHEMA = pa.schema([(f"{stage}_ms", pa.float32()) for stage in STAGES])
"""Columns that a job's rows carry besides: the writer sums them up and leaves them out of the part."""
TALLY_KEY = b"segjobs_tally"
"""Where a part's Parquet footer keeps what ``Job.tally`` made of its rows (JSON)."""


@dataclass(frozen=True)
class Job:
    """One run's inputs. ``identity``: component → JSON value; together they are the run key.

    ``config`` is kept in run.json as it is; ``footer`` goes into every part. ``labels``: one value
    per planned item, in the plan's order, that travels with it as the column ``label``. ``tally``:
    what to keep of a shard's rows, with the columns that the part leaves out, as a small JSON value.
    ``grace_s``: how long a stopped run may go on with the shards in flight.
    """

    verb: str
    uri: str
    plan: Plan
    identity: dict[str, Any]
    footer: Footer
    config: dict[str, Any]
    labels: pa.Array | None = None
    tally: Callable[[pa.Table], dict[str, Any]] | None = None
    grace_s: float = 0.0

    @property
    def run_id(self) -> str:
        """The run key's first 16 digits: the same inputs give the same run."""
        return digest(self.verb, {**self.identity, "input": self.plan.digest})[:16]


@dataclass
class Summary:
    """How a run ended. ``seconds`` and ``stage_seconds`` are of this attempt; counts are of the run."""

    uri: str
    run_id: str
    images: int = 0
    ok: int = 0
    segments: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    already_done: int = 0
    seconds: float = 0.0
    first_shard_s: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
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


Stages = Callable[["ray.data.Dataset", Attempts], "ray.data.Dataset"]
"""Blocks of planned items → blocks of rows; of a shard that an attempt left, its items as they were."""


class Aside(Protocol):
    """What a job makes of its shards' tallies: files beside run.json, published before it."""

    def add(self, shard: int, tally: dict[str, Any]) -> None:
        """Each shard's once, in any order, whether its part is new or an earlier attempt's."""
        ...

    def publish(self) -> None:
        """All parts stand."""
        ...


def adopt_run(storage: Storage, job: Job) -> tuple[Job, Run | None, set[int]]:
    """Compare the job with what stands at its output, writing nothing.

    Returns the job with the standing plan (whose shards may be cut otherwise), the finished run if
    there is one, and the shards already published. Raises ConflictError where the output holds a run
    of other inputs or settings, with what differs.
    """
    try:
        standing, metadata = read_plan(storage.read(_plan_uri(job.uri)))
    except (FileNotFoundError, NotADirectoryError):
        return job, None, set()
    except pa.ArrowException as error:
        raise ManifestError(f"{_plan_uri(job.uri)} is damaged: {error}") from error
    other = json.loads(metadata[FOOTER_KEY])
    if other["run_id"] != job.run_id:
        raise ConflictError(
            f"{job.uri} holds another run ({other['run_id']}); "
            + "; ".join(_differences(job, standing, other))
            + ". Choose a new output.uri to start a new run, or restore the old inputs and settings to finish this one"
        )
    run = find_run(storage, job.uri)
    job = replace(job, plan=standing)
    return job, run, list_parts(storage, job.uri) & set(range(standing.num_shards))


def run_job(storage: Storage, job: Job, stages: Stages, progress: Progress, *, aside: Aside | None = None) -> Summary:
    """Run the job to its end, or continue it; the manifest stands complete at ``job.uri`` after it.

    A signal stops it between shards, within ``job.grace_s``, and then has its usual effect. Raises the
    SegjobsError that stopped a worker, or ConflictError where the output is another run's.
    """
    start = time.monotonic()
    _publish_plan(storage, job)
    job, run, done = adopt_run(storage, job)
    summary = Summary(job.uri, job.run_id)
    receipts: dict[int, Receipt] = {}
    times: Counter[str] = Counter()
    if run is not None:
        return summary_of_finished(job, run)
    shards = list(_shards(job))
    pending = [(number, items) for number, items in shards if number not in done]
    summary.already_done = job.plan.items.num_rows - sum(items.num_rows for _, items in pending)
    progress.start(total=job.plan.items.num_rows, done=summary.already_done)
    attempts = open_attempts(storage, job.uri)
    others = 0
    try:
        standing = [(number, items) for number, items in shards if number in done]
        for done_shard in _collect(_verify(storage, job, standing)):
            receipts[done_shard.number] = done_shard.receipt
            summary.add(done_shard.receipt)
            if aside:
                aside.add(done_shard.number, done_shard.tally)
        progress.begin()
        with Drain(attempts, progress, job.grace_s) as drain:
            for done_shard in _collect(_write(attempts, job, pending, stages)):
                if not summary.first_shard_s:
                    summary.first_shard_s = time.monotonic() - start
                receipt = receipts[done_shard.number] = done_shard.receipt
                summary.add(receipt)
                times.update(done_shard.spent)
                if aside:
                    aside.add(done_shard.number, done_shard.tally)
                progress.advance(ok=receipt.ok, failed=receipt.part.rows - receipt.ok)
                if not done_shard.ours:
                    others += 1
                    if others == 1:
                        progress.note(f"{job.verb}: another run of the same job is at work on {job.uri}; it is shared")
            if drain.asked and len(receipts) < len(shards):
                drain.leave()
    finally:
        progress.stop()
    assert len(receipts) == len(shards), "the stages lost a shard"  # noqa: S101
    summary.seconds = time.monotonic() - start
    summary.stage_seconds = {stage: round(times[stage] / 1000, 3) for stage in (*STAGES, "write")}
    if aside:
        aside.publish()
    if not _close(storage, job, summary, [receipts[number].part for number, _ in shards]):
        progress.note(f"{job.verb}: another run of the same job finished {job.uri} first; its run.json stands")
    return summary


def gather(storage: Storage, job: Job, aside: Aside) -> None:
    """Hand the tallies of a finished run's parts to ``aside``; nothing is published."""
    for done_shard in _collect(_verify(storage, job, list(_shards(job)))):
        aside.add(done_shard.number, done_shard.tally)


def _plan_uri(uri: str) -> str:
    return join(uri, "plan.parquet")


def _publish_plan(storage: Storage, job: Job) -> None:
    about = {"run_id": job.run_id, "verb": job.verb, "identity": job.identity, "version": __version__}
    data = write_plan(job.plan, {FOOTER_KEY: json.dumps(about, sort_keys=True).encode()})
    crash_at("plan:before")
    new = storage.put_if_absent(_plan_uri(job.uri), data)
    crash_at("plan:after")
    if new and is_remote(job.uri) and storage.put_if_absent(_plan_uri(job.uri), data):
        raise StorageError(
            f"{job.uri}: the store ignores 'If-None-Match: *', so two writers could replace each other's parts; "
            "use a store that honours conditional writes (AWS S3, MinIO, Ceph, SeaweedFS, R2 do)"
        )


def _differences(job: Job, standing: Plan, other: dict[str, Any]) -> Iterable[str]:
    """What is not the same, component by component, with an example each."""
    if other["verb"] != job.verb:
        yield f"it was made by {other['verb']}, not {job.verb}"
        return
    if standing.digest != job.plan.digest:
        yield "the input differs: " + _input_difference(standing.items, job.plan.items)
    for name in sorted({*job.identity, *other["identity"]}):
        old, new = other["identity"].get(name), job.identity.get(name)
        if old != new:
            yield f"{name} was {json.dumps(old, ensure_ascii=False)}, is {json.dumps(new, ensure_ascii=False)}"


def _input_difference(old: pa.Table, new: pa.Table) -> str:
    columns = ("image_id", "uri", "size", "mtime", "etag")
    before, after = (
        {row[0]: row[1:] for row in zip(*(table[name].to_pylist() for name in columns), strict=True)}
        for table in (old, new)
    )
    groups = {
        "added": sorted(after.keys() - before.keys()),
        "gone": sorted(before.keys() - after.keys()),
        "changed": sorted(key for key in before.keys() & after.keys() if before[key] != after[key]),
    }
    return ", ".join(f"{len(names)} image(s) {word} (such as {names[0]!r})" for word, names in groups.items() if names)


# --- stages ------------------------------------------------------------------------------------


def shard_key(image_ids: Sequence[str]) -> str:
    """Names a shard by its image_ids: the writer checks that it holds these and no others."""
    return hashlib.sha256("\n".join(image_ids).encode()).hexdigest()


def _shards(job: Job) -> Iterable[tuple[int, pa.Table]]:
    start = 0
    for number, items in job.plan.shards():
        if job.labels is not None:
            items = items.append_column("label", job.labels.slice(start, items.num_rows))
        start += items.num_rows
        yield number, items


def _dataset(shards: Sequence[tuple[int, pa.Table]]) -> "ray.data.Dataset":
    """One block per shard: the planned items and the shard's key."""
    blocks = []
    for _, items in shards:
        key = shard_key(items["image_id"].to_pylist())
        blocks.append(items.combine_chunks().append_column("shard_key", pa.array([key] * items.num_rows)))
    return dataset_of(blocks)


def _write(
    attempts: Attempts, job: Job, pending: Sequence[tuple[int, pa.Table]], stages: Stages
) -> "ray.data.Dataset | None":
    if not pending:
        return None
    rows = stages(_dataset(pending), attempts)
    write = partial(_write_part, storage=attempts.storage, uri=job.uri, footer=job.footer, tally=job.tally)
    return _by_storage(rows, write, len(pending))


def _by_storage(shards: "ray.data.Dataset", task: Callable[[pa.Table], pa.Table], count: int) -> "ray.data.Dataset":
    """``task`` for each of ``count`` shards, by a few workers: it waits for storage more than it computes.

    It takes no CPU of Ray's books: a driver that was killed, or another at work, can hold them all there, and shards
    that are labelled would wait for minutes, for the next kill to lose them.
    """
    workers = max(2, int(ray.cluster_resources().get("CPU", 0)) // _CPUS_PER_WORKER)
    return map_blocks(shards, task, num_cpus=0, at_once=min(workers, count))


def _write_part(
    rows: pa.Table,
    *,
    storage: Storage,
    uri: str,
    footer: Footer,
    tally: Callable[[pa.Table], dict[str, Any]] | None,
) -> pa.Table:
    """Writer stage: the rows of one shard → its published part → one receipt.

    Of a shard that was left undone: the receipt of the part that another run has published, if any.
    """
    start = time.monotonic()
    if "status" not in rows.column_names:
        return _verify_part(rows, storage=storage, uri=uri)
    numbers, keys = set(rows["shard"].to_pylist()), set(rows["shard_key"].to_pylist())
    rows = rows.sort_by("image_id")
    image_ids = rows["image_id"].to_pylist()
    assert len(numbers) == 1 and keys == {shard_key(image_ids)}, f"shard {numbers} lost or gained images"  # noqa: S101
    number = numbers.pop()
    spent: dict[str, float] = {
        stage: sum(rows[f"{stage}_ms"].to_pylist()) for stage in STAGES if f"{stage}_ms" in rows.column_names
    }
    kept = {TALLY_KEY: json.dumps(tally(rows), ensure_ascii=False).encode()} if tally else None
    data, ours = publish_part(storage, uri, number, part_bytes(rows, footer, metadata=kept))
    receipt = receipt_of(number, data, image_ids)
    spent["write"] = 1000 * (time.monotonic() - start)
    return _receipt_row(number, receipt, spent, data, ours=ours)


def _verify(storage: Storage, job: Job, standing: Sequence[tuple[int, pa.Table]]) -> "ray.data.Dataset | None":
    if not standing:
        return None
    verify = partial(_verify_part, storage=storage, uri=job.uri)
    return _by_storage(_dataset(standing), verify, len(standing))


def _verify_part(items: pa.Table, *, storage: Storage, uri: str) -> pa.Table:
    """A part that another attempt published → its receipt; none where there is no such part."""
    number = items["shard"][0].as_py()
    try:
        data = storage.read(part_uri(uri, number))
    except FileNotFoundError:
        return _RECEIPT_SCHEMA.empty_table()
    return _receipt_row(number, receipt_of(number, data, items["image_id"].to_pylist()), {}, data, ours=False)


_RECEIPT_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("receipt", pa.string()),
        ("spent", pa.string()),
        ("tally", pa.string()),
        ("ours", pa.bool_()),
    ]
)


def _receipt_row(number: int, receipt: Receipt, spent: dict[str, float], data: bytes, *, ours: bool) -> pa.Table:
    tally = (pq.read_metadata(pa.BufferReader(data)).metadata or {}).get(TALLY_KEY, b"{}").decode()
    row = {"receipt": json.dumps(asdict(receipt)), "spent": json.dumps(spent), "tally": tally}
    return pa.Table.from_pylist([{"shard": number, **row, "ours": ours}], _RECEIPT_SCHEMA)


@dataclass(frozen=True)
class _Done:
    """A published shard. ``spent``: stage → milliseconds of this attempt. ``ours``: this attempt published it."""

    number: int
    receipt: Receipt
    spent: dict[str, float]
    tally: dict[str, Any]
    ours: bool


def _collect(receipts: "ray.data.Dataset | None") -> Iterable[_Done]:
    """Run a dataset of receipts and hand them on as they come."""
    if receipts is None:
        return
    for row in rows_of(receipts):
        raw = json.loads(row["receipt"])
        raw["part"] = PartInfo(**raw["part"])
        raw["examples"] = {code: tuple(example) for code, example in raw["examples"].items()}
        spent, tally = json.loads(row["spent"]), json.loads(row["tally"])
        yield _Done(row["shard"], Receipt(**raw), spent, tally, row["ours"])


# --- the end -----------------------------------------------------------------------------------


def _close(storage: Storage, job: Job, summary: Summary, parts: Sequence[PartInfo]) -> bool:
    """Publish run.json; False where it stands already."""
    info = {
        "run_id": job.run_id,
        "verb": job.verb,
        "version": __version__,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "counts": {"images": summary.images, "ok": summary.ok, "failed": summary.failed, "segments": summary.segments},
        "failures": dict(sorted(summary.failures.items())),
        "examples": dict(sorted(summary.examples.items())),
        "timings": {"seconds": round(summary.seconds, 3), "stages": summary.stage_seconds},
        "identity": {**job.identity, "input": job.plan.digest},
        "footer": json.loads(job.footer.to_bytes()),
        "config": job.config,
    }
    return write_run(storage, Run(job.uri, tuple(parts), info))


def summary_of_finished(job: Job, run: Run) -> Summary:
    """The summary of a run that an earlier command finished."""
    counts = run.info["counts"]
    return Summary(
        job.uri,
        job.run_id,
        images=counts["images"],
        ok=counts["ok"],
        segments=counts["segments"],
        failures=Counter(run.info["failures"]),
        examples={code: tuple(example) for code, example in run.info["examples"].items()},
        already_done=counts["images"],
        complete_before=True,
    )
