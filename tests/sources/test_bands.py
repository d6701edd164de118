"""Bands by their numbers, values by their range: every way a TIFF stores samples, and what has no bands."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from segjobs.errors import ItemError
from segjobs.sources.bands import Bands
from segjobs.sources.decode import decode_image
from segjobs.sources.windows import Window, frame_of, open_windows, read_image
from tests.sources.test_decode import save

LIMIT = 10**6
HIGH, WIDE, STORED = 75, 90, 5
RNG = np.random.default_rng(4)
WINDOWS = [Window(0, 0, HIGH, WIDE), Window(0, 0, 1, 1), Window(31, 17, 20, 40), Window(74, 89, 1, 1)]
TILES = {"tile": (32, 16)}
RANGED = Bands((4, 3, 2), ((100.0, 3000.0),))


def samples(kind: str) -> np.ndarray:
    """Five bands of smooth numbers, so that predictors have differences of both signs."""
    steps = RNG.integers(-40, 60, (HIGH, WIDE, STORED)).cumsum(axis=1)
    return (np.abs(steps) % 250 if kind == "u1" else steps + 500 if kind[0] != "f" else steps / 3 + 500).astype(kind)


def written(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    separate = options.get("planarconfig") == "separate"
    planar = {"planarconfig": "contig"} if pixels.shape[2] > 1 else {}
    stored = np.moveaxis(pixels, 2, 0).copy() if separate else pixels if planar else pixels[..., 0]
    tifffile.imwrite(file, stored, **{"photometric": "minisblack", "metadata": None, **planar, **options})
    return file.getvalue()


def in_range(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = [min(max(round(255 * (float(v) - low) / (high - low)), 0), 255) for v in values.ravel()]
    return np.array(scaled).reshape(values.shape)


STORES: dict[str, dict[str, Any]] = {
    "one strip": {"rowsperstrip": HIGH},
    "one strip, deflate": {"rowsperstrip": HIGH, "compression": "zlib"},
    "strips": {"rowsperstrip": 8},
    "strips, LZW, predictor": {"rowsperstrip": 8, "compression": "lzw", "predictor": True},
    "strips, PackBits": {"rowsperstrip": 7, "compression": "packbits"},
    "tiles": TILES,
    "tiles, deflate, predictor": {**TILES, "compression": "zlib", "predictor": True},
    "tiles, LZW": {**TILES, "compression": "lzw"},
    "planes": {"rowsperstrip": 8, "planarconfig": "separate"},
    "planes, tiles, LZW, predictor": {
        **TILES,
        "planarconfig": "separate",
        "compression": "lzw",
        "predictor": True,
    },
    "BigTIFF": {**TILES, "compression": "zlib", "bigtiff": True},
    "RGB and more": {**TILES, "photometric": "rgb", "compression": "zlib"},
    "big-endian, tiles, predictor": {**TILES, "byteorder": ">", "compression": "zlib", "predictor": True},
    "big-endian, strips": {"rowsperstrip": 8, "byteorder": ">"},
    "big-endian, planes": {"rowsperstrip": 8, "byteorder": ">", "planarconfig": "separate"},
}


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "u4", "f4"])
@pytest.mark.parametrize("store", STORES)
def test_bands_of_every_store_are_the_numbers_that_were_written(store: str, kind: str) -> None:
    pixels = samples(kind)
    data = written(pixels, **STORES[store])
    expected = in_range(pixels[..., [3, 2, 1]], 100, 3000)
    if kind[0] == "f":  # halves may fall on either side
        assert np.abs(read_image(data, max_pixels=LIMIT, bands=RANGED) - expected).max() <= 1
        expected = read_image(data, max_pixels=LIMIT, bands=RANGED)
    opened = open_windows(data, max_pixels=LIMIT, bands=RANGED)
    assert opened.size_hw == (HIGH, WIDE)
    for window in WINDOWS:
        top, left, height, width = window
        found = opened.read(window)
        assert found.dtype == np.uint8
        assert np.array_equal(found, expected[top : top + height, left : left + width]), window


def test_without_a_range_eight_bits_stay_and_sixteen_are_scaled() -> None:
    eight, sixteen = samples("u1"), samples("u2")
    found = read_image(written(eight, **TILES), max_pixels=LIMIT, bands=Bands((5, 1, 2)))
    assert np.array_equal(found, eight[..., [4, 0, 1]])
    found = read_image(written(sixteen, **TILES), max_pixels=LIMIT, bands=Bands((5, 1, 2)))
    assert np.array_equal(found, np.round(sixteen[..., [4, 0, 1]] / 257))


def test_a_range_alone_takes_the_first_three_or_the_only_band() -> None:
    pixels = samples("u2")
    bands = Bands(None, ((0, 2000), (0, 1000), (500, 1500)))
    found = read_image(written(pixels), max_pixels=LIMIT, bands=bands)
    for place, (low, high) in enumerate([(0, 2000), (0, 1000), (500, 1500)]):
        assert np.array_equal(found[..., place], in_range(pixels[..., place], low, high))
    grey = read_image(written(pixels[..., :1]), max_pixels=LIMIT, bands=Bands(None, ((0, 2000),)))
    assert np.array_equal(grey, np.repeat(in_range(pixels[..., :1], 0, 2000), 3, axis=2))
    inverted = read_image(
        written(pixels[..., :1], photometric="miniswhite"), max_pixels=LIMIT, bands=Bands((1,), ((0, 2000),))
    )
    assert np.array_equal(inverted, 255 - grey)


def test_no_number_is_black_and_infinity_is_cut() -> None:
    pixels = np.array([[[np.nan], [np.inf], [-np.inf], [0.25]]], np.float32)
    found = read_image(written(pixels), max_pixels=LIMIT, bands=Bands((1,), ((0, 1),)))
    assert found[0, :, 0].tolist() == [0, 255, 0, 64]


def test_one_band_may_be_all_three_colours() -> None:
    pixels = samples("u1")
    found = read_image(written(pixels, **TILES), max_pixels=LIMIT, bands=Bands((4,)))
    assert np.array_equal(found, np.repeat(pixels[..., 3:4], 3, axis=2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_bands_are_turned_as_the_image_is(orientation: int) -> None:
    pixels = samples("u1")
    data = written(pixels[..., :3], photometric="rgb", rowsperstrip=8, extratags=[(274, 3, 1, orientation, True)])
    whole = decode_image(data, max_pixels=LIMIT)
    assert np.array_equal(read_image(data, max_pixels=LIMIT, bands=Bands((3, 2, 1))), whole[..., ::-1])
    frame = frame_of(data, max_pixels=LIMIT, bands=Bands((3, 2, 1)))
    assert (frame.size_hw, frame.orientation) == (whole.shape[:2], orientation)


def test_jpeg_in_tiff_has_the_bands_that_its_codec_makes() -> None:
    pixels = np.kron(RNG.integers(0, 256, (10, 10, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    for options in ({"photometric": "rgb"}, {"photometric": "ycbcr", "subsampling": (2, 2)}):
        data = written(pixels, **TILES, compression="jpeg", **options)
        whole = decode_image(data, max_pixels=LIMIT)
        assert np.array_equal(read_image(data, max_pixels=LIMIT, bands=Bands((2, 3, 3))), whole[..., [1, 2, 2]])
    planes = written(np.dstack([pixels, pixels[..., :2]]), **TILES, compression="jpeg", planarconfig="separate")
    found = read_image(planes, max_pixels=LIMIT, bands=Bands((5, 2, 3)))
    assert np.abs(found.astype(int) - pixels[..., [1, 1, 2]]).mean() < 20  # JPEG, of blots


def test_other_formats_have_the_channels_that_they_store() -> None:
    rgba = RNG.integers(0, 256, (20, 30, 4), np.uint8)
    png = save(Image.fromarray(rgba), "PNG")
    assert np.array_equal(read_image(png, max_pixels=LIMIT, bands=Bands((4, 1, 2))), rgba[..., [3, 0, 1]])
    wide = RNG.integers(0, 5000, (20, 30), np.uint16)
    found = read_image(save(Image.fromarray(wide), "PNG"), max_pixels=LIMIT, bands=Bands(None, ((0, 5000),)))
    assert np.array_equal(found[..., 1], in_range(wide, 0, 5000))
    turned = save(rgba[..., :3], "PNG", 6)
    expected = decode_image(turned, max_pixels=LIMIT)[..., ::-1]
    assert np.array_equal(read_image(turned, max_pixels=LIMIT, bands=Bands((3, 2, 1))), expected)


FEW = "3 bands, and input.bands asks for band 4"
REFUSED = {
    FEW: (written(samples("u1")[..., :3]), Bands((4, 3, 2))),
    "1 band, and input.bands asks for band 3": (written(samples("u1")[..., :1]), Bands((3, 2, 1))),
    "bands of int16: no known range": (written(samples("i2")), Bands((3, 2, 1))),
    "bands of float32: no known range": (written(samples("f4")), Bands((1,))),
    "a palette has no bands": (save(Image.fromarray(samples("u1")[..., :3]).quantize(9), "TIFF"), Bands((1,))),
    "PNG of mode P": (save(Image.fromarray(samples("u1")[..., :3]).quantize(9), "PNG"), Bands((1,))),
    "4 bands in JPEG": (written(samples("u1")[..., :4], **TILES, compression="jpeg"), Bands((4, 3, 2))),
    r"bands of \[1\] bits": (save(Image.fromarray(samples("u1")[..., 0]).convert("1"), "TIFF"), Bands((1,))),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_such_bands_says_so(message: str) -> None:
    data, bands = REFUSED[message]
    for read in (read_image, frame_of):
        with pytest.raises(ItemError, match=message) as caught:
            read(data, max_pixels=LIMIT, bands=bands)
        assert caught.value.code == "UNSUPPORTED_MODE"


def test_damage_and_size_are_said_as_ever() -> None:
    data = written(samples("u2"), **TILES, compression="zlib")
    with pytest.raises(ItemError) as caught:
        read_image(data[:-3000], max_pixels=LIMIT, bands=RANGED)
    assert caught.value.code == "TRUNCATED"
    with pytest.raises(ItemError, match=r"decode.max_pixels is 700") as caught:
        read_image(data, max_pixels=700, bands=RANGED)
    assert caught.value.code == "TOO_LARGE"
    spoilt = bytearray(data)
    spoilt[9000:14000] = bytes(5000)  # more than a tile: a checksum is not looked at
    with pytest.raises(ItemError) as caught:
        read_image(bytes(spoilt), max_pixels=LIMIT, bands=RANGED)
    assert caught.value.code == "UNREADABLE"
