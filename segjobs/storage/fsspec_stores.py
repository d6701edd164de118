"""Files of further stores through their fsspec file systems: Google's and Azure's buckets, and the web.

    request ─▶ reply
       ├─▶ 5xx, 429, 408, reset, time-out ─▶ again after a random wait, up to ``storage.attempts`` and ``deadline_s``
       ├─▶ denied, no credentials, any other refusal ─▶ an error at once
       └─▶ no such file, something is there already ─▶ for the caller

A bucket that fails is the store's fault (StorageError). On the web each URI can be another host, so what fails there
is that file's own (OSError, TimeoutError) unless the host is only overloaded. The libraries of the stores raise what
they like, so errors are judged by the HTTP status that they carry.
"""

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import fsspec
from fsspec.asyn import sync

from segjobs.config import EXTRA_SCHEMES, StorageConfig
from segjobs.errors import ConfigError, StorageError
from segjobs.storage.local_walk import OnTrouble, refuse
from segjobs.storage.retry import Failed, Fault, FaultKind, with_retries
from segjobs.storage.uris import FileInfo, microseconds

Reply = TypeVar("Reply")
FileSystem = Any
"""fsspec's of a scheme, another package's class."""

_CHUNK_BYTES = 2**20
_EMPTY_RANGE = 416  # the reply to a range of an empty object
_PLAIN = {"Accept-Encoding": "identity"}  # so that a length is the file's own


class Buckets:
    """See ``segjobs.storage.Store``: ``gs://bucket/key``, ``az://container/key``."""

    def __init__(self, scheme: str, config: StorageConfig) -> None:
        self._scheme = scheme
        self._config = config
        self._files = _file_system(scheme)

    def info(self, uri: str) -> FileInfo | None:
        try:
            found = self._ask(uri, "info", uri)
        except FileNotFoundError:
            return None
        return _file_info(uri, found) if found["type"] == "file" else None

    def read(self, uri: str) -> bytes:
        return self._ask(uri, "cat_file", uri)

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
        most = self._config.max_item_bytes
        try:
            data = self._try(uri, "cat_file", uri, start=0, end=most + 1)
        except Failed as failed:
            if failed.fault.kind != "empty":
                raise _error_of_store(failed, uri) from failed
            data = b""
        _check_size(len(data), most)
        # Asked after the bytes: what was written in between is told as a change, and never taken for them.
        found = self.info(uri)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", uri)
        return data, found

    def check_around(self, uri: str) -> None:
        self._check_bucket(uri)

    def get_file(self, uri: str, path: Path) -> None:
        self._ask(uri, "get_file", uri, str(path))

    def is_folder(self, uri: str) -> bool:
        return uri.endswith("/")

    def walk(self, root: str, *, on_trouble: OnTrouble = refuse, levels: int | None = None) -> Iterator[FileInfo]:
        base = root.rstrip("/")
        folders = [base]
        while folders:
            folder = folders.pop()
            try:
                entries = self._ask(folder, "ls", folder, detail=True)
            except FileNotFoundError:
                self._check_bucket(folder)
                continue
            for entry in entries:
                uri = f"{self._scheme}://{entry['name'].strip('/')}"
                path = uri[len(base) + 1 :]
                if uri == folder or path.startswith(".") or "/." in path:
                    continue
                if entry["type"] == "directory":
                    folders.append(uri)
                else:
                    yield _file_info(uri, entry, path)

    def _check_bucket(self, uri: str) -> None:
        """Tell an empty prefix from a bucket that is not there, or a mistyped name would be an input of no images."""
        bucket = uri.removeprefix(f"{self._scheme}://").partition("/")[0]
        try:
            self._ask(uri, "info", f"{self._scheme}://{bucket}")
        except FileNotFoundError:
            raise StorageError(f"{uri}: no bucket {bucket!r}") from None

    def list_names(self, folder: str) -> set[str]:
        return {file.path for file in self.walk(folder) if "/" not in file.path}

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """One request with the store's own condition (``ifGenerationMatch=0``, ``If-None-Match: *``)."""
        return self._create(uri, "pipe_file", uri, data)

    def put_file_if_absent(self, uri: str, path: Path) -> bool:
        return self._create(uri, "put_file", str(path), uri)

    def delete(self, uri: str) -> None:
        with suppress(FileNotFoundError):
            self._ask(uri, "rm_file", uri)

    def _create(self, uri: str, method: str, *args: object) -> bool:
        try:
            self._ask(uri, method, *args, mode="create")
        except FileExistsError:
            return False
        return True

    def _ask(self, uri: str, method: str, *args: object, **options: object) -> Any:
        """A method of the file system. Raises FileNotFoundError, FileExistsError, StorageError."""
        try:
            return self._try(uri, method, *args, **options)
        except Failed as failed:
            raise _error_of_store(failed, uri) from failed

    def _try(self, uri: str, method: str, *args: object, **options: object) -> Any:
        return _try(self._config, partial(_call, self._files, method, *args, **options))


