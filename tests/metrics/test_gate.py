"""Rules: what each text means, what is refused, and verdicts worked out by hand."""

import pytest

from segjobs.errors import ConfigError
from segjobs.metrics.gate import Figure, judge, parse_rules

CLASSES = ("person", "car [old]", "sky")
FIGURES = {("mean_iou", None): Figure(0.62, 0.58, 0.66), ("iou", "person"): Figure(0.5, None, None)}
DROPS = {("mean_iou", None): Figure(-0.02, -0.05, 0.01)}


def verdict(text: str, confidence: float | None = 0.95) -> tuple[bool, float | None]:
    (rule,) = parse_rules([text], CLASSES, confidence)
    found = judge(rule, FIGURES, DROPS)
    assert found.rule == text
    return found.passed, found.value


@pytest.mark.parametrize(
    ("text", "passed", "value"),
    [
        ("miou >= 0.6", True, 0.62),
        ("mIoU>=.63", False, 0.62),
        ("mean_iou > 0.62", False, 0.62),
        ("miou <= 0.62", True, 0.62),
        ("miou >= 0.6 with 95% confidence", False, 0.58),  # the interval's lower end
        ("miou < 0.66 with 95 % confidence", False, 0.66),  # its upper end
        ("iou[person] >= 0.5", True, 0.5),
        ("iou[person] >= 0.5 with 95% confidence", False, None),  # has no interval: cannot be known
        ("iou[sky] >= 0", False, None),  # undefined
        ("miou drop <= 0.02", True, 0.02),  # 0.62 after 0.64
        ("miou drop < 2e-2", False, 0.02),
        ("miou drop <= 0.05 with 95% confidence", True, 0.05),  # the worst that the interval leaves open
        ("iou[person] drop <= 1", False, None),
    ],
)
def test_verdicts(text: str, passed: bool, value: float | None) -> None:
    assert verdict(text) == (passed, value)


def test_a_class_may_have_brackets_in_its_name() -> None:
    (rule,) = parse_rules(["iou[car [old]] >= 0.1"], CLASSES, None)
    assert rule.category == "car [old]"


def test_messages() -> None:
    (rule,) = parse_rules(["miou >= 0.6 with 95% confidence"], CLASSES, 0.95)
    expected = "missed, it is 0.5800 (the interval's worse end; the figure is 0.6200)"
    assert judge(rule, FIGURES, {}).message == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("miou => 0.6", "'miou => 0.6' is no rule; expected such as 'miou >= 0.6'"),
        ("miou >= 60%", "is no rule"),
        ("miou >= 60", "'miou >= 60': figures are from 0 to 1; did you mean 0.6?"),
        ("moiu >= 0.6", "'moiu' is no figure of the set; did you mean 'miou'"),
        ("iou >= 0.6", "'iou' is no figure of the set; did you mean"),
        ("miou[person] >= 0.6", "'miou' is no figure of a class; did you mean 'iou'"),
        ("iou[persn] >= 0.6", "'persn' is no class of the truth; did you mean 'person'?"),
        ("miou >= 0.6 with 90% confidence", "the intervals are of 95%; set bootstrap.confidence=0.9"),
    ],
)
def test_rules_that_make_no_sense(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rules(["miou >= 0.1", text], CLASSES, 0.95)
    (found,) = caught.value.problems
    assert found.startswith(f"gate: {text!r}") and problem in found


def test_confidence_needs_intervals() -> None:
    with pytest.raises(ConfigError, match="there are no intervals; set bootstrap"):
        parse_rules(["miou >= 0.6 with 95% confidence"], CLASSES, None)
