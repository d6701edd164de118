"""Parts and run.json: how a manifest lies in a store, written once and read back.

    <uri>/plan.parquet               which items in which shards; its footer names the run   written first
    <uri>/parts/part-00012.parquet   the rows of shard 12, sorted by image_id                 in any order
    <uri>/run.json                   every part with rows and sha256, counts, provenance      written last

A collection (``collection.py``) is read through the same functions: each version of its table is such a manifest.

Each file is published whole by one put-if-absent, so a part exists exactly when it is complete, and
a manifest exists exactly when run.json does. Nothing is ever replaced or deleted.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segjobs.errors import ManifestError
from segjobs.manifest.crash_points import crash_at
from segjobs.manifest.plan import read_plan
from segjobs.manifest.run_info import PartInfo, Run, RunInfo
from segjobs.manifest.schema import (
    FOOTER_KEY,
    LATER_COLUMNS,
    MANIFEST_SCHEMA,
    SEGMENT_TYPE,
    Footer,
    with_later_columns,
)
from segjobs.manifest.seal import damaged, is_sealed, open_json, open_table, parse_table, sealed_json, sealed_table
from segjobs.manifest.table_files import has_table, read_file
from segjobs.storage import FileInfo, Storage, is_remote, join

_PARQUET_OPTIONS = {
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": ["status", "run_id", "model", "segments.list.element.category"],
    "row_group_size": 1000,
    "write_page_index": True,
}
_CHECKED_AT_ONCE = 8
_PART_NAME = re.compile(r"part-(\d{5,})\.parquet")
PART_MEND = "move it away and run the command again"
_LOST = "bring it back from a copy, or make the run anew at a new output.uri"
_RUN_MEND = "move it away and run its command again, which takes the parts as they are and writes it anew"


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


def list_part_files(storage: Storage, uri: str) -> dict[int, FileInfo]:
    """Shard → its part as it is listed; empty where there is no folder of parts."""
    folder = join(uri, "parts")
    if not is_remote(folder) and not storage.is_folder(folder):
        return {}
    files = storage.walk(folder, levels=0)
    return {int(match[1]): file for file in files if (match := _PART_NAME.fullmatch(file.path))}


def part_bytes(
    rows: pa.Table,
    footer: Footer,
    *,
    schema: pa.Schema = MANIFEST_SCHEMA,
    metadata: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """One part as sealed Parquet: equal rows give equal bytes with one version of pyarrow.

    ``metadata``: further keys beside the footer's, of this part alone.
    Zstandard level 3; no dictionary for the RLE counts, which do not repeat; page index on, so that
    a reader can fetch a single image.
    """
    own = {FOOTER_KEY: footer.to_bytes(), **(metadata or {})}
    return sealed_table(rows.select(schema.names).cast(schema), metadata=own, options=_PARQUET_OPTIONS)


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


def receipt_of(where: str, data: bytes, image_ids: Sequence[str], *, run_id: str) -> Receipt:
    """Tally the bytes of the part that lies at ``where``.

    Raises ManifestError where it does not hold exactly the shard's image_ids in order, each row of ``run_id``, or
    where the file is damaged.
    """
    # The masks of a sealed part are proven by its seal: one number of each segment tells how many there are.
    segments = "segments.list.element.category_id" if is_sealed(data) else "segments"
    table = open_table(data, where, mend=PART_MEND, columns=["image_id", "run_id", "status", "error", segments])
    ids = _texts(table["image_id"], where)
    writers = [one for one in _texts(pc.unique(table["run_id"]), where) if one != run_id]
    if writers:
        raise ManifestError(
            f"{where} was written by run {writers[0]}, and this is run {run_id}: its model, its settings or its images "
            "are others; choose a new output.uri"
        )
    if ids != list(image_ids):
        raise ManifestError(
            f"{where} holds {len(ids)} images where the plan has {len(image_ids)}, or others; "
            "it belongs to another run: choose a new output.uri"
        )
    failures: Counter[str] = Counter()
    examples: dict[str, tuple[str, str]] = {}
    for image_id, error in zip(ids, table["error"].to_pylist(), strict=True):
        if error:
            failures[error["code"]] += 1
            examples.setdefault(error["code"], (image_id, error["message"]))
    masks = sum(len(chunk.values) for chunk in table["segments"].chunks)
    part = PartInfo(where.rpartition("/")[2], len(ids), hashlib.sha256(data).hexdigest(), ids[0], ids[-1])
    return Receipt(part, len(ids) - failures.total(), dict(failures), examples, masks)


def run_id_of(storage: Storage, uri: str) -> str | None:
    """The run that wrote the part at ``uri``; None of a part without rows. Raises ManifestError."""
    rows = open_table(storage.read(uri), uri, mend=PART_MEND, columns=["run_id"])
    return _texts(rows["run_id"].slice(0, 1), uri)[0] if rows.num_rows else None


def _texts(column: pa.ChunkedArray | pa.Array, where: str) -> list[str]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError as error:
        raise damaged(where, str(error), mend=PART_MEND) from error


def plan_uri(uri: str) -> str:
    """Where the file lies that says what a run is of."""
    return join(uri, "plan.parquet")


def run_uri(uri: str) -> str:
    """Where the file lies that makes a run complete."""
    return join(uri, "run.json")


def write_run(storage: Storage, run: Run) -> bool:
    """Publish run.json; False where it stands already."""
    body = {**run.info.to_json(), "parts": [asdict(part) for part in run.parts]}
    crash_at("run:before")
    new = storage.put_if_absent(run_uri(run.uri), sealed_json(body))
    crash_at("run:after")
    return new


def find_run(storage: Storage, uri: str) -> Run | None:
    """The finished run at ``uri``, or None where there is no run.json. Raises ManifestError where that is damaged."""
    where = run_uri(uri)
    try:
        data = storage.read(where)
    except (FileNotFoundError, NotADirectoryError):
        return None
    raw = open_json(data, where, mend=_RUN_MEND)
    try:
        return Run(uri, tuple(PartInfo(**part) for part in raw["parts"]), RunInfo.from_json(raw))
    except KeyError as error:
        raise damaged(where, f"no key {error}", mend=_RUN_MEND) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise damaged(where, str(error), mend=_RUN_MEND) from error


def open_run(storage: Storage, uri: str) -> Run:
    """The finished run at ``uri``, or the collection, or a version of one (``uri@7``), pinned to what it is now.

    Raises ManifestError where none is there, or the run is not finished.
    """
    run = find_manifest(storage, uri)
    if run is None:
        if list_parts(storage, uri):
            raise ManifestError(f"{uri}: the run is not finished (no run.json); run its command again to finish it")
        raise ManifestError(
            f"{uri}: no manifest here; expected a folder with run.json and parts/, or a collection's with masks/"
        )
    return run


def find_manifest(storage: Storage, uri: str) -> Run | None:
    """As ``open_run``, but None where neither a finished run nor a collection is."""
    run = find_run(storage, uri)
    if run is not None:
        return run
    if not has_table(storage, uri):
        return None
    from segjobs.manifest.collection import open_collection  # imports deltalake

    return open_collection(storage, uri).run()


def read_part(storage: Storage, run: Run, part: PartInfo, *, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one part, verified against run.json's sha256. Raises ManifestError.

    Of a collection: of the images that are not gone.
    """
    if run.table is not None:
        return _read_file(storage, run.table, part, columns)
    data = _checked_bytes(storage, run, part)
    uri = join(run.uri, "parts", part.name)
    rows = parse_table(data, uri, mend=_LOST, columns=columns, optional=LATER_COLUMNS.names)
    return _with_later_fields(with_later_columns(rows, columns))


