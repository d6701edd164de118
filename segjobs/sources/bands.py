"""Images of more bands than a network sees, or of numbers without a known range: which of them are its pixels.

    stored samples (H, W, bands) ─→ those of input.bands ─→ input.range to 0–255 ─→ uint8 RGB

Without ``input.range`` numbers mean what they mean in ``decode.py``: 8 bits as they are, 16 bits v / 257. With it a
value becomes round(255 · (v - low) / (high - low)), cut at 0 and 255, NaN 0; then signed numbers and fractions are read
too. The range is fixed: one of an image's own percentiles would need a second pass, and make of equal values in two
images two. A TIFF may have any number of bands, interleaved or in planes; of other formats, and of JPEG within TIFF,
the bands are their channels as stored (grey, red, green, blue, alpha; cyan to black).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ImageFile

from segjobs.config import InputConfig, PhotographsConfig
from segjobs.errors import ItemError
from segjobs.manifest.schema import PixelsJson
from segjobs.sources import tiff
from segjobs.sources.decode import decode_image, wide_colour
from segjobs.sources.image_file import IMAGE_FORMATS, bits_of, load, open_image, turn_of
from segjobs.sources.label_map import decode_label_png
from segjobs.sources.tiff_pieces import YCBCR, Block, Pieces

_JPEG, _PALETTE, _WHITE_IS_ZERO = 7, 3, 0
_KINDS = {1: "u", 2: "i", 3: "f"}  # by TIFF's sample format
_DIFFERENCES, _DIFFERENCES_OF_FRACTIONS = 2, 3  # TIFF's predictors
_PREDICTOR = 317
_CHANNELS = ("L", "LA", "RGB", "RGBA", "CMYK")


@dataclass(frozen=True)
class Bands:
    """``numbers``: of red, green and blue, or of one that is all three, from 1 on; None: the first three, or the first.

    ``ranges``: which values are black and white, of all or of each.
    """

    numbers: tuple[int, ...] | None = None
    ranges: tuple[tuple[float, float], ...] | None = None

    @staticmethod
    def of(pixels: PixelsJson | None) -> "Bands | None":
        """As a manifest's footer has them; None of an image's own colours."""
        if pixels is None:
            return None
        numbers, ranges = pixels["bands"], pixels["range"]
        pairs = np.asarray([] if ranges is None else ranges, np.float64).reshape(-1, 2).tolist()
        return Bands(
            None if numbers is None else tuple(numbers),
            None if ranges is None else tuple((low, high) for low, high in pairs),
        )

    def places(self, stored: int) -> list[int]:
        """The places of red, green and blue among so many bands. Raises ItemError UNSUPPORTED_MODE."""
        numbers = self.numbers or ((1, 2, 3) if stored >= 3 else (1,))
        if max(numbers) > stored:
            raise ItemError(
                "UNSUPPORTED_MODE",
                f"{stored} band{'s' * (stored != 1)}, and input.bands asks for band {max(numbers)} (counted from 1)",
            )
        return [number - 1 for number in (numbers if len(numbers) == 3 else numbers * 3)]

    def to_rgb(self, samples: np.ndarray) -> np.ndarray:
        """Numbers (H, W, 3), of the bands in question → uint8. Raises ItemError UNSUPPORTED_MODE."""
        if self.ranges is None:
            if samples.dtype == np.uint8:
                return samples
            if samples.dtype == np.uint16:
                return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
            raise ItemError(
                "UNSUPPORTED_MODE",
                f"bands of {samples.dtype}: no known range; say what is black and white, as input.range=[0, 10000]",
            )
        low, high = (np.array(side, np.float32) for side in zip(*self.ranges, strict=True))
        scaled = (samples.astype(np.float32) - low) * (np.float32(255) / (high - low))
        return np.nan_to_num(np.rint(scaled), nan=0.0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8)


def pixels_of(asked: InputConfig | PhotographsConfig) -> PixelsJson | None:
    """What a config asks for; None of an image's own colours."""
    return None if asked.bands is None and asked.range is None else {"bands": asked.bands, "range": asked.range}


def decode_bands(data: bytes, bands: Bands, *, max_pixels: int) -> np.ndarray:
    """An image file that is no TIFF → uint8 (H, W, 3), as ``decode_image`` but for the bands."""
    image = open_image(data, IMAGE_FORMATS, max_pixels)
    turn = turn_of(image, data)
    load(image, data)
    channels = _channels(image, data)
    return np.ascontiguousarray(turn(bands.to_rgb(channels[..., bands.places(channels.shape[2])])))


