"""Bytes of an image file in; uint8 RGB pixels, its size, or the ids of a label map out; ItemError otherwise.

JPEG (and MPO), PNG, TIFF, BMP, WebP, GIF and PPM are read, in the frame that a viewer shows: EXIF
orientation 1–8 is applied for every format that carries it (EXIF that cannot be read counts as none).

| stored pixels | become RGB by |
|---|---|
| grey, 1-bit, 2-bit, 4-bit | three equal channels of 0–255 |
| palette | the palette's colours |
| alpha or a transparent colour (LA, RGBA, PA, palette with tRNS) | dropped: the colours as stored |
| CMYK, YCCK, Adobe's inverted CMYK | Pillow's convert: 255 - min(255, ink + black), without an ICC profile |
| 12-bit grey, 16-bit grey and colour | scaled to 0–255 and rounded (16-bit: v / 257), never clipped |
| 32-bit integers, floats, 16-bit signed or CMYK, Lab | refused as UNSUPPORTED_MODE: their range is not known |
| animation (GIF, APNG, WebP), several pages (TIFF, MPO) | the first frame, the first page |
| ICC profile, gamma | ignored, as labelling tools and the training of published weights do |

Alpha is dropped, not composited, because torchvision, pycocotools' users and Pillow's convert("RGB")
all do so: the network sees what it saw in training, and no background colour is made up.

Pillow reads the header and is the judge of damage; simplejpeg decodes 8-bit JPEG to the same pixels in
half the time; OpenCV reads 16-bit colour, of which Pillow keeps the high byte only. All three let go
of the GIL while they decode, and every function here may be called from several threads.
"""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from segjobs.errors import ItemCode, ItemError

# A library that sets it would turn every truncated image into a grey one without a word.
ImageFile.LOAD_TRUNCATED_IMAGES = False

_IMAGE_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM")  # Pillow's JPEG reader finds MPO itself
_LABEL_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
_RGB_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
_JPEG_START = b"\xff\xd8"
_PNG_START = b"\x89PNG"
_TIFF_STARTS = (b"II*\0", b"MM\0*")