def check_parts(storage: Storage, run: Run) -> None:
    """Read every part of a finished run, a few at a time. Raises ManifestError where one is not as in run.json."""

    def check(part: PartInfo) -> None:
        _checked_bytes(storage, run, part)

    with ThreadPoolExecutor(_CHECKED_AT_ONCE) as threads:
        list(threads.map(check, run.parts))


def _checked_bytes(storage: Storage, run: Run, part: PartInfo) -> bytes:
    """A part of a run, verified against run.json's sha256. Raises ManifestError."""
    uri = join(run.uri, "parts", part.name)
    try:
        data = storage.read(uri)
    except FileNotFoundError as error:
        raise ManifestError(f"{uri}: listed in run.json but not there: {_LOST}") from error
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise ManifestError(f"{uri}: its sha256 is not the one in run.json: it was damaged or replaced; {_LOST}")
    return data


def _read_file(storage: Storage, table: str, part: PartInfo, columns: Sequence[str] | None) -> pa.Table:
    wanted = None if columns is None else [*dict.fromkeys([*columns, "gone_at"])]
    rows = read_file(storage, table, part, columns=wanted)
    rows = rows.filter(pc.is_null(rows["gone_at"]))
    return rows if columns is None else rows.select(list(columns))


def _with_later_fields(table: pa.Table) -> pa.Table:
    """The table with null where an earlier release's segments lack a field."""
    place = table.schema.get_field_index("segments")
    if place < 0:
        return table
    field = table.schema.field(place)
    there: pa.StructType = field.type.value_type
    missing = [one for one in SEGMENT_TYPE if there.get_field_index(one.name) < 0]
    if not missing:
        return table
    whole = pa.list_(field.type.value_field.with_type(pa.struct([*there, *missing])))
    return table.cast(table.schema.set(place, field.with_type(whole)))


def read_rows(storage: Storage, uri: str, *, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Every row of a finished manifest as a dict, in order of image_id, one part in memory at a time."""
    run = open_run(storage, uri)
    for part in run.parts:
        yield from read_part(storage, run, part, columns=columns).to_pylist()


def image_ids_of(storage: Storage, run: Run) -> list[str]:
    """Every image_id of a finished run, in order, from its plan: one small file instead of every part.

    From its parts where it has no plan. Raises ManifestError where the plan is damaged, or another run's.
    """
    uri = plan_uri(run.uri)
    try:
        data = storage.read(uri) if run.table is None else None
    except (FileNotFoundError, NotADirectoryError):
        data = None
    if data is None:
        tables = (read_part(storage, run, part, columns=("image_id",)) for part in run.parts)
        return [image_id for table in tables for image_id in table["image_id"].to_pylist()]
    plan, _ = read_plan(data, uri)
    expected = run.info.identity.get("input", plan.digest)
    if plan.items.num_rows != sum(part.rows for part in run.parts) or plan.digest != expected:
        raise ManifestError(f"{uri}: it is not the plan of run {run.info.run_id} in run.json; {_LOST}")
    return plan.items["image_id"].to_pylist()


def footer_of(run: Run) -> Footer:
    """Task, categories and model card of a run, from run.json (the same as every part's footer)."""
    return run.info.footer
