"""The images of a page: by hand, and the same for any cut into tasks."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from segjobs.page.picks import Pick, Wanted, candidates, choose

SCORES = {"a": 0.9, "b": 0.1, "c": None, "d": 0.5, "e": 0.1, "f": math.nan, "g": 0.7}


def chosen(scores: dict[str, float | None], wanted: Wanted) -> dict[str, list[str]]:
    found = candidates(list(scores), list(scores.values()), wanted)
    return {key: [pick.image_id for pick in group] for key, group in choose(found, wanted).items()}


def test_by_hand() -> None:
    picked = chosen(SCORES, Wanted(worst=3, best=2, random=2, seed=0))
    assert picked["worst"] == ["b", "e", "d"]
    assert picked["best"] == ["a", "g"]
    assert sorted(picked["random"]) == ["c", "f"], "images without a score can be shown too"
    few = chosen(SCORES, Wanted(worst=4, best=4, random=9, seed=0))
    assert few["worst"] + few["best"] == ["b", "e", "d", "g", "a"], "no image twice"
    assert chosen({}, Wanted(1, 1, 1, 0)) == {"worst": [], "best": [], "random": []}
    assert chosen(SCORES, Wanted(0, 0, 0, 0)) == {"worst": [], "best": [], "random": []}


def test_the_seed_decides_what_is_random() -> None:
    scores = {f"{n:03d}": n / 200 for n in range(200)}
    groups = [chosen(scores, Wanted(0, 0, 10, seed))["random"] for seed in (0, 0, 1)]
    assert groups[0] == groups[1] != groups[2]
    spread = [int(name) for name in chosen(scores, Wanted(0, 0, 100, 3))["random"]]
    assert 60 < sum(spread) / 100 < 140, "all over the collection"


names = st.dictionaries(st.text(max_size=4), st.none() | st.floats(0, 1), max_size=40)
amounts = st.builds(Wanted, *(st.integers(0, 5) for _ in range(3)), st.integers(0, 3))


@given(names, amounts, st.lists(st.integers(0, 40), max_size=4))
def test_any_cut_gives_the_same_choice(scores: dict[str, float | None], wanted: Wanted, cuts: list[int]) -> None:
    pairs = sorted(scores.items())
    bounds = [0, *sorted(cuts), len(pairs)]
    found: list[Pick] = []
    for start, stop in pairwise(bounds):
        part = pairs[start:stop]
        some = candidates([name for name, _ in part], [score for _, score in part], wanted)
        assert len(some) <= 3 * wanted.total
        found += some
    whole = choose([Pick(*pair) for pair in pairs], wanted)
    assert choose(found, wanted) == whole
    assert choose(reversed(found), wanted) == whole