class Web:
    """See ``segjobs.storage.Store``: ``http://…`` and ``https://…``, to read. There are no folders."""

    def __init__(self, scheme: str, config: StorageConfig) -> None:
        self._config = config
        self._files = _file_system(scheme)

    def info(self, uri: str) -> FileInfo | None:
        """None for a server that does not answer as well: the read tells why."""
        try:
            return _file_info(uri, _call(self._files, "info", uri, timeout=self._config.read_timeout_s))
        except (FileNotFoundError, TimeoutError):
            return None

    def read(self, uri: str) -> bytes:
        try:
            return self._get(uri, None)[0]
        except Failed as failed:
            raise _error_of_store(failed, uri) from failed

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
        try:
            data, headers = self._get(uri, self._config.max_item_bytes)
        except Failed as failed:
            raise _error_of_item(failed, uri) from failed
        # Asked for by name: aiohttp spells the headers' names as it likes.
        found = {name: headers.get(name) for name in ("ETag", "Last-Modified")}
        return data, _file_info(uri, {**found, "size": headers.get("Content-Length")})

    def check_around(self, uri: str) -> None:
        """Nothing: each file may be another host's."""

    def get_file(self, uri: str, path: Path) -> None:
        try:
            _try(self._config, partial(_call, self._files, "get_file", uri, str(path)))
        except Failed as failed:
            raise _error_of_store(failed, uri) from failed

    def is_folder(self, uri: str) -> bool:
        return uri.endswith("/")

    def walk(self, root: str, *, on_trouble: OnTrouble = refuse, levels: int | None = None) -> Iterator[FileInfo]:
        raise ConfigError(f"{root}: no such file, and the web has no folders to list; give a list of URIs (.txt, .csv)")

    def list_names(self, folder: str) -> set[str]:
        raise ConfigError(f"{folder}: the web has no folders to list")

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        raise ConfigError(f"{uri}: the web is only read")

    def put_file_if_absent(self, uri: str, path: Path) -> bool:
        raise ConfigError(f"{uri}: the web is only read")

    def delete(self, uri: str) -> None:
        raise ConfigError(f"{uri}: the web is only read")

    def _get(self, uri: str, most: int | None) -> tuple[bytes, Mapping[str, str]]:
        """One GET: the body and the headers of the same reply."""

        async def get() -> tuple[bytes, Mapping[str, str]]:
            session = await self._files.set_session()
            async with session.get(self._files.encode_url(uri), headers=_PLAIN) as reply:
                if reply.status == 404:
                    raise FileNotFoundError(errno.ENOENT, "no such file", uri)
                reply.raise_for_status()
                body = bytearray()
                async for chunk in reply.content.iter_chunked(_CHUNK_BYTES):
                    body += chunk
                    _check_size(max(len(body), reply.content_length or 0), most)
                return bytes(body), reply.headers

        reply: Any = _try(self._config, lambda timeout: sync(self._files.loop, get, timeout=timeout))
        return reply


