"""Bytes of a label file in; its ids, its colours or its mask out, as a viewer turns them; ItemError otherwise.

| file | ids (``decode_label_png``) | colours (``decode_color_map``) | mask (``decode_mask``) |
|---|---|---|---|
| grey of 1 to 16 bits | as stored | refused | as stored |
| TIFF of 32 or 64 bits, signed or not | as stored | refused | as stored |
| palette | the indices | the palette's colours | its greys; where it has colours, the indices |
| RGB | refused | as stored | one channel, where all three agree |
| alpha | dropped | dropped | the mask, where all pixels have one colour |
| JPEG | refused | refused | as RGB: needs a threshold |
| white stored as 0, several pages or frames, a second band | refused | refused | refused |

An overview or a transparency mask inside a TIFF is no page. Everything else is refused as UNSUPPORTED_MODE.
"""

import cv2
import numpy as np
from PIL import GifImagePlugin, ImageFile, PngImagePlugin, TiffImagePlugin

from segjobs.errors import ItemError
from segjobs.sources import tiff
from segjobs.sources.decode import to_rgb
from segjobs.sources.image_file import (
    DAMAGE,
    IMAGE_FORMATS,
    JPEG_START,
    bits_of,
    is_signed,
    load,
    open_image,
    turn_of,
    white_is_zero,
)

_LABEL_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
_GREY_MODES = ("1", "L", "P", "I", "LA", "PA")


def decode_label_png(data: bytes, *, max_pixels: int) -> np.ndarray:
    """Bytes of a label map (PNG, TIFF, BMP or GIF) → its ids, whole numbers (H, W), orientation applied.

    uint8, uint16 or int32, int8 where signed, int64 where 32 bits do not hold them. A 4-bit 3 is 3. Otherwise raises as
    ``decode_image``.
    """
    if data.startswith(JPEG_START):
        raise ItemError("UNSUPPORTED_MODE", "a label map in JPEG: its compression changes ids; save it as PNG")
    wide = _wide_ids(data, max_pixels)
    if wide is not None:
        return wide
    image = open_image(data, _LABEL_FORMATS, max_pixels)
    _check_one(image, data)
    turn = turn_of(image, data)
    bits, signed = bits_of(image, data), is_signed(image)
    load(image, data)
    ids = np.array(image)
    if image.mode not in _GREY_MODES and not image.mode.startswith("I;16"):
        raise ItemError(
            "UNSUPPORTED_MODE",
            f"a label map of mode {image.mode}: colours and fractions are no class ids; "
            "save the ids as a grey or palette PNG of 8 or 16 bits",
        )
    if image.mode in ("LA", "PA"):
        ids = ids[..., 0]
    if image.mode in ("1", "L", "LA") and bits in (2, 4):
        ids = ids // (255 // (2**bits - 1))  # Pillow spreads 2 and 4 bits over 0–255
    if signed and bits == 8:
        ids = ids.view(np.int8)
    elif not signed and bits == 32:
        ids = _narrow(ids.view(np.uint32))  # as which Pillow's 32 bits are stored
    kind = np.uint8 if ids.dtype == bool else ids.dtype.newbyteorder("=")
    return np.ascontiguousarray(turn(ids), dtype=kind)


def decode_color_map(data: bytes, *, max_pixels: int) -> np.ndarray:
    """Bytes of a map of class colours (PNG, TIFF, BMP or GIF) → uint8 (H, W, 3) RGB as stored, orientation applied.

    8-bit RGB and palettes; alpha is dropped. Grey values are no colours: UNSUPPORTED_MODE, and so is JPEG.
    """
    if data.startswith(JPEG_START):
        raise ItemError("UNSUPPORTED_MODE", "a label map in JPEG: its compression changes colours; save it as PNG")
    image = open_image(data, _LABEL_FORMATS, max_pixels)
    if image.mode not in ("RGB", "RGBA", "P") or bits_of(image, data) > 8:
        raise ItemError(
            "UNSUPPORTED_MODE",
            f"a colour map of mode {image.mode}: expected 8-bit RGB or a palette; grey ids are read as png",
        )
    _check_one(image, data)
    turn = turn_of(image, data)
    load(image, data)
    return np.ascontiguousarray(turn(to_rgb(image, data)))


