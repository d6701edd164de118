"""A night's figures beside earlier nights', by hand."""

import pytest

from segjobs.errors import ConfigError
from segjobs.manifest.schema import make_categories
from segjobs.manifest.statistics import Counts
from segjobs.metrics.drift import NightFigures, check_night, drift, figures_of, parse_night_rules, usual

CLASSES = make_categories(["road", "car"])


def figures(car: float = 0.1, *, failed: float = 0.0, confidence: float | None = 0.8, images: int = 10) -> NightFigures:
    return {"images": images, "failed": failed, "failures": {"TIMEOUT": failed}, "confidence": confidence,
            "pixels": {"road": 1 - car, "car": car}, "megapixels": 1.0}  # fmt: skip


def test_figures_are_shares() -> None:
    counts: Counts = {"images": 4, "ok": 2, "pixels": 3_000_000, "classes": {"1": {"pixels": 750_000}}}
    assert figures_of(counts, {"TIMEOUT": 2}, [0.5, 0.9], CLASSES) == {
        "images": 4,
        "failed": 0.5,
        "failures": {"TIMEOUT": 0.5},
        "confidence": 0.7,
        "pixels": {"road": 0.0, "car": 0.25},
        "megapixels": 1.5,
    }


def test_the_median_of_the_last_fortnight_is_usual() -> None:
    assert usual([]) is None and usual([figures(images=0)]) is None
    nights = [figures(0.9)] * 5 + [figures(0.1)] * 6 + [figures(0.2, confidence=None)] * 7 + [figures(0.5)]
    found = usual(nights)
    assert found is not None and found["pixels"]["car"] == pytest.approx(0.2) and found["confidence"] == 0.8
    assert drift(figures(0.3), found, "car") == pytest.approx(0.5)
    assert drift(figures(0.3), found, "bus") is None


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
    ],
)
def test_rules(rule: str, now: NightFigures, value: float | None, met: bool) -> None:
    (parsed,) = parse_night_rules([rule], ["road", "car"])
    found = check_night(parsed, now, usual([figures()]))
    assert found.value == (None if value is None else pytest.approx(value)) and found.met is met
    if rule.startswith(("drift", "confidence drop")):
        assert check_night(parsed, now, None).met, "there is nothing to compare with yet"


def test_what_is_no_rule_is_told() -> None:
    texts = [
        "failed",
        "drift <= 0.2",
        "confidence[car] >= 1",
        "failed drop <= 1",
        "drift[cra] <= 1",
        "failed[TIMEOT] <= 1",
    ]
    with pytest.raises(ConfigError) as caught:
        parse_night_rules(texts, ["road", "car"])
    problems = caught.value.problems
    assert [("is no rule" in problem) for problem in problems] == [True] * 4 + [False] * 2
    assert problems[4].endswith("'cra' is no class of the model; did you mean 'car'?")
    assert problems[5].endswith("'TIMEOT' is no failure code; did you mean 'TIMEOUT'?")
