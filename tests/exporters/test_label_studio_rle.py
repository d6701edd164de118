"""Label Studio's code: what label_studio_converter 0.0.59 gave, and a decoder of its own for the rest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjobs.exporters.label_studio_rle import encode_mask, encode_rle
from tests.exporters.samples import MASKS


def decode(code: list[int]) -> np.ndarray:
    """rle-pack's decoder, from the description in thi.ng/umbrella: bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in code)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        run, length = read(1), read(sizes[read(2)]) + 1
        values += [read(word)] * length if run else [read(word) for _ in range(length)]
    assert len(bits) - place <= 8
    assert "1" not in bits[place:]
    return np.array(values, np.uint8)


# (values, run lengths, what label_studio_converter.brush.encode_rle gives of them)
PUBLISHED = [
    ([0, 255, 0], [4, 8, 4], [0, 0, 0, 16, 57, 27, 252, 96, 19, 255, 198, 0]),
    ([7], [1], [0, 0, 0, 1, 57, 27, 248, 0, 224]),
    ([1, 2, 3], [1, 1, 1], [0, 0, 0, 3, 57, 27, 248, 0, 32, 1, 0, 6]),
    ([0, 255, 0, 255, 0], [8, 9, 16, 17, 2], [0, 0, 0, 52, 57, 27, 252, 224, 22, 63, 239, 128, 97, 15, 248, 64, 0]),
    ([0, 255], [256, 257], [0, 0, 2, 1, 57, 27, 254, 255, 0, 224, 32, 31, 224]),
    ([255], [65536], [0, 1, 0, 0, 57, 27, 255, 255, 255, 255, 0]),
    ([255, 0], [65537, 1], [0, 1, 0, 2, 57, 27, 255, 255, 255, 255, 224, 0, 31, 224, 0, 0]),
    (
        [0, 255, 0],
        [131072, 3, 70000],
        [0, 3, 17, 115, 57, 27, 255, 255, 255, 0, 255, 255, 224, 17, 127, 255, 255, 240, 14, 34, 222, 0],
    ),
    ([9, 8], [1, 20], [0, 0, 0, 21, 57, 27, 248, 1, 56, 76, 32]),
    ([0, 255], [5, 1], [0, 0, 0, 6, 57, 27, 252, 128, 0, 127, 128]),
]


@pytest.mark.parametrize(("values", "lengths", "code"), PUBLISHED)
def test_equals_the_published_converter(values: list[int], lengths: list[int], code: list[int]) -> None:
    assert encode_rle(np.repeat(np.array(values, np.uint8), lengths)) == code


@given(
    st.lists(
        st.tuples(st.integers(0, 255), st.integers(1, 20) | st.sampled_from([255, 256, 257, 65536, 65537, 131073])),
        min_size=1,
        max_size=12,
    )
)
def test_decodes_to_what_was_encoded(runs: list[tuple[int, int]]) -> None:
    values = np.repeat(np.array([value for value, _ in runs], np.uint8), [length for _, length in runs])
    assert np.array_equal(decode(encode_rle(values)), values)


@given(MASKS)
def test_a_mask_is_its_rgba_image_row_by_row(mask: np.ndarray) -> None:
    assert encode_mask(mask) == encode_rle(np.repeat(mask.ravel() * np.uint8(255), 4))
    assert np.array_equal(decode(encode_mask(mask)).reshape(*mask.shape, 4)[..., 3] == 255, mask)


@pytest.mark.parametrize("values", [np.zeros(0, np.uint8), np.zeros(4, np.int64), np.zeros((2, 2), np.uint8)])
def test_refuses_what_it_is_not_for(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(N,\)"):
        encode_rle(values)
