"""A collection: the current row of every image, over many nights, as versions of a Delta table.

    <uri>/masks/    the table: files of rows that lie by image_id, and _delta_log/, whose files are the versions
    <uri>/runs/     the runs that its rows came from; <uri>/nights/: what each night found and did

    uri, uri@7 ─→ open_collection ─┬→ run: the version as a manifest that every reader takes
                                   └→ commit(changes, app_id) ─→ the next version, once for each app_id

A version is one file of the log that is put if absent, so that of two who write the same one, one is first, and the
other looks again. A file of the table is named by the SHA-256 of its bytes: what is read is checked against its name.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError

from segjobs import __version__
from segjobs.config import digest
from segjobs.errors import ConflictError, ManifestError, StorageError
from segjobs.manifest.crash_points import crash_at
from segjobs.manifest.delta_log import Added, Commit, Removed, commit_info, first_text, log_text, metadata_of, stats_of
from segjobs.manifest.merge import Changes, Replaced, merge
from segjobs.manifest.run_info import PartInfo, Run, RunCounts, RunInfo, Timings
from segjobs.manifest.schema import COLLECTION_SCHEMA, LATER_COLUMNS, Category, Footer, with_later_columns
from segjobs.manifest.table_files import (
    TABLE_MEND,
    TableFile,
    check_newest,
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
_COMMIT = re.compile(r"\d{20}\.json")
_THREADS = 32  # that read the log
_FOREIGN_MEND = (
    "versions from before that can be read still (@ and a number), and are gone on with where that tool's files of "
    "masks/_delta_log are moved away"
)


def processing_of(identity: Mapping[str, object]) -> str:
    """What the column ``processing`` says of a run: 12 digits of all that made its masks besides the model."""
    others = ("model", "input", "redo", "uncertainty")
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


def check_place(storage: Storage, uri: str) -> None:
    """Raise ConfigError where no collection can be changed at ``uri``: for before there is something to commit."""
    check_newest(uri)
    delta_place(storage, masks_uri(uri))


def create_collection(storage: Storage, uri: str) -> "Collection":
    """The collection at ``uri``, an empty one where there is none."""
    check_place(storage, uri)
    found = find_collection(storage, uri)
    if found is not None:
        return found
    metadata = metadata_of(str(uuid4()), "segjobs masks", Schema.from_arrow(COLLECTION_SCHEMA).to_json(), _now_ms())
    crash_at("table:before")
    # Where another one was first its table is taken; deltalake would set the metadata once more, and empty.
    storage.put_first(join(log_uri(uri), f"{0:020d}.json"), first_text(metadata, at_ms=_now_ms()))
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
        return TableFile(part, rows, action["size_bytes"], _alike(action, rows))

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
                rows = pq.ParquetFile(source, page_checksum_verification=True).read(columns=list(columns))
                return with_later_columns(rows, columns)
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
        metadata, made = self.table.metadata(), self.history(since=self.version - 1)
        bad = failures.total()
        return RunInfo(
            run_id=f"{str(metadata.id)[:8]}@{self.version}",
            verb="collection",
            version=__version__,
            finished=datetime.fromtimestamp(made[0]["timestamp"] / 1000 if made else 0, UTC).isoformat(
                timespec="seconds"
            ),
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
        for entry in reversed(self._history):
            if entry.get("operation") == "RESTORE":
                found = versions.get(int(entry["operationParameters"]["version"]))
            elif entry.get("appId") == app_id:
                found = entry["version"]
            versions[entry["version"]] = found
        # The log is cleaned of old versions, and what an app has committed outlasts that.
        return found if versions and min(versions) == 0 else found or self.version

    @cached_property
    def _history(self) -> list[dict[str, Any]]:
        """The whole of it, read once for all nights that are asked for."""
        return self.history()

    def history(self, *, since: int = -1) -> list[dict[str, Any]]:
        """What made each version after ``since`` up to this one, the newest first, as the log says it.

        deltalake gives an older version the history of the newest one, numbered from its own.
        """
        root = log_uri(self.uri)
        there = (int(name[:20]) for name in self.storage.list_names(root) if _COMMIT.fullmatch(name))
        versions = sorted((one for one in there if since < one <= self.version), reverse=True)
        with ThreadPoolExecutor(_THREADS) as threads:
            texts = threads.map(self.storage.read, [join(root, f"{one:020d}.json") for one in versions])
            return [{**commit_info(text), "version": one} for one, text in zip(versions, texts, strict=True)]

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
            joint = joint_footer(now, footer)
            if joint is None:  # an empty table, of which nothing can be marked
                return Committed(now.version, new=False)
            steps = merge(now.files, now.read, changes(joint))
            done = now.attempt(steps, joint, operation, {"appId": app_id, **(about or {})}, app_id=app_id)
            if done is not None:
                return done
        raise StorageError(f"{self.uri}: {_ATTEMPTS} others were first with a version each; run the command again")

    def restore(self, version: int) -> None:
        """Write the version that follows this one, with the files of an earlier one.

        Raises StorageError where another one was written meanwhile, ManifestError where a vacuum has taken files.
        """
        missing = {file.part.name for file in open_collection(self.storage, f"{self.uri}@{version}").files}
        missing -= self.storage.list_names(masks_uri(self.uri))
        if missing:
            raise ManifestError(
                f"{self.uri}@{version}: {len(missing)} of its files are gone, such as {min(missing)}: a vacuum has "
                "taken them, or they were lost; restore a later version"
            )
        try:
            self.table.restore(version)
        except (DeltaError, OSError) as error:
            # Where its reply was lost, the next version may be this very one.
            newest = open_collection(self.storage, self.uri).history()[0]
            ours = newest["operation"] == "RESTORE" and int(newest["operationParameters"]["version"]) == version
            if newest["version"] != self.version + 1 or not ours:
                said = " ".join(str(error).split())
                raise StorageError(
                    f"{self.uri}: version {version} is not restored: {said}; run the command again"
                ) from error

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
        same = footer == self.footer and _names(self.table) == COLLECTION_SCHEMA.names
        metadata = None if same or footer is None else self._metadata(footer)
        app_version = (self.table.transaction_version(app_id) or 0) + 1 if app_id else 1
        commit = Commit(operation, about, added, removed, app_id, app_version, metadata, same_rows=app_id is None)
        data, version = log_text(commit, read_version=self.version, at_ms=_now_ms()), self.version + 1
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
        table = masks_uri(self.uri)
        name, size_bytes, new = write_file(self.storage, table, rows)
        if not new and name not in {file.part.name for file in self.files}:
            # An earlier version's, which a vacuum may be about to take: this version's needs a name of its own.
            name, size_bytes, _ = write_file(self.storage, table, rows, mark=uuid4().hex)
        return Added(name, size_bytes, stats_of(rows))

    def _metadata(self, footer: Footer) -> dict[str, object]:
        """The table's metadata with the classes and the columns that its rows have from now on."""
        now = self.table.metadata()
        made = metadata_of(str(now.id), now.name, Schema.from_arrow(COLLECTION_SCHEMA).to_json(), now.created_time)
        configuration = {**now.configuration, _FOOTER: footer.to_bytes().decode()}
        return {**made, "description": now.description, "configuration": configuration}


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def as_rows(
    rows: pa.Table, run: RunInfo, footer: Footer, *, to: Sequence[Category], not_before: datetime | None = None
) -> pa.Table:
    """Rows of a run as rows of a collection whose classes are ``to``: classes of one name have one id there.

    ``not_before``: the newest of the rows whose place they are to take, should the clock have gone back since.
    """
    human = run.model_label is None
    finished = datetime.fromisoformat(run.finished)
    if not_before is not None:
        finished = max(finished, not_before)
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