# What Pillow's readers raise on damaged bytes: the first three by flipping bits of every format, the others
# by their source, where a reader indexes tables, unpacks fields and inflates chunks that a file describes.
_DAMAGE = (
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

_Turn = Callable[[np.ndarray], np.ndarray]
# EXIF orientation → the pixels as they are to be shown (EXIF 2.32, tag 0x0112).
_TURNS: dict[int, _Turn] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
_ORIENTATION, _BITS, _PHOTOMETRIC = 274, 258, 262
_STRIPS, _TILES, _TILE_SIZE = (273, 279), (324, 325), (322, 323)
_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes of one value by type; others 1
_WIDTH, _HEIGHT = 256, 257
_LARGE_TILE = 2**24
_CROP = 2**24  # pixels, below Pillow's own bound
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# Passes of an interlaced PNG: first column, first row, steps between columns and rows (PNG 1.2, section 2.6).
_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def decode_image(data: bytes, *, max_pixels: int) -> np.ndarray:
    """File bytes → uint8 (H, W, 3) RGB, C-contiguous and writable, turned by its EXIF orientation.

    Raises ItemError: UNREADABLE, TRUNCATED, TOO_LARGE (more than ``max_pixels`` by the header, before
    any pixel is decoded) or UNSUPPORTED_MODE.
    """
    image = _open(data, _IMAGE_FORMATS, max_pixels)
    turn = _TURNS[_orientation(image, data)]
    pixels = None
    if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
        pixels = _decode_jpeg(data, image.size)
    if pixels is None:
        _load(image, data)
        pixels = _to_rgb(image, data)
    return np.ascontiguousarray(turn(pixels))


def image_size(data: bytes, *, max_pixels: int) -> tuple[int, int]:
    """File bytes → (width, height) in pixels after orientation, from the header; raises as ``decode_image``.

    A PNG that carries EXIF is decoded, since the chunk may lie behind the pixels.
    """
    image = _open(data, _IMAGE_FORMATS, max_pixels)
    width, height = image.size
    return (height, width) if _orientation(image, data) >= 5 else (width, height)


def decode_label_png(data: bytes, *, max_pixels: int) -> np.ndarray:
    """Bytes of a label map (PNG, TIFF, BMP or GIF) → its ids, (H, W) uint8, uint16 or int32, orientation applied.

    Palette images give their indices, grey ones of 1 to 32 bits the values as stored (a 4-bit 3 is 3),
    alpha is dropped. Colours are no ids: UNSUPPORTED_MODE. Otherwise raises as ``decode_image``.
    """
    if data.startswith(_JPEG_START):
        raise ItemError("UNSUPPORTED_MODE", "a label map in JPEG: its compression changes ids; save it as PNG")
    image = _open(data, _LABEL_FORMATS, max_pixels)
    turn = _TURNS[_orientation(image, data)]
    bits, inverted = _bits(image, data), _white_is_zero(image)
    _load(image, data)
    ids = np.array(image)
    if inverted:
        raise ItemError("UNSUPPORTED_MODE", "a label map that stores white as 0: save it with black as 0")
    if image.mode in ("LA", "PA"):
        ids = ids[..., 0]
    elif image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
        raise ItemError(
            "UNSUPPORTED_MODE",
            f"a label map of mode {image.mode}: colours and fractions are no class ids; "
            "save the ids as a grey or palette PNG of 8 or 16 bits",
        )
    if image.mode in ("1", "L", "LA") and bits in (2, 4):
        ids = ids // (255 // (2**bits - 1))  # Pillow spreads 2 and 4 bits over 0–255
    kind = np.uint8 if ids.dtype == bool else ids.dtype.newbyteorder("=")
    return np.ascontiguousarray(turn(ids), dtype=kind)


def decode_color_map(data: bytes, *, max_pixels: int) -> np.ndarray:
    """Bytes of a map of class colours (PNG, TIFF, BMP or GIF) → uint8 (H, W, 3) RGB as stored, orientation applied.

    8-bit RGB and palettes; alpha is dropped. Grey values are no colours: UNSUPPORTED_MODE, and so is JPEG.
    """
    if data.startswith(_JPEG_START):
        raise ItemError("UNSUPPORTED_MODE", "a label map in JPEG: its compression changes colours; save it as PNG")
    image = _open(data, _LABEL_FORMATS, max_pixels)
    if image.mode not in ("RGB", "RGBA", "P") or _bits(image, data) > 8:
        raise ItemError(
            "UNSUPPORTED_MODE",
            f"a colour map of mode {image.mode}: expected 8-bit RGB or a palette; grey ids are read as png",
        )
    turn = _TURNS[_orientation(image, data)]
    _load(image, data)
    return np.ascontiguousarray(turn(_to_rgb(image, data)))


def _open(data: bytes, formats: tuple[str, ...], max_pixels: int) -> ImageFile.ImageFile:
    if not data:
        raise ItemError("UNREADABLE", "zero bytes")
    try:
        image = _identify(data, formats)
    except _BOMB as error:
        raise ItemError("TOO_LARGE", str(error)) from error
    except _DAMAGE as error:
        raise _failure(data, error, f"not an image that can be read ({', '.join(formats)})") from error
    width, height = image.size
    if width * height > max_pixels:
        raise ItemError("TOO_LARGE", f"{width}x{height} pixels, decode.max_pixels is {max_pixels}")
    if width * height == 0:
        raise ItemError("UNREADABLE", f"{width}x{height} pixels")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile is decoded whole, however little of it the image shows.
        across, down = (image.tag_v2.get(tag, 1) for tag in _TILE_SIZE)
        if isinstance(across, int) and isinstance(down, int) and across * down > max(max_pixels, _LARGE_TILE):
            raise ItemError("TOO_LARGE", f"tiles of {across}x{down} pixels, decode.max_pixels is {max_pixels}")
    return image


def _identify(data: bytes, formats: tuple[str, ...]) -> ImageFile.ImageFile:
    """``Image.open`` by its own register of readers, but for its bound on pixels: ``_open`` has ours."""
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


def _load(image: ImageFile.ImageFile, data: bytes) -> None:
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tile:
            # Made here, of the size as stored: where the reader makes the pixels itself, it asks for Pillow's bound.
            image.im = Image.new(image.mode, (image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]), None).im
        image.load()
    except _BOMB as error:
        raise ItemError("TOO_LARGE", str(error)) from error
    except _DAMAGE as error:
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
        return len(zlib.decompressobj().decompress(_png_pixels(data), full)) < full
    except zlib.error:  # a wrong sum behind the last row: in the rows, Pillow would have met it
        return False


def _png_pixels(data: bytes) -> bytes:
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
    if data.startswith(_JPEG_START):
        return b"\xff\xd9" not in data
    if data.startswith(_PNG_START):
        return b"IEND" not in data
    if data.startswith(b"GIF8"):
        return not data.rstrip(b"\0").endswith(b";")
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data.startswith(b"BM"):
        return len(data) < int.from_bytes(data[2:6], "little")
    if data.startswith(_TIFF_STARTS):
        return _tiff_ends_early(data)
    return False