def decode_mask(data: bytes, *, max_pixels: int, indices: bool = True) -> np.ndarray:
    """Bytes of a black and white mask → its greys, or its alpha where all pixels have one colour, whole numbers (H, W).

    ``indices``: a palette of colours gives its indices; otherwise, and for RGB, colours are LABEL_VALUE. Raises as
    ``decode_image`` besides.
    """
    image = open_image(data, IMAGE_FORMATS, max_pixels)
    if image.mode not in ("P", "PA", "LA", "RGB", "RGBA", "CMYK", "YCbCr") and not data.startswith(JPEG_START):
        return decode_label_png(data, max_pixels=max_pixels)
    _check_one(image, data)
    turn = turn_of(image, data)
    load(image, data)
    alpha = np.asarray(image.convert("RGBA"))[..., 3] if image.has_transparency_data else None
    colors = to_rgb(image, data)
    grey = colors[..., 0]
    if not ((grey == colors[..., 1]) & (grey == colors[..., 2])).all():
        if image.mode == "P" and indices:
            return decode_label_png(data, max_pixels=max_pixels)
        raise ItemError("LABEL_VALUE", "a mask in colours; expected black and white (rgb reads class colours)")
    if alpha is not None and (grey == grey[0, 0]).all() and (alpha != alpha[0, 0]).any():
        grey = alpha
    return np.ascontiguousarray(turn(grey))


def _check_one(image: ImageFile.ImageFile, data: bytes) -> None:
    """Raise ItemError unless the file holds one map, in one band, that stores black as 0."""
    if white_is_zero(image):
        raise ItemError("UNSUPPORTED_MODE", "a label map that stores white as 0: save it with black as 0")
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode in ("L", "P"):
        bands = image.tag_v2.get(tiff.SAMPLES, 1)
        if bands != 1:
            raise ItemError("UNSUPPORTED_MODE", f"a label map of {bands} bands: save the one of the ids alone")
    check_pages(_pages(image, data))


def check_pages(pages: int) -> None:
    """Raise ItemError where a file has more than one."""
    if pages > 1:
        raise ItemError(
            "UNSUPPORTED_MODE",
            f"a label map of {pages} pages or frames: one is expected; save each as a file of its own "
            "(binary with labels.task=instance reads several files an image)",
        )


def _pages(image: ImageFile.ImageFile, data: bytes) -> int:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return tiff.pages(data)
    try:
        return image.n_frames if isinstance(image, GifImagePlugin.GifImageFile | PngImagePlugin.PngImageFile) else 1
    except DAMAGE:
        return 1  # what is damaged behind the first frame is not read


def _wide_ids(data: bytes, max_pixels: int) -> np.ndarray | None:
    """The ids of a TIFF of whole numbers that Pillow does not read: 64 bits, and unsigned big-endian 32 bits."""
    page = next(tiff.directories(data), None)
    if page is None or not page.complete or page.first(tiff.SAMPLES) != 1 or page.first(tiff.PHOTOMETRIC) != 1:
        return None
    bits, kind = page.first(tiff.BITS), page.first(tiff.SAMPLE_FORMAT)
    if (bits, kind) not in ((64, 1), (64, 2)) and not ((bits, kind) == (32, 1) and data.startswith(b"MM")):
        return None
    sizes = [page.first(wide) * page.first(high) for wide, high in tiff.AREAS]
    if max(sizes) > max_pixels:
        raise ItemError("TOO_LARGE", f"{max(sizes)} pixels, decode.max_pixels is {max_pixels}")
    check_pages(tiff.pages(data))
    try:
        ids = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ItemError("UNREADABLE", f"TIFF: damaged: {error.err}") from error
    if ids is None or ids.ndim != 2 or ids.dtype.itemsize * 8 != bits or ids.dtype.kind not in "iu":
        raise ItemError("UNSUPPORTED_MODE", f"TIFF of {tiff.layout(data)}: save the ids with 8 or 16 bits")
    return _narrow(np.asarray(ids))


def _narrow(ids: np.ndarray) -> np.ndarray:
    """Whole numbers (H, W) → int32 where it holds them, else int64. Raises ItemError where that does not either."""
    low, high = int(ids.min()), int(ids.max())
    if high > np.iinfo(np.int64).max:
        raise ItemError("LABEL_VALUE", f"an id of {high}: expected less than 2^63")
    fits = np.iinfo(np.int32).min <= low and high <= np.iinfo(np.int32).max
    return np.ascontiguousarray(ids, np.int32 if fits else np.int64)
