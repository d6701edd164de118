"""Windows of an image that is too large to be decoded whole: a file in; uint8 RGB pixels of any part of it out.

    TIFF, BigTIFF   the strips or tiles that a window touches, as a small TIFF of the same tags ─→ decode_image
    every other     decoded whole, once, where it has at most decode.max_pixels

So a window has the very pixels that ``decode_image`` gives the whole file, whatever its compression (none, LZW,
deflate, PackBits, JPEG, fax), bits, colours and planes, and what cannot be read is refused in the same words. The first
page is read, which in a pyramid is the full level. Windows are in the frame that a viewer shows: orientation 1–8 is
applied. Strips that run across the columns of a turned image are decoded anew for each of its bands of rows. A label
map's windows are its ids.
"""

import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from segjobs.errors import ItemError
from segjobs.sources import tiff
from segjobs.sources.bands import Bands, decode_bands, decode_block
from segjobs.sources.decode import Frame, decode_image, image_frame
from segjobs.sources.image_file import IMAGE_FORMATS, TURNS, open_image
from segjobs.sources.label_map import check_pages, decode_label_png
from segjobs.sources.tiff_pieces import Block, Pieces, layout_of

_AT_ONCE_PX = 2**22  # that are decoded before they are cropped to the window; some 30 bytes each meanwhile
_BAND_PX = 2**24

_Decode = Callable[[Pieces, Block], np.ndarray]


class Window(NamedTuple):
    """A part of an image, in pixels of the frame in which it is shown."""

    top: int
    left: int
    height: int
    width: int


class Windows(Protocol):
    """An open image; a window has at most ``max_pixels``. Not for several threads at a time.

    ``rows_at_once``: what is decoded together is so high; ``frame``: with the orientation that was applied.
    """

    size_hw: tuple[int, int]
    max_pixels: int
    rows_at_once: int
    frame: Frame

    def read(self, window: Window) -> np.ndarray:
        """uint8 (height, width, 3) RGB, or of a label map whole numbers (height, width), to be left as it is.

        Raises ItemError as ``decode_image`` does.
        """
        ...


def count_pixels(data: tiff.Slices) -> int:
    """Width times height, by the header. Raises ItemError as ``decode_image`` does, but for any size."""
    page = next(tiff.directories(data), None)
    if page is not None and {tiff.WIDTH, tiff.HEIGHT} <= page.tags.keys():
        return page.first(tiff.WIDTH) * page.first(tiff.HEIGHT)
    width, height = open_image(data[:], IMAGE_FORMATS, sys.maxsize).size
    return width * height


def open_windows(data: tiff.Slices, *, max_pixels: int, bands: Bands | None = None) -> Windows:
    """An image to be read by windows of at most ``max_pixels``. ``bands``: None takes its own colours.

    Raises ItemError as ``decode_image`` does: TOO_LARGE where the file has no windows and more pixels than that.
    """
    pieces = _pieces(data)
    if pieces is not None:
        return _Tiff(pieces, _rgb if bands is None else partial(decode_block, bands=bands), max_pixels)
    if bands is not None:
        return _Decoded(decode_bands(data[:], bands, max_pixels=max_pixels))
    return _Decoded(decode_image(data[:], max_pixels=max_pixels))


def open_label_map(data: tiff.Slices, *, max_pixels: int) -> Windows:
    """The ids of a label map as ``decode_label_png`` gives them, by windows of at most ``max_pixels``."""
    pieces = _pieces(data)
    if pieces is None:
        return _Decoded(decode_label_png(data[:], max_pixels=max_pixels))
    check_pages(tiff.pages(data))
    return _Tiff(pieces, _ids, max_pixels)


def read_image(data: bytes, *, max_pixels: int, bands: Bands | None = None) -> np.ndarray:
    """``decode_image``; with ``bands``, of these."""
    if bands is None:
        return decode_image(data, max_pixels=max_pixels)
    windows = open_windows(data, max_pixels=max_pixels, bands=bands)
    return np.array(windows.read(Window(0, 0, *windows.size_hw)))


def frame_of(data: tiff.Slices, *, max_pixels: int, bands: Bands | None = None) -> Frame:
    """An image's size and orientation, from its header; a TIFF may have any size: of a larger one a pixel is read.

    Raises as ``open_windows``.
    """
    pieces = _pieces(data)
    small = pieces is None or (isinstance(data, bytes) and math.prod(pieces.layout.size_hw) <= max_pixels)
    if small and bands is None:
        return image_frame(data[:], max_pixels=max_pixels)
    windows = open_windows(data, max_pixels=max_pixels, bands=bands)
    windows.read(Window(0, 0, 1, 1))
    return windows.frame


