"""A night's page and the list of all nights: what each did and what its masks look like in, HTML out.

    NightContents ─→ night_page ─→ nights/<night>/index.html
    Told of each  ─→ index_page ─→ nights/index.html

As ``page.py``'s, these pages load nothing and run nothing, and every text in them may be hostile.
"""

from collections.abc import Callable, Mapping, Sequence
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
    figures of the nights before, the oldest first; ``usual``: their medians; ``last``: the newest of them that labelled
    anything. ``version``: None of a night that is held. ``held``: runs of earlier nights that wait for a look.
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
    last: NightFigures | None
    gate: Sequence[RuleResult]
    held: Sequence[str] = ()
    new: Sequence[NightCard] = ()
    unsure: Sequence[NightCard] = ()
    changed: Sequence[NightCard] = ()


@dataclass(frozen=True)
class NightLine:
    """A night in the list of all. ``version``: None where it is held, or ``discarded``."""

    night: str
    counts: Mapping[str, int]
    version: int | None
    figures: NightFigures
    missed: Sequence[str]
    discarded: bool = False


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
        tables += [_drift(night), _classes(night), _objects(night)]
    if night.figures["compared"]:
        tables.append(_disagreements(night))
    groups = [
        Group("New images, drawn at random", night.new),
        Group("The least confident", night.unsure),
        Group("Labelled again, and most unlike their earlier masks", night.changed),
    ]
    lines = [where, f"model {night.model}", *(f"held by its gate since an earlier night: {run}" for run in night.held)]
    return _html(Page(f"Night {night.night}", lines, tables, [group for group in groups if group.cards]))


def index_page(collection: str, nights: Sequence[NightLine]) -> str:
    """The list of all nights, the newest first."""
    names = ("new", "changed", "retry", "stale", "touched", "waiting", "held", "gone", "same")
    rows = [
        [
            Cell(one.night, href=f"{one.night}/index.html"),
            *(Cell(str(one.counts.get(name, 0))) for name in names),
            Cell(_percent(one.figures["failed"] if one.figures["images"] else None)),
            Cell(str(one.version) if one.version is not None else "discarded" if one.discarded else "held"),
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
    "waiting": "were labelled by a night that its gate holds, and wait for a look at it",
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
    rows = [
        [Cell(one.text), Cell(one.why or _figure(one.value)), Cell("met" if one.met else "missed")] for one in results
    ]
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


Show = Callable[[float | None], str]


def _drift(night: NightContents) -> Table:
    def row(name: str, get: Callable[[NightFigures], float | None], show: Show) -> list[Cell]:
        return [Cell(name), *_beside(night, get, show)]

    rows = [
        row("images", lambda one: one["images"], lambda value: NONE if value is None else f"{value:,.0f}"),
        row("failed", lambda one: one["failed"], _percent),
        *(
            row(f"failed: {code}", lambda one, code=code: one["failures"].get(code, 0.0), _percent)
            for code in night.figures["failures"]
        ),
        row("confidence", lambda one: one["confidence"], _figure),
        row("megapixels", lambda one: one["megapixels"], _figure),
    ]
    words = (
        "Of the images that the night labelled, beside the last night before and the median of up to 14; the line: "
        "night by night."
    )
    return Table("Beside earlier nights", ("figure", *_BESIDE), rows, words)


_BESIDE = ("tonight", "last night", "usual", "nights")


def _beside(night: NightContents, get: Callable[[NightFigures], float | None], show: Show) -> list[Cell]:
    """A figure tonight, the night before, as usual, and as a line."""
    shown = [Cell(show(get(one) if one else None)) for one in (night.figures, night.last, night.usual)]
    return [*shown, _trend([get(one) for one in (*night.earlier, night.figures)])]


def _classes(night: NightContents) -> Table:
    return _shares("Classes' shares of the pixels", night, lambda one: one["pixels"])


def _objects(night: NightContents) -> Table:
    return _shares("Classes' shares of the objects", night, lambda one: one["objects"])


def _shares(heading: str, night: NightContents, get: Callable[[NightFigures], Mapping[str, float]]) -> Table:
    now = get(night.figures)
    last, usual = (get(one) if one else {} for one in (night.last, night.usual))
    names = [name for name in dict.fromkeys([*now, *usual]) if now.get(name) or usual.get(name)]
    names.sort(key=lambda name: -max(now.get(name, 0.0), usual.get(name, 0.0)))
    rows = [
        [
            Cell(name),
            *_beside(night, lambda one, name=name: get(one).get(name, 0.0), _percent),
            Cell(_percent(drift(now, last, name))),
            Cell(_percent(drift(now, usual, name))),
        ]
        for name in names[:_CLASSES]
    ]
    return Table(heading, ("class", *_BESIDE, "drift since last", "drift"), rows)


def _disagreements(night: NightContents) -> Table:
    by_class = sorted(night.figures["disagreements"].items(), key=lambda one: (-one[1], one[0]))
    rows = [
        [Cell("all classes"), *_beside(night, lambda one: one["disagreement"], _percent)],
        *(
            [Cell(name), *_beside(night, lambda one, name=name: one["disagreements"].get(name), _percent)]
            for name, _ in by_class[:_CLASSES]
        ),
    ]
    words = (
        f"Of {night.figures['compared']:,} images that had masks of the same bytes before: one minus the intersection "
        "over the union of the masks then and now, by pixels of all these images."
    )
    return Table("Beside their earlier masks", ("class", *_BESIDE), rows, words)


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
