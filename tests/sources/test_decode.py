"""Every stored pixel format by literal images; damage, bombs and truncation by their codes."""

import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from segjobs.errors import ItemError
from segjobs.sources.decode import decode_image, image_frame
from segjobs.sources.label_map import decode_label_png

LIMIT = 10**6
RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7, 1), np.uint8)
# What a viewer does for EXIF orientation 1–8, by numpy's names.
SHOWN = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: np.rot90,
}


def decode(data: bytes) -> np.ndarray:
    pixels = decode_image(data, max_pixels=LIMIT)
    assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert image_frame(data, max_pixels=LIMIT).size_hw == pixels.shape[:2]
    return pixels


def labels(data: bytes) -> np.ndarray:
    return decode_label_png(data, max_pixels=LIMIT)


def code_of(data: bytes, read=decode_image, max_pixels: int = LIMIT) -> str:
    with pytest.raises(ItemError) as caught:
        read(data, max_pixels=max_pixels)
    return caught.value.code


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(grey, np.uint8)[..., None], 3, axis=2)


def save(image: Image.Image | np.ndarray, kind: str, orientation: int | None = None, **options) -> bytes:
    if orientation is not None:
        exif = Image.Exif()
        exif[274] = orientation
        options["exif"] = exif
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(samples: np.ndarray, depth: int, colour_type: int, *before: bytes, after: bytes = b"") -> bytes:
    """A PNG written by hand: samples (H, W) or (H, W, C) of ``depth`` bits, extra chunks around the pixels."""
    height, width = samples.shape[:2]
    if depth == 16:
        rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        bits = (samples.reshape(height, -1, 1) >> np.arange(depth - 1, -1, -1)) & 1
        rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + pixels + after + chunk(b"IEND", b"")


def tiff(body: bytes, tags: dict[int, tuple[int, ...]], order: str = "<") -> bytes:
    """An uncompressed TIFF of one strip written by hand; values are SHORT, offsets and counts LONG."""
    tags = {259: (1,), 273: (8,), 279: (len(body),), 278: tags[257], **tags}
    body += b"\0" * (len(body) % 2)
    start = 8 + len(body)
    entries, extra = b"", b""
    for tag, values in sorted(tags.items()):
        kind, letter = (4, "I") if tag in (273, 279) else (3, "H")
        packed = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(packed) > 4:
            offset = start + 6 + 12 * len(tags) + len(extra)
            extra += packed
            packed = struct.pack(f"{order}I", offset)
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return head + body + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0" + extra


def tiff16(samples: np.ndarray, order: str = "<", **tags: int) -> bytes:
    height, width, *channels = samples.shape
    count = channels[0] if channels else 1
    known = {256: (width,), 257: (height,), 258: (16,) * count, 262: (2 if channels else 1,), 277: (count,)}
    named = {int(name[1:]): (value,) for name, value in tags.items()}
    return tiff(samples.astype(f"{order}u2").tobytes(), {**known, **named}, order)


