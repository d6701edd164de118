"""The directories of a TIFF by hand: file bytes in; its tags, its pages, and whether it ends early, out.

For what Pillow does not say: which layout it cannot read, how many pages are images of their own, and where pixels lie.
Classic TIFF and BigTIFF, both byte orders. Nothing here raises, however damaged the file.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES, SAMPLE_FORMAT = (
    256,
    257,
    258,
    259,
    262,
    274,
    277,
    339,
)
TILE_WIDTH, TILE_HEIGHT = 322, 323
ROWS_PER_STRIP, PLANES = 278, 284
STRIPS, TILES = (273, 279), (324, 325)
"""Tags of where pixels lie, and of how many bytes they have."""
AREAS = ((WIDTH, HEIGHT), (TILE_WIDTH, TILE_HEIGHT))
"""Tags whose product is a number of pixels that are decoded at once."""
HEADER_BYTES = 8  # of a classic TIFF
_SUBFILE, _REDUCED_OR_MASK = 254, 1 | 4  # an overview or a transparency mask of another page
_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8, 18: 8}  # bytes of a value by type; others 1
_UNSIGNED = (1, 3, 4, 16)
_MOST_PAGES = 1000  # that are counted

_FORMATS = {1: "unsigned whole numbers", 2: "signed whole numbers", 3: "fractions"}


ByteOrder = Literal["little", "big"]


class Slices(Protocol):
    """Bytes that are read a slice at a time: ``bytes``, or a file that is not held in memory."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> bytes: ...


class FileSlices:
    """An open file as ``Slices``: nothing is held but what is asked for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._length = os.fstat(descriptor).st_size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: slice, /) -> bytes:
        start, stop, _ = key.indices(self._length)
        pieces = []
        while start < stop and (piece := os.pread(self._descriptor, stop - start, start)):
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)


class Place(NamedTuple):
    """Where the values of a tag lie in the file: ``number`` of them, of TIFF's type ``kind``, in ``span``."""

    kind: int
    number: int
    span: slice


@dataclass(frozen=True)
class Directory:
    """One page. ``tags``: its unsigned whole numbers. ``complete``: it, its values and its pixels lie in the file.

    ``places``: of all tags, whatever their type.
    """

    tags: dict[int, np.ndarray]
    complete: bool
    order: ByteOrder = "little"
    places: dict[int, Place] = field(default_factory=dict)

    def first(self, tag: int, default: int = 1) -> int:
        """The first value of a tag."""
        values = self.tags.get(tag)
        return int(values[0]) if values is not None and values.size else default


def directories(data: Slices) -> Iterator[Directory]:
    """The pages in their order, up to one that lies outside the file or was there before."""
    if data[:4] not in STARTS:
        return
    order: ByteOrder = "little" if data[:2] == b"II" else "big"
    large = data[2:4] in (b"+\0", b"\0+")
    word, head, entry = (8, 8, 20) if large else (4, 2, 12)
    seen: set[int] = set()
    start = int.from_bytes(data[8:16] if large else data[4:8], order)
    while 0 < start < len(data) and start not in seen and len(seen) < _MOST_PAGES:
        seen.add(start)
        count = int.from_bytes(data[start : start + head], order)
        end = start + head + entry * count
        if end > len(data):
            yield Directory({}, False)
            return
        yield _directory(data, range(start + head, end, entry), order, word)
        start = int.from_bytes(data[end : end + word], order)


def _directory(data: Slices, entries: range, order: ByteOrder, word: int) -> Directory:
    tags: dict[int, np.ndarray] = {}
    places: dict[int, Place] = {}
    complete = True
    for entry in entries:
        tag, kind = (int.from_bytes(data[at : at + 2], order) for at in (entry, entry + 2))
        number = int.from_bytes(data[entry + 4 : entry + 4 + word], order)
        size, at = _SIZES.get(kind, 1), entry + 4 + word
        if size * number > word:
            at = int.from_bytes(data[at : at + word], order)
        span = slice(at, at + size * number)
        if span.stop > len(data):
            complete = False
            continue
        places[tag] = Place(kind, number, span)
        if kind in _UNSIGNED:
            values = np.frombuffer(data[span], f"{'<' if order == 'little' else '>'}u{size}")
            tags[tag] = np.minimum(values.astype(np.uint64), 2**62).astype(np.int64)
    outside = any(
        (tags[offsets] + tags[counts] > len(data)).any()
        for offsets, counts in (STRIPS, TILES)
        if offsets in tags and counts in tags and len(tags[offsets]) == len(tags[counts])
    )
    return Directory(tags, complete and not outside, order, places)


def ends_early(data: bytes) -> bool:
    """Whether the first directory, a value it points at, or a strip or tile of pixels lies behind the end."""
    first = next(directories(data), None)
    return first is None or not first.complete


def pages(data: Slices) -> int:
    """How many pages are images of their own: overviews and transparency masks are not."""
    return sum(not one.first(_SUBFILE, 0) & _REDUCED_OR_MASK for one in directories(data))


def layout(data: bytes) -> str | None:
    """What the first page stores, "5 bands of 8 bits, …"; None where that is damaged or empty."""
    first = next(directories(data), None)
    if first is None or not first.complete or not {WIDTH, HEIGHT, PHOTOMETRIC} <= first.tags.keys():
        return None
    if 0 in (first.first(WIDTH, 0), first.first(HEIGHT, 0)):
        return None
    bands, kind = first.first(SAMPLES), first.first(SAMPLE_FORMAT)
    return (
        f"{bands} band{'s' * (bands != 1)} of {first.first(BITS)} bits, {_FORMATS.get(kind, f'sample format {kind}')}, "
        f"photometric interpretation {first.first(PHOTOMETRIC)}, compression {first.first(COMPRESSION)}"
    )


def small_file(values: dict[int, tuple[int, int, bytes]], pieces: Sequence[bytes], order: ByteOrder) -> bytes:
    """A classic TIFF of one page: ``pieces`` of pixels from ``HEADER_BYTES`` on, one behind the other.

    ``values``: by tag, the type, the number and the bytes of its values, in this byte order.
    """
    mark = "<" if order == "little" else ">"
    body = b"".join(pieces)
    body += b"\0" * (len(body) % 2)
    start = HEADER_BYTES + len(body)
    entries, behind = [], b""
    for tag, (kind, number, data) in sorted(values.items()):
        if len(data) > 4:
            place = start + 6 + 12 * len(values) + len(behind)
            behind += data + b"\0" * (len(data) % 2)
            data = struct.pack(f"{mark}I", place)
        entries.append(struct.pack(f"{mark}HHI", tag, kind, number) + data.ljust(4, b"\0"))
    head = (b"II*\0" if order == "little" else b"MM\0*") + struct.pack(f"{mark}I", start)
    return b"".join([head, body, struct.pack(f"{mark}H", len(entries)), *entries, bytes(4), behind])
