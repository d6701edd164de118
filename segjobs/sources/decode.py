"""Bytes of an image file in; uint8 RGB pixels, or its size and how it is turned, out; ItemError otherwise.

JPEG (and MPO), PNG, TIFF, BMP, WebP, GIF and PPM are read, in the frame that a viewer shows: EXIF
orientation 1–8 is applied for every format that carries it (EXIF that cannot be read counts as none; XMP's is not
looked at, as browsers, OpenCV and torchvision do not).

| stored pixels | become RGB by |
|---|---|
| grey, 1-bit, 2-bit, 4-bit | three equal channels of 0–255 |
| palette | the palette's colours |
| alpha or a transparent colour (LA, RGBA, PA, palette with tRNS) | dropped: the colours as stored |
| CMYK, YCCK, Adobe's inverted CMYK | Pillow's convert: 255 - min(255, ink + black), without an ICC profile |
| 12-bit grey, 16-bit grey and colour | scaled to 0–255 and rounded (16-bit: v / 257), never clipped |
| 32-bit integers, floats, signed numbers, 16-bit CMYK, Lab | refused as UNSUPPORTED_MODE: their range is not known |
| other TIFFs: bands without a colour, bits without a rule | refused as UNSUPPORTED_MODE, with bands and bits |
| animation (GIF, APNG, WebP), several pages (TIFF, MPO) | the first frame, the first page |
| progressive JPEG of more than a hundred scans | refused as TOO_LARGE: each costs a pass over all pixels |
| ICC profile, gamma | ignored, as labelling tools and the training of published weights do |

Alpha is dropped, not composited, because torchvision, pycocotools' users and Pillow's convert("RGB")
all do so: the network sees what it saw in training, and no background colour is made up.

Pillow reads the header and is the judge of damage; simplejpeg decodes 8-bit JPEG to the same pixels in
half the time; OpenCV reads 16-bit colour, of which Pillow keeps the high byte only. All three let go
of the GIL while they decode, and every function here may be called from several threads.
"""

import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import ImageFile, TiffImagePlugin

from segjobs.errors import ItemError
from segjobs.sources.image_file import (
    IMAGE_FORMATS,
    PNG_START,
    TURNS,
    bits_of,
    is_signed,
    load,
    open_image,
    orientation,
    png_pixels,
    turn_of,
    white_is_zero,
)

_RGB_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}


@dataclass(frozen=True)
class Frame:
    """How an image is shown: ``size_hw`` in pixels, after its EXIF ``orientation`` (1–8) is applied."""

    size_hw: tuple[int, int]
    orientation: int = 1

    @property
    def stored_hw(self) -> tuple[int, int]:
        """The size of the pixels as they are stored."""
        height, width = self.size_hw
        return (width, height) if self.orientation >= 5 else (height, width)

    def shown(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W) or (H, W, C) as stored → as shown."""
        return TURNS[self.orientation](pixels)


def decode_image(data: bytes, *, max_pixels: int) -> np.ndarray:
    """File bytes → uint8 (H, W, 3) RGB, C-contiguous and writable, turned by its EXIF orientation.

    Raises ItemError: UNREADABLE, TRUNCATED, TOO_LARGE (more than ``max_pixels`` by the header, before
    any pixel is decoded) or UNSUPPORTED_MODE.
    """
    image = open_image(data, IMAGE_FORMATS, max_pixels)
    turn = turn_of(image, data)
    pixels = None
    if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
        pixels = _decode_jpeg(data, image.size)
    if pixels is None:
        load(image, data)
        pixels = to_rgb(image, data)
    return np.ascontiguousarray(turn(pixels))


def image_frame(data: bytes, *, max_pixels: int) -> Frame:
    """File bytes → its frame, from the header; raises as ``decode_image``.

    A PNG that carries EXIF is decoded, since the chunk may lie behind the pixels.
    """
    image = open_image(data, IMAGE_FORMATS, max_pixels)
    (width, height), turned = image.size, orientation(image, data)
    swapped = turned >= 5 and not isinstance(image, TiffImagePlugin.TiffImageFile)
    return Frame((width, height) if swapped else (height, width), turned)


def _decode_jpeg(data: bytes, size_wh: tuple[int, int]) -> np.ndarray | None:
    """uint8 (H, W, 3) RGB, or None where Pillow is to judge: damaged, or a variant that TurboJPEG refuses."""
    try:
        # The exact transforms: with simplejpeg's own defaults pixels differ from Pillow's.
        pixels = simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False, strict=True)
    except ValueError:
        return None
    return pixels if pixels.shape[1::-1] == size_wh else None


def to_rgb(image: ImageFile.ImageFile, data: bytes) -> np.ndarray:
    """A loaded image → uint8 (H, W, 3) RGB by the table on top."""
    mode, bits = image.mode, bits_of(image, data)
    if is_signed(image):
        raise ItemError("UNSUPPORTED_MODE", f"TIFF of signed numbers of {bits} bits: no known range; save it unsigned")
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        grey = _scale(np.array(image), bits)
        grey = 255 - grey if white_is_zero(image) else grey  # Pillow inverts those of 8 bits only
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
    return _scale(wide_colour(data, eight)[..., :3], 16)


def wide_colour(data: bytes, eight: np.ndarray) -> np.ndarray:
    """16-bit colour → uint16 (H, W, 3 or 4) RGB(A); ``eight``: Pillow's high bytes of the RGB. Raises ItemError."""
    plain = _bare_png(data) if data.startswith(PNG_START) else data
    try:
        wide = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        wide = None
    if wide is not None and wide.dtype == np.uint16 and wide.ndim == 3 and wide.shape[2] in (3, 4):
        wide = np.asarray(wide[..., [2, 1, 0, 3][: wide.shape[2]]], np.uint16)  # BGR(A)
        if wide.shape[:2] == eight.shape[:2] and np.array_equal(wide[..., :3] >> 8, eight):
            return wide
    raise ItemError("UNSUPPORTED_MODE", "16-bit colour in a layout that is not read exactly; save it as a plain PNG")


def _bare_png(data: bytes) -> bytes:
    """A PNG of the same header and pixels and nothing else: no gamma, profile or frames for OpenCV to apply.

    Lengths are written anew: for a damaged one, which Pillow survives, OpenCV asks for gigabytes.
    """
    body = b"IDAT" + png_pixels(data)
    chunks = (data[12:29], body, b"IEND")
    return data[:8] + b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)


def _scale(values: np.ndarray, bits: int) -> np.ndarray:
    full = 2**bits - 1
    return ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)