def _alike(action: Mapping[str, Any], rows: int) -> dict[str, str | None]:
    """Of a file's statistics: the columns in which all rows have one value, or none."""
    found: dict[str, str | None] = {}
    for name in ("status", "origin", "model", "gone_at"):
        nulls, least, greatest = (action.get(f"{what}.{name}") for what in ("null_count", "min", "max"))
        if nulls == rows:
            found[name] = None
        elif nulls == 0 and least is not None and least == greatest:
            found[name] = least
    return found


def joint_footer(now: Collection, footer: Footer | None) -> Footer | None:
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
            f"has raised it; this release writes 1/2; {_FOREIGN_MEND}"
        )
    names = _names(table)
    if [*names, *(name for name in LATER_COLUMNS.names if name not in names)] != COLLECTION_SCHEMA.names:
        raise ManifestError(
            f"{uri}: its columns are {', '.join(names)}, another tool has changed them; expected "
            f"{', '.join(COLLECTION_SCHEMA.names)}; {_FOREIGN_MEND}"
        )


def _names(table: DeltaTable) -> list[str]:
    return pa.schema(table.schema().to_arrow()).names


@contextmanager
def _said(uri: str) -> Generator[None]:
    """What deltalake raises, as one line of ours."""
    try:
        yield
    except TableNotFoundError as error:
        raise ManifestError(f"{uri}: no collection here; expected a folder with masks/_delta_log") from error
    except (DeltaError, OSError) as error:
        raise StorageError(f"{uri}: its table cannot be used: {' '.join(str(error).split())}") from error