# --- requests ----------------------------------------------------------------------------------


def _file_system(scheme: str) -> FileSystem:
    try:
        return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        extra = EXTRA_SCHEMES[scheme]
        raise ConfigError(
            f"{scheme}:// needs segjobs[{extra}] on every node (pip install 'segjobs[{extra}]')"
        ) from error
    except Exception as error:  # ValueError, or a class of the library's own, where credentials are missing
        raise StorageError(f"{scheme}:// cannot be opened: {_words(error)}; check its credentials") from error


def _call(files: FileSystem, method: str, *args: object, timeout: float, **options: object) -> Any:
    if files.async_impl:
        return sync(files.loop, getattr(files, f"_{method}"), *args, timeout=timeout, **options)
    return getattr(files, method)(*args, **options)


def _try(config: StorageConfig, send: Callable[..., Reply]) -> Reply:
    """``send(timeout=…)``, again where that helps. Raises FileNotFoundError, FileExistsError, EFBIG or Failed."""

    def once(left_s: float) -> Reply:
        try:
            return send(timeout=left_s)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EFBIG:
                raise
            raise Failed(Fault(_kind(error, _status(error)), _words(error))) from error

    return with_retries(once, attempts=config.attempts, deadline_s=config.deadline_s)


def _error_of_store(failed: Failed, uri: str) -> StorageError:
    """The error that stops the job."""
    scheme, text = uri.partition("://")[0], _tried(failed)
    match failed.fault.kind:
        case "denied":
            return StorageError(f"{uri}: access denied ({text}); check credentials and policy")
        case "refused" | "empty":
            return StorageError(f"{uri}: {scheme}:// cannot be used so: {text}; check its credentials")
    return StorageError(f"{uri}: the store fails ({text}); run the command again")


def _error_of_item(failed: Failed, uri: str) -> OSError | StorageError:
    """The error of this file alone, unless its host is overloaded."""
    match failed.fault.kind:
        case "busy":
            return _error_of_store(failed, uri)
        case "slow":
            return TimeoutError(errno.ETIMEDOUT, _tried(failed), uri)
    return OSError(errno.EIO, _tried(failed), uri)


def _tried(failed: Failed) -> str:
    return f"{failed.fault.text}; {failed.attempts} attempt(s)"


def _status(error: Exception) -> int | None:
    """The HTTP status of an error of aiohttp (status), Azure (status_code) or gcsfs (code)."""
    for name in ("status", "status_code", "code"):
        value = getattr(error, name, None)
        if str(value).isdecimal():
            return int(value)  # type: ignore[arg-type]
    return 403 if isinstance(error, OSError) and str(error).startswith("Forbidden") else None  # gcsfs


def _kind(error: Exception, status: int | None) -> FaultKind:
    if status in (401, 403):
        return "denied"
    if status in (429, 503):
        return "busy"
    if status == _EMPTY_RANGE:
        return "empty"
    if status is not None:
        return "transient" if status == 408 or (status >= 500 and status != 501) else "refused"
    if isinstance(error, TimeoutError):
        return "slow"
    return "transient" if isinstance(error, aiohttp.ClientError | OSError) else "refused"


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _check_size(size: int, most: int | None) -> None:
    if most is not None and size > most:
        raise OSError(errno.EFBIG, f"{size} bytes or more, storage.max_item_bytes is {most}")


def _file_info(uri: str, found: Mapping[str, Any], path: str = "") -> FileInfo:
    """``found``: what the file system says of a file. A server that tells no length has size 0."""
    moment = found.get("mtime") or found.get("last_modified") or found.get("Last-Modified")
    if isinstance(moment, str):
        try:
            moment = parsedate_to_datetime(moment)
        except ValueError:  # no date: other bytes are told by size and etag
            moment = None
    etag = str(found.get("etag") or found.get("ETag") or "").strip('"')
    name = path or uri.rpartition("/")[2]
    return FileInfo(uri, name, int(found.get("size") or 0), microseconds(moment) if moment else 0, etag)
