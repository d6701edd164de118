"""Windows of an image that is too large to be decoded whole: a file in; uint8 RGB pixels of any part of it out.

    TIFF, BigTIFF   the strips or tiles that a window touches, as a small TIFF of the same tags ─→ decode_image
    every other     decoded whole, once, where it has at most decode.max_pixels

So a window has the very pixels that ``decode_image`` gives the whole file, whatever its compression (none, LZW,
deflate, PackBits, JPEG, fax), bits, colours and planes, and what cannot be read is refused in the same words. The first
page is read, which in a pyramid is the full level. Windows are in the frame that a viewer shows: orientation 1–8 is
applied. Strips that run across the columns of a turned image are decoded anew for each of its bands of rows.
"""

import sys
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from segjobs.errors import ItemError
from segjobs.sources import tiff
from segjobs.sources.decode import Frame, decode_image
from segjobs.sources.image_file import IMAGE_FORMATS, TURNS, open_image

_AT_ONCE_PX = 2**22  # that are decoded before they are cropped to the window; some 30 bytes each meanwhile
_UNCOMPRESSED, _JPEG_OF_TIFF_6 = 1, 6  # the latter is a file of its own inside, without strips to cut it by
_YCBCR = 6
_SEPARATE = 2
# Tags that say how a strip or tile becomes pixels: bits, compression, photometric interpretation, fill order, samples,
# planes, fax options, predictor, colour map, extra samples, sample format, JPEG tables, YCbCr's coefficients,
# subsampling, positioning and reference.
_KEPT = (258, 259, 262, 266, 277, 284, 292, 293, 317, 320, 338, 339, 347, 529, 530, 531, 532)
_LONG = 4  # TIFF's type of 32-bit numbers


class Window(NamedTuple):
    """A part of an image, in pixels of the frame in which it is shown."""

    top: int
    left: int
    height: int
    width: int


class Windows(Protocol):
    """An open image; a window has at most ``max_pixels``. Not for several threads at a time."""

    size_hw: tuple[int, int]
    max_pixels: int

    def read(self, window: Window) -> np.ndarray:
        """uint8 (height, width, 3) RGB, to be left as it is. Raises ItemError as ``decode_image`` does."""
        ...


def count_pixels(data: tiff.Slices) -> int:
    """Width times height, by the header. Raises ItemError as ``decode_image`` does, but for any size."""
    page = next(tiff.directories(data), None)
    if page is not None and {tiff.WIDTH, tiff.HEIGHT} <= page.tags.keys():
        return page.first(tiff.WIDTH) * page.first(tiff.HEIGHT)
    width, height = open_image(data[:], IMAGE_FORMATS, sys.maxsize).size
    return width * height


def open_windows(data: tiff.Slices, *, max_pixels: int) -> Windows:
    """An image to be read by windows of at most ``max_pixels``.

    Raises ItemError as ``decode_image`` does: TOO_LARGE where the file has no windows and more pixels than that.
    """
    page = next(tiff.directories(data), None)
    layout = _layout(page) if page is not None else None
    if page is not None and layout is not None:
        return _Tiff(data, page, layout, max_pixels)
    return _Decoded(decode_image(data[:], max_pixels=max_pixels))


def _as_stored(window: Window, frame: Frame) -> Window:
    """The window of the stored pixels that is shown as ``window``."""
    (height, width), (top, left, high, wide) = frame.stored_hw, window
    if frame.orientation >= 5:
        top, left, high, wide = left, top, wide, high
    if frame.orientation in (3, 4, 6, 7):
        top = height - top - high
    if frame.orientation in (2, 3, 7, 8):
        left = width - left - wide
    return Window(top, left, high, wide)


