"""A night's figures beside earlier nights', by hand."""

from collections import Counter

import pytest

from segjobs.errors import ConfigError
from segjobs.manifest.schema import make_categories
from segjobs.manifest.statistics import Counts
from segjobs.metrics.disagreement import Overlap
from segjobs.metrics.drift import (
    NightFigures,
    Relabelled,
    check_night,
    drift,
    figures_in,
    figures_of,
    last_of,
    parse_night_rules,
    usual,
)

CLASSES = make_categories(["road", "car"])


def figures(car: float = 0.1, *, failed: float = 0.0, confidence: float | None = 0.8, images: int = 10) -> NightFigures:
    return {"images": images, "failed": failed, "failures": {"TIMEOUT": failed}, "confidence": confidence,
            "pixels": {"road": 1 - car, "car": car}, "objects": {"road": 0.5, "car": 0.5}, "megapixels": 1.0,
            "relabelled": 4, "compared": 4, "disagreement": 0.1, "disagreements": {"car": 0.3}}  # fmt: skip


def test_figures_are_shares() -> None:
    counts: Counts = {"images": 4, "ok": 2, "pixels": 3_000_000,
                      "classes": {"0": {"objects": 3}, "1": {"pixels": 750_000, "objects": 1}}}  # fmt: skip
    overlap = Overlap(Counter({"car": 30, "road": 10}), Counter({"car": 40, "road": 10, "bus": 0}))
    assert figures_of(counts, {"TIMEOUT": 2}, [0.5, 0.9], CLASSES, Relabelled(3, 2, overlap)) == {
        "images": 4,
        "failed": 0.5,
        "failures": {"TIMEOUT": 0.5},
        "confidence": 0.7,
        "pixels": {"road": 0.0, "car": 0.25},
        "objects": {"road": 0.75, "car": 0.25},
        "megapixels": 1.5,
        "relabelled": 3,
        "compared": 2,
        "disagreement": pytest.approx(0.2),
        "disagreements": {"car": 0.25, "road": 0.0},
    }


def test_of_an_older_record_what_was_not_counted_is_empty() -> None:
    now = dict(figures())
    for name in ("objects", "relabelled", "compared", "disagreement", "disagreements"):
        del now[name]
    found = figures_in({"figures": now})
    assert (found["objects"], found["relabelled"], found["disagreement"]) == ({}, 0, None)
    assert found["pixels"] == figures()["pixels"]


def test_the_median_of_the_last_fortnight_is_usual() -> None:
    assert usual([]) is None and usual([figures(images=0)]) is None
    nights = [figures(0.9)] * 5 + [figures(0.1)] * 6 + [figures(0.2, confidence=None)] * 7 + [figures(0.5)]
    found = usual(nights)
    assert found is not None and found["pixels"]["car"] == pytest.approx(0.2) and found["confidence"] == 0.8
    assert drift(figures(0.3)["pixels"], found["pixels"], "car") == pytest.approx(0.5)
    assert drift(figures(0.3)["pixels"], found["pixels"], "bus") is None
    assert last_of([figures(0.4), figures(images=0)]) == figures(0.4) and last_of([figures(images=0)]) is None


@pytest.mark.parametrize(
    ("rule", "now", "value", "met"),
    [
        ("failed <= 2%", figures(failed=0.02), 0.02, True),
        ("failed < 2%", figures(failed=0.02), 0.02, False),
        ("failed[TIMEOUT] <= 0.01", figures(failed=0.02), 0.02, False),
        ("failed[CRASHED] <= 0", figures(failed=0.02), 0.0, True),
        ("drift[car] <= 0.2", figures(0.13), 0.3, False),
        ("drift[car]<=25%", figures(0.08), 0.2, True),
        ("confidence drop <= 0.05", figures(confidence=0.7), 0.1, False),
        ("confidence drop <= 0.05", figures(confidence=0.9), -0.1, True),
        ("confidence drop <= 0.05", figures(confidence=None), None, True),
        ("confidence >= 0.5", figures(confidence=0.4), 0.4, False),
        ("failed <= 0", figures(failed=1.0, images=0), None, True),
        ("drift[car] since last <= 0.2", figures(0.45), 0.5, False),  # of the last night, which had 30%
        ("confidence drop since last <= 0.05", figures(confidence=0.5), 0.1, False),
        ("object drift[car] <= 0.2", figures(), 0.0, True),
        ("object  drift[car] since  last <= 0.2", figures(), 0.0, True),
        ("disagreement <= 5%", figures(), 0.1, False),
        ("disagreement[car] <= 0.3", figures(), 0.3, True),
    ],
)
def test_rules(rule: str, now: NightFigures, value: float | None, met: bool) -> None:
    (parsed,) = parse_night_rules([rule], ["road", "car"])
    found = check_night(parsed, now, usual([figures()]), figures(0.3, confidence=0.6))
    assert found.value == (None if value is None else pytest.approx(value)) and found.met is met
    if "drift" in rule or "drop" in rule:
        alone = check_night(parsed, now, None)
        assert alone.met and alone.why == "no earlier night labelled anything"


def test_what_is_not_known_is_told_and_not_always_met() -> None:
    rules = ["drift[bus] <= 0.2", "object drift[bus] <= 0.2", "disagreement <= 0.1", "disagreement[bus] <= 0.1"]
    pixels, objects, every, bus = parse_night_rules(rules, ["road", "car", "bus"])
    before = usual([figures()])
    found = check_night(pixels, figures(), before)
    assert (found.value, found.met, found.why) == (None, True, "none tonight, and none before")
    now = figures()
    now["pixels"] = {"road": 0.75, "bus": 0.25}
    found = check_night(pixels, now, before)
    assert (found.value, found.met, found.why) == (None, False, "25.00% tonight, and none before")
    now["objects"] = {"bus": 1.0}
    assert not check_night(objects, now, before).met
    assert check_night(bus, now, before).why == "none tonight, and none before"
    now["compared"], now["disagreement"] = 0, None
    found = check_night(every, now, before)
    assert (found.met, found.why) == (False, "the earlier masks cannot be read any more")
    now["relabelled"] = 0
    assert check_night(every, now, before).met, "no image was labelled again"


def test_what_is_no_rule_is_told() -> None:
    texts = [
        "failed",
        "drift <= 0.2",
        "confidence[car] >= 1",
        "failed drop <= 1",
        "drift[cra] <= 1",
        "failed[TIMEOT] <= 1",
        "failed since last <= 1",
        "confidence since last >= 1",
        "disagreement drop <= 1",
    ]
    with pytest.raises(ConfigError) as caught:
        parse_night_rules(texts, ["road", "car"])
    problems = caught.value.problems
    assert [("is no rule" in problem) for problem in problems] == [True] * 4 + [False] * 2 + [True] * 3
    assert problems[4].endswith("'cra' is no class of the model; did you mean 'car'?")
    assert problems[5].endswith("'TIMEOT' is no failure code; did you mean 'TIMEOUT'?")
