"""Label files by literal maps: what is read as it is stored, what as it is shown, and what is refused by a name."""

import io

import numpy as np
import pytest
from PIL import Image

from segjobs.errors import ItemError
from segjobs.sources.label_map import decode_color_map, decode_label_png, decode_mask
from tests.sources.test_decode import chunk, png, save, tiff, tiff16

LIMIT = 10**4
MASK = np.array([[0, 1, 1], [0, 0, 1]], bool)
GREY = MASK.astype(np.uint8) * 255


def mask(data: bytes, *, indices: bool = True) -> list[list[int]]:
    return decode_mask(data, max_pixels=LIMIT, indices=indices).tolist()


def refused(data: bytes, read=decode_label_png) -> str:
    with pytest.raises(ItemError) as caught:
        read(data, max_pixels=LIMIT)
    return f"{caught.value.code}: {caught.value.message}"


def palette(colors: list[tuple[int, int, int]], *more: bytes) -> bytes:
    """A palette PNG whose index is 1 in the mask."""
    return png(MASK.astype(np.uint8), 1, 3, chunk(b"PLTE", bytes(np.array(colors, np.uint8))), *more)


def integers(ids: list[list[int]], kind: str) -> bytes:
    """A TIFF of whole numbers of any width: kind as numpy names it, such as ">u4"."""
    values = np.array(ids, kind)
    size = {256: (values.shape[1],), 257: (values.shape[0],), 258: (8 * values.itemsize,)}
    kinds = {262: (1,), 277: (1,), 339: (2 if kind[1] == "i" else 1,)}
    return tiff(values.tobytes(), {**size, **kinds}, kind[0])


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        ("u4", [[0, 1, 70000]]),
        ("u4", [[0, 2**32 - 1, 3]]),
        ("i4", [[-1, 70000, 3]]),
        ("u8", [[0, 1, 70000]]),
        ("i8", [[-(2**40), 2**40, 0]]),
        ("i2", [[-1, 300, 0]]),
        ("i1", [[-1, 100, 0]]),
    ],
)
def test_whole_numbers_of_every_width_are_kept(kind: str, ids: list[list[int]], order: str) -> None:
    assert decode_label_png(integers(ids, order + kind), max_pixels=LIMIT).tolist() == ids


def test_a_number_that_no_type_holds_and_a_map_beyond_the_bound() -> None:
    assert "an id of 18446744073709551615" in refused(integers([[2**64 - 1]], "<u8"))
    assert refused(integers([[1] * (LIMIT + 1)], "<u8")).startswith("TOO_LARGE")


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG"])
@pytest.mark.parametrize("read", [decode_label_png, decode_color_map, decode_mask])
def test_several_pages_are_named(kind: str, read) -> None:
    mode = "P" if kind != "TIFF" or read is not decode_label_png else "L"
    first, second = Image.new(mode, (9, 8)), Image.new(mode, (9, 8), 1)
    for image in (first, second):
        if mode == "P":
            image.putpalette([0, 0, 0, 255, 255, 255])
    data = save(first, kind, save_all=True, append_images=[second])
    assert "2 pages" in refused(data, read)


def test_overviews_are_no_pages() -> None:
    """GDAL keeps smaller copies of a map in the same file; tag 254 says so."""
    file = io.BytesIO()
    small = Image.new("L", (1, 1))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(GREY).save(file, "TIFF", save_all=True, append_images=[small])
    assert decode_label_png(file.getvalue(), max_pixels=LIMIT).tolist() == GREY.tolist()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (palette([(255, 255, 255), (0, 0, 0)]), 255 - GREY),  # index 1 is black
        (palette([(0, 0, 0), (255, 255, 255)]), GREY),
        (save(Image.fromarray(GREY).convert("P"), "GIF"), GREY),
        (palette([(0, 0, 0), (128, 0, 0)]), MASK),  # colours say nothing of black and white: the indices do
        (palette([(9, 9, 9), (9, 9, 9)], chunk(b"tRNS", bytes([0, 255]))), GREY),
        (save(np.dstack([np.zeros_like(GREY)] * 3 + [GREY]), "PNG"), GREY),
        (save(np.dstack([np.full_like(GREY, 255)] * 3 + [GREY]), "PNG"), GREY),
        (save(Image.fromarray(np.dstack([np.full_like(GREY, 7), GREY]), "LA"), "PNG"), GREY),
        (save(np.dstack([GREY] * 3 + [255 - GREY]), "PNG"), GREY),  # two colours: alpha is dropped
    ],
)
def test_a_mask_is_what_is_shown(data: bytes, expected: np.ndarray) -> None:
    assert mask(data) == expected.astype(int).tolist()


def test_a_threshold_acts_on_greys_and_never_on_indices() -> None:
    assert mask(palette([(200, 200, 200), (9, 9, 9)]), indices=False) == np.where(MASK, 9, 200).tolist()
    with pytest.raises(ItemError, match="a mask in colours"):
        mask(palette([(0, 0, 0), (128, 0, 0)]), indices=False)


@pytest.mark.parametrize("read", [decode_label_png, decode_mask])
def test_what_one_reader_refuses_its_neighbour_does_too(read) -> None:
    tags = {256: (3,), 257: (1,), 258: (8,), 262: (0,), 277: (1,)}
    assert "white as 0" in refused(tiff(bytes([0, 1, 255]), tags), read)
    two_bands = {256: (2,), 257: (1,), 258: (8, 8), 262: (1,), 277: (2,), 338: (0,)}
    assert "a label map of 2 bands" in refused(tiff(bytes([1, 9, 2, 9]), two_bands), read)


def test_fractions_and_colours_are_no_ids() -> None:
    assert "mode F" in refused(save(np.float32([[0.5]]), "TIFF"))
    assert "3 bands of 16 bits" in refused(tiff16(np.zeros((2, 2, 3)), t262=1))