def _channels(image: ImageFile.ImageFile, data: bytes) -> np.ndarray:
    """uint8 or uint16 (H, W, C) as stored."""
    mode, bits = image.mode, bits_of(image, data)
    if mode.startswith("I;16") and bits == 16:
        return np.array(image).astype(np.uint16)[..., None]
    if bits == 16 and mode in ("RGB", "RGBA"):
        return wide_colour(data, np.array(image.convert("RGB")))
    if mode not in _CHANNELS or bits != 8:
        raise ItemError(
            "UNSUPPORTED_MODE",
            f"{image.format} of mode {mode}, {bits} bits, has no bands to pick; save it as 8- or 16-bit grey or colour",
        )
    return np.atleast_3d(np.array(image))


def decode_block(pieces: Pieces, block: Block, bands: Bands) -> np.ndarray:
    """The pixels in some strips or tiles of a TIFF → uint8 (h, w, 3). Raises ItemError as ``decode_image``."""
    page = pieces.page
    stored, kind = page.first(tiff.SAMPLES), page.first(tiff.PHOTOMETRIC)
    if kind == _PALETTE:
        raise ItemError("UNSUPPORTED_MODE", "a palette has no bands to pick; leave input.bands and input.range out")
    places = bands.places(stored)
    read = _coded if page.first(tiff.COMPRESSION) == _JPEG or kind == YCBCR else _samples
    rgb = bands.to_rgb(read(pieces, block, places))
    return 255 - rgb if kind == _WHITE_IS_ZERO else rgb


def _coded(pieces: Pieces, block: Block, places: Sequence[int]) -> np.ndarray:
    """Bands that a codec makes of its own: uint8 (h, w, len(places))."""
    stored, pixels = pieces.page.first(tiff.SAMPLES), block.size_hw[0] * block.size_hw[1]
    if pieces.layout.planes > 1:
        planes = {place: decode_label_png(pieces.plane(block, place), max_pixels=pixels) for place in {*places}}
        return np.dstack([planes[place] for place in places])
    if stored not in (1, 3):
        raise ItemError(
            "UNSUPPORTED_MODE", f"TIFF of {stored} bands in JPEG: save it with deflate or LZW, or with separate planes"
        )
    return decode_image(pieces.small_file(block), max_pixels=pixels)[..., list(places)]


def _samples(pieces: Pieces, block: Block, places: Sequence[int]) -> np.ndarray:
    """Numbers as they are stored (h, w, len(places))."""
    page, separate = pieces.page, pieces.layout.planes > 1
    kind = _number_type(page)
    each = 1 if separate else page.first(tiff.SAMPLES)
    planes = sorted({*places}) if separate else [0]
    read = {number: _numbers(pieces, block, number, each, kind) for number in planes}
    found = np.dstack([read[number] for number in planes])
    order = [planes.index(place) for place in places] if separate else list(places)
    return found[: block.size_hw[0], : block.size_hw[1], order]


def _number_type(page: tiff.Directory) -> np.dtype:
    """Of the samples, in the file's byte order. Raises ItemError UNSUPPORTED_MODE."""
    bits, kinds = ({*page.tags[tag].tolist()} if tag in page.tags else {1} for tag in (tiff.BITS, tiff.SAMPLE_FORMAT))
    if len(bits) == len(kinds) == 1:
        (width,), (sort,) = bits, kinds
        sizes = (16, 32, 64) if sort == 3 else (8, 16, 32, 64)
        if sort in _KINDS and width in sizes:
            return np.dtype(f"{'<' if page.order == 'little' else '>'}{_KINDS[sort]}{width // 8}")
    raise ItemError(
        "UNSUPPORTED_MODE",
        f"TIFF of bands of {sorted(bits)} bits, sample formats {sorted(kinds)}: expected one kind of 8 to 64 bits",
    )


def _numbers(pieces: Pieces, block: Block, plane: int, each: int, kind: np.dtype) -> np.ndarray:
    """The samples of a plane, ``each`` of them a pixel: (whole_hw, each), in this machine's byte order."""
    (height, width), of_pixel = pieces.whole_hw(block), each * kind.itemsize
    file = pieces.as_bytes(block, plane, of_pixel)
    greys = decode_label_png(file, max_pixels=height * width * of_pixel)
    predictor = pieces.page.first(_PREDICTOR)
    across = 1 if not pieces.layout.tiled else block.columns.stop - block.columns.start
    rows = greys.reshape(height, across, -1)  # differences begin anew in each tile
    if predictor == _DIFFERENCES_OF_FRACTIONS:
        summed = np.cumsum(rows.reshape(height, across, -1, each), axis=2, dtype=np.uint8)
        digits = summed.reshape(height, across, kind.itemsize, -1)  # the highest byte of all numbers, then the next
        found = np.ascontiguousarray(np.moveaxis(digits, 2, 3)).view(kind.newbyteorder(">"))
        return found.reshape(height, width, each).astype(kind.newbyteorder("="))
    numbers = rows.view(kind).astype(kind.newbyteorder("=")).reshape(height, across, -1, each)
    if predictor == _DIFFERENCES:
        numbers = np.cumsum(numbers, axis=2, dtype=numbers.dtype)
    return numbers.reshape(height, width, each)
