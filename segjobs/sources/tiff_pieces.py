"""A TIFF's strips or tiles: an open file in; a few of them as a small TIFF of the same tags out, to be decoded alone.

A decoder gives them the pixels that it gives the whole file. Samples can be asked for as they are stored, whatever
their number and kind: none, LZW, deflate, PackBits and their like compress bytes, so that a row of n samples of b bytes
is a row of n · b greys to them.
"""

from dataclasses import dataclass

import numpy as np

from segjobs.errors import ItemError
from segjobs.sources import tiff

_UNCOMPRESSED, _JPEG_OF_TIFF_6 = 1, 6  # the latter is a file of its own inside, without strips to cut it by
YCBCR = 6
_SEPARATE = 2
_PREDICTOR = 317
# Tags that say how a strip or tile becomes pixels: bits, compression, photometric interpretation, fill order, samples,
# planes, fax options, predictor, colour map, extra samples, sample format, JPEG tables, YCbCr's coefficients,
# subsampling, positioning and reference.
_KEPT = (258, 259, 262, 266, 277, 284, 292, 293, _PREDICTOR, 320, 338, 339, 347, 529, 530, 531, 532)
_KEPT_OF_BYTES = (259, 266)
_KEPT_OF_PLANE = (258, 259, 266, 347)
_LONG = 4  # TIFF's type of 32-bit numbers


@dataclass(frozen=True)
class Layout:
    """How a page is cut: pieces (strips or tiles) of ``piece_hw`` pixels, row by row, in ``planes`` of as many.

    ``offsets``, ``counts``: int64 (planes, down, across), in bytes.
    """

    size_hw: tuple[int, int]
    piece_hw: tuple[int, int]
    planes: int
    tiled: bool
    offsets: np.ndarray
    counts: np.ndarray


