"""Windows of images: the very pixels of the whole image's decode, for every layout; how little is read for one."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segjobs.errors import ItemError
from segjobs.sources import windows
from segjobs.sources.decode import decode_image
from segjobs.sources.label_map import decode_label_png
from segjobs.sources.tiff import FileSlices
from segjobs.sources.windows import Window, count_pixels, open_label_map, open_windows, rows_of
from tests.sources.test_decode import save, tiff, tiff16

LIMIT = 10**6
HIGH, WIDE = 75, 90
RNG = np.random.default_rng(3)
RGB = np.kron(RNG.integers(0, 256, (15, 18, 3), np.uint8), np.ones((5, 5, 1), np.uint8))
WINDOWS = [Window(0, 0, HIGH, WIDE), Window(0, 0, 1, 1), Window(31, 17, 20, 40), Window(74, 89, 1, 1)]


def written(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    options = {"photometric": "rgb" if pixels.ndim == 3 else "minisblack", "metadata": None, **options}
    tifffile.imwrite(file, pixels, **options)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


TILED = {"tile": (32, 16)}
WIDE16 = RGB.astype(np.uint16) * 257 - RGB // 3
ALPHA = np.dstack([RGB, RGB[..., :1]])
LAYOUTS = {
    "one strip": written(RGB, rowsperstrip=HIGH),
    "strips": written(RGB, rowsperstrip=8),
    "strips, LZW": written(RGB, rowsperstrip=8, compression="lzw", predictor=True),
    "strips, deflate": written(RGB, rowsperstrip=7, compression="zlib"),
    "strips, PackBits": written(RGB, rowsperstrip=7, compression="packbits"),
    "strips, JPEG": written(RGB, rowsperstrip=16, compression="jpeg"),
    "tiles": written(RGB, **TILED),
    "tiles, LZW": written(RGB, **TILED, compression="lzw"),
    "tiles, deflate": written(RGB, **TILED, compression="zlib", predictor=True),
    "tiles, JPEG": written(RGB, **TILED, compression="jpeg"),
    "tiles, JPEG, YCbCr": written(RGB, **TILED, compression="jpeg", photometric="ycbcr", subsampling=(2, 2)),
    "BigTIFF": written(RGB, **TILED, compression="zlib", bigtiff=True),
    "BigTIFF, strips": written(RGB, rowsperstrip=8, bigtiff=True),
    "big-endian": written(WIDE16, **TILED, compression="zlib", byteorder=">"),
    "16 bits": written(WIDE16, rowsperstrip=8),
    "16 bits, tiles, LZW": written(WIDE16, **TILED, compression="lzw", predictor=True),
    "grey": written(RGB[..., 0], rowsperstrip=8),
    "grey, white is 0": written(RGB[..., 0], rowsperstrip=8, photometric="miniswhite"),
    "grey, 16 bits, big-endian": written(WIDE16[..., 0], rowsperstrip=8, byteorder=">"),
    "alpha": written(ALPHA, **TILED, compression="zlib", extrasamples=["unassalpha"]),
    "planes": written(np.moveaxis(RGB, 2, 0).copy(), rowsperstrip=8, planarconfig="separate"),
    "planes, tiles": written(np.moveaxis(RGB, 2, 0).copy(), **TILED, planarconfig="separate", compression="lzw"),
    "CMYK": save(Image.fromarray(RGB).convert("CMYK"), "TIFF", compression="tiff_lzw"),
    "palette": save(Image.fromarray(RGB).quantize(40), "TIFF", compression="tiff_lzw"),
    "1 bit": save(Image.fromarray(RGB[..., 0]).convert("1"), "TIFF"),
    "1 bit, fax": save(Image.fromarray(RGB[..., 0]).convert("1"), "TIFF", compression="group4"),
    "12 bits": tiff(bytes(range(135)) * HIGH, {256: (WIDE,), 257: (HIGH,), 258: (12,), 262: (1,), 277: (1,)}),
    "JPEG": save(RGB, "JPEG"),
    "PNG": save(RGB, "PNG"),
    "WebP": save(RGB, "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_window_has_the_pixels_of_the_whole(name: str) -> None:
    data = LAYOUTS[name]
    whole = decode_image(data, max_pixels=LIMIT)
    opened = open_windows(data, max_pixels=LIMIT)
    assert opened.size_hw == (HIGH, WIDE)
    assert count_pixels(data) == HIGH * WIDE
    for window in WINDOWS:
        top, left, height, width = window
        pixels = opened.read(window)
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, whole[top : top + height, left : left + width]), window


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_window_is_of_the_image_as_it_is_shown(orientation: int) -> None:
    layouts = [
        written(RGB, **TILED, compression="zlib", extratags=[(274, 3, 1, orientation, True)]),
        written(RGB, rowsperstrip=8, extratags=[(274, 3, 1, orientation, True)]),
        save(RGB, "PNG", orientation),
    ]
    for data in layouts:
        whole = decode_image(data, max_pixels=LIMIT)
        opened = open_windows(data, max_pixels=LIMIT)
        assert opened.size_hw == whole.shape[:2]
        for window in [Window(3, 20, 40, 11), Window(0, 0, 1, whole.shape[1]), Window(*whole.shape[:2], 0, 0)]:
            top, left, height, width = window
            if height:
                assert np.array_equal(opened.read(window), whole[top : top + height, left : left + width])


def test_an_image_of_any_size_is_read_where_a_window_is_small_enough() -> None:
    data = LAYOUTS["tiles, LZW"]
    opened = open_windows(data, max_pixels=32 * 16)
    assert np.array_equal(opened.read(Window(10, 5, 16, 32)), RGB[10:26, 5:37])
    for window in (Window(0, 0, 32, 17), Window(0, 0, HIGH, WIDE)):
        with pytest.raises(ItemError, match=r"a window of .* pixels, decode.max_pixels is 512") as caught:
            opened.read(window)
        assert caught.value.code == "TOO_LARGE"
    with pytest.raises(ItemError, match=r"tiles of 16x32 pixels, which are read whole") as caught:
        open_windows(data, max_pixels=511).read(Window(0, 0, 1, 1))
    assert caught.value.code == "TOO_LARGE"
    with pytest.raises(ItemError, match=r"90x75 pixels, decode.max_pixels is 512") as caught:
        open_windows(LAYOUTS["JPEG"], max_pixels=512)
    assert caught.value.code == "TOO_LARGE"
    assert count_pixels(LAYOUTS["JPEG"]) == HIGH * WIDE


class Counted:
    """Bytes that count what is read of them."""

    def __init__(self, data: bytes) -> None:
        self.data, self.read = data, 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: slice, /) -> bytes:
        found = self.data[key]
        self.read += len(found)
        return found


@pytest.mark.parametrize("name", ["one strip", "strips, LZW", "tiles, deflate", "BigTIFF"])
def test_what_a_window_does_not_touch_is_not_read(name: str) -> None:
    data = Counted(LAYOUTS[name])
    opened = open_windows(data, max_pixels=LIMIT)
    before = data.read
    assert np.array_equal(opened.read(Window(2, 3, 5, 6)), RGB[2:7, 3:9])
    assert data.read - before < len(data) / 4


def test_one_giant_strip_is_decoded_once_and_a_larger_one_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no row of it can be read alone: deflate, and 75 rows in a strip, by windows of ten."""
    data, decoded = written(RGB, rowsperstrip=HIGH, compression="zlib"), []

    def counted(file: bytes, *, max_pixels: int) -> np.ndarray:
        decoded.append(len(file))
        return decode_image(file, max_pixels=max_pixels)

    monkeypatch.setattr(windows, "decode_image", counted)
    monkeypatch.setattr(windows, "_AT_ONCE_PX", 100)
    opened = open_windows(data, max_pixels=HIGH * WIDE)
    for top in range(0, 70, 10):
        assert np.array_equal(opened.read(Window(top, 0, 10, WIDE)), RGB[top : top + 10])
    assert len(decoded) == 1
    with pytest.raises(
        ItemError, match=r"strips of 90x75 pixels, which are read whole: decode.max_pixels is too"
    ) as caught:
        open_windows(data, max_pixels=HIGH * WIDE - 1).read(Window(0, 0, 10, WIDE))
    assert caught.value.code == "TOO_LARGE"