# --- stored pixels → RGB ---------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_png_spreads_over_0_to_255(depth):
    values = np.arange(2**depth).reshape(2, -1)
    assert np.array_equal(decode(png(values, depth, 0)), three(values * 255 // (2**depth - 1)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("transparent", [False, True])
def test_palette_png_gives_its_colours(depth, transparent):
    palette = RNG.integers(0, 256, (2**depth, 3), np.uint8)
    chunks = [chunk(b"PLTE", palette.tobytes())]
    if transparent:
        chunks.append(chunk(b"tRNS", bytes([0, 100])))
    values = np.arange(2**depth)[::-1].reshape(2, -1)
    data = png(values, depth, 3, *chunks)
    assert np.array_equal(decode(data), palette[values])
    assert np.array_equal(labels(data), values)


def test_alpha_is_dropped_and_colours_stay():
    assert np.array_equal(decode(png(COLOUR, 8, 2)), COLOUR)
    assert np.array_equal(decode(png(COLOUR, 8, 2, chunk(b"tRNS", b"\0\x01" * 3))), COLOUR)
    assert np.array_equal(decode(png(np.concatenate([COLOUR, ALPHA], 2), 8, 6)), COLOUR)
    assert np.array_equal(decode(png(np.concatenate([GREY[..., None], ALPHA], 2), 8, 4)), three(GREY))
    assert np.array_equal(decode(png(GREY, 8, 0, chunk(b"tRNS", b"\0\x01"))), three(GREY))


WIDE = np.array([[0, 1, 128, 129], [256, 257, 32767, 32768], [65278, 65406, 65407, 65535]])
WIDE_RGB = RNG.integers(0, 65536, (3, 4, 3))
ROUNDED = np.array([[0, 0, 0, 1], [1, 1, 127, 128], [254, 254, 255, 255]])


def test_16_bit_grey_is_rounded_by_hand():
    assert np.array_equal(decode(png(WIDE, 16, 0)), three(ROUNDED))
    for order in "<>":
        assert np.array_equal(decode(tiff16(WIDE, order)), three(ROUNDED))
    pgm = b"P5 4 3 65535\n" + WIDE.astype(">u2").tobytes()
    assert np.array_equal(decode(pgm), three(ROUNDED))


def test_16_bit_colour_is_rounded_from_all_its_bits():
    expected = np.rint(WIDE_RGB / 257).astype(np.uint8)
    alpha = RNG.integers(0, 65536, (3, 4, 1))
    assert np.array_equal(decode(png(WIDE_RGB, 16, 2)), expected)
    assert np.array_equal(decode(png(WIDE_RGB, 16, 2, chunk(b"tRNS", b"\0\x01" * 3))), expected)
    assert np.array_equal(decode(png(WIDE_RGB, 16, 2, chunk(b"gAMA", struct.pack(">I", 100000)))), expected)
    assert np.array_equal(decode(png(np.concatenate([WIDE_RGB, alpha], 2), 16, 6)), expected)
    assert np.array_equal(decode(png(np.concatenate([WIDE[..., None], alpha], 2), 16, 4)), three(ROUNDED))
    for order in "<>":
        assert np.array_equal(decode(tiff16(WIDE_RGB, order)), expected)
        assert np.array_equal(decode(tiff16(np.concatenate([WIDE_RGB, alpha], 2), order, t338=2)), expected)


def test_12_bit_grey_fills_the_range():
    tags = {256: (2,), 257: (1,), 258: (12,), 262: (1,), 277: (1,)}
    assert decode(tiff(bytes([0xFF, 0xF8, 0x00]), tags))[0, :, 0].tolist() == [255, 128]  # 4095, 2048


def test_white_is_zero_is_turned_round():
    assert np.array_equal(decode(tiff16(WIDE, t262=0)), three(255 - ROUNDED))
    tags = {256: (3,), 257: (1,), 258: (8,), 262: (0,), 277: (1,)}
    assert decode(tiff(bytes([0, 1, 255]), tags))[0, :, 0].tolist() == [255, 254, 0]


def test_1_bit_images():
    bits = GREY > 127
    for kind, options in [("PNG", {}), ("TIFF", {"compression": "group4"}), ("BMP", {}), ("PPM", {})]:
        assert np.array_equal(decode(save(bits, kind, **options)), three(bits * 255))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_lossless_formats_give_their_pixels(kind):
    assert np.array_equal(decode(save(COLOUR, kind)), COLOUR)
    assert np.array_equal(decode(save(GREY, kind)), three(GREY))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff(compression):
    assert np.array_equal(decode(save(COLOUR, "TIFF", compression=compression)), COLOUR)


def test_webp_drops_alpha():
    image = np.concatenate([COLOUR, ALPHA], 2)
    assert np.array_equal(decode(save(image, "WEBP", lossless=True, exact=True)), COLOUR)


def test_cmyk_by_hand():
    tags = {256: (2,), 257: (1,), 258: (8,) * 4, 262: (5,), 277: (4,)}
    inks = bytes([0, 0, 0, 0, 255, 0, 0, 0])  # white, cyan
    assert decode(tiff(inks, tags))[0].tolist() == [[255, 255, 255], [0, 255, 255]]


def test_adobe_cmyk_jpeg_is_turned_back():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    data = save(red, "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(decode(data).astype(int) - [255, 0, 0]).max() <= 2


def test_ycbcr_tiff():
    assert (
        np.abs(
            decode(save(Image.new("RGB", (16, 16), (200, 100, 50)), "TIFF", compression="jpeg")).astype(int)
            - [200, 100, 50]
        ).max()
        <= 4
    )


@pytest.mark.parametrize(
    "data",
    [
        save(np.float32([[0.5]]), "TIFF"),
        save(np.int32([[70000]]), "TIFF"),
        tiff16(WIDE, t339=2),  # signed
        tiff16(np.zeros((2, 2, 4)), t262=5),  # CMYK
        tiff16(np.full((2, 2, 4), [40000, 30000, 20000, 32768]), t338=1),  # colours premultiplied by alpha
        save(Image.new("LAB", (2, 2)), "TIFF"),
    ],
    ids=["float", "int32", "int16", "cmyk16", "premultiplied16", "lab"],
)
def test_pixels_of_unknown_range_are_refused(data):
    assert code_of(data) == "UNSUPPORTED_MODE"


# --- orientation, frames ---------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_orientation_of_lossless_formats(kind, options, orientation):
    assert np.array_equal(decode(save(COLOUR, kind, orientation, **options)), SHOWN[orientation](COLOUR))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_orientation_of_jpeg(mode, orientation):
    image = Image.fromarray(COLOUR).resize((40, 24)).convert(mode)
    upright = decode(save(image, "JPEG"))
    assert np.array_equal(decode(save(image, "JPEG", orientation)), SHOWN[orientation](upright))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_16_bit_colour(orientation):
    exif = chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation]) + b"\0" * 7)
    expected = SHOWN[orientation](np.rint(WIDE_RGB / 257))
    assert np.array_equal(decode(png(WIDE_RGB, 16, 2, exif)), expected)
    assert np.array_equal(decode(png(WIDE_RGB, 16, 2, after=exif)), expected)  # behind the pixels
    for order in "<>":
        assert np.array_equal(decode(tiff16(WIDE_RGB, order, t274=orientation)), expected)
        assert np.array_equal(decode(tiff16(WIDE, order, t274=orientation)), three(SHOWN[orientation](ROUNDED)))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_other_orientations_count_as_none(orientation):
    assert np.array_equal(decode(save(COLOUR, "PNG", orientation)), COLOUR)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_damaged_exif_counts_as_none():
    plain = save(Image.fromarray(COLOUR), "JPEG")
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"):
        assert np.array_equal(decode(save(COLOUR, "JPEG", exif=exif)), decode(plain))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_the_first_frame_is_taken(kind):
    first, second = Image.new("RGB", (16, 9), (250, 0, 0)), Image.new("RGB", (16, 9), (0, 0, 250))
    pixels = decode(save(first, kind, save_all=True, append_images=[second]))
    assert pixels.shape == (9, 16, 3)
    assert np.abs(pixels.astype(int) - [250, 0, 0]).max() <= 5


