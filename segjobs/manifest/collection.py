"""A collection: the current row of every image, over many nights, as versions of a Delta table.

    <uri>/masks/    the table: files of rows that lie by image_id, and _delta_log/, whose files are the versions
    <uri>/runs/     the runs that its rows came from; <uri>/nights/: what each night found and did

    uri, uri@7 ─→ open_collection ─┬→ run: the version as a manifest that every reader takes
                                   └→ commit(changes, app_id) ─→ the next version, once for each app_id

A version is one file of the log that is put if absent, so that of two who write the same one, one is first, and the
other looks again. A file of the table is named by the SHA-256 of its bytes: what is read is checked against its name,
and the same rows are the same file, whoever writes them again.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError

from segjobs import __version__
from segjobs.config import digest
from segjobs.errors import ConfigError, ConflictError, ManifestError, StorageError
from segjobs.manifest.crash_points import crash_at
from segjobs.manifest.delta_log import Added, Commit, Removed, log_text, stats_of
from segjobs.manifest.merge import Changes, Replaced, merge
from segjobs.manifest.run_info import PartInfo, Run, RunCounts, RunInfo, Timings
from segjobs.manifest.schema import COLLECTION_SCHEMA, Category, Footer
from segjobs.manifest.table_files import (
    TABLE_MEND,
    TableFile,
    digest_in,
    has_table,
    log_uri,
    masks_uri,
    read_file,
    split_version,
    write_file,
)
from segjobs.storage import Storage, join
from segjobs.storage.delta import delta_place, open_delta_file

_FOOTER = "segjobs.footer"
_CHECKPOINT_EVERY = 10
"""Versions after which the log is summed up, so that to open the table stays as cheap."""
_ATTEMPTS = 50


def processing_of(identity: Mapping[str, object]) -> str:
    """What the column ``processing`` says of a run: 12 digits of all that made its masks besides the model."""
    others = ("model", "input", "redo")
    return digest("processing", {key: value for key, value in identity.items() if key not in others})[:12]


@dataclass(frozen=True)
class Committed:
    """The version that holds what was to be committed; ``new``: this call wrote it. ``rewritten``: files replaced."""

    version: int
    new: bool
    added: int = 0
    rewritten: int = 0


def find_collection(storage: Storage, uri: str) -> "Collection | None":
    """The collection at ``uri`` or ``uri@version``; None where there is none. Raises as ``open_collection``."""
    base, version = split_version(uri)
    if not has_table(storage, base):
        return None
    place, options = delta_place(storage, masks_uri(base))
    with _said(base):
        table = DeltaTable(place, storage_options=options)
        newest = table.version()
        if version is not None and version != newest:
            if version > newest:
                raise ManifestError(f"{base}: no version {version}; its newest is {newest}")
            table.load_as_version(version)
    return Collection(storage, base, table)


def open_collection(storage: Storage, uri: str) -> "Collection":
    """Raises ManifestError where no collection or no such version is, or another tool has changed what it must not."""
    found = find_collection(storage, uri)
    if found is None:
        raise ManifestError(f"{uri}: no collection here; expected a folder with masks/_delta_log (segjobs nightly, or "
                            "segjobs collection add, makes one)")  # fmt: skip
    return found


def create_collection(storage: Storage, uri: str) -> "Collection":
    """The collection at ``uri``, an empty one where there is none."""
    if split_version(uri)[1] is not None:
        raise ConfigError(f"collection.uri: {uri} names a version; a change makes the next one: leave the @ away")
    found = find_collection(storage, uri)
    if found is not None:
        return found
    place, options = delta_place(storage, masks_uri(uri), make=True)
    crash_at("table:before")
    with _said(uri):
        DeltaTable.create(
            place, Schema.from_arrow(COLLECTION_SCHEMA), mode="ignore", name="segjobs masks", storage_options=options
        )
    crash_at("table:after")
    return open_collection(storage, uri)


class Collection:
    """One version of a collection. ``uri``: without the version."""

    def __init__(self, storage: Storage, uri: str, table: DeltaTable) -> None:
        self.storage = storage
        self.uri = uri
        self.table = table
        _check(uri, table)

    @property
    def version(self) -> int:
        return self.table.version()

    @property
    def pinned(self) -> str:
        """The uri with the version, which means the same rows for ever."""
        return f"{self.uri}@{self.version}"

    @cached_property
    def files(self) -> tuple[TableFile, ...]:
        """The files of the version, by image_id. Raises ManifestError where they do not lie so."""
        found = [self._file(one) for one in pa.table(self.table.get_add_actions(flatten=True)).to_pylist()]
        found.sort(key=lambda file: file.part.first_id)
        for one, two in pairwise(found):
            if one.part.last_id >= two.part.first_id:
                raise ManifestError(
                    f"{self.pinned}: {one.part.name} and {two.part.name} overlap in image_id: another tool has "
                    f"written to the table; {TABLE_MEND}"
                )
        return tuple(found)

    def _file(self, action: Mapping[str, Any]) -> TableFile:
        name = str(action["path"])
        sha256 = digest_in(name)
        rows, there = action.get("num_records"), action.get("null_count.gone_at")
        if sha256 is None or rows is None or there is None:
            raise ManifestError(f"{self.pinned}: {name} was not written by segjobs; {TABLE_MEND}")
        part = PartInfo(name, there, sha256, action["min.image_id"], action["max.image_id"])
        return TableFile(part, rows, action["size_bytes"])

    @cached_property
    def footer(self) -> Footer | None:
        """Task, classes and the newest model of its rows; None of an empty collection."""
        text = self.table.metadata().configuration.get(_FOOTER)
        return Footer.from_json(json.loads(text)) if text else None

    @property
    def filled(self) -> Footer:
        """``footer`` of a collection with rows. Raises ManifestError of an empty one."""
        if self.footer is None:
            raise ManifestError(f"{self.uri}: the collection is empty; segjobs nightly, or collection add, fills it")
        return self.footer

    def read(self, file: TableFile) -> pa.Table:
        """All rows of a file, those of images that are gone too, checked against its name."""
        return read_file(self.storage, masks_uri(self.uri), file.part)

    def columns(self, file: TableFile, columns: Sequence[str]) -> pa.Table:
        """Some columns of a file's rows, by the checksums of their pages; of a bucket no other bytes are read.

        ``columns``: with dots into structs, as Parquet names them.
        """
        try:
            with open_delta_file(self.storage, masks_uri(self.uri), file.part.name) as source:
                return pq.ParquetFile(source, page_checksum_verification=True).read(columns=list(columns))
        except (OSError, pa.ArrowException, ValueError) as error:
            self.read(file)  # says what is wrong with the file, if it is that
            raise StorageError(f"{self.uri}: {file.part.name}: {' '.join(str(error).split())}") from error

    # --- as a manifest -----------------------------------------------------------------------------

    def run(self) -> Run:
        """The version as a manifest: images that are there, by image_id. Raises ManifestError of an empty one."""
        footer = self.filled
        return Run(
            self.pinned,
            tuple(file.part for file in self.files if file.part.rows),
            self._info(footer),
            table=masks_uri(self.uri),
        )

    def _info(self, footer: Footer) -> RunInfo:
        failures: Counter[str] = Counter()
        examples: dict[str, tuple[str, str]] = {}
        images = segments = 0
        for file in self.files:
            names = ("image_id", "gone_at", "error", "segments.list.element.area")
            rows = self.columns(file, names)
            rows = rows.filter(pc.is_null(rows["gone_at"]))
            images += rows.num_rows
            segments += pc.sum(pc.list_value_length(rows["segments"])).as_py() or 0
            failed = rows.filter(pc.is_valid(rows["error"]))
            for image_id, error in zip(failed["image_id"].to_pylist(), failed["error"].to_pylist(), strict=True):
                failures[error["code"]] += 1
                examples.setdefault(error["code"], (image_id, error["message"]))
        metadata, newest = self.table.metadata(), self.table.history(1)[0]
        bad = failures.total()
        return RunInfo(
            run_id=f"{str(metadata.id)[:8]}@{self.version}",
            verb="collection",
            version=__version__,
            finished=datetime.fromtimestamp(newest["timestamp"] / 1000, UTC).isoformat(timespec="seconds"),
            counts=RunCounts(images, images - bad, bad, segments),
            failures=dict(sorted(failures.items())),
            examples=dict(sorted(examples.items())),
            timings=Timings(0.0, {}),
            identity={"table": str(metadata.id), "table_version": self.version},
            footer=footer,
            config={},
        )

    # --- the next version --------------------------------------------------------------------------

    def holds(self, app_id: str) -> int | None:
        """The version in which ``app_id`` was committed, if the table has that still; None else.

        A version that was taken back by a restore is had no longer.
        """
        if self.table.transaction_version(app_id) is None:
            return None
        versions: dict[int, int | None] = {}
        found: int | None = None
        for entry in reversed(self.history()):
            if entry.get("operation") == "RESTORE":
                found = versions.get(int(entry["operationParameters"]["version"]))
            elif entry.get("appId") == app_id:
                found = entry["version"]
            versions[entry["version"]] = found
        # The log is cleaned of old versions, and what an app has committed outlasts that.
        return found if versions and min(versions) == 0 else found or self.version

    def history(self) -> list[dict[str, Any]]:
        """What made each version, the newest first, as the log says it; without versions that a vacuum took."""
        with _said(self.uri):
            return self.table.history()

    def commit(
        self,
        changes: Callable[[Footer], Changes],
        footer: Footer | None,
        *,
        app_id: str,
        operation: str = "MERGE",
        about: Mapping[str, object] | None = None,
    ) -> Committed:
        """Write the next version, once for each ``app_id`` however often and by however many it is asked for.

        ``changes``: given the classes of the table that its rows are to have, what changes. ``footer``: of rows that
        come; None of marks alone, which say nothing to an empty table. ``about``: what ``history`` shows of it. Raises
        ConflictError where masks are of another task, StorageError where the store takes no more.
        """
        for _ in range(_ATTEMPTS):
            now = open_collection(self.storage, self.uri)
            version = now.holds(app_id)
            if version is not None:
                return Committed(version, new=False)
            joint = _joint(now, footer)
            if joint is None:  # an empty table, of which nothing can be marked
                return Committed(now.version, new=False)
            steps = merge(now.files, now.read, changes(joint))
            done = now.attempt(steps, joint, operation, {"appId": app_id, **(about or {})}, app_id=app_id)
            if done is not None:
                return done
        raise StorageError(f"{self.uri}: {_ATTEMPTS} others were first with a version each; run the command again")

    def restore(self, version: int) -> None:
        """Make the newest version one with the files of an earlier one. Raises StorageError."""
        with _said(self.uri):
            self.table.restore(version)

    def attempt(
        self,
        steps: Iterable[Replaced],
        footer: Footer | None,
        operation: str,
        about: Mapping[str, object],
        *,
        app_id: str | None,
    ) -> Committed | None:
        """Write the version that follows this one; None where another one does by now.

        ``app_id``: None where files change and rows do not.
        """
        added: list[Added] = []
        removed: list[Removed] = []
        crash_at("files:before")
        for step in steps:
            new = [self._publish(rows) for rows in step.tables]
            if step.old is not None and any(file.path == step.old.part.name for file in new):
                new = [file for file in new if file.path != step.old.part.name]
            elif step.old is not None:
                removed.append(Removed(step.old.part.name, step.old.size_bytes))
            added += new
        crash_at("files:after")
        if app_id is None and not added:
            return Committed(self.version, new=False)
        metadata = None if footer == self.footer or footer is None else self._metadata(footer)
        app_version = (self.table.transaction_version(app_id) or 0) + 1 if app_id else 1
        commit = Commit(operation, about, added, removed, app_id, app_version, metadata, same_rows=app_id is None)
        at_ms = int(datetime.now(UTC).timestamp() * 1000)
        data, version = log_text(commit, read_version=self.version, at_ms=at_ms), self.version + 1
        where = join(log_uri(self.uri), f"{version:020d}.json")
        crash_at("commit:before")
        # Where a reply was lost, what stands there may be this very commit.
        if not self.storage.put_if_absent(where, data) and self.storage.read(where) != data:
            return None
        crash_at("commit:after")
        if version % _CHECKPOINT_EVERY == 0:
            with _said(self.uri):
                open_collection(self.storage, self.uri).table.create_checkpoint()
        return Committed(version, new=True, added=len(added), rewritten=len(removed))

    def _publish(self, rows: pa.Table) -> Added:
        name, size_bytes = write_file(self.storage, masks_uri(self.uri), rows)
        return Added(name, size_bytes, stats_of(rows))

    def _metadata(self, footer: Footer) -> dict[str, object]:
        """The table's metadata with the classes that its rows have from now on."""
        now = self.table.metadata()
        return {
            "id": str(now.id),
            "name": now.name,
            "description": now.description,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": self.table.schema().to_json(),
            "partitionColumns": [],
            "createdTime": now.created_time,
            "configuration": {**now.configuration, _FOOTER: footer.to_bytes().decode()},
        }


