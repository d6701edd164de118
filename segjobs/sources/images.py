"""Which images a job works on: ``input.uri`` in, a stream of listed files out.

| input.uri | what is taken | image_id |
|---|---|---|
| folder, ``s3://bucket/prefix`` or the like | all files below that match ``include`` | path below the folder |
| glob (``photos/**/*.jpg``) | all matches | path below the part before the first wildcard |
| list (.txt, .csv, .parquet) | every URI in it | column ``image_id``, else path below their common folder |
| any other file | that file | its name |

Patterns match a file's name or its path, whatever the case of the letters. Names that begin with a
dot are skipped. A listed URI that is not there stays in, and becomes a row NOT_FOUND.
"""

import csv
import fnmatch
import io
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from segjobs.config import InputConfig
from segjobs.errors import ConfigError
from segjobs.redact import redact
from segjobs.storage import FileInfo, Storage, is_remote, join, local_path, local_uri

LIST_SUFFIXES = (".txt", ".csv", ".parquet")
_MAGIC = re.compile(r"[*?\[]")
_STAT_THREADS = 32  # requests in flight while a list's files are looked up


def list_images(storage: Storage, config: InputConfig) -> Iterator[FileInfo]:
    """Every image of ``config.uri``, unsorted, ``path`` being its image_id.

    Raises ConfigError or StorageError where the input as a whole cannot be listed. ``limit`` is not
    applied here: it counts in the order of image_id, which only the plan knows.
    """
    uri = config.uri if is_remote(config.uri) else local_uri(local_path(config.uri).absolute())
    excluded = _matcher(config.exclude)
    if _is_folder(storage, uri):
        included = _matcher(config.include)
        files = (file for file in storage.walk(uri) if included(file.path))
    elif storage.exists(uri):
        files = _read_list(storage, uri, config.column) if uri.lower().endswith(LIST_SUFFIXES) else _one(storage, uri)
    elif _MAGIC.search(uri):
        files = _glob(storage, uri)
    elif is_remote(uri):
        included = _matcher(config.include)
        files = (file for file in storage.walk(uri) if included(file.path))
    else:
        raise ConfigError(f"input.uri: {config.uri}: no such file or folder")
    return (file for file in files if not excluded(file.path))


def _is_folder(storage: Storage, uri: str) -> bool:
    return uri.endswith("/") if is_remote(uri) else local_path(uri).is_dir()


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A test of relative paths against shell patterns, by name or by whole path."""
    if not patterns:
        return lambda path: False
    expression = re.compile("|".join(fnmatch.translate(p) for p in patterns), re.IGNORECASE)
    return lambda path: bool(expression.match(path.rpartition("/")[2]) or expression.match(path))


def _one(storage: Storage, uri: str) -> Iterator[FileInfo]:
    info = storage.info(uri)
    if info:
        yield info


def _glob(storage: Storage, uri: str) -> Iterator[FileInfo]:
    root = _MAGIC.split(uri, maxsplit=1)[0].rpartition("/")[0]
    pattern = re.compile(glob_translate(uri[len(root) + 1 :]))
    return (file for file in storage.walk(root) if pattern.match(file.path))


def _read_list(storage: Storage, uri: str, column: str) -> Iterator[FileInfo]:
    uris, ids = _list_rows(storage.read(uri), uri, column)
    folder = uri.rpartition("/")[0]
    uris = [u if "://" in u or u.startswith("/") else join(folder, u) for u in uris]
    repeated = [u for u, count in Counter(uris).items() if count > 1]
    if repeated:
        raise ConfigError(f"{uri}: lists {repeated[0]!r} more than once; list each image once")
    for one in uris:
        if (shown := redact(one)) != one:
            raise ConfigError(f"{uri}: {shown} holds a credential, which the manifest would keep; list URIs without")
    ids = ids or _ids_below_common_folder(uris)

    def look_up(item: tuple[str, str]) -> FileInfo:
        info = storage.info(item[0])
        return replace(info, path=item[1]) if info else FileInfo(item[0], item[1], -1, 0, "")

    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        yield from pool.map(look_up, zip(uris, ids, strict=True))


def _list_rows(data: bytes, uri: str, column: str) -> tuple[list[str], list[str] | None]:
    """URIs and, where the list has such a column, image_ids."""
    if uri.lower().endswith(".txt"):
        lines = (line.strip() for line in _text(data, uri).splitlines())
        return [line for line in lines if line and not line.startswith("#")], None
    if uri.lower().endswith(".csv"):
        reader = csv.DictReader(io.StringIO(_text(data, uri)))
        names, rows = list(reader.fieldnames or ()), list(reader)
        columns = {name: [row[name] for row in rows] for name in names}
    else:
        try:
            columns = pq.read_table(pa.BufferReader(data)).to_pydict()
        except pa.ArrowInvalid as error:
            raise ConfigError(f"{uri}: not a Parquet file: {error}") from None
        names = list(columns)
    if column not in names:
        raise ConfigError(f"{uri}: no column {column!r}; it has {', '.join(names)}; set input.column")
    for number, value in enumerate(columns[column], 1):
        if not value:
            raise ConfigError(f"{uri}: column {column!r} has an empty value in row {number}")
    return columns[column], columns.get("image_id")


def _text(data: bytes, uri: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{uri}: not UTF-8 text: {error}") from None


def _ids_below_common_folder(uris: Sequence[str]) -> list[str]:
    if not uris:
        return []
    folders = [uri.rpartition("/")[0] for uri in uris]
    schemes = {is_remote(uri) for uri in uris}
    common = posixpath.commonpath(folders) if len(schemes) == 1 else ""
    # commonpath folds the double slash of s3:// away; cut by the folders' own text instead
    depth = len([part for part in common.split("/") if part])
    return ["/".join([p for p in uri.replace("://", ":/").split("/") if p][depth:]) for uri in uris]
