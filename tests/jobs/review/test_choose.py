"""Which of the pictures are chosen: no near-duplicates; spread as a plain greedy k-centre spreads them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segjobs.jobs.review.candidates import Detail
from segjobs.jobs.review.choose import Looks, Unlike, in_order, spread

NONE = np.zeros(0, np.uint64)


def looks(*hashes: int | None, shares: list[dict[str, float]] | None = None) -> list[Looks]:
    own = shares or [{}] * len(hashes)
    return [
        Looks(place, Detail(str(place), "", None, share), one)
        for place, (one, share) in enumerate(zip(hashes, own, strict=True))
    ]


def places(chosen: list[Looks]) -> list[int]:
    return [one.place for one in chosen]


def test_of_pictures_that_look_alike_the_first_is_taken() -> None:
    pool = looks(0, 0b1111, 0b11111, None, 2**40 - 1, None)
    unlike = Unlike(NONE, 4)
    assert places(in_order(pool, 9, unlike)) == [0, 2, 3, 4, 5] and unlike.near_duplicates == 1
    assert places(in_order(pool, 9, Unlike(NONE, None))) == [0, 1, 2, 3, 4, 5]
    assert places(in_order(pool, 9, Unlike(np.array([2**40], np.uint64), 1))) == [1, 3, 4, 5]


def test_no_more_pictures_are_read_than_it_takes() -> None:
    pool = iter(looks(0, 2**20 - 1, 2**40 - 1))
    assert places(in_order(pool, 2, Unlike(NONE, 4))) == [0, 1] and next(pool).place == 2


@given(
    hashes=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12),
    cars=st.lists(st.floats(0, 1), min_size=12, max_size=12),
    sent=st.lists(st.integers(0, 2**64 - 1), max_size=3),
    count=st.integers(1, 14),
)
@settings(max_examples=80, deadline=None)
def test_they_are_spread_as_a_plain_greedy_spreads_them(
    hashes: list[int], cars: list[float], sent: list[int], count: int
) -> None:
    shares = [{"car": car, "road": 1 - car} for car in cars[: len(hashes)]]

    def apart(one: int, other: int) -> float:
        return (hashes[one] ^ hashes[other]).bit_count() / 64 + abs(cars[one] - cars[other])

    expected: list[int] = []
    while len(expected) < min(count, len(hashes)):
        left = [place for place in range(len(hashes)) if place not in expected]
        far = {
            place: min(
                [apart(place, one) for one in expected] + [(hashes[place] ^ one).bit_count() / 64 for one in sent],
                default=float("inf"),
            )
            for place in left
        }
        expected.append(max(left, key=lambda place: (far[place], -place)))
    pool = looks(*hashes, shares=shares)
    chosen = places(spread(pool, count, Unlike(NONE, None), np.array(sent, np.uint64)))
    assert len(chosen) == len(set(chosen)) == len(expected)
    radius = [_radius(some, len(hashes), apart, hashes, sent) for some in (chosen, expected)]
    assert radius[0] == pytest.approx(radius[1], abs=1e-6), "ties may be broken by the last digit of a sum"


def _radius(chosen: list[int], total: int, apart, hashes: list[int], sent: list[int]) -> float:
    return max(
        min([apart(place, one) for one in chosen] + [(hashes[place] ^ one).bit_count() / 64 for one in sent])
        for place in range(total)
    )


def test_spread_leaves_near_duplicates_out() -> None:
    unlike = Unlike(NONE, 4)
    assert places(spread(looks(0, 1, 2**64 - 1, 3), 4, unlike, NONE)) == [0, 2] and unlike.near_duplicates == 2
    assert spread([], 4, unlike, NONE) == []
