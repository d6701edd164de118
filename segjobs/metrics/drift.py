"""What a night's masks look like beside those of earlier nights, of other images: counts in, figures and rules out.

    failed <= 2%                    share of the labelled images that failed
    failed[TIMEOUT] <= 0.5%         … with one code
    drift[car] <= 0.2               relative change of the class's share of all pixels
    object drift[car] <= 0.2        … of its share of all objects
    confidence >= 0.5               mean confidence of the images that are ok
    confidence drop <= 0.05         how far it has fallen
    disagreement <= 10%             of images labelled again: masks now against those before (``disagreement.py``)
    disagreement[car] <= 0.2        … of one class

Drifts and drops are against the median of the last 14 nights that labelled anything: one odd night among them does not
move it; ``drift[car] since last <= 0.3`` is against the last of them alone. What a rule asks for may not be known, and
is told then. There was nothing to compare with: met. The class is there, and was in none of the nights that it is
compared with: missed, since no number says how far that is.
"""

import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypedDict, cast

from segjobs.config import nearest
from segjobs.errors import ITEM_CODES, ConfigError
from segjobs.manifest.schema import Category
from segjobs.manifest.statistics import Counts
from segjobs.metrics.disagreement import Overlap, disagreement

NIGHTS = 14
"""So many earlier nights are what tonight is compared with."""
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}
_RULE = re.compile(
    r"\s*(?P<figure>failed|drift|object\s+drift|confidence|disagreement)\s*(?:\[(?P<key>.*)\])?(?P<drop>\s+drop)?"
    r"(?P<last>\s+since\s+last)?\s*(?P<operator><=|>=|<|>)\s*(?P<bound>\d+\.?\d*|\.\d+)\s*(?P<percent>%?)\s*"
)
_FORM = (
    "'failed <= 2%', 'failed[TIMEOUT] <= 0.5%', 'drift[car] <= 0.2', 'object drift[car] <= 0.2', 'confidence >= 0.5', "
    "'confidence drop <= 0.05', 'drift[car] since last <= 0.3', 'disagreement <= 10%' or 'disagreement[car] <= 0.2'"
)


class NightFigures(TypedDict):
    """Of the images that a night labelled. Shares in [0, 1]; None where no image is ok.

    ``failures``: by code, of all; ``pixels``: by class, of the pixels of those that are ok; ``objects``: by class, of
    their segments; ``megapixels``: their mean size. ``relabelled``: images that had masks of the same bytes before;
    ``compared``: those of them that were looked at; ``disagreement``, ``disagreements`` by class: of their masks.
    """

    images: int
    failed: float
    failures: dict[str, float]
    confidence: float | None
    pixels: dict[str, float]
    objects: dict[str, float]
    megapixels: float | None
    relabelled: int
    compared: int
    disagreement: float | None
    disagreements: dict[str, float]


@dataclass(frozen=True)
class Relabelled:
    """``images`` that had masks of the same bytes before; ``overlap``: of those of them that are ``compared``."""

    images: int = 0
    compared: int = 0
    overlap: Overlap = field(default_factory=Overlap)


def figures_of(
    counts: Counts,
    failures: Mapping[str, int],
    confidences: Sequence[float],
    categories: Sequence[Category],
    relabelled: Relabelled | None = None,
) -> NightFigures:
    """``counts``: of all rows (``count_rows``); ``confidences``: of those that are ok, where they have one."""
    images, ok, pixels = counts.get("images", 0), counts.get("ok", 0), counts.get("pixels", 0)
    classes = counts.get("classes", {})
    objects = {one.name: classes.get(str(one.id), {}).get("objects", 0) for one in categories}
    every = sum(objects.values())
    again = relabelled or Relabelled()
    by_class = {name: disagreement(again.overlap, name) for name in sorted(again.overlap.either_px)}
    return {
        "images": images,
        "failed": (images - ok) / images if images else 0.0,
        "failures": {code: count / images for code, count in sorted(failures.items())},
        "confidence": sum(confidences) / len(confidences) if confidences else None,
        "pixels": {one.name: classes.get(str(one.id), {}).get("pixels", 0) / pixels for one in categories if pixels},
        "objects": {name: count / every for name, count in objects.items() if every},
        "megapixels": pixels / ok / 1e6 if ok else None,
        "relabelled": again.images,
        "compared": again.compared,
        "disagreement": disagreement(again.overlap),
        "disagreements": {name: value for name, value in by_class.items() if value is not None},
    }


def figures_in(record: Mapping[str, Any]) -> NightFigures:
    """The figures of a night's record; what the release that wrote it did not count is empty."""
    return cast("NightFigures", {**figures_of(Counts(), {}, [], ()), **record["figures"]})


def usual(nights: Sequence[NightFigures]) -> NightFigures | None:
    """The medians of the last ``NIGHTS`` of these, the oldest first; None of none."""
    some = [night for night in nights if night["images"]][-NIGHTS:]
    if not some:
        return None
    codes = sorted({code for night in some for code in night["failures"]})
    return {
        "images": round(median(night["images"] for night in some)),
        "failed": median(night["failed"] for night in some),
        "failures": {code: median(night["failures"].get(code, 0.0) for night in some) for code in codes},
        "confidence": _median([night["confidence"] for night in some]),
        "pixels": _median_shares([night["pixels"] for night in some]),
        "objects": _median_shares([night["objects"] for night in some]),
        "megapixels": _median([night["megapixels"] for night in some]),
        "relabelled": round(median(night["relabelled"] for night in some)),
        "compared": round(median(night["compared"] for night in some)),
        "disagreement": _median([night["disagreement"] for night in some]),
        "disagreements": _median_shares([night["disagreements"] for night in some if night["compared"]]),
    }


