"""The files of a collection's table: rows in, Parquet under the name of its bytes' SHA-256 out, and back, checked.

Needs no deltalake: workers read the files that a version of the table names.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segjobs.errors import ConfigError, ManifestError
from segjobs.manifest.run_info import PartInfo
from segjobs.manifest.schema import COLLECTION_SCHEMA, LATER_COLUMNS, with_later_columns
from segjobs.manifest.seal import parse_table
from segjobs.storage import Storage, join

_VERSION = re.compile(r"(?P<uri>.+)@(?P<version>\d{1,18})")
_NAME = re.compile(r"masks-([0-9a-f]{64})\.parquet")
_ROW_GROUP = 2000
_MARK = "segjobs.mark"
_PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": ["status", "run_id", "model", "origin", "processing", "segments.list.element.category"],
    "write_page_index": True,
    "write_page_checksum": True,  # for whoever reads some columns alone
}
TABLE_MEND = "restore an earlier version, or bring it back from a copy"


@dataclass(frozen=True)
class TableFile:
    """A file of the table. ``rows``: of images that are gone, too. ``alike``: columns in which all rows have one value,
    as the log says, and that value."""

    part: PartInfo
    rows: int
    size_bytes: int
    alike: Mapping[str, str | None] = field(default_factory=dict[str, str | None])


def split_version(uri: str) -> tuple[str, int | None]:
    """``out/street@7`` → (``out/street``, 7); without a version the uri and None."""
    found = _VERSION.fullmatch(uri.rstrip("/"))
    return (found["uri"], int(found["version"])) if found else (uri.rstrip("/"), None)


def check_newest(uri: str) -> None:
    """Raise ConfigError where the collection that is to be changed is named with a version."""
    base, version = split_version(uri)
    if version is not None:
        raise ConfigError(
            f"collection.uri: {uri} names a version, and a change makes the next one: collection.uri={base}"
        )


def masks_uri(uri: str) -> str:
    """Where the table of a collection lies."""
    return join(uri, "masks")


def log_uri(uri: str) -> str:
    """Where the log of a collection's table lies."""
    return join(masks_uri(uri), "_delta_log")


def has_table(storage: Storage, uri: str) -> bool:
    """Whether ``uri``, without its version, is a collection."""
    return bool(storage.list_names(log_uri(split_version(uri)[0])))


def digest_in(name: str) -> str | None:
    """The SHA-256 that a file of ours has in its name; None of another tool's."""
    found = _NAME.fullmatch(name)
    return found[1] if found else None


def write_file(storage: Storage, table: str, rows: pa.Table, *, mark: str | None = None) -> tuple[str, int, bool]:
    """Publish rows of ``COLLECTION_SCHEMA`` in the table's folder; the file's name, its bytes, and whether it is new.

    The same rows are the same file, whoever writes them again; with another ``mark``, another one.
    """
    about = None if mark is None else {_MARK: mark}
    rows = rows.select(COLLECTION_SCHEMA.names).cast(COLLECTION_SCHEMA).replace_schema_metadata(about)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, **_PARQUET) as writer:
        writer.write_table(rows, _ROW_GROUP)
    data = sink.getvalue().to_pybytes()
    name = f"masks-{hashlib.sha256(data).hexdigest()}.parquet"
    new = storage.put_if_absent(join(table, name), data)
    return name, len(data), new


def read_file(storage: Storage, table: str, part: PartInfo, *, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a file, of images that are gone too, checked against its name. Raises ManifestError."""
    where = join(table, part.name)
    try:
        data = storage.read(where)
    except FileNotFoundError as error:
        raise ManifestError(f"{where}: a vacuum has taken it, or it was lost; open a newer version") from error
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise ManifestError(f"{where}: its bytes are not those that were written; {TABLE_MEND}")
    rows = parse_table(data, where, mend=TABLE_MEND, columns=columns, optional=LATER_COLUMNS.names)
    return with_later_columns(rows, columns)