def rows_of(windows: Windows) -> Iterator[tuple[int, np.ndarray]]:
    """An image, or its ids, from the top to the bottom: the first row and the pixels of some at a time.

    Some 16 million pixels, or ``max_pixels``. Raises ItemError as ``Windows.read``.
    """
    height, width = windows.size_hw
    most = max(1, min(_BAND_PX, windows.max_pixels) // width)
    rows = most // windows.rows_at_once * windows.rows_at_once or most
    for top in range(0, height, rows):
        yield top, windows.read(Window(top, 0, min(rows, height - top), width))


def _pieces(data: tiff.Slices) -> Pieces | None:
    page = next(tiff.directories(data), None)
    layout = layout_of(page) if page is not None else None
    return Pieces(data, page, layout) if page is not None and layout is not None else None


def _rgb(pieces: Pieces, block: Block) -> np.ndarray:
    return decode_image(pieces.small_file(block), max_pixels=_decoded_px(pieces, block))


def _ids(pieces: Pieces, block: Block) -> np.ndarray:
    return decode_label_png(pieces.small_file(block), max_pixels=_decoded_px(pieces, block))


def _decoded_px(pieces: Pieces, block: Block) -> int:
    """A tile is decoded whole, however little of it the image shows."""
    high, wide = pieces.layout.piece_hw
    return max(block.size_hw[0] * block.size_hw[1], high * wide, 1)


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

    rows_at_once = 1

    def __init__(self, pixels: np.ndarray) -> None:
        self.frame = Frame((pixels.shape[0], pixels.shape[1]))
        self.size_hw = self.frame.size_hw
        self.max_pixels = pixels.shape[0] * pixels.shape[1]
        self._pixels = pixels

    def read(self, window: Window) -> np.ndarray:
        top, left, height, width = window
        return self._pixels[top : top + height, left : left + width]


class _Tiff:
    """See ``Windows``."""

    def __init__(self, pieces: Pieces, decode: _Decode, max_pixels: int) -> None:
        self._pieces = pieces
        self._decode = decode
        self.max_pixels = max_pixels
        turned = pieces.page.first(tiff.ORIENTATION)
        turned = turned if turned in TURNS else 1
        height, width = pieces.layout.size_hw
        self.frame = Frame((width, height) if turned >= 5 else (height, width), turned)
        self.size_hw = self.frame.size_hw
        self.rows_at_once = pieces.layout.piece_hw[1 if turned >= 5 else 0]
        self._kept: tuple[int, slice, np.ndarray] | None = None

    def read(self, window: Window) -> np.ndarray:
        if window.height * window.width > self.max_pixels:
            raise ItemError(
                "TOO_LARGE",
                f"a window of {window.width}x{window.height} pixels, decode.max_pixels is {self.max_pixels}",
            )
        return np.ascontiguousarray(self.frame.shown(self._stored(_as_stored(window, self.frame))))

    def _stored(self, window: Window) -> np.ndarray:
        """A window of the pixels as they are stored, decoded a few rows of pieces at a time."""
        high, wide = self._pieces.layout.piece_hw
        first, last = window.top // high, -(-(window.top + window.height) // high)
        columns = slice(window.left // wide, -(-(window.left + window.width) // wide))
        left = window.left - columns.start * wide
        step = max(1, _AT_ONCE_PX // (high * wide * (columns.stop - columns.start)))
        found: np.ndarray | None = None
        for row in range(first, last, step):
            rows = slice(row, min(row + step, last))
            pixels = self._decoded(rows, columns)
            top = rows.start * high - window.top  # of these pixels, in the window
            kept = pixels[max(-top, 0) : window.height - top, left : left + window.width]
            if found is None:
                found = np.empty((window.height, window.width, *pixels.shape[2:]), pixels.dtype)
            elif found.dtype != pixels.dtype:  # of ids, whose type is as wide as they need
                found = found.astype(np.result_type(found, pixels))
            found[max(top, 0) : max(top, 0) + len(kept)] = kept
        assert found is not None, "a window has pixels"  # noqa: S101
        return found

    def _decoded(self, rows: slice, columns: slice) -> np.ndarray:
        """The pieces in these rows and columns of pieces → (h, w, …). A row that is larger than most is kept."""
        layout = self._pieces.layout
        high, wide = layout.piece_hw
        if high * wide > self.max_pixels:
            what = "tiles" if layout.tiled else "strips"
            raise ItemError(
                "TOO_LARGE", f"{what} of {wide}x{high} pixels, which are read whole: decode.max_pixels is too small"
            )
        if self._kept is not None and (self._kept[0], self._kept[1]) == (rows.start, columns):
            return self._kept[2]
        self._kept = None
        pixels = self._decode(self._pieces, self._pieces.block(rows, columns))
        if high * wide > _AT_ONCE_PX:  # windows of few rows would decode it again and again
            self._kept = (rows.start, columns, pixels)
        return pixels
