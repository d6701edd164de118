"""A night's run looked at: its parts in; figures, examples of failures and rows to draw out, and their pictures.

One part is in memory at a time; of the images a few are kept: new ones drawn by their ids' digests, and those of the
least confidence.
"""

import hashlib
import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from segjobs.errors import ItemError, ManifestError
from segjobs.manifest.parts import footer_of, read_part
from segjobs.manifest.run_info import Run
from segjobs.manifest.schema import Category
from segjobs.manifest.statistics import Counts, add_counts, count_rows
from segjobs.metrics.drift import NightFigures, figures_of
from segjobs.page.night import NightCard
from segjobs.page.pictures import data_uri, draw_row, to_webp
from segjobs.storage import Storage

_NEW, _UNSURE = 12, 8
_THUMB_PX = 320
Row = Mapping[str, Any]


@dataclass
class Look:
    """What a night's run shows. ``new``, ``unsure``: rows to draw."""

    figures: NightFigures
    categories: tuple[Category, ...] = ()
    new: list[Row] = field(default_factory=list[Row])
    unsure: list[Row] = field(default_factory=list[Row])


def look_at(storage: Storage, run: Run, new: Collection[str]) -> Look:
    """``new``: image_ids of which some are drawn. The same run gives the same look."""
    counts, confidences = Counts(), list[float]()
    some: list[Row] = []
    unsure: list[Row] = []
    for part in run.parts:
        table = read_part(storage, run, part).replace_schema_metadata()
        counts = add_counts(counts, count_rows(table))
        rows = [row for row in table.to_pylist() if row["status"] == "ok"]
        confidences += [row["confidence"] for row in rows if row["confidence"] is not None]
        some = heapq.nsmallest(_NEW, [*some, *(row for row in rows if row["image_id"] in new)], key=_draw)
        known = (row for row in rows if row["confidence"] is not None)
        unsure = heapq.nsmallest(_UNSURE, [*unsure, *known], key=lambda row: (row["confidence"], row["image_id"]))
    categories = footer_of(run).categories
    return Look(figures_of(counts, run.info.failures, confidences, categories), categories, some, unsure)


def nothing() -> Look:
    """Of a night that labelled nothing."""
    return Look(figures_of(Counts(), {}, [], ()))


def _draw(row: Row) -> str:
    return hashlib.sha256(row["image_id"].encode()).hexdigest()


def cards_of(storage: Storage, rows: Iterable[Row], categories: Collection[Category]) -> list[NightCard]:
    """Pictures of rows with their masks; of an image that cannot be had any more, the masks alone."""
    cards = []
    for row in rows:
        try:
            picture = draw_row(row, tuple(categories), storage=storage)
        except (ItemError, ManifestError, ValueError):
            picture = draw_row(row, tuple(categories), style="map")
        picture.thumbnail((_THUMB_PX, _THUMB_PX))
        note = "" if row["confidence"] is None else f" · {row['confidence']:.3f}"
        cards.append(NightCard(row["image_id"], data_uri(to_webp(picture)), note))
    return cards
