"""A night's page and the list of all nights: what each did and what its masks look like in, HTML out.

    NightContents ─→ night_page ─→ nights/<night>/index.html
    Told of each  ─→ index_page ─→ nights/index.html

As ``page.py``'s, these pages load nothing and run nothing, and every text in them may be hostile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from segjobs.errors import ITEM_CODES
from segjobs.metrics.drift import NightFigures, RuleResult, drift
from segjobs.page.page import environment, style
from segjobs.page.text import NONE

_CLASSES = 40  # that are shown, the largest first
_EXAMPLES = 12  # of images that went, or are held


@dataclass(frozen=True)
class NightCard:
    """A picture of one image with its masks, as a data: address. ``note``: behind its name."""

    image_id: str
    picture: str
    note: str = ""


@dataclass(frozen=True)
class NightContents:
    """What the page of a night shows.

    ``examples``: change → some image_ids; ``failures``: code → (count, image_id, message) of one of them. ``earlier``:
    figures of the nights before, the oldest first; ``usual``: their medians. ``version``: None of a night that is held.
    """

    collection: str
    night: str
    version: int | None
    model: str
    counts: Mapping[str, int]
    examples: Mapping[str, Sequence[str]]
    failures: Mapping[str, tuple[int, str, str]]
    figures: NightFigures
    earlier: Sequence[NightFigures]
    usual: NightFigures | None
    gate: Sequence[RuleResult]
    new: Sequence[NightCard] = ()
    unsure: Sequence[NightCard] = ()


@dataclass(frozen=True)
class NightLine:
    """A night in the list of all."""

    night: str
    counts: Mapping[str, int]
    version: int | None
    figures: NightFigures
    missed: Sequence[str]


@dataclass(frozen=True)
class Cell:
    """``href``: where it leads; ``trend``: points of a line in 100 × 20, drawn in the text's place."""

    text: str
    href: str = ""
    trend: str = ""


@dataclass(frozen=True)
class Table:
    heading: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: str = ""


@dataclass(frozen=True)
class Group:
    heading: str
    cards: Sequence[NightCard]


@dataclass(frozen=True)
class Page:
    """What the template shows, in its order."""

    title: str
    lines: Sequence[str]
    tables: Sequence[Table]
    groups: Sequence[Group] = ()


def night_page(night: NightContents) -> str:
    """The page as HTML."""
    where = (
        f"{night.collection}@{night.version}"
        if night.version is not None
        else f"{night.collection}: held by its gate, not published"
    )
    tables = [_changes(night)]
    if night.gate:
        tables.append(_gate(night.gate))
    if night.failures:
        tables.append(_failures(night))
    if night.figures["images"]:
        tables += [_drift(night), _classes(night)]
    groups = [Group("New images, drawn at random", night.new), Group("The least confident", night.unsure)]
    lines = [where, f"model {night.model}"]
    return _html(Page(f"Night {night.night}", lines, tables, [group for group in groups if group.cards]))


def index_page(collection: str, nights: Sequence[NightLine]) -> str:
    """The list of all nights, the newest first."""
    names = ("new", "changed", "retry", "stale", "touched", "held", "gone", "same")
    rows = [
        [
            Cell(one.night, href=f"{one.night}/index.html"),
            *(Cell(str(one.counts.get(name, 0))) for name in names),
            Cell(_percent(one.figures["failed"] if one.figures["images"] else None)),
            Cell("held" if one.version is None else str(one.version)),
            Cell("; ".join(one.missed) or NONE),
        ]
        for one in sorted(nights, key=lambda one: one.night, reverse=True)
    ]
    head = ("night", *names, "failed", "version", "rules that were missed")
    return _html(Page(f"Nights of {collection}", [f"{len(nights)} nights"], [Table("Nights", head, rows)]))


def _html(page: Page) -> str:
    css, css_hash = style()
    return environment().get_template("night.html.j2").render(page=page, css=Markup(css), css_hash=css_hash)  # noqa: S704  # our own file


# --- tables ----------------------------------------------------------------------------------------


