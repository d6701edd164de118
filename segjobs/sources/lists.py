"""A list of files (.txt, .csv, .parquet, a collection) in; every file that it names, with its image_id, out.

| list | URIs | image_id |
|---|---|---|
| .txt | a line each, but empty lines, and comments (``# …``) | path below their common folder |
| .txt whose lines all begin with ``./`` (``find .``) | the same | path below the list's folder |
| .csv, .parquet | ``input.column`` | column ``image_id``, else path below their common folder |
| a collection | of its images | theirs |

A relative URI is one beside the list. ``a/./1.png`` and ``a/x/../1.png`` are ``a/1.png``, in a bucket where it has no
key of the longer name. A name that is there in another Unicode form only (é as one character or as two) is that file.
"""

import csv
import io
import os
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from segjobs.errors import ConfigError
from segjobs.manifest.parts import open_run, read_part
from segjobs.redact import redact
from segjobs.storage import FileInfo, Storage, is_remote, join, local_path, local_uri
from segjobs.text import quoted

LIST_SUFFIXES = (".txt", ".csv", ".parquet")
_STAT_THREADS = 32  # requests in flight while a list's files are looked up
_ID_COLUMN = "image_id"
_MAX_FIELD = 2**24  # characters of one field of a CSV


@dataclass(frozen=True)
class _Rows:
    """A list's URIs as they are written, and their image_ids where it has a column of them."""

    uris: list[str]
    ids: list[str] | None = None


def list_of_files(storage: Storage, uri: str, column: str) -> Iterator[FileInfo]:
    """Every file that the list at ``uri`` names; one that is not there has size -1. Raises ConfigError."""
    rows = _read(storage.read(uri), uri, column)
    folder = uri.rpartition("/")[0]
    for one in rows.uris:
        if (shown := redact(one)) != one:
            raise ConfigError(f"{uri}: {shown} holds a credential, which the manifest would keep; list URIs without")
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        uris = list(pool.map(lambda one: _plain(storage, _absolute(one, folder)), rows.uris))
        _check_once(uri, rows.uris, uris)
        id_of = _ids(rows, uris, folder)
        for number, one in enumerate(uris):
            if not id_of(number, one):
                raise ConfigError(f"{uri}: lists {rows.uris[number]!r}, a folder; leave it out, as find -type f does")
        yield from pool.map(lambda number: _look_up(storage, uris[number], partial(id_of, number)), range(len(uris)))


def files_of_collection(storage: Storage, uri: str) -> Iterator[FileInfo]:
    """The images of a collection, or of a version of it, as they are now; one that is not there has size -1."""
    run = open_run(storage, uri)
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        for part in run.parts:
            rows = read_part(storage, run, part, columns=["uri", "image_id"])
            ids = rows["image_id"].to_pylist()
            yield from pool.map(lambda one, name: _look_up(storage, one, lambda _: name), rows["uri"].to_pylist(), ids)


# --- rows --------------------------------------------------------------------------------------


def _read(data: bytes, uri: str, column: str) -> _Rows:
    if uri.lower().endswith(".txt"):
        # Not splitlines(): to that, characters that names may have are line ends too.
        lines = (line.strip(" \t\r") for line in _text(data, uri).split("\n"))
        return _Rows([line for line in lines if line and line != "#" and not line.startswith("# ")])
    if uri.lower().endswith(".csv"):
        columns = _csv_columns(_text(data, uri), uri)
    else:
        columns = _parquet_columns(data, uri, (column, _ID_COLUMN))
    if column not in columns:
        raise ConfigError(f"{uri}: no column {column!r}; it has {quoted(columns)}; set input.column")
    uris = _texts(columns[column], uri, column)
    return _Rows(uris, _texts(columns[_ID_COLUMN], uri, _ID_COLUMN) if _ID_COLUMN in columns else None)


Columns = dict[str, Sequence[object]]


def _csv_columns(text: str, uri: str) -> Columns:
    """The columns by name, with what a short row lacks as None."""
    csv.field_size_limit(_MAX_FIELD)
    try:
        header, *rows = (row for row in csv.reader(io.StringIO(text), skipinitialspace=True) if row)
    except ValueError:
        raise ConfigError(f"{uri}: empty; expected a header line with the names of the columns") from None
    except csv.Error as error:
        raise ConfigError(f"{uri}: not readable as CSV: {error}") from None
    for number, row in enumerate(rows, 1):
        if len(row) > len(header):
            raise ConfigError(
                f"{uri}: row {number} has {len(row)} fields, the header {len(header)}; put names with commas in quotes"
            )
    names = _unlike([name.strip() for name in header], uri)
    return {name: [row[at] if at < len(row) else None for row in rows] for at, name in enumerate(names)}


