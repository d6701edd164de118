"""What is said of files that cannot be pixels, and what is not looked at."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segjobs.errors import ItemError
from segjobs.sources import tiff as tiffs
from segjobs.sources.decode import Frame, decode_image, image_frame
from tests.sources.test_decode import LIMIT, SHOWN, chunk, png, save, tiff, tiff16

PIXELS = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
XMP = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (tiff(bytes(20), {256: (2,), 257: (2,), 258: (8,) * 5, 262: (1,), 277: (5,)}), "5 bands of 8 bits, unsigned"),
        (tiff(bytes(12), {256: (2,), 257: (2,), 258: (8,) * 3, 262: (1,), 277: (3,)}), "3 bands of 8 bits"),
        (tiff16(np.zeros((2, 2, 3)), ">", t262=1), "3 bands of 16 bits"),
        (tiff(bytes(8), {256: (1,), 257: (1,), 258: (64,), 262: (1,), 277: (1,), 339: (3,)}), "64 bits, fractions"),
        (tiff(bytes(4), {256: (2,), 257: (2,), 258: (8,), 259: (60000,), 262: (1,), 277: (1,)}), "compression 60000"),
        (tiff(bytes(4), {256: (2,), 257: (2,), 258: (8,), 262: (1,), 277: (1,), 339: (2,)}), "signed numbers of 8"),
    ],
)
def test_a_tiff_without_a_rule_is_unsupported_and_says_what_it_holds(data: bytes, what: str) -> None:
    with pytest.raises(ItemError, match=what) as caught:
        decode_image(data, max_pixels=LIMIT)
    assert caught.value.code == "UNSUPPORTED_MODE"


def test_orientation_of_xmp_alone_is_not_looked_at() -> None:
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    files = [
        save(Image.fromarray(PIXELS), "JPEG", xmp=XMP),
        save(Image.fromarray(PIXELS), "WEBP", xmp=XMP),
        save(PIXELS, "TIFF", tiffinfo={700: XMP}),
        png(PIXELS, 8, 0, text),
        png(PIXELS, 8, 0, after=text),
    ]
    for data in files:
        assert image_frame(data, max_pixels=LIMIT) == Frame((2, 3))
        assert decode_image(data, max_pixels=LIMIT).shape == (2, 3, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG"])
def test_the_frame_of_an_image(kind: str, orientation: int) -> None:
    frame = image_frame(save(PIXELS, kind, orientation), max_pixels=LIMIT)
    shown = SHOWN[orientation](PIXELS)
    assert frame == Frame(shown.shape, orientation)
    assert (frame.stored_hw, frame.shown(PIXELS).tolist()) == (PIXELS.shape, shown.tolist())


def test_a_jpeg_of_a_thousand_scans_is_too_large() -> None:
    data = save(Image.fromarray(np.kron(PIXELS, np.ones((8, 8), np.uint8))), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    comment = b"\xff\xfe" + struct.pack(">H", 602) + b"\xff\xda" * 300  # looks like scans and is none
    decode_image(data[:start] + comment + data[start:], max_pixels=LIMIT)
    with pytest.raises(ItemError, match=r"a JPEG of 10\d\d scans") as caught:
        decode_image(data[:start] + data[start:-2] * 1000 + data[-2:], max_pixels=LIMIT)
    assert caught.value.code == "TOO_LARGE"


def test_pages_of_a_bigtiff_and_of_a_loop() -> None:
    data = save(PIXELS, "TIFF", big_tiff=True, save_all=True, append_images=[Image.fromarray(PIXELS)])
    assert (data[2], tiffs.pages(data), tiffs.ends_early(data), tiffs.ends_early(data[:40])) == (43, 2, False, True)
    loop = bytearray(tiff16(PIXELS))
    start = struct.unpack("<I", loop[4:8])[0]
    end = start + 2 + 12 * struct.unpack("<H", loop[start : start + 2])[0]
    loop[end : end + 4] = loop[4:8]
    assert tiffs.pages(bytes(loop)) == 1


@given(data=st.binary(max_size=60), start=st.sampled_from(tiffs.STARTS))
@settings(max_examples=50, deadline=None)
def test_no_bytes_make_the_directories_raise(data: bytes, start: bytes) -> None:
    tiffs.pages(start + data)
    tiffs.layout(start + data)
    tiffs.ends_early(start + data)
