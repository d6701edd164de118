"""An image file as Pillow opens it, judged: bytes in; the open or loaded image, how it is turned, its bits, out.

What ``decode.py`` and ``label_map.py`` share: which formats are tried, the bound on pixels, what is damage and what a
layout without a rule, and the orientation that EXIF says. XMP's orientation is not looked at: browsers, OpenCV and
torchvision show such a file as it is stored.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from segjobs.errors import ItemCode, ItemError
from segjobs.sources import tiff

# A library that sets it would turn every truncated image into a grey one without a word.
ImageFile.LOAD_TRUNCATED_IMAGES = False

IMAGE_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM")  # Pillow's JPEG reader finds MPO itself
JPEG_START = b"\xff\xd8"
PNG_START = b"\x89PNG"

# What Pillow's readers raise on damaged bytes: the first three by flipping bits of every format, the others
# by their source, where a reader indexes tables, unpacks fields and inflates chunks that a file describes.
DAMAGE = (
    OSError,  # not identified, truncated, "broken data stream", libtiff's and WebP's own errors
    SyntaxError,  # malformed chunks, headers and directories
    ValueError,  # sizes and offsets that cannot be; text and ICC chunks over Pillow's limits
    TypeError,  # a tag of another type than its reader expects
    IndexError,  # a table or tag shorter than its reader expects
    KeyError,  # a tag that is not there
    EOFError,  # no first frame
    struct.error,  # a field cut short
    zlib.error,  # damaged compressed chunks
    OverflowError,  # a length over the C type's range
    MemoryError,  # a damaged length asks for more memory than there is
)
# Pillow's own bound (PIL.Image.MAX_IMAGE_PIXELS: a warning from 89 million pixels, an error from twice that) is one of
# the whole process, and not ours to move. Where its readers ask for it by themselves, it holds: for WebP above
# 178 million pixels (of 268 that WebP can have), and for GIF whose frames reach beyond its screen.
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)

Turn = Callable[[np.ndarray], np.ndarray]
# EXIF orientation → the pixels as they are to be shown (EXIF 2.32, tag 0x0112).
TURNS: dict[int, Turn] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
_SIGNED = 2  # sample format of a TIFF
_LARGE_TILE = 2**24
_CROP = 2**24  # pixels, below Pillow's own bound
# Each scan of a progressive JPEG costs a pass over all its pixels, however few bytes it has. Encoders write up to 20.
_MOST_SCANS = 100
_JPEG_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # within compressed pixels: no stuffing, no restart
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# Passes of an interlaced PNG: first column, first row, steps between columns and rows (PNG 1.2, section 2.6).
_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def open_image(data: bytes, formats: tuple[str, ...], max_pixels: int) -> ImageFile.ImageFile:
    """The header of a file of one of Pillow's ``formats``. Raises ItemError as ``decode_image`` does."""
    if not data:
        raise ItemError("UNREADABLE", "zero bytes")
    try:
        image = _identify(data, formats)
    except _BOMB as error:
        raise ItemError("TOO_LARGE", str(error)) from error
    except DAMAGE as error:
        layout = tiff.layout(data)
        if layout is not None:
            raise ItemError(
                "UNSUPPORTED_MODE", f"TIFF of {layout}: a layout without a rule; save it as 8- or 16-bit grey or RGB"
            ) from error
        raise _failure(data, error, f"not an image that can be read ({', '.join(formats)})") from error
    width, height = image.size
    if width * height > max_pixels:
        raise ItemError("TOO_LARGE", f"{width}x{height} pixels, decode.max_pixels is {max_pixels}")
    if width * height == 0:
        raise ItemError("UNREADABLE", f"{width}x{height} pixels")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile is decoded whole, however little of it the image shows.
        across, down = (image.tag_v2.get(tag, 1) for tag in (tiff.TILE_WIDTH, tiff.TILE_HEIGHT))
        if isinstance(across, int) and isinstance(down, int) and across * down > max(max_pixels, _LARGE_TILE):
            raise ItemError("TOO_LARGE", f"tiles of {across}x{down} pixels, decode.max_pixels is {max_pixels}")
    if image.info.get("progressive") and (scans := _scans(data)) > _MOST_SCANS:
        raise ItemError("TOO_LARGE", f"a JPEG of {scans} scans; expected {_MOST_SCANS} at most")
    return image


def _scans(data: bytes) -> int:
    """Scans of a JPEG: its segments are stepped over, so that what looks like a marker in a comment is none."""
    scans, position = 0, 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # filling
            position += 1
            continue
        if marker == 0xD9:
            break
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:
            scans += 1
            found = _JPEG_MARKER.search(data, position)
            position = found.start() if found else len(data)
    return scans


