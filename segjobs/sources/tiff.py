"""The directories of a TIFF by hand: file bytes in; its tags, its pages, and whether it ends early, out.

For what Pillow does not say: which layout it cannot read, how many pages are images of their own, and where pixels lie.
Classic TIFF and BigTIFF, both byte orders. Nothing here raises, however damaged the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

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
AREAS = ((WIDTH, HEIGHT), (TILE_WIDTH, TILE_HEIGHT))
"""Tags whose product is a number of pixels that are decoded at once."""
_SUBFILE, _REDUCED_OR_MASK = 254, 1 | 4  # an overview or a transparency mask of another page
_STRIPS, _TILES = (273, 279), (324, 325)
_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8, 18: 8}  # bytes of a value by type; others 1
_UNSIGNED = (1, 3, 4, 16)
_MOST_PAGES = 1000  # that are counted

_FORMATS = {1: "unsigned whole numbers", 2: "signed whole numbers", 3: "fractions"}


@dataclass(frozen=True)
class Directory:
    """One page. ``tags``: its unsigned whole numbers. ``complete``: it, its values and its pixels lie in the file."""

    tags: dict[int, np.ndarray]
    complete: bool

    def first(self, tag: int, default: int = 1) -> int:
        """The first value of a tag."""
        values = self.tags.get(tag)
        return int(values[0]) if values is not None and values.size else default


def directories(data: bytes) -> Iterator[Directory]:
    """The pages in their order, up to one that lies outside the file or was there before."""
    if not data.startswith(STARTS):
        return
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
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


def _directory(data: bytes, entries: range, order: Literal["little", "big"], word: int) -> Directory:
    tags: dict[int, np.ndarray] = {}
    complete = True
    for entry in entries:
        tag, kind = (int.from_bytes(data[at : at + 2], order) for at in (entry, entry + 2))
        number = int.from_bytes(data[entry + 4 : entry + 4 + word], order)
        size, at = _SIZES.get(kind, 1), entry + 4 + word
        if size * number > word:
            at = int.from_bytes(data[at : at + word], order)
        if at + size * number > len(data):
            complete = False
        elif kind in _UNSIGNED:
            values = np.frombuffer(data, f"{'<' if order == 'little' else '>'}u{size}", number, at)
            tags[tag] = np.minimum(values.astype(np.uint64), 2**62).astype(np.int64)
    outside = any(
        (tags[offsets] + tags[counts] > len(data)).any()
        for offsets, counts in (_STRIPS, _TILES)
        if offsets in tags and counts in tags and len(tags[offsets]) == len(tags[counts])
    )
    return Directory(tags, complete and not outside)


def ends_early(data: bytes) -> bool:
    """Whether the first directory, a value it points at, or a strip or tile of pixels lies behind the end."""
    first = next(directories(data), None)
    return first is None or not first.complete


def pages(data: bytes) -> int:
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