def last_of(nights: Sequence[NightFigures]) -> NightFigures | None:
    """The last of these that labelled anything, the oldest first; None of none."""
    return next((night for night in reversed(nights) if night["images"]), None)


def _median_shares(nights: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = list(dict.fromkeys(name for night in nights for name in night))
    return {name: median(night.get(name, 0.0) for night in nights) for name in names}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def drift(now: Mapping[str, float], before: Mapping[str, float], name: str) -> float | None:
    """Relative change of a class's share; None where it had none before."""
    share = before.get(name, 0.0)
    return abs(now.get(name, 0.0) - share) / share if share else None


@dataclass(frozen=True)
class NightRule:
    """One rule; ``key``: a class of ``drift``, a code of ``failed``. ``last``: against the last night alone."""

    text: str
    figure: str
    key: str | None
    drop: bool
    last: bool
    holds: Callable[[float, float], bool]
    bound: float


@dataclass(frozen=True)
class RuleResult:
    """``value``: what the rule asks for; ``why``: where that is not known, None else."""

    text: str
    value: float | None
    met: bool
    why: str | None = None


def parse_night_rules(texts: Sequence[str], classes: Collection[str]) -> list[NightRule]:
    """Raises ConfigError with every text that is no rule, or names a class or a code that there is not."""
    problems, rules = list[str](), list[NightRule]()
    for text in texts:
        found = _RULE.fullmatch(text)
        if found is None or not _is_whole(found):
            problems.append(f"gate: {text!r} is no rule; expected {_FORM}")
            continue
        figure, key = " ".join(found["figure"].split()), found["key"]
        known = list(ITEM_CODES) if figure == "failed" else list(classes)
        if key is not None and key not in known:
            what = "failure code" if figure == "failed" else "class of the model"
            problems.append(f"gate: {text!r}: {key!r} is no {what}; {nearest(key, known)}")
            continue
        bound = float(found["bound"]) / (100 if found["percent"] else 1)
        drop, last = bool(found["drop"]), bool(found["last"])
        rules.append(NightRule(text, figure, key, drop, last, _OPERATORS[found["operator"]], bound))
    if problems:
        raise ConfigError(*problems)
    return rules


def _is_whole(found: re.Match[str]) -> bool:
    """Whether a figure has the key that it needs, and no other; only confidence drops, and what changes is since."""
    key, drop, changes = found["key"], bool(found["drop"]), "drift" in found["figure"]
    if found["last"] and not (changes or drop):
        return False
    if changes:
        return key is not None and not drop
    return key is None if found["figure"] == "confidence" else not drop


def check_night(
    rule: NightRule, now: NightFigures, before: NightFigures | None, last: NightFigures | None = None
) -> RuleResult:
    """``before``: what is usual; ``last``: the last night's. A night that labelled nothing meets every rule."""
    if not now["images"]:
        return RuleResult(rule.text, None, True, "nothing was labelled")
    found = _value(rule, now, last if rule.last else before)
    if isinstance(found, _Unknown):
        return RuleResult(rule.text, None, found.met, found.why)
    return RuleResult(rule.text, found, rule.holds(found, rule.bound))


@dataclass(frozen=True)
class _Unknown:
    """Why a figure is no number, and whether a rule that asks for it is met."""

    why: str
    met: bool = True


_NO_NIGHT = _Unknown("no earlier night labelled anything")


def _value(rule: NightRule, now: NightFigures, before: NightFigures | None) -> float | _Unknown:
    if rule.figure == "failed":
        return now["failed"] if rule.key is None else now["failures"].get(rule.key, 0.0)
    if rule.figure == "disagreement":
        return _disagreement(rule.key, now)
    if rule.figure == "confidence" and not rule.drop:
        return _Unknown("no image has one") if now["confidence"] is None else now["confidence"]
    if before is None:
        return _NO_NIGHT
    if rule.figure == "confidence":
        if before["confidence"] is None or now["confidence"] is None:
            return _Unknown("no image has one" if now["confidence"] is None else "earlier nights had none")
        return before["confidence"] - now["confidence"]
    assert rule.key is not None, "the rule was parsed"  # noqa: S101
    shares, usual_shares = (one["objects" if rule.figure == "object drift" else "pixels"] for one in (now, before))
    found = drift(shares, usual_shares, rule.key)
    if found is not None:
        return found
    share = shares.get(rule.key, 0.0)
    if share:
        return _Unknown(f"{share:.2%} tonight, and none before", met=False)
    return _Unknown("none tonight, and none before")


def _disagreement(key: str | None, now: NightFigures) -> float | _Unknown:
    if not now["relabelled"]:
        return _Unknown("no image had masks of the same bytes before")
    if not now["compared"]:
        return _Unknown("the earlier masks cannot be read any more", met=False)
    found = now["disagreement"] if key is None else now["disagreements"].get(key)
    return _Unknown("none tonight, and none before") if found is None else found