def _tiff_ends_early(data: bytes) -> bool:
    """Whether the first directory, a value it points at, or a strip or tile of pixels lies behind the end."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    start = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[start : start + 2], order)
    if len(data) < start + 2 + 12 * count:
        return True
    values: dict[int, np.ndarray] = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = (int.from_bytes(data[at : at + 2], order) for at in (entry, entry + 2))
        size, number = _TIFF_SIZES.get(kind, 1), int.from_bytes(data[entry + 4 : entry + 8], order)
        at = entry + 8 if size * number <= 4 else int.from_bytes(data[entry + 8 : entry + 12], order)
        if at + size * number > len(data):
            return True
        if tag in _STRIPS + _TILES and kind in (3, 4):
            kinds = f"{'<' if order == 'little' else '>'}u{size}"
            values[tag] = np.frombuffer(data, kinds, number, at).astype(np.int64)
    return any(
        (values[offsets] + values[counts] > len(data)).any()
        for offsets, counts in (_STRIPS, _TILES)
        if offsets in values and counts in values and len(values[offsets]) == len(values[counts])
    )


def _orientation(image: ImageFile.ImageFile, data: bytes) -> int:
    """EXIF orientation 1–8 that is still to be applied; Pillow turns TIFF itself, size and pixels."""
    if image.format == "TIFF":
        return 1
    if image.format == "PNG":
        # Pillow decodes a whole PNG in search of EXIF behind its pixels; few have any.
        if not any(key in data for key in (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type")):
            return 1
        _load(image, data)
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _decode_jpeg(data: bytes, size_wh: tuple[int, int]) -> np.ndarray | None:
    """uint8 (H, W, 3) RGB, or None where Pillow is to judge: damaged, or a variant that TurboJPEG refuses."""
    try:
        # The exact transforms: with simplejpeg's own defaults pixels differ from Pillow's.
        pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, strict=True)
    except ValueError:
        return None
    return pixels if pixels.shape[1::-1] == size_wh else None


def _to_rgb(image: ImageFile.ImageFile, data: bytes) -> np.ndarray:
    """A loaded image → uint8 (H, W, 3) RGB by the table on top."""
    mode, bits = image.mode, _bits(image, data)
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        grey = _scale(np.array(image), bits)
        grey = 255 - grey if _white_is_zero(image) else grey  # Pillow inverts those of 8 bits only
        return np.repeat(grey[..., None], 3, axis=2)
    if mode not in _RGB_MODES or (bits > 8 and mode not in ("RGB", "RGBA")):
        raise ItemError(
            "UNSUPPORTED_MODE",
            f"{image.format} of mode {mode}, {bits} bits: no known range; save it as 8- or 16-bit grey or RGB",
        )
    if mode == "P" and image.format == "PNG" and b"PLTE" not in data:
        raise ItemError("UNREADABLE", "PNG: a palette image without its palette")  # Pillow makes up grey values
    image.info.pop("transparency", None)  # Pillow warns of a palette's alpha, which is dropped here
    eight = np.array(image.convert("RGB"))
    return eight if bits <= 8 else _colour16(data, eight)


def _colour16(data: bytes, eight: np.ndarray) -> np.ndarray:
    """16-bit colour → uint8 RGB rounded from all 16 bits; ``eight`` is Pillow's, the high bytes, as a check."""
    plain = _bare_png(data) if data.startswith(_PNG_START) else data
    try:
        wide = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        wide = None
    if wide is not None and wide.dtype == np.uint16 and wide.ndim == 3 and wide.shape[2] in (3, 4):
        wide = np.asarray(wide[..., 2::-1], np.uint16)  # BGR(A)
        if wide.shape == eight.shape and np.array_equal(wide >> 8, eight):
            return _scale(wide, 16)
    raise ItemError("UNSUPPORTED_MODE", "16-bit colour in a layout that is not read exactly; save it as a plain PNG")


def _bare_png(data: bytes) -> bytes:
    """A PNG of the same header and pixels and nothing else: no gamma, profile or frames for OpenCV to apply.

    Lengths are written anew: for a damaged one, which Pillow survives, OpenCV asks for gigabytes.
    """
    body = b"IDAT" + _png_pixels(data)
    chunks = (data[12:29], body, b"IEND")
    return data[:8] + b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)


def _scale(values: np.ndarray, bits: int) -> np.ndarray:
    full = 2**bits - 1
    return ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)


def _bits(image: ImageFile.ImageFile, data: bytes) -> int:
    """Bits of one sample as stored."""
    if image.format == "PNG":
        return data[24]  # IHDR is the first chunk: signature 8, length 4, name 4, width 4, height 4
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(_BITS, (1,)))
    return 16 if image.mode == "I" else 8


def _white_is_zero(image: ImageFile.ImageFile) -> bool:
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0
