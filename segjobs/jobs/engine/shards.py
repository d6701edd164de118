"""The way of a job's shards: planned items in blocks → the job's stages → the writer's parts → receipts.

    shards_of(job) ─→ publish: the job's stages ─→ writer: a part each ─→ Done
                  └─→ verify: the part that stands ──────────────────────↗

Whoever works on them (``executor.py``) gets a block for each shard.

A shard is one block from the plan to its part and carries the hash of its image_ids: the writer sees that none is lost.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segjobs.config import digest
from segjobs.jobs.engine.executor import Attempt, Executor, Stage, check_seen
from segjobs.jobs.engine.logs import LOGGER, log_rows, logging_about
from segjobs.manifest.parts import PartInfo, Receipt, part_bytes, part_uri, publish_part, receipt_of
from segjobs.manifest.plan import Plan
from segjobs.manifest.schema import Footer
from segjobs.storage import FileInfo, Storage

STAGES = ("read", "decode", "forward", "encode")
TIMES_SCHEMA = pa.schema([(f"{stage}_ms", pa.float32()) for stage in STAGES])
"""Columns that a job's rows carry besides: the writer sums them up and leaves them out of the part."""
TALLY_KEY = b"segjobs_tally"
"""Where a part's Parquet footer keeps what ``Job.tally`` made of its rows (JSON)."""


_VERIFIED_AT_ONCE = 16
"""Parts that a task reads: one each would cost more to begin than to read."""

Tally = dict[str, Any]
"""What a job keeps of a shard's rows: a small JSON value, whose shape is the job's own."""


@dataclass(frozen=True)
class Job:
    """One run's inputs. ``identity``: component → JSON value; together they are the run key.

    ``config`` is kept in run.json as it is; ``footer`` goes into every part. ``labels``: one value
    per planned item, in the plan's order, that travels with it as the column ``label``. ``tally``:
    what to keep of a shard's rows, with the columns that the part leaves out, as a small JSON value.
    ``grace_s``: how long a stopped run may go on with the shards in flight. ``waiting``: so many shards,
    by their bytes, may be done and wait for each one that is being published; they are lost with the driver.
    ``verify``: how parts that stand are looked at (``receipts.py``).
    """

    verb: str
    uri: str
    plan: Plan
    identity: dict[str, object]
    footer: Footer
    config: dict[str, object]
    labels: pa.Array | None = None
    tally: Callable[[pa.Table], Tally] | None = None
    grace_s: float = 0.0
    waiting: float = 10.0
    verify: Literal["receipts", "full"] = "receipts"

    @property
    def run_id(self) -> str:
        """The run key's first 16 digits: the same inputs give the same run."""
        return run_key(self.verb, self.identity, self.plan)


def run_key(verb: str, identity: Mapping[str, object], plan: Plan) -> str:
    """The run_id of a verb with these settings on these items."""
    return digest(verb, {**identity, "input": plan.digest})[:16]


Shard = tuple[int, pa.Table]
"""Its number and its planned items."""


@dataclass(frozen=True)
class Done:
    """A published shard. ``spent``: stage → milliseconds of this attempt. ``ours``: this attempt published it.

    ``key``: of its image_ids (``shard_key``). ``file``: its part as it is listed; None where the store does not say.
    """

    number: int
    key: str
    receipt: Receipt
    spent: dict[str, float]
    tally: Tally
    ours: bool
    file: FileInfo | None


def shards_of(job: Job) -> Iterator[Shard]:
    """The plan's shards in order, with the job's labels."""
    start = 0
    for number, items in job.plan.shards():
        if job.labels is not None:
            items = items.append_column("label", job.labels.slice(start, items.num_rows))
        start += items.num_rows
        yield number, items


def publish(
    attempt: Attempt, storage: Storage, job: Job, shards: Sequence[Shard], stages: Sequence[Stage]
) -> Iterator[Done]:
    """Run the job's stages on these shards and publish their parts; each as it stands.

    Raises the SegjobsError that stopped a worker.
    """
    if shards:
        write = _writer(storage, job).write
        yield from map(done_of, attempt.run(_blocks(shards), stages, write, waiting=job.waiting))


def verify(executor: Executor, storage: Storage, job: Job, shards: Iterable[Shard]) -> Iterator[Done]:
    """Read the parts of these shards, that other attempts published. Raises ManifestError where one is damaged."""
    blocks = _blocks(list(shards))
    together = [
        pa.concat_tables(blocks[at : at + _VERIFIED_AT_ONCE]) for at in range(0, len(blocks), _VERIFIED_AT_ONCE)
    ]
    if together:
        yield from map(done_of, executor.each(together, _writer(storage, job).verify))


def done_of(row: dict[str, Any]) -> Done:
    """A row of ``_RECEIPT_SCHEMA``, as tasks give it."""
    raw = json.loads(row["receipt"])
    raw["part"] = PartInfo(**raw["part"])
    raw["examples"] = {code: tuple(example) for code, example in raw["examples"].items()}
    name, file = raw["part"].name, json.loads(row["file"])
    return Done(
        row["shard"],
        row["key"],
        Receipt(**raw),
        json.loads(row["spent"]),
        json.loads(row["tally"]),
        row["ours"],
        None if file is None else FileInfo(name, name, **file),
    )


# --- blocks ------------------------------------------------------------------------------------