def _parquet_columns(data: bytes, uri: str, wanted: Sequence[str]) -> Columns:
    """The wanted columns; of the others the names alone."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        plain = _unlike([name.strip() for name in names], uri)
        taken = [name for name in names if name.strip() in wanted]
        found: Columns = file.read(columns=taken).to_pydict() if taken else {}
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(f"{uri}: not a Parquet file that can be read: {' '.join(str(error).split())}") from None
    return dict.fromkeys(plain, ()) | {name.strip(): values for name, values in found.items()}


def _unlike(names: list[str], uri: str) -> list[str]:
    """The same names. Raises ConfigError where two are the same."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ConfigError(f"{uri}: has two columns {twice[0]!r}; name each once")
    return names


def _texts(values: Sequence[object], uri: str, column: str) -> list[str]:
    """A column's values as texts; whole numbers are their digits."""
    for number, value in enumerate(values, 1):
        if value is None or value == "":
            raise ConfigError(f"{uri}: column {column!r} has an empty value in row {number}")
        if not isinstance(value, str) and type(value) is not int:
            raise ConfigError(
                f"{uri}: column {column!r} has {type(value).__name__} values (row {number}); expected text"
            )
    return [str(value) for value in values]


def _text(data: bytes, uri: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{uri}: not UTF-8 text: {error}") from None


# --- names -------------------------------------------------------------------------------------


def _absolute(uri: str, folder: str) -> str:
    return uri if "://" in uri or uri.startswith("/") else join(folder, uri)


def _plain(storage: Storage, uri: str) -> str:
    """A URI without the detours of its path, where the file is the same one without them."""
    scheme, separator, rest = uri.partition("://")
    parts = rest.split("/") if separator else uri.split("/")
    if not {"", ".", ".."} & set(parts[1:]):
        return uri
    if is_remote(uri):
        bucket, _, key = rest.partition("/")
        plain = posixpath.normpath(f"/{key}")[1:]
        return uri if scheme.startswith("http") or storage.exists(uri) else f"{scheme}://{bucket}/{plain}"
    path = str(local_path(uri))
    plain = os.path.normpath(path)
    # Behind a link to a folder elsewhere, .. is not the folder that stands before it.
    return local_uri(plain if ".." not in parts or os.path.realpath(plain) == os.path.realpath(path) else path)


def _check_once(uri: str, written: Sequence[str], uris: Sequence[str]) -> None:
    """Raise ConfigError where a line names no file, or two lines one."""
    seen: dict[str, str] = {}
    for line, one in zip(written, uris, strict=True):
        if not _parts(one):
            raise ConfigError(f"{uri}: lists {line!r}, which names no file")
        key = one if is_remote(one) else local_uri(local_path(one))
        if key in seen:
            also = f" (as {seen[key]!r} too)" if seen[key] != line else ""
            raise ConfigError(f"{uri}: lists {line!r} more than once{also}; list each image once")
        seen[key] = line


def _ids(rows: _Rows, uris: Sequence[str], folder: str) -> Callable[[int, str], str]:
    """The image_id of a row, by its number and the URI of the file that it means."""
    if (ids := rows.ids) is not None:
        return lambda number, _: ids[number]
    found = bool(rows.uris) and all(line.startswith("./") for line in rows.uris)
    depth = len(_parts(folder)) if found else _common_depth(uris)
    return lambda _, uri: "/".join(_parts(uri)[depth:])


def _common_depth(uris: Sequence[str]) -> int:
    """So many parts have all their folders in common; none where some are local and some are not."""
    if not uris or len({is_remote(uri) for uri in uris}) > 1:
        return 0
    folders = [_parts(uri)[:-1] for uri in uris]
    one, other = min(folders), max(folders)  # what these two share, all share
    return next((at for at, part in enumerate(one) if at == len(other) or part != other[at]), len(one))


def _parts(uri: str) -> list[str]:
    return [part for part in uri.replace("://", ":/").split("/") if part]


def _look_up(storage: Storage, uri: str, id_of: Callable[[str], str]) -> FileInfo:
    for name in dict.fromkeys([uri, *(unicodedata.normalize(form, uri) for form in ("NFC", "NFD"))]):
        if info := storage.info(name):
            return replace(info, path=id_of(name))
    return FileInfo(uri, id_of(uri), -1, 0, "")
