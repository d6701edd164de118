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
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segjobs.config import digest
from segjobs.jobs.engine.executor import Attempt, Executor, Stage, check_seen
from segjobs.jobs.engine.logs import LOGGER, log_rows, logging_about
from segjobs.manifest.parts import PartInfo, Receipt, part_bytes, part_uri, publish_part, receipt_of
from segjobs.manifest.plan import Plan
from segjobs.manifest.schema import Footer
from segjobs.storage import Storage

STAGES = ("read", "decode", "forward", "encode")
TIMES_SCHEMA = pa.schema([(f"{stage}_ms", pa.float32()) for stage in STAGES])
"""Columns that a job's rows carry besides: the writer sums them up and leaves them out of the part."""
TALLY_KEY = b"segjobs_tally"
"""Where a part's Parquet footer keeps what ``Job.tally`` made of its rows (JSON)."""


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
    """A published shard. ``spent``: stage → milliseconds of this attempt. ``ours``: this attempt published it."""

    number: int
    receipt: Receipt
    spent: dict[str, float]
    tally: Tally
    ours: bool


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
        yield from map(_done, attempt.run(_blocks(shards), stages, write, waiting=job.waiting))


def verify(executor: Executor, storage: Storage, job: Job, shards: Iterable[Shard]) -> Iterator[Done]:
    """Read the parts of these shards, that other attempts published. Raises ManifestError where one is damaged."""
    standing = list(shards)
    if standing:
        yield from map(_done, executor.each(_blocks(standing), _writer(storage, job).verify))


def _done(row: dict[str, Any]) -> Done:
    raw = json.loads(row["receipt"])
    raw["part"] = PartInfo(**raw["part"])
    raw["examples"] = {code: tuple(example) for code, example in raw["examples"].items()}
    return Done(row["shard"], Receipt(**raw), json.loads(row["spent"]), json.loads(row["tally"]), row["ours"])


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
        spent["write"] = 1000 * (time.monotonic() - start)
        if ours:
            log_rows(rows)
        LOGGER.info("%s: %d images, %d ok", "published" if ours else "stood already", len(image_ids), receipt.ok)
        return _receipt_row(number, receipt, spent, data, ours=ours)

    def verify(self, items: pa.Table) -> pa.Table:
        """A part that another attempt published → its receipt; none where there is no such part."""
        number = items["shard"][0].as_py()
        try:
            data = self.storage.read(part_uri(self.uri, number))
        except FileNotFoundError:
            return _RECEIPT_SCHEMA.empty_table()
        return _receipt_row(number, self._receipt_of(number, data, items["image_id"].to_pylist()), {}, data, ours=False)

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
        ("receipt", pa.string()),
        ("spent", pa.string()),
        ("tally", pa.string()),
        ("ours", pa.bool_()),
    ]
)


def _receipt_row(number: int, receipt: Receipt, spent: dict[str, float], data: bytes, *, ours: bool) -> pa.Table:
    metadata: dict[bytes, bytes] = pq.read_metadata(pa.BufferReader(data)).metadata or {}
    tally = metadata.get(TALLY_KEY, b"{}").decode()
    row = {"receipt": json.dumps(asdict(receipt)), "spent": json.dumps(spent), "tally": tally}
    return pa.Table.from_pylist([{"shard": number, **row, "ours": ours}], _RECEIPT_SCHEMA)