def _identify(data: bytes, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """``Image.open`` by its own register of readers, but for its bound on pixels: ``open_image`` has ours."""
    for name in formats:
        if name not in Image.OPEN:
            Image.init()
        reader, accepts = Image.OPEN[name]
        accepted = accepts is None or accepts(data[:16])
        if not accepted or isinstance(accepted, str):  # a text: why this build of Pillow cannot
            continue
        try:
            return reader(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # not this format after all, or too damaged to tell
    raise UnidentifiedImageError(f"{len(data)} bytes, starting with {data[:8].hex(' ')}")


def load(image: ImageFile.ImageFile, data: bytes) -> None:
    """Read the pixels. Raises ItemError as ``decode_image`` does."""
    _forget_xmp(image)
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tile:
            # Made here, of the size as stored: where the reader makes the pixels itself, it asks for Pillow's bound.
            image.im = Image.new(image.mode, (image.tag_v2[tiff.WIDTH], image.tag_v2[tiff.HEIGHT]), None).im
        image.load()
    except _BOMB as error:
        raise ItemError("TOO_LARGE", str(error)) from error
    except DAMAGE as error:
        raise _failure(data, error, f"{image.format}: damaged") from error
    if image.format == "PNG" and _png_lacks_rows(image, data):
        raise ItemError("TRUNCATED", "PNG: the pixels end before the last row")


def _png_lacks_rows(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether the compressed pixels end well and early: Pillow leaves the missing rows at 0, and says nothing."""
    width, height = image.size
    bits, colours, interlaced = data[24], _PNG_CHANNELS.get(data[25], 1), data[28] == 1
    starts = range(0, width, _CROP)
    last_row = (image.crop((left, height - 1, min(left + _CROP, width), height)) for left in starts)
    if not interlaced and any(np.asarray(piece).any() for piece in last_row):
        return False
    passes = _ADAM7 if interlaced else [(0, 0, 1, 1)]
    sizes = [(-((left - width) // across), -((top - height) // down)) for left, top, across, down in passes]
    full = sum(rows * (1 + (columns * bits * colours + 7) // 8) for columns, rows in sizes if columns > 0)
    try:
        return len(zlib.decompressobj().decompress(png_pixels(data), full)) < full
    except zlib.error:  # a wrong sum behind the last row: in the rows, Pillow would have met it
        return False


def png_pixels(data: bytes) -> bytes:
    """The compressed pixels of a PNG: the bodies of its IDAT chunks."""
    pixels, position = [], 33
    while position < len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"IDAT":
            pixels.append(data[position + 8 : end - 4])
        position = end
    return b"".join(pixels)


def _failure(data: bytes, error: Exception, what: str) -> ItemError:
    detail = " ".join(str(error).split()) if str(error) else type(error).__name__
    code: ItemCode = "TRUNCATED" if "truncated" in detail.lower() or _ends_early(data) else "UNREADABLE"
    return ItemError(code, f"{what}: {detail}")


def _ends_early(data: bytes) -> bool:
    """Whether the file ends before the place that its container names or must end with."""
    if data.startswith(JPEG_START):
        return b"\xff\xd9" not in data
    if data.startswith(PNG_START):
        return b"IEND" not in data
    if data.startswith(b"GIF8"):
        return not data.rstrip(b"\0").endswith(b";")
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data.startswith(b"BM"):
        return len(data) < int.from_bytes(data[2:6], "little")
    if data.startswith(tiff.STARTS):
        return tiff.ends_early(data)
    return False


def orientation(image: ImageFile.ImageFile, data: bytes) -> int:
    """EXIF orientation 1–8, which ``turn_of`` applies."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _sound(image.tag_v2.get(tiff.ORIENTATION, 1))
    if image.format == "PNG":
        # Pillow decodes a whole PNG in search of EXIF behind its pixels; few have any.
        if not any(key in data for key in (b"eXIf", b"Raw profile type")):
            return 1
        load(image, data)
    _forget_xmp(image)
    try:
        return _sound(image.getexif().get(tiff.ORIENTATION, 1))
    except DAMAGE:
        return 1


def turn_of(image: ImageFile.ImageFile, data: bytes) -> Turn:
    """What is still to be done with the loaded pixels; Pillow turns TIFF itself, size and pixels."""
    return TURNS[1 if image.format == "TIFF" else orientation(image, data)]


def _sound(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _forget_xmp(image: ImageFile.ImageFile) -> None:
    """Where EXIF says no orientation, Pillow takes that of XMP."""
    for key in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(key, None)


def bits_of(image: ImageFile.ImageFile, data: bytes) -> int:
    """Bits of one sample as stored."""
    if image.format == "PNG":
        return data[24]  # IHDR is the first chunk: signature 8, length 4, name 4, width 4, height 4
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(tiff.BITS, (1,)))
    return 16 if image.mode == "I" else 8


def white_is_zero(image: ImageFile.ImageFile) -> bool:
    """Whether a TIFF stores white as 0."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(tiff.PHOTOMETRIC) == 0


def is_signed(image: ImageFile.ImageFile) -> bool:
    """Whether a TIFF stores signed numbers."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and _SIGNED in image.tag_v2.get(tiff.SAMPLE_FORMAT, ())