def test_a_tiff_of_pages_of_two_sizes_has_the_first_ones_size():
    data = save(COLOUR, "TIFF", save_all=True, append_images=[Image.new("L", (90, 80))])
    assert np.array_equal(decode(data), COLOUR)


# --- label maps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_label_values_are_kept(depth):
    values = np.arange(2**depth).reshape(2, -1)
    ids = labels(png(values, depth, 0))
    assert ids.dtype == (np.uint16 if depth == 16 else np.uint8)
    assert np.array_equal(ids, values)


@pytest.mark.parametrize("depth", [2, 4])
def test_grey_label_values_of_tiff_are_kept(depth):
    values = np.arange(2**depth)[None]
    body = np.packbits(((values[..., None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8)).tobytes()
    tags = {256: (2**depth,), 257: (1,), 258: (depth,), 262: (1,), 277: (1,)}
    assert np.array_equal(labels(tiff(body, tags)), values)


@pytest.mark.parametrize("order", "<>")
def test_16_bit_tiff_labels_have_native_bytes(order):
    ids = labels(tiff16(WIDE, order))
    assert ids.dtype == np.dtype("=u2")
    assert np.array_equal(ids, WIDE)


def test_32_bit_labels_are_kept():
    ids = labels(save(np.int32([[70000, -1, 3]]), "TIFF"))
    assert (ids.dtype, ids.tolist()) == (np.dtype(np.int32), [[70000, -1, 3]])


def test_alpha_of_labels_is_dropped():
    assert np.array_equal(labels(png(np.concatenate([GREY[..., None], ALPHA], 2), 8, 4)), GREY)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_are_turned_as_their_image(orientation):
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(labels(save(GREY, kind, orientation)), SHOWN[orientation](GREY))


@pytest.mark.parametrize(
    "data",
    [
        save(COLOUR, "PNG"),
        png(WIDE_RGB, 16, 2),
        save(COLOUR, "JPEG"),
        save(np.float32([[1.0]]), "TIFF"),
        tiff16(WIDE, t262=0),
    ],
    ids=["rgb", "rgb16", "jpeg", "float", "white-is-zero"],
)
def test_what_holds_no_ids_is_refused(data):
    assert code_of(data, decode_label_png) == "UNSUPPORTED_MODE"


# --- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"hello", b"\0" * 100, b"<svg></svg>", b"%PDF-1.7", b"\xff\xd8\xff\xd9"])
@pytest.mark.parametrize("read", [decode_image, image_frame, decode_label_png])
def test_no_image(data, read):
    assert code_of(data, read) in ("UNREADABLE", "UNSUPPORTED_MODE" if read is decode_label_png else "UNREADABLE")


def test_formats_outside_the_list_are_no_images():
    assert code_of(save(COLOUR, "ICO", sizes=[(7, 5)])) == "UNREADABLE"
    assert code_of(save(COLOUR, "TGA")) == "UNREADABLE"


def raw_png(size_wh: tuple[int, int], depth: int, colour_type: int, interlaced: bool, raw: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", *size_wh, depth, colour_type, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size_wh", "depth", "colour_type", "interlaced", "full"),
    [
        ((5, 4), 8, 2, False, 4 * 16),
        ((5, 4), 8, 6, False, 4 * 21),
        ((5, 4), 16, 0, False, 4 * 11),
        ((5, 4), 1, 0, False, 4 * 2),
        # Seven passes of 1x1, 1x1, 2x1, 1x2, 3x1, 2x3 and 5x2 pixels (columns x rows), a filter's byte before each row.
        ((5, 5), 8, 0, True, 2 + 2 + 3 + 4 + 4 + 9 + 12),
        ((1, 1), 8, 0, True, 2),  # the first pass only
    ],
)
def test_a_png_whose_pixels_end_early_but_well_is_truncated(size_wh, depth, colour_type, interlaced, full):
    black = raw_png(size_wh, depth, colour_type, interlaced, bytes(full))
    assert decode(black).max() == 0
    for less in {1, full // 3} - {0}:
        assert code_of(raw_png(size_wh, depth, colour_type, interlaced, bytes(full - less))) == "TRUNCATED"
    behind = raw_png(size_wh, depth, colour_type, interlaced, bytes(full) + b"more")
    assert decode(behind).max() == 0, "what lies behind the pixels is no damage"


def test_label_maps_that_end_early_are_no_background():
    rows = [bytes([0, 7, 7, 7])] * 2
    short = raw_png((3, 3), 8, 0, False, b"".join(rows))
    assert code_of(short, decode_label_png) == "TRUNCATED"
    np.testing.assert_array_equal(labels(raw_png((3, 3), 8, 0, False, b"".join([*rows, bytes(4)])))[2], 0)


BOMB = 30_000
BOMBS = {
    "png": b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", BOMB, BOMB, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", b""),
    "jpeg": (lambda d: (at := d.index(b"\xff\xc0") + 5, d[:at] + struct.pack(">HH", BOMB, BOMB) + d[at + 4 :])[1])(
        save(COLOUR, "JPEG")
    ),
    "tiff": tiff(b"\0" * 8, {256: (BOMB,), 257: (BOMB,), 258: (8,), 262: (1,), 277: (1,)}),
    "tiff tile": tiff(
        b"\0" * 8,
        {256: (9,), 257: (9,), 258: (8,), 262: (1,), 277: (1,), 322: (BOMB,), 323: (BOMB,), 324: (8,), 325: (8,)},
    ),
    "webp": (lambda d: d[:21] + struct.pack("<I", 16382 | 16382 << 14) + d[25:])(save(COLOUR, "WEBP", lossless=True)),
    "gif": b"GIF89a"
    + struct.pack("<HHBBB", BOMB, BOMB, 0, 0, 0)
    + b","
    + struct.pack("<HHHHB", 0, 0, 9, 9, 0)
    + b"\x02\0;",
    "gif frame": b"GIF89a"
    + struct.pack("<HHBBB", 9, 9, 0, 0, 0)
    + b","
    + struct.pack("<HHHHB", 0, 0, BOMB, BOMB, 0)
    + b"\x02\0;",
    "bmp": b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, BOMB, BOMB, 1, 24, 0, 0, 0, 0, 0, 0),
    "ppm": b"P6 30000 30000 255\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_their_header(name):
    for read in (decode_image, image_frame):
        assert code_of(BOMBS[name], read, 100_000_000) == "TOO_LARGE"


def test_the_limit_is_ours_alone():
    data = save(Image.new("1", (20_000, 10_000)), "PNG")  # over twice Pillow's own limit
    assert image_frame(data, max_pixels=200_000_000).size_hw == (10_000, 20_000)
    assert code_of(data, max_pixels=199_999_999) == "TOO_LARGE"


def test_pillows_own_limit_is_left_to_the_process():
    script = (
        "import PIL.Image as i; before = i.MAX_IMAGE_PIXELS; import segjobs.sources.decode, segjobs.page.pictures; "
    )
    script += "print(before == i.MAX_IMAGE_PIXELS == 89_478_485)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_images_over_pillows_own_limit_are_decoded_without_a_word(monkeypatch):
    """Warnings are errors here. Its limit is lowered, for images that it would refuse to be small."""
    expected = {name: decode(data) for name, data in SAMPLES.items()}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    for name, data in SAMPLES.items():
        if "webp" in name:
            assert code_of(data) == "TOO_LARGE", "its reader asks by itself"
        else:
            assert np.array_equal(decode(data), expected[name]), name


def test_a_black_row_wider_than_pillows_own_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**24)
    width = 2**24 + 8
    data = save(Image.new("1", (width, 1)), "PNG")
    assert decode_image(data, max_pixels=width).shape == (1, width, 3)


