"""A file that vouches for itself: bytes with the SHA-256 of all the others among them; sealed, and checked when read.

    table → sealed_table → Parquet, its digest in the footer → open_table → table
    record → sealed_json → JSON, its digest the last key     → open_json  → record

The digits take the place of as many zeros, and the digest is of the file with these: it covers every byte, so that a
flipped bit, wherever it is, or a missing end is told before anything is parsed. A file without a seal is an earlier
release's, or another tool's, and is taken for what it parses as.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segjobs.errors import ManifestError
from segjobs.narrow import is_object

SEAL_KEY = "segjobs_seal"
"""The key of the seal, in a Parquet footer and in JSON; the last one in both."""
_MARK = b"sealed-sha256:"
_DIGITS = 64
_SEAL_IN_JSON = re.compile(rb',\n "%s": "%s[0-9a-f]{%d}"\n}\n$' % (SEAL_KEY.encode(), _MARK, _DIGITS))


def sealed_table(
    table: pa.Table, *, metadata: Mapping[bytes, bytes] | None = None, options: Mapping[str, Any] | None = None
) -> bytes:
    """One Parquet file, sealed. ``metadata``: further keys of its footer; ``options``: of the Parquet writer."""
    return sealed_tables([table], table.schema, metadata=metadata, options=options)


def sealed_tables(
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    *,
    metadata: Mapping[bytes, bytes] | None = None,
    options: Mapping[str, Any] | None = None,
) -> bytes:
    """``sealed_table`` of tables that come one by one, all of ``schema``."""
    settings = {"compression": "zstd", **(options or {})}
    rows = settings.pop("row_group_size", None)
    schema = schema.with_metadata({**(metadata or {}), SEAL_KEY.encode(): _MARK + b"0" * _DIGITS})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, **settings) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(schema.metadata), rows)
    return _sealed(sink.getvalue().to_pybytes())


def sealed_json(record: Mapping[str, object], *, indent: int | None = 1) -> bytes:
    """A JSON object that is not empty, sealed."""
    return sealed_text(json.dumps(record, indent=indent, ensure_ascii=False).encode())


def sealed_text(text: bytes) -> bytes:
    """The text of a JSON object that is not empty, sealed."""
    body = text.rstrip().removesuffix(b"}").rstrip()
    return _sealed(body + b',\n "%s": "%s"\n}\n' % (SEAL_KEY.encode(), _MARK + b"0" * _DIGITS))


def sealed_bytes(data: bytes) -> bytes:
    """Bytes of any format with a seal behind them, which ``open_bytes`` takes off."""
    return _sealed(data + SEAL_KEY.encode() + _MARK + b"0" * _DIGITS)


def open_bytes(data: bytes, where: str, *, mend: str) -> bytes:
    """The inverse of ``sealed_bytes``. Raises ManifestError as ``open_table`` does."""
    check_seal(data, where, mend=mend)
    ends = len(data) - len(SEAL_KEY) - len(_MARK) - _DIGITS
    return data[:ends] if data[max(ends, 0) :].startswith(SEAL_KEY.encode()) else data


def open_table(data: bytes, where: str, *, mend: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a Parquet file, or some of its columns, its seal left out of the metadata.

    Raises ManifestError with ``where`` the file lies and how to ``mend`` it, where it is damaged.
    """
    check_seal(data, where, mend=mend)
    return parse_table(data, where, mend=mend, columns=columns)


def parse_table(
    data: bytes, where: str, *, mend: str, columns: Sequence[str] | None = None, optional: Collection[str] = ()
) -> pa.Table:
    """``open_table`` of bytes that were checked by another digest.

    ``columns``: names, or a field inside one, as Parquet has its path: ``segments.list.element.area``. ``optional``:
    columns that it may lack.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        absent = [name for name in columns or () if name.partition(".")[0] not in file.schema_arrow.names]
        if missing := [name for name in absent if name not in optional]:
            raise damaged(where, f"it has no column {missing[0]!r}", mend=mend)
        table = file.read(columns=[name for name in columns if name not in absent] if columns else None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(where, " ".join(str(error).split()), mend=mend) from error
    kept: dict[bytes, bytes] = table.schema.metadata or {}
    metadata = {key: value for key, value in kept.items() if key != SEAL_KEY.encode()}
    return table.replace_schema_metadata(metadata or None)


def open_text(data: bytes, where: str, *, mend: str) -> bytes:
    """The text of a JSON object without its seal. Raises ManifestError as ``open_table`` does."""
    check_seal(data, where, mend=mend)
    return _SEAL_IN_JSON.sub(b"\n}\n", data)


def open_json(data: bytes, where: str, *, mend: str) -> dict[str, Any]:
    """The JSON object of a file, without its seal. Raises ManifestError as ``open_table`` does."""
    try:
        record: object = json.loads(open_text(data, where, mend=mend))
    except (ValueError, RecursionError) as error:
        raise damaged(where, str(error), mend=mend) from error
    if not is_object(record):
        raise damaged(where, "expected a JSON object", mend=mend)
    return record


def is_sealed(data: bytes) -> bool:
    """Whether the file has a seal, right or wrong."""
    return data.rfind(_MARK) >= 0


def check_seal(data: bytes, where: str, *, mend: str) -> None:
    """Raise ManifestError where the file has a seal and it is not that of its bytes."""
    start = data.rfind(_MARK)
    if start < 0:
        if SEAL_KEY.encode() in data:
            raise damaged(where, "its seal is broken", mend=mend)
        return
    start += len(_MARK)
    if data[start : start + _DIGITS] != _digest(data, start):
        raise damaged(where, "its bytes are not those that were written", mend=mend)


def damaged(where: str, why: str, *, mend: str) -> ManifestError:
    """The one line that a damaged file of ours becomes."""
    return ManifestError(f"{where} is damaged: {why}; {mend}")


def _sealed(data: bytes) -> bytes:
    start = data.rindex(_MARK) + len(_MARK)
    return data[:start] + _digest(data, start) + data[start + _DIGITS :]


def _digest(data: bytes, start: int) -> bytes:
    """SHA-256 in hexadecimal digits, of the bytes with zeros for the digits that ``start`` there."""
    sha256 = hashlib.sha256(memoryview(data)[:start])
    sha256.update(b"0" * _DIGITS)
    sha256.update(memoryview(data)[start + _DIGITS :])
    return sha256.hexdigest().encode()