_WORDS = {
    "new": "had no masks",
    "changed": "have other bytes than before",
    "retry": "failed before and were tried again",
    "stale": "had masks of another model or other settings, and were labelled anew",
    "stale_kept": "have masks of another model or other settings, which are kept",
    "touched": "have another time, etag or place, and the same bytes",
    "held": "have other bytes than those that a person masked; the person's masks are kept",
    "gone": "are no longer listed",
    "same": "are as they were",
}


def _changes(night: NightContents) -> Table:
    rows = [
        [
            Cell(name),
            Cell(f"{night.counts[name]:,}"),
            Cell(words),
            Cell(", ".join(night.examples.get(name, ())[:_EXAMPLES])),
        ]
        for name, words in _WORDS.items()
        if night.counts.get(name)
    ]
    return Table("What came and went", ("change", "images", "they", "such as"), rows)


def _gate(results: Sequence[RuleResult]) -> Table:
    rows = [[Cell(one.text), Cell(_figure(one.value)), Cell("met" if one.met else "missed")] for one in results]
    return Table("Gate", ("rule", "tonight", ""), rows)


def _failures(night: NightContents) -> Table:
    rows = [
        [
            Cell(code),
            Cell(f"{count:,}"),
            Cell(next((w for c, w in ITEM_CODES.items() if c == code), "")),
            Cell(name),
            Cell(why),
        ]
        for code, (count, name, why) in sorted(night.failures.items())
    ]
    return Table("What failed", ("code", "images", "the image", "one of them", "why"), rows)


def _drift(night: NightContents) -> Table:
    now, usual, every = night.figures, night.usual, [*night.earlier, night.figures]
    rows = [
        [
            Cell("failed"),
            Cell(_percent(now["failed"])),
            Cell(_percent(usual["failed"] if usual else None)),
            _trend([one["failed"] for one in every]),
        ],
        [
            Cell("confidence"),
            Cell(_figure(now["confidence"])),
            Cell(_figure(usual["confidence"] if usual else None)),
            _trend([one["confidence"] for one in every]),
        ],
        [
            Cell("megapixels"),
            Cell(_figure(now["megapixels"])),
            Cell(_figure(usual["megapixels"] if usual else None)),
            _trend([one["megapixels"] for one in every]),
        ],
        [
            Cell("images"),
            Cell(f"{now['images']:,}"),
            Cell(f"{usual['images']:,}" if usual else NONE),
            _trend([float(one["images"]) for one in every]),
        ],
    ]
    words = (
        "Of the images that the night labelled, beside the median of up to 14 nights before; the line: night by night."
    )
    return Table("Beside earlier nights", ("figure", "tonight", "usual", "nights"), rows, words)


def _classes(night: NightContents) -> Table:
    now, every = night.figures["pixels"], [*night.earlier, night.figures]
    before: Mapping[str, float] = night.usual["pixels"] if night.usual else {}
    names: list[str] = [name for name in dict.fromkeys([*now, *before]) if now.get(name) or before.get(name)]
    names.sort(key=lambda name: -max(now.get(name, 0.0), before.get(name, 0.0)))
    rows = [
        [
            Cell(name),
            Cell(_percent(now.get(name, 0.0))),
            Cell(_percent(before.get(name, 0.0) if night.usual else None)),
            Cell(_percent(drift(night.figures, night.usual, name) if night.usual else None)),
            _trend([one["pixels"].get(name, 0.0) for one in every]),
        ]
        for name in names[:_CLASSES]
    ]
    return Table("Classes' shares of the pixels", ("class", "tonight", "usual", "drift", "nights"), rows)


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{value:.2%}"


def _figure(value: float | None) -> str:
    return NONE if value is None else f"{value:.4g}"


def _trend(values: Sequence[float | None]) -> Cell:
    """A line from the oldest to tonight, from 0 or the least to the greatest; a dash of fewer than two."""
    known = [(place, value) for place, value in enumerate(values) if value is not None]
    if len(known) < 2:
        return Cell(NONE)
    least, most = min(0.0, *(value for _, value in known)), max(value for _, value in known)
    span = (most - least) or 1.0
    points = " ".join(
        f"{100 * place / (len(values) - 1):.1f},{19 - 18 * (value - least) / span:.1f}" for place, value in known
    )
    return Cell(", ".join(_figure(value) for value in values), trend=points)
