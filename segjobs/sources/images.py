"""Which images a job works on: ``input.uri`` in, a stream of listed files out; what was left out, counted.

| input.uri | what is taken | image_id |
|---|---|---|
| folder, ``s3://bucket/prefix`` or the like | all files below that match ``include`` | path below the folder |
| glob (``photos/**/*.jpg``) | all matches | path below the part before the first wildcard |
| list (.txt, .csv, .parquet), collection (``out/street``, ``out/street@7``) | every URI in it | see ``lists.py`` |
| any other file | that file | its name |

Patterns match a file's name or its path, whatever the case of the letters. Names that begin with a
dot are skipped. A listed URI that is not there stays in, and becomes a row NOT_FOUND.
"""

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from fsspec.utils import glob_translate

from segjobs.config import InputConfig, PhotographsConfig
from segjobs.errors import ConfigError, StorageError
from segjobs.manifest.table_files import has_table
from segjobs.sources.left_out import LeftOut
from segjobs.sources.lists import LIST_SUFFIXES, files_of_collection, list_of_files
from segjobs.storage import NO_FILE, FileInfo, Storage, is_remote, local_path, local_uri, refuse
from segjobs.storage.uris import scheme_of

_MAGIC = re.compile(r"[*?\[]")


def list_images(
    storage: Storage, config: InputConfig | PhotographsConfig, left_out: LeftOut | None = None
) -> Iterator[FileInfo]:
    """Every image of ``config.uri``, unsorted, ``path`` being its image_id.

    Raises ConfigError or StorageError where the input as a whole cannot be listed. ``limit`` is not
    applied here: it counts in the order of image_id, which only the plan knows. ``left_out``: is told of the rest.
    """
    assert config.uri is not None, "without photographs there is nothing to list"  # noqa: S101
    uri = config.uri if is_remote(config.uri) else local_uri(local_path(config.uri).absolute())
    rules = _Rules(config, LeftOut() if left_out is None else left_out)
    if scheme_of(uri) in ("file", "s3") and has_table(storage, uri):
        files = files_of_collection(storage, uri)
    elif storage.is_folder(uri):
        files = filter(rules.included, storage.walk(uri, on_trouble=rules.trouble))
    elif storage.exists(uri):
        listed = uri.lower().endswith(LIST_SUFFIXES)
        files = list_of_files(storage, uri, config.column) if listed else _one(storage, uri)
    elif _MAGIC.search(uri):
        files = _glob(storage, uri, rules)
    elif is_remote(uri):
        files = filter(rules.included, storage.walk(uri))
    else:
        raise ConfigError(f"input.uri: {config.uri}: no such file or folder")
    return filter(rules.kept, files)


class _Rules:
    """What of an input is taken, by its config; the rest is counted."""

    def __init__(self, config: InputConfig | PhotographsConfig, left_out: LeftOut) -> None:
        self._included = _matcher(config.include)
        self._excluded = [(pattern, _matcher([pattern])) for pattern in config.exclude]
        self._skip_unreadable = config.skip_unreadable
        self._left_out = left_out

    def included(self, file: FileInfo) -> bool:
        if not (taken := self._included(file.path)):
            self._left_out.not_included(file.path)
        return taken

    def kept(self, file: FileInfo) -> bool:
        pattern = next((pattern for pattern, matches in self._excluded if matches(file.path)), None)
        if pattern is not None:
            self._left_out.add(f"input.exclude {pattern!r} names", file.path)
        return pattern is None

    def trouble(self, entry: FileInfo, error: OSError) -> None:
        """Of the walk. Raises StorageError where what cannot be looked at is neither excluded nor to be skipped."""
        inside = replace(entry, path=f"{entry.path}/")  # as a pattern such as thumbs/* would have it
        if error.errno in NO_FILE:
            if self.kept(entry):
                self._left_out.add("are links to no file", entry.path)
        elif self._skip_unreadable:
            self._left_out.add("cannot be looked at", entry.path)
        elif self.kept(entry) and self.kept(inside):
            try:
                refuse(entry, error)
            except StorageError as refused:
                raise StorageError(
                    f"{refused}, or leave it out by input.exclude or input.skip_unreadable=true"
                ) from error


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


def _glob(storage: Storage, uri: str, rules: _Rules) -> Iterator[FileInfo]:
    root = _MAGIC.split(uri, maxsplit=1)[0].rpartition("/")[0]
    shape = uri[len(root) + 1 :]
    pattern = re.compile(glob_translate(shape))
    levels = None if "**" in shape else shape.count("/")

    def trouble(entry: FileInfo, error: OSError) -> None:
        if entry.path.count("/") != levels or pattern.match(entry.path):  # else no match, nor above one
            rules.trouble(entry, error)

    files = storage.walk(root or "/", on_trouble=trouble, levels=levels)
    return (file for file in files if pattern.match(file.path))