@pytest.mark.parametrize("name", ["16 bits", "grey", "grey, 16 bits, big-endian", "tiles, LZW", "palette", "1 bit"])
def test_a_label_map_by_rows_has_the_ids_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = LAYOUTS[name]
    if name in ("16 bits", "tiles, LZW"):  # of colours
        with pytest.raises(ItemError, match=r"a label map of mode RGB|TIFF of 3 bands"):
            list(rows_of(open_label_map(data, max_pixels=LIMIT)))
        return
    whole = decode_label_png(data, max_pixels=LIMIT)
    monkeypatch.setattr(windows, "_BAND_PX", 20 * WIDE)
    bands = list(rows_of(open_label_map(data, max_pixels=LIMIT)))
    assert len(bands) > 3 and [top for top, _ in bands] == sorted(top for top, _ in bands)
    assert np.array_equal(np.concatenate([ids for _, ids in bands]), whole)


def test_ids_of_any_width_and_pages_of_label_maps() -> None:
    wide = np.arange(HIGH * WIDE, dtype=np.int64).reshape(HIGH, WIDE)
    wide[70:] += 2**40
    data = written(wide, rowsperstrip=8, compression="zlib")
    bands = [ids for _, ids in rows_of(open_label_map(data, max_pixels=12 * WIDE))]
    assert np.array_equal(np.concatenate(bands), wide)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for _ in range(2):
            writer.write(RGB[..., 0], photometric="minisblack", metadata=None)
    with pytest.raises(ItemError, match="a label map of 2 pages"):
        open_label_map(file.getvalue(), max_pixels=LIMIT)


def test_a_file_is_read_in_slices(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(LAYOUTS["BigTIFF"])
    with path.open("rb") as file:
        slices = FileSlices(file.fileno())
        assert (len(slices), slices[5:9], slices[-3:]) == (
            os.stat(path).st_size,
            path.read_bytes()[5:9],
            path.read_bytes()[-3:],
        )
        opened = open_windows(slices, max_pixels=LIMIT)
        assert np.array_equal(opened.read(WINDOWS[2]), RGB[31:51, 17:57])


def test_damage_and_layouts_without_a_rule_are_said_as_for_the_whole() -> None:
    cut = LAYOUTS["BigTIFF, strips"][:-4000]
    damaged = bytearray(LAYOUTS["strips, deflate"])
    damaged[2000:4000] = bytes(2000)
    fractions = written(RGB.astype(np.float32), **TILED)
    five = tiff(bytes(20), {256: (2,), 257: (2,), 258: (8,) * 5, 262: (1,), 277: (5,)})
    for data in (cut, bytes(damaged), fractions, five, tiff16(np.zeros((2, 2, 3)), ">", t262=1), b"no image", b""):
        with pytest.raises(ItemError) as whole:
            decode_image(data, max_pixels=LIMIT)
        with pytest.raises(ItemError) as caught:
            opened = open_windows(data, max_pixels=LIMIT)
            opened.read(Window(0, 0, *opened.size_hw))
        assert caught.value.code == whole.value.code
