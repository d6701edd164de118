"""How the image_ids of two manifests are cut into ranges, each a task."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjobs.errors import ManifestError
from segjobs.evaluation.pairing import Range, ranges
from segjobs.manifest.parts import PartInfo


def part(first: str, last: str, name: str = "p") -> PartInfo:
    return PartInfo(name, 1, "00", first, last)


def test_parts_that_overlap_are_refused() -> None:
    for bad in ([part("a", "c", "one"), part("c", "d", "two")], [part("b", "c", "one"), part("a", "a", "two")]):
        with pytest.raises(ManifestError, match="predictions: one and two overlap in image_id"):
            ranges([part("a", "z")], bad)
        with pytest.raises(ManifestError, match="truth: one and two overlap in image_id"):
            ranges(bad, [])


def test_ranges_by_hand() -> None:
    truth = [part("b", "d"), part("f", "h")]
    predicted = [part("a", "a"), part("c", "e"), part("g", "g"), part("i", "j")]
    assert ranges(truth, predicted, least=1) == [
        Range(None, "f", (truth[0],), (predicted[0], predicted[1])),
        Range("f", None, (truth[1],), (predicted[2], predicted[3])),
    ]
    assert ranges(truth, predicted, least=2) == [Range(None, None, tuple(truth), tuple(predicted))]
    assert ranges([], predicted) == [Range(None, None, (), tuple(predicted))]


_IDS = st.lists(st.text(min_size=1, max_size=3), unique=True, max_size=12).map(sorted)


def _cut(ids: list[str], data: st.DataObject) -> list[PartInfo]:
    inner = data.draw(st.sets(st.integers(1, max(1, len(ids) - 1)))) if ids else set()
    bounds = sorted({0, *(n for n in inner if n < len(ids)), len(ids)})
    return [part(ids[a], ids[b - 1], f"p{a}") for a, b in pairwise(bounds)]


@given(_IDS, _IDS, st.data())
def test_every_id_is_in_one_range_whose_parts_hold_it(truth: list[str], predicted: list[str], data: st.DataObject):
    sides = [(truth, _cut(truth, data)), (predicted, _cut(predicted, data))]
    found = ranges(sides[0][1], sides[1][1], least=data.draw(st.integers(1, 4)))
    for image_id in {*truth, *predicted}:
        (span,) = [one for one in found if one.holds(image_id)]
        for (ids, parts), named in zip(sides, (span.truth, span.predictions), strict=True):
            holders = [one for one in parts if one.first_id <= image_id <= one.last_id and image_id in ids]
            assert [one for one in named if one in holders] == holders
