"""Polygons against the frame: a pixel of slack on each side, no more."""

import pytest

from segjobs.labels.polygons import outside


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ([0, 0, 5, 0, 5, 4], False),
        ([-1, -1, 6, 0, 6, 5], False),
        ([-1.1, 0, 5, 0, 5, 4], True),
        ([0, -1.1, 5, 0, 5, 4], True),
        ([0, 0, 6.1, 0, 5, 4], True),
        ([0, 0, 5, 0, 5, 5.1], True),
        ([-9, 0, 5, 0], False),
        ("text", False),
    ],
)
def test_a_point_may_lie_a_pixel_outside(part: object, expected: bool) -> None:
    assert outside(part, (4, 5)) is expected