SMOOTH = Image.fromarray(RNG.integers(0, 256, (9, 11, 3), np.uint8)).resize((45, 37), Image.Resampling.BICUBIC)
SAMPLES = {
    "jpeg": save(SMOOTH, "JPEG", 6),
    "jpeg grey": save(SMOOTH.convert("L"), "JPEG"),
    "jpeg progressive": save(SMOOTH, "JPEG", progressive=True),
    "jpeg cmyk": save(SMOOTH.convert("CMYK"), "JPEG"),
    "png": save(SMOOTH, "PNG", 6),
    "png palette": save(SMOOTH.convert("P"), "PNG"),
    "png 16": png(RNG.integers(0, 65536, (9, 11)), 16, 0),
    "png 48": png(RNG.integers(0, 65536, (9, 11, 3)), 16, 2),
    "tiff": save(SMOOTH, "TIFF", 6),
    "tiff lzw": save(SMOOTH, "TIFF", compression="tiff_lzw"),
    "tiff jpeg": save(SMOOTH, "TIFF", compression="jpeg"),
    "tiff group4": save(SMOOTH.convert("1"), "TIFF", compression="group4"),
    "tiff palette": save(SMOOTH.convert("P"), "TIFF"),
    "tiff 48": tiff16(RNG.integers(0, 65536, (9, 11, 3))),
    "bmp": save(SMOOTH, "BMP"),
    "bmp palette": save(SMOOTH.convert("P"), "BMP"),
    "gif": save(SMOOTH.convert("P"), "GIF"),
    "webp": save(SMOOTH, "WEBP", 6),
    "webp animated": save(SMOOTH, "WEBP", save_all=True, append_images=[SMOOTH.rotate(90)]),
    "apng": save(SMOOTH, "PNG", save_all=True, append_images=[SMOOTH.rotate(90)]),
    "ppm": save(SMOOTH, "PPM"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on damaged metadata
@pytest.mark.parametrize("name", SAMPLES)
def test_a_truncated_file_is_truncated(name):
    data = SAMPLES[name]
    whole = decode(data)
    for tenth in range(1, 10):
        try:
            pixels = decode_image(data[: len(data) * tenth // 10], max_pixels=LIMIT)
        except ItemError as error:
            assert error.code == "TRUNCATED", error
        else:
            assert name == "apng"  # cut in a later frame
            assert np.array_equal(pixels, whole)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(sorted(SAMPLES)),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 7)), min_size=1, max_size=6),
    st.floats(0.5, 1),
)
def test_flipped_bits_give_pixels_or_an_item_error(name, flips, kept):
    data = bytearray(SAMPLES[name])
    for position, bit in flips:
        data[position % len(data)] ^= 1 << bit
    damaged = bytes(data[: int(len(data) * kept)])
    for read in (decode_image, decode_label_png, image_frame):
        try:
            result = read(damaged, max_pixels=LIMIT)
        except ItemError:
            continue
        if isinstance(result, np.ndarray):
            assert result.shape[:2] == image_frame(damaged, max_pixels=LIMIT).size_hw


