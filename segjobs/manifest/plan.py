"""The plan of a run: which items, in which shards. Listed files in, an Arrow table out.

The plan is sorted by image_id and cut into shards of consecutive items, bounded by count and bytes,
so that each part of the manifest holds one range of ids. Its digest names the input exactly.
"""

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from segjobs.config import ShardConfig
from segjobs.errors import ConfigError
from segjobs.manifest.seal import damaged, open_table, sealed_table
from segjobs.storage import FileInfo

PLAN_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # -1: listed, but not there
        pa.field("mtime", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
    ]
)
PLAN_MEND = "move it away and run the command again: what is published stays"
_LISTING_CHUNK = 65_536


@dataclass(frozen=True)
class Plan:
    """The items of a run (``PLAN_SCHEMA``, sorted by image_id) and their digest (SHA-256, hex)."""

    items: pa.Table
    digest: str

    @property
    def num_shards(self) -> int:
        return self.items["shard"][-1].as_py() + 1 if self.items.num_rows else 0

    @property
    def num_bytes(self) -> int:
        return int(np.maximum(self.items["size"].to_numpy(), 0).sum())

    def shards(self) -> Iterator[tuple[int, pa.Table]]:
        """Every shard's number with its items, in order."""
        numbers, starts = np.unique(self.items["shard"].to_numpy(), return_index=True)
        stops = np.append(starts[1:], self.items.num_rows)
        for number, start, stop in zip(numbers.tolist(), starts.tolist(), stops.tolist(), strict=False):
            yield number, self.items.slice(start, stop - start)


def make_plan(files: Iterable[FileInfo], shard: ShardConfig, *, limit: int | None = None) -> Plan:
    """Sort, check and cut a listing. Raises ConfigError where two files have one image_id."""
    if limit is not None:
        files = heapq.nsmallest(limit, files, key=lambda file: file.path)
    table = _to_table(files)
    table = table.sort_by("image_id")
    previous = None
    for row, image_id in enumerate(table["image_id"].to_pylist()):
        if image_id == previous:
            one, two = table["uri"][row - 1].as_py(), table["uri"][row].as_py()
            raise ConfigError(
                f"input: {one} and {two} both have the image_id {image_id!r}; "
                "give a list with a column image_id that tells them apart"
            )
        previous = image_id
    return Plan(_cut(table, shard), _digest(table))


def first_there(plan: Plan) -> str | None:
    """The URI of the first item that was there when it was listed."""
    return next((item["uri"] for item in plan.items.to_pylist() if item["size"] >= 0), None)


def select(plan: Plan, taken: np.ndarray, shard: ShardConfig) -> Plan:
    """The plan of some of the items, cut anew. ``taken``: bool (N,), in the plan's order."""
    table = plan.items.drop_columns(["shard"]).filter(pa.array(taken))
    return Plan(_cut(table, shard), _digest(table))


def _to_table(files: Iterable[FileInfo]) -> pa.Table:
    """A listing as columns, in chunks: a file as a Python object costs ten times its Arrow row."""
    schema = pa.schema([PLAN_SCHEMA.field(name) for name in ("image_id", "uri", "size", "mtime", "etag")])
    batches: list[pa.RecordBatch] = []
    rows: list[tuple[str, str, int, int, str]] = []

    def flush() -> None:
        columns: Iterable[Iterable[str | int]] = zip(*rows, strict=True) if rows else ((),) * len(schema)
        arrays = [pa.array(list(c), f.type) for c, f in zip(columns, schema, strict=True)]
        batches.append(pa.record_batch(arrays, schema=schema))
        rows.clear()

    for file in files:
        rows.append((file.path, file.uri, file.size, file.mtime_us, file.etag))
        if len(rows) == _LISTING_CHUNK:
            flush()
    flush()
    return pa.Table.from_batches(batches, schema)


def _cut(table: pa.Table, shard: ShardConfig) -> pa.Table:
    numbers: list[int] = []
    count = size = number = 0
    for item in table["size"].to_pylist():
        item = max(item, 0)
        if count and (count == shard.images or size + item > shard.bytes):
            number, count, size = number + 1, 0, 0
        count, size = count + 1, size + item
        numbers.append(number)
    return table.add_column(0, PLAN_SCHEMA.field("shard"), pa.array(numbers, pa.int32())).cast(PLAN_SCHEMA)


def _digest(table: pa.Table) -> str:
    """SHA-256 of the items (without their shards), column by column in chunks of fixed size."""
    sha256 = hashlib.sha256()
    table = table.set_column(3, "mtime", table["mtime"].cast(pa.int64()))
    for start in range(0, table.num_rows, _LISTING_CHUNK):
        for column in table.slice(start, _LISTING_CHUNK).columns:
            sha256.update(json.dumps(column.to_pylist()).encode())
    return sha256.hexdigest()


def write_plan(plan: Plan, metadata: Mapping[bytes, bytes]) -> bytes:
    """The plan as one sealed Parquet file with ``metadata`` in its footer."""
    return sealed_table(plan.items, metadata=metadata)


def read_plan(data: bytes, where: str = "plan.parquet") -> tuple[Plan, dict[bytes, bytes]]:
    """The inverse of ``write_plan``. Raises ManifestError, which names ``where`` it lies, where the file is damaged."""
    table = open_table(data, where, mend=PLAN_MEND)
    kept: dict[bytes, bytes] = table.schema.metadata or {}
    metadata = {key: value for key, value in kept.items() if key != b"ARROW:schema"}
    try:
        items = table.replace_schema_metadata(None).cast(PLAN_SCHEMA)
        return Plan(items, _digest(items.drop_columns(["shard"]))), metadata
    except ValueError as error:  # Arrow's own, and text that is no UTF-8
        raise damaged(where, str(error), mend=PLAN_MEND) from error