def layout_of(page: tiff.Directory) -> Layout | None:
    """None where the page cannot be cut into pieces: it is damaged, or of TIFF 6's first JPEG."""
    tiled = set(tiff.TILES) <= page.tags.keys()
    if not tiled and not set(tiff.STRIPS) <= page.tags.keys():
        return None
    height, width = page.first(tiff.HEIGHT, 0), page.first(tiff.WIDTH, 0)
    if tiled:
        piece_hw = page.first(tiff.TILE_HEIGHT, 0), page.first(tiff.TILE_WIDTH, 0)
    else:
        piece_hw = min(page.first(tiff.ROWS_PER_STRIP, height), height), width
    if 0 in (height, width, *piece_hw) or page.first(tiff.COMPRESSION) == _JPEG_OF_TIFF_6:
        return None
    planes = page.first(tiff.SAMPLES) if page.first(tiff.PLANES) == _SEPARATE else 1
    shape = planes, -(-height // piece_hw[0]), -(-width // piece_hw[1])
    offsets, counts = (page.tags[tag] for tag in (tiff.TILES if tiled else tiff.STRIPS))
    if offsets.size != counts.size or offsets.size != shape[0] * shape[1] * shape[2]:
        return None
    layout = Layout((height, width), piece_hw, planes, tiled, offsets.reshape(shape), counts.reshape(shape))
    return layout if tiled else _by_rows(layout, page)


def _by_rows(layout: Layout, page: tiff.Directory) -> Layout:
    """Uncompressed strips are cut into rows: some writers put the whole image into one."""
    if page.first(tiff.COMPRESSION) != _UNCOMPRESSED or page.first(tiff.PHOTOMETRIC) == YCBCR:
        return layout
    height, width = layout.size_hw
    samples = 1 if layout.planes > 1 else page.first(tiff.SAMPLES)
    row_bytes = -(-width * samples * page.first(tiff.BITS) // 8)
    strip, row = np.divmod(np.arange(height), layout.piece_hw[0])
    offsets = layout.offsets[:, strip] + (row * row_bytes)[:, None]
    return Layout((height, width), (1, width), layout.planes, False, offsets, np.full_like(offsets, row_bytes))


@dataclass(frozen=True)
class Block:
    """Pieces side by side: ``rows`` and ``columns`` of pieces, and the pixels of the image in them."""

    rows: slice
    columns: slice
    size_hw: tuple[int, int]


@dataclass(frozen=True)
class Pieces:
    """The pieces of one page."""

    data: tiff.Slices
    page: tiff.Directory
    layout: Layout

    def block(self, rows: slice, columns: slice) -> Block:
        (high, wide), (height, width) = self.layout.piece_hw, self.layout.size_hw
        return Block(
            rows,
            columns,
            (
                min(rows.stop * high, height) - rows.start * high,
                min(columns.stop * wide, width) - columns.start * wide,
            ),
        )

    def small_file(self, block: Block) -> bytes:
        """A TIFF of these pieces alone."""
        every = slice(0, self.layout.planes)
        return self._file(block, every, {tag: self._value(tag) for tag in _KEPT if tag in self.page.places})

    def plane(self, block: Block, number: int) -> bytes:
        """A grey TIFF of the pieces of one plane, as they are compressed."""
        kept = {tag: self._value(tag) for tag in _KEPT_OF_PLANE if tag in self.page.places}
        kept[tiff.BITS] = self._longs([self.page.first(tiff.BITS)])
        return self._file(block, slice(number, number + 1), {**kept, tiff.PHOTOMETRIC: self._longs([1])})

    def as_bytes(self, block: Block, number: int, bytes_of_pixel: int) -> bytes:
        """A TIFF of 8-bit greys, ``bytes_of_pixel`` for each pixel of one plane, differences not undone.

        Its sides are those of whole pieces: ``whole_hw``.
        """
        kept = {tag: self._value(tag) for tag in _KEPT_OF_BYTES if tag in self.page.places}
        kept |= {tiff.BITS: self._longs([8]), tiff.PHOTOMETRIC: self._longs([1])}
        return self._file(block, slice(number, number + 1), kept, bytes_of_pixel=bytes_of_pixel)

    def whole_hw(self, block: Block) -> tuple[int, int]:
        """Pixels of the pieces: a tile at the edge is as large as any, a strip is not."""
        if not self.layout.tiled:
            return block.size_hw
        high, wide = self.layout.piece_hw
        return (block.rows.stop - block.rows.start) * high, (block.columns.stop - block.columns.start) * wide

    def _file(
        self, block: Block, planes: slice, kept: dict[int, tuple[int, int, bytes]], *, bytes_of_pixel: int = 0
    ) -> bytes:
        layout, page = self.layout, self.page
        offsets, counts = (
            table[planes, block.rows, block.columns].ravel().tolist() for table in (layout.offsets, layout.counts)
        )
        if any(at + count > len(self.data) for at, count in zip(offsets, counts, strict=True)):
            raise ItemError("TRUNCATED", "TIFF: pixels lie behind the end of the file")
        pieces = [self.data[at : at + count] for at, count in zip(offsets, counts, strict=True)]
        (high, wide), (height, width), times = layout.piece_hw, block.size_hw, 1
        if bytes_of_pixel:
            (height, width), times = self.whole_hw(block), bytes_of_pixel
        sizes = {tiff.WIDTH: width * times, tiff.HEIGHT: height}
        if layout.tiled:
            sizes |= {tiff.TILE_WIDTH: wide * times, tiff.TILE_HEIGHT: high}
        else:
            sizes[tiff.ROWS_PER_STRIP] = high
        values = kept | {tag: self._longs([value]) for tag, value in sizes.items()}
        lengths = [len(piece) for piece in pieces]
        starts = (tiff.HEADER_BYTES + np.cumsum([0, *lengths[:-1]])).tolist()
        where, how_many = tiff.TILES if layout.tiled else tiff.STRIPS
        values |= {where: self._longs(starts), how_many: self._longs(lengths)}
        return tiff.small_file(values, pieces, page.order)

    def _value(self, tag: int) -> tuple[int, int, bytes]:
        kind, number, span = self.page.places[tag]
        return kind, number, self.data[span]

    def _longs(self, numbers: list[int]) -> tuple[int, int, bytes]:
        return _LONG, len(numbers), np.array(numbers, "<u4" if self.page.order == "little" else ">u4").tobytes()
