"""Outlines: small ones by hand, random ones against two rasterisers."""

import numpy as np
import pytest
from hypothesis import given

from segjobs.exporters.outline import joined, rings_of, signed_area, simplified
from segjobs.manifest.rle import decode, encode_polygons
from tests.exporters.samples import MASKS


def pixels(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


def inside(ring: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Which pixels' centres a ring encloses, by the even-odd rule: crossings of a ray to the left."""
    height, width = size_hw
    y, x = np.mgrid[:height, :width] + 0.5
    crossings = np.zeros(size_hw, int)
    for (x1, y1), (x2, y2) in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
        if y1 != y2:
            spans = (y > min(y1, y2)) & (y < max(y1, y2))
            crossings += spans & (x1 + (y - y1) * (x2 - x1) / (y2 - y1) < x)
    return crossings % 2 == 1


def test_a_square_and_its_hole() -> None:
    outer, hole = rings_of(pixels("###", "#.#", "###"))
    assert outer.tolist() == [[0, 0], [3, 0], [3, 3], [0, 3]]
    assert hole.tolist() == [[2, 1], [1, 1], [1, 2], [2, 2]]
    assert (signed_area(outer), signed_area(hole)) == (9, -1)
    assert joined([outer, hole]).tolist() == [
        *([0, 0], [1, 1], [1, 2], [2, 2], [2, 1], [1, 1], [0, 0]),  # over to the hole, around it, and back
        *([3, 0], [3, 3], [0, 3]),
    ]


def test_pixels_that_touch_at_a_corner_are_one_part() -> None:
    (ring,) = rings_of(pixels("#.", ".#"))
    assert ring.tolist() == [[0, 0], [1, 0], [1, 1], [2, 1], [2, 2], [1, 2], [1, 1], [0, 1]]
    (ring,) = rings_of(pixels(".#", "#."))
    assert signed_area(ring) == 2


def test_parts_are_joined_at_their_nearest_corners() -> None:
    rings = rings_of(pixels("#..##", "#..##"))
    assert [signed_area(ring) for ring in rings] == [2, 4]
    assert joined(rings).tolist() == [[0, 0], [1, 0], [3, 0], [5, 0], [5, 2], [3, 2], [3, 0], [1, 0], [1, 2], [0, 2]]


def test_nothing_has_no_outline() -> None:
    assert rings_of(np.zeros((3, 4), bool)) == []


def test_simplified_rings_lose_corners_near_the_line() -> None:
    (ring,) = rings_of(pixels("#...", "##..", "###.", "####"))
    assert len(ring) == 10
    assert simplified(ring, 0) is ring
    short = simplified(ring, 1.0)
    assert short is not None
    assert len(short) < 6
    assert simplified(rings_of(pixels("#"))[0], 5.0) is None


@given(MASKS)
def test_rings_enclose_the_mask(mask: np.ndarray) -> None:
    rings = rings_of(mask)
    assert sum(signed_area(ring) for ring in rings) == mask.sum()
    for ring in rings:
        steps = np.roll(ring, -1, axis=0) - ring
        assert ((steps == 0).sum(axis=1) == 1).all(), "pieces are straight"
        assert ((steps[:, 0] == 0) != (np.roll(steps, 1, axis=0)[:, 0] == 0)).all(), "and turn at each corner"


@given(MASKS)
def test_one_ring_is_read_as_the_very_mask(mask: np.ndarray) -> None:
    ring = joined(rings_of(mask))
    height, width = mask.shape
    assert np.array_equal(inside(ring, (height, width)), mask)
    assert np.array_equal(decode(encode_polygons([ring.ravel().tolist()], (height, width)), (height, width)), mask)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_many_parts_and_holes(share: float) -> None:
    mask = np.random.default_rng(3).random((60, 70)) < share
    ring = joined(rings_of(mask))
    assert np.array_equal(decode(encode_polygons([ring.ravel().tolist()], (60, 70)), (60, 70)), mask)