def vacuumed(collection: Collection, *, keep_hours: float, dry_run: bool) -> list[str]:
    """Delete the files that only versions older than that have; their names. ``dry_run``: names them alone."""
    with _said(collection.uri):
        return collection.table.vacuum(math.ceil(keep_hours), dry_run=dry_run, enforce_retention_duration=False)


def as_rows(rows: pa.Table, run: RunInfo, footer: Footer, *, to: Sequence[Category]) -> pa.Table:
    """Rows of a run as rows of a collection whose classes are ``to``: classes of one name have one id there."""
    human = run.model_label is None
    finished = datetime.fromisoformat(run.finished)
    processing = None if human else processing_of(run.identity)
    count = rows.num_rows
    ids = {category.name: category.id for category in to}
    mapping = {category.id: ids[category.name] for category in footer.categories}
    rows = rows.replace_schema_metadata()
    if any(old != new for old, new in mapping.items()):
        rows = rows.set_column(
            rows.schema.get_field_index("segments"), "segments", _with_ids(rows["segments"], mapping)
        )
    for name, value in (("origin", "human" if human else "model"), ("processing", processing)):
        rows = rows.append_column(name, pa.array([value] * count, pa.string()))
    for name, moment in (("labelled_at", finished), ("gone_at", None)):
        rows = rows.append_column(name, pa.array([moment] * count, pa.timestamp("us", tz="UTC")))
    return rows.select(COLLECTION_SCHEMA.names).cast(COLLECTION_SCHEMA)