def shard_key(image_ids: Sequence[str]) -> str:
    """Names a shard by its image_ids: the writer checks that it holds these and no others."""
    return hashlib.sha256("\n".join(image_ids).encode()).hexdigest()


def _blocks(shards: Sequence[Shard]) -> list[pa.Table]:
    """One block per shard: the planned items and the shard's key."""
    blocks: list[pa.Table] = []
    for _, items in shards:
        key = shard_key(items["image_id"].to_pylist())
        blocks.append(items.combine_chunks().append_column("shard_key", pa.array([key] * items.num_rows)))
    return blocks


# --- tasks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Writer:
    """What a task needs of a job to publish its parts, or to look at those that stand; pickles small."""

    storage: Storage
    uri: str
    run_id: str
    footer: Footer
    tally: Callable[[pa.Table], Tally] | None

    def write(self, rows: pa.Table) -> pa.Table:
        """The rows of one shard → its published part → one receipt.

        Of a shard that was left undone: the receipt of the part that another run has published, if any.
        """
        with logging_about(run=self.run_id, shard=rows["shard"][0].as_py(), stage="write"):
            return self._write(rows)

    def _write(self, rows: pa.Table) -> pa.Table:
        start = time.monotonic()
        check_seen(self.storage, self.uri)
        if "status" not in rows.column_names:
            return self.verify(rows)
        numbers, keys = set(rows["shard"].to_pylist()), set(rows["shard_key"].to_pylist())
        rows = rows.sort_by("image_id")
        image_ids = rows["image_id"].to_pylist()
        assert len(numbers) == 1 and keys == {shard_key(image_ids)}, f"shard {numbers} lost or gained images"  # noqa: S101
        number = numbers.pop()
        rows = self._signed(rows)
        spent: dict[str, float] = {
            stage: sum(rows[f"{stage}_ms"].to_pylist()) for stage in STAGES if f"{stage}_ms" in rows.column_names
        }
        kept = {TALLY_KEY: json.dumps(self.tally(rows), ensure_ascii=False).encode()} if self.tally else None
        data, ours = publish_part(self.storage, self.uri, number, part_bytes(rows, self.footer, metadata=kept))
        receipt = self._receipt_of(number, data, image_ids)
        file = self.storage.info(part_uri(self.uri, number))
        spent["write"] = 1000 * (time.monotonic() - start)
        if ours:
            log_rows(rows)
        LOGGER.info("%s: %d images, %d ok", "published" if ours else "stood already", len(image_ids), receipt.ok)
        done = Done(number, shard_key(image_ids), receipt, spent, _tally_in(data), ours, file)
        return _receipts([done])

    def verify(self, items: pa.Table) -> pa.Table:
        """Parts that another attempt published → their receipts; none of a shard that has no such part.

        ``items``: of one shard after the other.
        """
        numbers, starts = np.unique(items["shard"].to_numpy(), return_index=True)
        ends = [*starts[1:].tolist(), items.num_rows]
        spans = zip(numbers.tolist(), starts.tolist(), ends, strict=True)
        found = [self._standing(number, items["image_id"][at:end].to_pylist()) for number, at, end in spans]
        return _receipts([done for done in found if done is not None])

    def _standing(self, number: int, image_ids: list[str]) -> Done | None:
        where = part_uri(self.uri, number)
        file = self.storage.info(where)  # before its bytes: of another file that comes between, these are not the bytes
        try:
            data = self.storage.read(where)
        except FileNotFoundError:
            return None
        receipt = self._receipt_of(number, data, image_ids)
        return Done(number, shard_key(image_ids), receipt, {}, _tally_in(data), ours=False, file=file)

    def _signed(self, rows: pa.Table) -> pa.Table:
        """Each row with this run's id: of a plan that another driver was first with, the stages know another one."""
        place = rows.column_names.index("run_id")
        return rows.set_column(place, "run_id", pa.array([self.run_id] * rows.num_rows))

    def _receipt_of(self, number: int, data: bytes, image_ids: Sequence[str]) -> Receipt:
        return receipt_of(part_uri(self.uri, number), data, image_ids, run_id=self.run_id)


def _writer(storage: Storage, job: Job) -> _Writer:
    return _Writer(storage, job.uri, job.run_id, job.footer, job.tally)


_RECEIPT_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("key", pa.string()),
        ("receipt", pa.string()),
        ("spent", pa.string()),
        ("tally", pa.string()),
        ("ours", pa.bool_()),
        ("file", pa.string()),
    ]
)


def row_of(done: Done) -> dict[str, Any]:
    """The inverse of ``done_of``: JSON in its columns."""
    file = done.file and {"size": done.file.size, "mtime_us": done.file.mtime_us, "etag": done.file.etag}
    return {
        "shard": done.number,
        "key": done.key,
        "receipt": json.dumps(asdict(done.receipt)),
        "spent": json.dumps(done.spent),
        "tally": json.dumps(done.tally),
        "ours": done.ours,
        "file": json.dumps(file),
    }


def _receipts(done: Iterable[Done]) -> pa.Table:
    return pa.Table.from_pylist([row_of(one) for one in done], _RECEIPT_SCHEMA)


def _tally_in(data: bytes) -> Tally:
    """What ``Job.tally`` made of the rows of a part."""
    metadata: dict[bytes, bytes] = pq.read_metadata(pa.BufferReader(data)).metadata or {}
    return json.loads(metadata.get(TALLY_KEY, b"{}"))
