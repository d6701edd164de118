"""The one door to files: list, read, put-if-absent and delete by URI.

| URI | store | opened |
|---|---|---|
| a path, ``file:///…`` | ``local.LocalFiles`` | always |
| ``s3://bucket/key`` | ``s3.S3Files`` | always |
| ``gs://bucket/key``, ``az://container/key`` | ``fsspec_stores.Buckets`` | by ``storage.schemes``, with an extra |
| ``http://…``, ``https://…`` | ``fsspec_stores.Web``, to read | by ``storage.schemes``, with an extra |

Objects are read whole and written whole: ``put_if_absent`` publishes complete bytes or nothing, and never replaces
what is there. A ``Storage`` holds settings only, so it pickles small; each process makes its own connections at
first use.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from segjobs.config import EXTRA_SCHEMES, StorageConfig
from segjobs.errors import ConfigError, StorageError
from segjobs.storage.local import LocalFiles, writing
from segjobs.storage.local_walk import NO_FILE, OnTrouble, refuse
from segjobs.storage.uris import FileInfo, is_remote, is_utf8, join, local_path, local_uri, scheme_of

__all__ = [
    "NO_FILE",
    "FileInfo",
    "OnTrouble",
    "Storage",
    "Store",
    "is_remote",
    "is_utf8",
    "join",
    "local_path",
    "local_uri",
    "refuse",
    "writing",
]


class Store(Protocol):
    """Files of one scheme, by URI. Thread-safe."""

    def info(self, uri: str) -> FileInfo | None:
        """Fingerprint of one file (``path`` is its base name), or None where there is none."""
        ...

    def read(self, uri: str) -> bytes:
        """The whole file. Raises FileNotFoundError (or that it is no file), else StorageError."""
        ...

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
        """One file of many, whole, and the fingerprint of exactly these bytes.

        Raises FileNotFoundError, TimeoutError or another OSError for what is wrong with this file alone;
        StorageError where the others cannot be read either.
        """
        ...

    def check_around(self, uri: str) -> None:
        """Of a file that ``read_item`` does not find: raise StorageError where its disk or bucket is gone."""
        ...

    def get_file(self, uri: str, path: Path) -> None:
        """Download to a local ``path`` without holding the file in memory."""
        ...

    def is_folder(self, uri: str) -> bool:
        """Whether a folder is there. A bucket has none: what is written as one (``…/``) is taken for one."""
        ...

    def walk(self, root: str, *, on_trouble: OnTrouble = refuse, levels: int | None = None) -> Iterator[FileInfo]:
        """Every file below a folder or prefix, as it is found; ``path`` is relative to ``root``.

        Names that begin with a dot are skipped, links are followed, loops of links are entered once. ``levels``: of
        folders below ``root`` that are entered, where that saves something. ``on_trouble``: what becomes of a file or
        folder of the local disk that cannot be looked at; StorageError as a rule.
        Raises StorageError where ``root`` is no folder (an empty prefix of a bucket yields nothing).
        """
        ...

    def list_names(self, folder: str) -> set[str]:
        """Names of the files directly in a folder or prefix; empty where there is none."""
        ...

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Publish ``data`` whole under ``uri`` unless something is there; True if this call did it.

        A False after a repeated request may be this call's own lost success: the caller compares what is there.
        Raises StorageError where the store cannot take it.
        """
        ...

    def put_file_if_absent(self, uri: str, path: Path) -> bool:
        """``put_if_absent`` of a local file that need not fit into memory."""
        ...

    def delete(self, uri: str) -> None:
        """Take one file away that the caller's own run made; nothing where there is none. Raises StorageError."""
        ...


class Storage:
    """The stores of all schemes behind one set of settings; the methods are those of ``Store``. Thread-safe."""

    def __init__(self, config: StorageConfig | None = None) -> None:
        self.config = config or StorageConfig()
        self._reached = False
        self._start()

    def _start(self) -> None:
        self._stores: dict[str, Store] = {"file": LocalFiles(self.config.max_item_bytes)}
        self._opening = threading.Lock()

    def __getstate__(self) -> dict[str, object]:
        reached = getattr(self._stores.get("s3"), "reached", self._reached)
        return {"config": self.config, "_reached": reached}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._start()

    def _of(self, uri: str) -> Store:
        """The store of a URI. Raises ConfigError where its scheme is not allowed, or its extra is not installed."""
        scheme = scheme_of(uri)
        if scheme in EXTRA_SCHEMES and scheme not in self.config.schemes:
            raise ConfigError(f"{uri!r}: {scheme}:// is opened where storage.schemes=[{scheme}] allows it only")
        with self._opening:
            if scheme not in self._stores:
                self._stores[scheme] = self._open(scheme)
            return self._stores[scheme]

    def _open(self, scheme: str) -> Store:
        # Imported here: jobs on local files need not load botocore and the like.
        if scheme == "s3":
            from segjobs.storage.s3 import S3Files

            return S3Files(self.config, reached=self._reached)
        from segjobs.storage.fsspec_stores import Buckets, Web

        return (Web if scheme in ("http", "https") else Buckets)(scheme, self.config)

    def exists(self, uri: str) -> bool:
        """Whether a file (not a folder) is there."""
        return self.info(uri) is not None

    def info(self, uri: str) -> FileInfo | None:
        return self._of(uri).info(uri)

    def read(self, uri: str) -> bytes:
        return self._of(uri).read(uri)

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
        return self._of(uri).read_item(uri)

    def check_around(self, uri: str) -> None:
        self._of(uri).check_around(uri)

    def get_file(self, uri: str, path: Path) -> None:
        self._of(uri).get_file(uri, path)

    def is_folder(self, uri: str) -> bool:
        return self._of(uri).is_folder(uri)

    def walk(self, root: str, *, on_trouble: OnTrouble = refuse, levels: int | None = None) -> Iterator[FileInfo]:
        return self._of(root).walk(root, on_trouble=on_trouble, levels=levels)

    def list_names(self, folder: str) -> set[str]:
        return self._of(folder).list_names(folder)

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        return self._of(uri).put_if_absent(uri, data)

    def put_first(self, uri: str, data: bytes) -> bool:
        """``put_if_absent`` of the first file of an output. Raises StorageError where the store replaces files."""
        new = self.put_if_absent(uri, data)
        if new and is_remote(uri) and self.put_if_absent(uri, data):
            raise StorageError(
                f"{uri}: the store ignores 'If-None-Match: *', so two writers could replace each other's files; "
                "use a store that honours conditional writes (AWS S3, MinIO, Ceph, SeaweedFS, R2 do)"
            )
        return new

    def put_file_if_absent(self, uri: str, path: Path) -> bool:
        return self._of(uri).put_file_if_absent(uri, path)

    def delete(self, uri: str) -> None:
        self._of(uri).delete(uri)