def test_damaged_pixels_are_unreadable_and_say_so():
    data = bytearray(SAMPLES["png"])
    at = data.index(b"IDAT") + 12
    data[at : at + 20] = b"\xff" * 20
    with pytest.raises(ItemError, match=r"UNREADABLE: PNG: damaged: .+"):
        decode_image(bytes(data), max_pixels=LIMIT)


def test_pillow_is_not_told_to_fill_truncated_images():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# --- JPEG ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1), (17, 13), (64, 33), (3, 50)])
@pytest.mark.parametrize("progressive", [False, True])
def test_simplejpeg_gives_the_pixels_of_pillow(subsampling, size, progressive):
    for image in (RNG.integers(0, 256, (*size, 3), np.uint8), RNG.integers(0, 256, size, np.uint8)):
        colour = {"subsampling": subsampling} if image.ndim == 3 else {}
        data = save(image, "JPEG", quality=80, progressive=progressive, **colour)
        expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False), expected)
        assert np.array_equal(decode(data), expected)


def test_photos_decode_to_the_pixels_of_pillow(shared_data: Path):
    photos = sorted([*shared_data.glob("coco_mini/**/*.jpg"), *shared_data.glob("camvid/**/*.jpg")])[::5]
    assert photos
    for photo in photos:
        data = photo.read_bytes()
        assert np.array_equal(decode(data), np.array(Image.open(photo).convert("RGB"))), photo


def test_threads_get_the_same_pixels():
    expected = {name: decode(data) for name, data in SAMPLES.items()}
    with ThreadPoolExecutor(8) as pool:
        for name, pixels in pool.map(lambda name: (name, decode(SAMPLES[name])), sorted(SAMPLES) * 20):
            assert np.array_equal(pixels, expected[name])
