"""Rules that a report must meet: text in, what each asks for and whether the figures meet it out.

    miou >= 0.6                                  a figure of the set
    iou[person] >= 0.5                           a figure of one class
    miou >= 0.6 with 95% confidence              the interval's worse end meets it
    miou drop <= 0.01                            against the baseline
    miou drop <= 0.01 with 95% confidence        the worst drop that the interval leaves open

The intervals are two-sided: a bound "with 95% confidence" is missed by chance in 2.5% of the cases.
"""

import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from segjobs.config import nearest
from segjobs.errors import ConfigError
from segjobs.metrics.names import HEADLINE, QUALITY, RATIOS, by_class

_OF_DETECTIONS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}
_OF_OBJECTS = {
    **{name: f"mask_{key}" for name, key in _OF_DETECTIONS.items()},
    **{f"box_{name}": f"box_{key}" for name, key in _OF_DETECTIONS.items()},
    **{name: name for name in QUALITY},
}
SET_FIGURES = {
    "miou": "mean_iou",
    "fwiou": "frequency_weighted_iou",
    **{name: name for name in HEADLINE},
    **_OF_OBJECTS,
}
"""How a rule names a figure of the whole set → the figure's name."""
CLASS_FIGURES = {
    **{name: by_class(name) for name in RATIOS},
    **{name: by_class(_OF_OBJECTS[name]) for name in ("ap", "ap50", "box_ap", "pq")},
}
"""The same for a figure of one class, ``iou[person]``."""

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_RULE = re.compile(
    r"\s*(?P<figure>\w+)\s*(?:\[(?P<category>.*)\])?(?P<drop>\s+drop)?\s*(?P<operator>>=|<=|>|<)"
    r"\s*(?P<bound>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
    r"(?:\s+with\s+(?P<confidence>\d+(?:\.\d+)?)\s*%\s+confidence)?\s*"
)
_FORM = "'miou >= 0.6', 'iou[person] >= 0.5' or 'miou drop <= 0.01 with 95% confidence'"


@dataclass(frozen=True)
class Figure:
    """A score with the ends of its interval, each None where it is not known."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Rule:
    """One rule: ``figure`` (of ``category``, or of the set), or its ``drop`` from the baseline, against ``bound``."""

    text: str
    figure: str
    category: str | None
    drop: bool
    operator: str
    bound: float
    confidence: float | None

    @property
    def key(self) -> tuple[str, str | None]:
        return self.figure, self.category


@dataclass(frozen=True)
class Verdict:
    """Whether a rule is met, by which value; ``message`` is a line for people."""

    rule: str
    passed: bool
    value: float | None
    message: str


def parse_rules(texts: Collection[str], categories: Collection[str], confidence: float | None) -> list[Rule]:
    """Read rules. ``confidence``: of the report's intervals, None where it has none.

    Raises ConfigError with every rule that makes no sense, and the nearest names.
    """
    rules: list[Rule] = []
    problems: list[str] = []
    for text in texts:
        try:
            rules.append(_parse(text, categories, confidence))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return rules


def _parse(text: str, categories: Collection[str], confidence: float | None) -> Rule:
    match = _RULE.fullmatch(text)
    if not match:
        raise ConfigError(f"gate: {text!r} is no rule; expected such as {_FORM}")
    name, category = match["figure"].lower(), match["category"]
    figures = SET_FIGURES if category is None else CLASS_FIGURES
    if name not in figures:
        where = "a class" if category is not None else "the set"
        raise ConfigError(f"gate: {text!r}: {match['figure']!r} is no figure of {where}; {nearest(name, figures)}")
    if category is not None and category not in categories:
        raise ConfigError(f"gate: {text!r}: {category!r} is no class of the truth; {nearest(category, categories)}")
    bound = float(match["bound"])
    if abs(bound) > 1:
        raise ConfigError(f"gate: {text!r}: figures are from 0 to 1; did you mean {bound / 100:g}?")
    asked = float(match["confidence"]) / 100 if match["confidence"] else None
    if asked is not None and (confidence is None or abs(asked - confidence) > 1e-9):
        have = "there are no intervals" if confidence is None else f"the intervals are of {100 * confidence:g}%"
        raise ConfigError(f"gate: {text!r}: {have}; set bootstrap.confidence={asked:g} and bootstrap.resamples=2000")
    return Rule(
        text=text,
        figure=figures[name],
        category=category,
        drop=bool(match["drop"]),
        operator=match["operator"],
        bound=bound,
        confidence=asked,
    )


def judge(
    rule: Rule,
    figures: Mapping[tuple[str, str | None], Figure],
    differences: Mapping[tuple[str, str | None], Figure],
) -> Verdict:
    """Whether the report meets a rule.

    ``figures`` and ``differences`` (predictions minus baseline) by figure and class. A rule about a
    figure that is not there, or undefined, is missed: a gate that cannot look must not open.
    """
    found = (differences if rule.drop else figures).get(rule.key, Figure(None))
    if rule.drop:
        found = Figure(*(None if end is None else -end for end in (found.value, found.high, found.low)))
    value = found.value
    if rule.confidence is not None:
        value = found.low if rule.operator in (">", ">=") else found.high
    if value is None:
        return Verdict(rule.text, False, None, "missed, the figure is undefined")
    passed = _OPERATORS[rule.operator](value, rule.bound)
    seen = "" if rule.confidence is None else f" (the interval's worse end; the figure is {found.value:.4f})"
    return Verdict(rule.text, passed, value, f"{'met' if passed else 'missed'}, it is {value:.4f}{seen}")