def _with_ids(column: pa.ChunkedArray, mapping: Mapping[int, int]) -> pa.ChunkedArray:
    lists = [_list_with_ids(chunk, mapping) for chunk in column.chunks]
    return pa.chunked_array(lists, column.type)


def _list_with_ids(lists: pa.ListArray, mapping: Mapping[int, int]) -> pa.ListArray:
    flat: pa.StructArray = lists.flatten()
    fields = [flat.field(number) for number in range(flat.type.num_fields)]
    place = flat.type.get_field_index("category_id")
    fields[place] = pa.array([mapping[one] for one in fields[place].to_pylist()], pa.int32())
    values = pa.StructArray.from_arrays(fields, fields=list(flat.type))
    lengths = pc.fill_null(lists.value_lengths(), 0)
    ends = pc.cumulative_sum(lengths)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])
    return pa.ListArray.from_arrays(offsets, values, type=lists.type, mask=lists.is_null())


def _joint(now: Collection, footer: Footer | None) -> Footer | None:
    """The footer of a table that rows of ``footer`` have joined: its classes, and those that only they have."""
    old = now.footer
    if old is None or footer is None:
        return old or footer
    if old.task != footer.task:
        raise ConflictError(
            f"{now.uri} holds {old.task} masks, and these are {footer.task}: make them a collection of their own"
        )
    known = {category.name for category in old.categories}
    taken = {category.id for category in old.categories}
    classes = list(old.categories)
    for category in footer.categories:
        if category.name not in known:
            number = category.id if category.id not in taken else 1 + max(taken)
            classes.append(replace(category, id=number))
            taken.add(number)
    newest = (
        footer if footer.model is not None else replace(footer, model=old.model, pixels=footer.pixels or old.pixels)
    )
    return replace(newest, categories=tuple(classes))


def _check(uri: str, table: DeltaTable) -> None:
    """Raise ManifestError where the table is not one that this release writes."""
    protocol = table.protocol()
    if protocol.min_reader_version > 1 or protocol.min_writer_version > 2:
        raise ManifestError(
            f"{uri}: its Delta protocol is {protocol.min_reader_version}/{protocol.min_writer_version}, another tool "
            "has raised it; this release writes 1/2"
        )
    names = pa.schema(table.schema().to_arrow()).names
    if names != COLLECTION_SCHEMA.names:
        raise ManifestError(f"{uri}: its columns are {', '.join(names)}; expected {', '.join(COLLECTION_SCHEMA.names)}")


@contextmanager
def _said(uri: str) -> Generator[None]:
    """What deltalake raises, as one line of ours."""
    try:
        yield
    except TableNotFoundError as error:
        raise ManifestError(f"{uri}: no collection here; expected a folder with masks/_delta_log") from error
    except (DeltaError, OSError) as error:
        raise StorageError(f"{uri}: its table cannot be used: {' '.join(str(error).split())}") from error
