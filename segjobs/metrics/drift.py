"""What a night's masks look like beside those of earlier nights, of other images: counts in, figures and rules out.

    failed <= 2%               share of the labelled images that failed
    failed[TIMEOUT] <= 0.5%    … with one code
    drift[car] <= 0.2          relative change of the class's share of all pixels, against the median of earlier nights
    confidence >= 0.5          mean confidence of the images that are ok
    confidence drop <= 0.05    how far it is below the median of earlier nights

The median of the last 14 nights that labelled anything: one odd night among them does not move it. A rule that asks for
earlier nights is met where there are none.
"""

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypedDict

from segjobs.config import nearest
from segjobs.errors import ITEM_CODES, ConfigError
from segjobs.manifest.schema import Category
from segjobs.manifest.statistics import Counts

NIGHTS = 14
"""So many earlier nights are what tonight is compared with."""
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}
_RULE = re.compile(
    r"\s*(?P<figure>failed|drift|confidence)\s*(?:\[(?P<key>.*)\])?(?P<drop>\s+drop)?\s*(?P<operator><=|>=|<|>)"
    r"\s*(?P<bound>\d+\.?\d*|\.\d+)\s*(?P<percent>%?)\s*"
)
_FORM = (
    "'failed <= 2%', 'failed[TIMEOUT] <= 0.5%', 'drift[car] <= 0.2', 'confidence >= 0.5' or 'confidence drop <= 0.05'"
)


class NightFigures(TypedDict):
    """Of the images that a night labelled. Shares in [0, 1]; None where no image is ok.

    ``failures``: by code, of all; ``pixels``: by class, of the pixels of those that are ok; ``megapixels``: their mean
    size.
    """

    images: int
    failed: float
    failures: dict[str, float]
    confidence: float | None
    pixels: dict[str, float]
    megapixels: float | None


def figures_of(
    counts: Counts, failures: Mapping[str, int], confidences: Sequence[float], categories: Sequence[Category]
) -> NightFigures:
    """``counts``: of all rows (``count_rows``); ``confidences``: of those that are ok, where they have one."""
    images, ok, pixels = counts.get("images", 0), counts.get("ok", 0), counts.get("pixels", 0)
    classes = counts.get("classes", {})
    return {
        "images": images,
        "failed": (images - ok) / images if images else 0.0,
        "failures": {code: count / images for code, count in sorted(failures.items())},
        "confidence": sum(confidences) / len(confidences) if confidences else None,
        "pixels": {one.name: classes.get(str(one.id), {}).get("pixels", 0) / pixels for one in categories if pixels},
        "megapixels": pixels / ok / 1e6 if ok else None,
    }


def usual(nights: Sequence[NightFigures]) -> NightFigures | None:
    """The medians of the last ``NIGHTS`` of these, the oldest first; None of none."""
    some = [night for night in nights if night["images"]][-NIGHTS:]
    if not some:
        return None
    codes = sorted({code for night in some for code in night["failures"]})
    names = list(dict.fromkeys(name for night in some for name in night["pixels"]))
    return {
        "images": round(median(night["images"] for night in some)),
        "failed": median(night["failed"] for night in some),
        "failures": {code: median(night["failures"].get(code, 0.0) for night in some) for code in codes},
        "confidence": _median([night["confidence"] for night in some]),
        "pixels": {name: median(night["pixels"].get(name, 0.0) for night in some) for name in names},
        "megapixels": _median([night["megapixels"] for night in some]),
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def drift(now: NightFigures, before: NightFigures, name: str) -> float | None:
    """Relative change of a class's share of the pixels; None where no earlier night had any of it."""
    share = before["pixels"].get(name, 0.0)
    return abs(now["pixels"].get(name, 0.0) - share) / share if share else None


@dataclass(frozen=True)
class NightRule:
    """One rule; ``key``: a class of ``drift``, a code of ``failed``."""

    text: str
    figure: str
    key: str | None
    drop: bool
    holds: Callable[[float, float], bool]
    bound: float


@dataclass(frozen=True)
class RuleResult:
    """``value``: what the rule asks for, None where it is not known."""

    text: str
    value: float | None
    met: bool


def parse_night_rules(texts: Sequence[str], classes: Collection[str]) -> list[NightRule]:
    """Raises ConfigError with every text that is no rule, or names a class or a code that there is not."""
    problems, rules = list[str](), list[NightRule]()
    for text in texts:
        found = _RULE.fullmatch(text)
        if found is None or not _is_whole(found["figure"], found["key"], bool(found["drop"])):
            problems.append(f"gate: {text!r} is no rule; expected {_FORM}")
            continue
        figure, key = found["figure"], found["key"]
        known = list(ITEM_CODES) if figure == "failed" else list(classes)
        if key is not None and key not in known:
            what = "failure code" if figure == "failed" else "class of the model"
            problems.append(f"gate: {text!r}: {key!r} is no {what}; {nearest(key, known)}")
            continue
        bound = float(found["bound"]) / (100 if found["percent"] else 1)
        rules.append(NightRule(text, figure, key, bool(found["drop"]), _OPERATORS[found["operator"]], bound))
    if problems:
        raise ConfigError(*problems)
    return rules


def _is_whole(figure: str, key: str | None, drop: bool) -> bool:
    """Whether a figure has the key that it needs, and no other; only confidence drops."""
    if figure == "drift":
        return key is not None and not drop
    return not drop if figure == "failed" else key is None


def check_night(rule: NightRule, now: NightFigures, before: NightFigures | None) -> RuleResult:
    """``before``: what is usual. A night that labelled nothing meets every rule."""
    value = _value(rule, now, before) if now["images"] else None
    return RuleResult(rule.text, value, value is None or rule.holds(value, rule.bound))


def _value(rule: NightRule, now: NightFigures, before: NightFigures | None) -> float | None:
    if rule.figure == "failed":
        return now["failed"] if rule.key is None else now["failures"].get(rule.key, 0.0)
    if rule.figure == "drift":
        return None if before is None or rule.key is None else drift(now, before, rule.key)
    if not rule.drop:
        return now["confidence"]
    if before is None or before["confidence"] is None or now["confidence"] is None:
        return None
    return before["confidence"] - now["confidence"]
