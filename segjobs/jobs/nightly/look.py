"""A night's run looked at: its parts in; figures, examples of failures and rows to draw out, and their pictures.

One part is in memory at a time; of the images a few are kept: new ones drawn by their ids' digests, those of the least
confidence, and of those that had masks before the ones whose masks are most unlike.
"""

import hashlib
import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from segjobs.errors import ItemError, ManifestError
from segjobs.jobs.nightly.earlier import Earlier
from segjobs.manifest.parts import footer_of, read_part
from segjobs.manifest.rows import segments_of
from segjobs.manifest.run_info import Run
from segjobs.manifest.schema import Category
from segjobs.manifest.statistics import Counts, add_counts, count_rows
from segjobs.metrics.disagreement import Overlap, class_areas, disagreement
from segjobs.metrics.drift import NightFigures, Relabelled, figures_of
from segjobs.page.night import NightCard
from segjobs.page.pictures import data_uri, draw_row, to_webp
from segjobs.storage import Storage

_NEW, _UNSURE, _CHANGED = 12, 8, 6
_THUMB_PX = 320
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Twice:
    """The rows of an image that was labelled again; ``disagreement``: of their masks, in [0, 1]."""

    before: Row
    now: Row
    disagreement: float

    def __lt__(self, other: "Twice") -> bool:
        return (-self.disagreement, self.now["image_id"]) < (-other.disagreement, other.now["image_id"])


@dataclass
class Look:
    """What a night's run shows. ``new``, ``unsure``: rows to draw; ``changed``: those whose masks changed most.

    ``categories_before``: the classes of the earlier masks.
    """

    figures: NightFigures
    categories: tuple[Category, ...] = ()
    categories_before: tuple[Category, ...] = ()
    new: list[Row] = field(default_factory=list[Row])
    unsure: list[Row] = field(default_factory=list[Row])
    changed: list[Twice] = field(default_factory=list[Twice])


def look_at(storage: Storage, run: Run, new: Collection[str], earlier: Earlier | None = None) -> Look:
    """``new``: image_ids of which some are drawn. The same run gives the same look."""
    counts, confidences, overlap = Counts(), list[float](), Overlap()
    some: list[Row] = []
    unsure: list[Row] = []
    changed: list[Twice] = []
    compared = 0
    for part in run.parts:
        table = read_part(storage, run, part).replace_schema_metadata()
        counts = add_counts(counts, count_rows(table))
        rows = [row for row in table.to_pylist() if row["status"] == "ok"]
        confidences += [row["confidence"] for row in rows if row["confidence"] is not None]
        some = heapq.nsmallest(_NEW, [*some, *(row for row in rows if row["image_id"] in new)], key=_draw)
        known = (row for row in rows if row["confidence"] is not None)
        unsure = heapq.nsmallest(_UNSURE, [*unsure, *known], key=lambda row: (row["confidence"], row["image_id"]))
        before = earlier.rows_of([row["image_id"] for row in rows]) if earlier else {}
        for row in rows:
            if row["image_id"] in before:
                twice, areas = _compared(before[row["image_id"]], row)
                overlap.add(areas)
                compared += 1
                changed = heapq.nsmallest(_CHANGED, [*changed, twice])
    again = Relabelled(compared + (earlier.lost if earlier else 0), compared, overlap)
    categories = footer_of(run).categories
    figures = figures_of(counts, run.info.failures, confidences, categories, again)
    return Look(
        figures,
        categories,
        earlier.categories if earlier else (),
        some,
        unsure,
        [one for one in changed if one.disagreement],
    )


def _compared(before: Row, now: Row) -> tuple[Twice, Overlap]:
    areas = class_areas(segments_of(before), segments_of(now))
    return Twice(before, now, disagreement(areas) or 0.0), areas


def nothing() -> Look:
    """Of a night that labelled nothing."""
    return Look(figures_of(Counts(), {}, [], ()))


def _draw(row: Row) -> str:
    return hashlib.sha256(row["image_id"].encode()).hexdigest()


def cards_of(storage: Storage, rows: Iterable[Row], categories: Collection[Category]) -> list[NightCard]:
    """Pictures of rows with their masks."""
    return [
        _card(storage, row, categories, "" if row["confidence"] is None else f" · {row['confidence']:.3f}")
        for row in rows
    ]


def cards_of_changed(
    storage: Storage, changed: Iterable[Twice], before: Collection[Category], now: Collection[Category]
) -> list[NightCard]:
    """Two pictures of each, with the masks of before and of now."""
    cards: list[NightCard] = []
    for one in changed:
        here = {**one.before, "uri": one.now["uri"]}  # the bytes are the same, and may lie elsewhere by now
        cards.append(_card(storage, here, before, " · before"))
        cards.append(_card(storage, one.now, now, f" · now, {one.disagreement:.1%} other"))
    return cards


def _card(storage: Storage, row: Row, categories: Collection[Category], note: str) -> NightCard:
    """Of an image that cannot be had any more, the masks alone."""
    try:
        picture = draw_row(row, tuple(categories), storage=storage)
    except (ItemError, ManifestError, ValueError):
        picture = draw_row(row, tuple(categories), style="map")
    picture.thumbnail((_THUMB_PX, _THUMB_PX))
    return NightCard(row["image_id"], data_uri(to_webp(picture)), note)
