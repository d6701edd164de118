"""Parts and run.json: how a manifest lies in a store, written once and read back.

    <uri>/plan.parquet               which items in which shards; its footer names the run   written first
    <uri>/parts/part-00012.parquet   the rows of shard 12, sorted by image_id                 in any order
    <uri>/run.json                   every part with rows and sha256, counts, provenance      written last

Each file is published whole by one put-if-absent, so a part exists exactly when it is complete, and
a manifest exists exactly when run.json does. Nothing is ever replaced or deleted.
"""

import hashlib
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segjobs.errors import ManifestError
from segjobs.manifest.run_info import RunInfo
from segjobs.manifest.schema import FOOTER_KEY, MANIFEST_SCHEMA, Footer
from segjobs.storage import Storage, join

_PARQUET_OPTIONS = {
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": ["status", "run_id", "model", "segments.list.element.category"],
    "row_group_size": 1000,
    "write_page_index": True,
}
_PART_NAME = re.compile(r"part-(\d{5,})\.parquet")


def crash_at(point: str) -> None:
    """For tests of resuming alone: end this process as SIGKILL would where SEGJOBS_CRASH_AT names the point.

    Points: ``plan:``, ``part-N:`` and ``run:``, each with ``before`` and ``after``.
    """
    if os.environ.get("SEGJOBS_CRASH_AT") == point:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class PartInfo:
    """One part as run.json lists it. ``first_id`` and ``last_id`` bound its image_ids."""

    name: str
    rows: int
    sha256: str
    first_id: str
    last_id: str


@dataclass(frozen=True)
class Receipt:
    """What is known of one published part without its rows: the line of run.json and the tallies.

    ``failures``: error code → count; ``examples``: error code → (image_id, message) of one of them.
    """

    part: PartInfo
    ok: int
    failures: dict[str, int]
    examples: dict[str, tuple[str, str]]
    segments: int


def part_uri(uri: str, shard: int, folder: str = "parts") -> str:
    """Where the part of a shard lies in the manifest at ``uri``, or in another ``folder`` of a run."""
    return join(uri, folder, f"part-{shard:05d}.parquet")


def list_parts(storage: Storage, uri: str, folder: str = "parts") -> set[int]:
    """The shards whose parts are published."""
    return {int(match[1]) for name in storage.list_names(join(uri, folder)) if (match := _PART_NAME.fullmatch(name))}


def part_bytes(
    rows: pa.Table,
    footer: Footer,
    *,
    schema: pa.Schema = MANIFEST_SCHEMA,
    metadata: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """One part as Parquet: equal rows give equal bytes with one version of pyarrow.

    ``metadata``: further keys beside the footer's, of this part alone.
    Zstandard level 3; no dictionary for the RLE counts, which do not repeat; page index on, so that
    a reader can fetch a single image.
    """
    table = rows.select(schema.names).cast(schema.with_metadata({FOOTER_KEY: footer.to_bytes(), **(metadata or {})}))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **_PARQUET_OPTIONS)
    return sink.getvalue().to_pybytes()


def publish_part(storage: Storage, uri: str, shard: int, data: bytes) -> tuple[bytes, bool]:
    """Put a part if absent; the bytes that now stand there, and whether they are this call's.

    Where another writer (or this one's own lost reply) was first, its part stands: it holds the same
    shard of the same run, and is read back.
    """
    target = part_uri(uri, shard)
    crash_at(f"part-{shard}:before")
    new = storage.put_if_absent(target, data)
    crash_at(f"part-{shard}:after")
    if new:
        return data, True
    standing = storage.read(target)
    return standing, standing == data


def receipt_of(shard: int, data: bytes, image_ids: Sequence[str]) -> Receipt:
    """Tally a part's bytes, asserting that it holds exactly the shard's image_ids in order.

    Raises ManifestError where it does not, or where the file is damaged.
    """
    name = f"part-{shard:05d}.parquet"
    try:
        table = pq.read_table(pa.BufferReader(data), columns=["image_id", "status", "error", "segments"])
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{name} is damaged ({error}); move it away and run the command again") from error
    ids = table["image_id"].to_pylist()
    if ids != list(image_ids):
        raise ManifestError(
            f"{name} holds {len(ids)} images where the plan has {len(image_ids)}, or others; "
            "it belongs to another run: choose a new output.uri"
        )
    failures: Counter[str] = Counter()
    examples: dict[str, tuple[str, str]] = {}
    for image_id, error in zip(ids, table["error"].to_pylist(), strict=True):
        if error:
            failures[error["code"]] += 1
            examples.setdefault(error["code"], (image_id, error["message"]))
    segments = sum(len(chunk.values) for chunk in table["segments"].chunks)
    part = PartInfo(name, len(ids), hashlib.sha256(data).hexdigest(), ids[0], ids[-1])
    return Receipt(part, len(ids) - failures.total(), dict(failures), examples, segments)


@dataclass(frozen=True)
class Run:
    """A finished manifest as run.json describes it."""

    uri: str
    parts: tuple[PartInfo, ...]
    info: RunInfo


def run_uri(uri: str) -> str:
    """Where the file lies that makes a run complete."""
    return join(uri, "run.json")


def write_run(storage: Storage, run: Run) -> bool:
    """Publish run.json; False where it stands already."""
    body = {**run.info.to_json(), "parts": [asdict(part) for part in run.parts]}
    crash_at("run:before")
    new = storage.put_if_absent(run_uri(run.uri), json.dumps(body, indent=1, ensure_ascii=False).encode())
    crash_at("run:after")
    return new


def find_run(storage: Storage, uri: str) -> Run | None:
    """The finished run at ``uri``, or None where there is no run.json. Raises ManifestError where that is damaged."""
    try:
        raw = json.loads(storage.read(run_uri(uri)))
        return Run(uri, tuple(PartInfo(**part) for part in raw["parts"]), RunInfo.from_json(raw))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, AttributeError) as error:
        raise ManifestError(f"{run_uri(uri)} is damaged: {error}") from error
    except KeyError as error:
        raise ManifestError(f"{run_uri(uri)} is damaged: no key {error}") from error


def open_run(storage: Storage, uri: str) -> Run:
    """The finished run at ``uri``. Raises ManifestError where it is missing or not finished."""
    run = find_run(storage, uri)
    if run is None:
        if list_parts(storage, uri):
            raise ManifestError(f"{uri}: the run is not finished (no run.json); run its command again to finish it")
        raise ManifestError(f"{uri}: no manifest here; expected a folder with run.json and parts/")
    return run


def read_part(storage: Storage, run: Run, part: PartInfo, *, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one part, verified against run.json's sha256. Raises ManifestError."""
    uri = join(run.uri, "parts", part.name)
    try:
        data = storage.read(uri)
    except FileNotFoundError as error:
        raise ManifestError(f"{uri}: listed in run.json but not there") from error
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise ManifestError(f"{uri}: its sha256 is not the one in run.json: the file was damaged or replaced")
    return pq.read_table(pa.BufferReader(data), columns=list(columns) if columns else None)


def read_rows(storage: Storage, uri: str, *, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Every row of a finished manifest as a dict, in order of image_id, one part in memory at a time."""
    run = open_run(storage, uri)
    for part in run.parts:
        yield from read_part(storage, run, part, columns=columns).to_pylist()


def footer_of(run: Run) -> Footer:
    """Task, categories and model card of a run, from run.json (the same as every part's footer)."""
    return run.info.footer
