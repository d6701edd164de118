"""URIs, and what a listing says of a file."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from segjobs.config import check_uri
from segjobs.errors import ConfigError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999  # 0001-01-01 to 9999-12-31
"""Disks and stores keep others too, that nobody meant: a clock gone wrong, a broken archive."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One listed file. ``path`` is relative to the listed root; ``mtime_us`` is Unix time in
    microseconds, within the years 1 to 9999 of Python's dates; ``etag`` is empty for local files. ``size`` is -1 for a
    file that is not there."""

    uri: str
    path: str
    size: int
    mtime_us: int
    etag: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "mtime_us", min(max(self.mtime_us, _FIRST_US), _LAST_US))


def is_remote(uri: str) -> bool:
    """False for local paths and ``file:///``; a scheme that is never opened is a ConfigError."""
    return scheme_of(uri) != "file"


def scheme_of(uri: str) -> str:
    """``file``, ``s3``, ``gs``, ``az``, ``http`` or ``https``; ConfigError for anything else."""
    try:
        scheme, separator, _ = check_uri(uri).partition("://")
    except ValueError as error:
        raise ConfigError(f"{uri!r}: {error}") from None
    return scheme if separator else "file"


def local_path(uri: str) -> Path:
    """The file that a local URI names; ``file://`` URIs are percent-decoded."""
    if uri.startswith("file://"):
        return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))
    return Path(uri)


def local_uri(path: str | Path) -> str:
    """An absolute local path as a URI: itself, or ``file://`` and percent-encoded bytes where the
    name is not UTF-8 (Arrow strings hold UTF-8 only)."""
    text = str(path)
    return text if is_utf8(text) else "file://" + quote(os.fsencode(text))


def relative_text(path: str) -> str:
    """A relative path as UTF-8 text: bytes that are not UTF-8 become %XX."""
    if is_utf8(path):
        return path
    return "".join(c if is_utf8(c) else "".join(f"%{b:02X}" for b in os.fsencode(c)) for c in path)


def join(uri: str, *parts: str) -> str:
    """``uri`` and further path parts, with single slashes between them."""
    return "/".join([uri.rstrip("/"), *parts])


def is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def microseconds(moment: datetime) -> int:
    """Unix time of a datetime (without a zone: UTC), in microseconds; exact, before 1970 and in the year 9999 too."""
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)