def shrunk(windows: Windows, to_hw: tuple[int, int]) -> np.ndarray:
    """The whole image, smaller: uint8 (h, w, 3), each pixel the mean of those that it covers. Raises as ``read``."""
    height, width = windows.size_hw
    found = np.empty((*to_hw, 3), np.uint8)
    rows = max(1, min(_AT_ONCE_PX, windows.max_pixels) * to_hw[0] // (height * width))
    for row in range(0, to_hw[0], rows):
        last = min(row + rows, to_hw[0])
        top, bottom = row * height // to_hw[0], last * height // to_hw[0]
        band = windows.read(Window(top, 0, bottom - top, width))
        cv2.resize(band, (to_hw[1], last - row), dst=found[row:last], interpolation=cv2.INTER_AREA)
    return found


class _Decoded:
    """See ``Windows``."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.size_hw = (pixels.shape[0], pixels.shape[1])
        self.max_pixels = pixels.shape[0] * pixels.shape[1]
        self._pixels = pixels

    def read(self, window: Window) -> np.ndarray:
        top, left, height, width = window
        return self._pixels[top : top + height, left : left + width]


@dataclass(frozen=True)
class _Layout:
    """How a page is cut: pieces (strips or tiles) of ``piece_hw`` pixels, row by row, in ``planes`` of as many.

    ``offsets``, ``counts``: int64 (planes, down, across), in bytes.
    """

    size_hw: tuple[int, int]
    piece_hw: tuple[int, int]
    planes: int
    tiled: bool
    offsets: np.ndarray
    counts: np.ndarray


def _layout(page: tiff.Directory) -> _Layout | None:
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
    layout = _Layout((height, width), piece_hw, planes, tiled, offsets.reshape(shape), counts.reshape(shape))
    return layout if tiled else _by_rows(layout, page)


def _by_rows(layout: _Layout, page: tiff.Directory) -> _Layout:
    """Uncompressed strips are cut into rows: some writers put the whole image into one."""
    if page.first(tiff.COMPRESSION) != _UNCOMPRESSED or page.first(tiff.PHOTOMETRIC) == _YCBCR:
        return layout
    height, width = layout.size_hw
    samples = 1 if layout.planes > 1 else page.first(tiff.SAMPLES)
    row_bytes = -(-width * samples * page.first(tiff.BITS) // 8)
    strip, row = np.divmod(np.arange(height), layout.piece_hw[0])
    offsets = layout.offsets[:, strip] + (row * row_bytes)[:, None]
    return _Layout((height, width), (1, width), layout.planes, False, offsets, np.full_like(offsets, row_bytes))


class _Tiff:
    """See ``Windows``."""

    def __init__(self, data: tiff.Slices, page: tiff.Directory, layout: _Layout, max_pixels: int) -> None:
        self._data = data
        self._page = page
        self._layout = layout
        self.max_pixels = max_pixels
        turned = page.first(tiff.ORIENTATION)
        turned = turned if turned in TURNS else 1
        height, width = layout.size_hw
        self._frame = Frame((width, height) if turned >= 5 else (height, width), turned)
        self.size_hw = self._frame.size_hw

    def read(self, window: Window) -> np.ndarray:
        if window.height * window.width > self.max_pixels:
            raise ItemError(
                "TOO_LARGE",
                f"a window of {window.width}x{window.height} pixels, decode.max_pixels is {self.max_pixels}",
            )
        return np.ascontiguousarray(self._frame.shown(self._stored(_as_stored(window, self._frame))))

    def _stored(self, window: Window) -> np.ndarray:
        """A window of the pixels as they are stored, decoded a few rows of pieces at a time."""
        high, wide = self._layout.piece_hw
        first, last = window.top // high, -(-(window.top + window.height) // high)
        columns = slice(window.left // wide, -(-(window.left + window.width) // wide))
        left = window.left - columns.start * wide
        step = max(1, _AT_ONCE_PX // (high * wide * (columns.stop - columns.start)))
        found = np.empty((window.height, window.width, 3), np.uint8)
        for row in range(first, last, step):
            rows = slice(row, min(row + step, last))
            pixels = self._decode(rows, columns)
            top = rows.start * high - window.top  # of these pixels, in the window
            kept = pixels[max(-top, 0) : window.height - top, left : left + window.width]
            found[max(top, 0) : max(top, 0) + len(kept)] = kept
        return found

    def _decode(self, rows: slice, columns: slice) -> np.ndarray:
        """The pieces in these rows and columns of pieces → uint8 (h, w, 3)."""
        (high, wide), (height, width) = self._layout.piece_hw, self._layout.size_hw
        if high * wide > self.max_pixels:
            what = "tiles" if self._layout.tiled else "strips"
            raise ItemError(
                "TOO_LARGE", f"{what} of {wide}x{high} pixels, which are read whole: decode.max_pixels is too small"
            )
        size_hw = (
            min(rows.stop * high, height) - rows.start * high,
            min(columns.stop * wide, width) - columns.start * wide,
        )
        return decode_image(self._small_file(rows, columns, size_hw), max_pixels=max(size_hw[0] * size_hw[1], 1))

    def _small_file(self, rows: slice, columns: slice, size_hw: tuple[int, int]) -> bytes:
        """A TIFF of these pieces alone."""
        layout, page = self._layout, self._page
        offsets, counts = (table[:, rows, columns].ravel().tolist() for table in (layout.offsets, layout.counts))
        if any(at + count > len(self._data) for at, count in zip(offsets, counts, strict=True)):
            raise ItemError("TRUNCATED", "TIFF: pixels lie behind the end of the file")
        pieces = [self._data[at : at + count] for at, count in zip(offsets, counts, strict=True)]
        kept = {tag: page.places[tag] for tag in _KEPT if tag in page.places}
        values = {tag: (kind, number, self._data[span]) for tag, (kind, number, span) in kept.items()}
        high, wide = layout.piece_hw
        sizes = {tiff.WIDTH: size_hw[1], tiff.HEIGHT: size_hw[0]}
        sizes |= {tiff.TILE_WIDTH: wide, tiff.TILE_HEIGHT: high} if layout.tiled else {tiff.ROWS_PER_STRIP: high}
        values |= {tag: self._longs([value]) for tag, value in sizes.items()}
        lengths = [len(piece) for piece in pieces]
        starts = (tiff.HEADER_BYTES + np.cumsum([0, *lengths[:-1]])).tolist()
        where, how_many = tiff.TILES if layout.tiled else tiff.STRIPS
        values |= {where: self._longs(starts), how_many: self._longs(lengths)}
        return tiff.small_file(values, pieces, page.order)

    def _longs(self, numbers: list[int]) -> tuple[int, int, bytes]:
        return _LONG, len(numbers), np.array(numbers, "<u4" if self._page.order == "little" else ">u4").tobytes()
