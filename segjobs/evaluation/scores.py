"""Read an evaluation's counts back: parts of scores in, arrays that add up out.

    scores/part-*.parquet → Scores → one pass for each kind of count → ClassCounts, Matches, …

Every count is an integer and images stand in the order of their image_id, so what is collected is the
same for any number of workers and any cut into parts. A pass reads only the columns that it needs and
holds one part; ``gather`` bounds what it keeps. Detections are the exception: 40 bytes for each.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from segjobs.evaluation.pairing import UNION_COUNTS
from segjobs.evaluation.report_types import Status
from segjobs.evaluation.scored_parts import read_scores, scored_digest
from segjobs.manifest.schema import Category
from segjobs.metrics.average_precision import DetectionMatches, join
from segjobs.metrics.boundary import BOUNDARY_FIELDS
from segjobs.metrics.confusion import VOID
from segjobs.metrics.conventions import full_matrix
from segjobs.metrics.counts import ClassCounts, from_confusion, from_rows
from segjobs.metrics.panoptic import panoptic_values
from segjobs.storage import Storage

TAKES_PART: tuple[Status, ...] = ("ok", "missing", "failed")
"""Statuses of the images that the truth has; without a prediction they count as wrong, or not at all."""


@dataclass
class Scores:
    """The parts of one evaluation's scores, seen through what is asked: some images, some classes.

    ``ignored``: class indices that are not scored. ``kept``: by part, which of its rows take part, bool (rows,).
    """

    storage: Storage
    uri: str
    parts: int
    categories: tuple[Category, ...]
    ignored: frozenset[int] = frozenset()
    kept: list[np.ndarray] = field(default_factory=list[np.ndarray])

    def whole(self, *columns: str) -> Iterator[pa.Table]:
        """Every row, part by part."""
        digest = scored_digest(self.storage, self.uri)
        for number in range(self.parts):
            yield read_scores(self.storage, self.uri, number, digest=digest, columns=columns)

    def tables(self, *columns: str) -> Iterator[pa.Table]:
        """The rows that take part, part by part."""
        for table, kept in zip(self.whole(*columns), self.kept, strict=True):
            yield table.filter(pa.array(kept))

    def index_of(self, ids: pa.Array) -> np.ndarray:
        """Category ids → class indices, int64; ``VOID`` for null and for an ignored class."""
        known = np.array([category.id for category in self.categories], np.int64)
        order = np.argsort(known)
        found = np.asarray(ids.fill_null(-1), np.int64)
        place = np.searchsorted(known[order], found).clip(max=max(0, known.size - 1))
        index = order[place] if known.size else np.full(found.size, VOID, np.int64)
        return np.where((found < 0) | np.isin(index, list(self.ignored)), VOID, index)


def keep(sides: Sequence[Scores], *, skip: bool) -> None:
    """Choose the rows that take part, the same images on every side.

    The images of the truth; with ``skip`` only those that every side has a good prediction of.
    """
    takes_part = ("ok",) if skip else TAKES_PART
    for side in sides:
        side.kept = []
    for tables in zip(*(side.whole("image_id", "status") for side in sides), strict=True):
        common: set[str] | None = None
        for table in tables:
            statuses = zip(table["image_id"].to_pylist(), table["status"].to_pylist(), strict=True)
            ids = {image_id for image_id, status in statuses if status in takes_part}
            common = ids if common is None else common & ids
        for side, table in zip(sides, tables, strict=True):
            side.kept.append(np.array([i in (common or ()) for i in table["image_id"].to_pylist()], bool))


@dataclass
class Failed:
    """Images that failed with one code: how many, and one of them with its message."""

    images: int
    image_id: str
    message: str


@dataclass
class Census:
    """Which images there are: how many of each status, some examples, and how many segments of each class.

    ``failures``: by status and code, of predictions (``failed``) and of truth (``no_truth``).
    ``objects`` and ``images``: int64 (C, 2), segments and images that have them, in the truth and predicted.
    """

    statuses: Counter[Status]
    examples: dict[Status, list[str]]
    objects: np.ndarray
    images: np.ndarray
    failures: dict[tuple[Status, str], Failed] = field(default_factory=dict[tuple[Status, str], Failed])


def take_census(scores: Scores, examples: int) -> Census:
    """Count every image of either manifest, whether it takes part or not."""
    classes = len(scores.categories)
    found = Census(Counter(), {}, np.zeros((classes, 2), np.int64), np.zeros((classes, 2), np.int64))
    for table in scores.whole("image_id", "status", "message", "objects"):
        statuses: list[Status] = table["status"].to_pylist()
        found.statuses.update(statuses)
        rows = zip(table["image_id"].to_pylist(), statuses, table["message"].to_pylist(), strict=True)
        for image_id, status, message in rows:
            if status != "ok" and len(found.examples.setdefault(status, [])) < examples:
                found.examples[status].append(image_id)
            if status in ("failed", "no_truth"):
                code, _, words = message.partition(": ")
                found.failures.setdefault((status, code), Failed(0, image_id, words)).images += 1
        _, entries = flatten(table["objects"])
        index = scores.index_of(entries.field("category_id"))
        scored = index != VOID
        numbers = _fields(entries, ("truth", "predicted"))
        np.add.at(found.objects, index[scored], numbers[scored])
        np.add.at(found.images, index[scored], (numbers[scored] > 0).astype(np.int64))
    return found


def flatten(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.StructArray]:
    """A column of lists of structs → the row of each entry, int64, and the entries."""
    lists: pa.ListArray = column.combine_chunks()
    rows = lists.value_parent_indices().to_numpy(zero_copy_only=False).astype(np.int64)
    return rows, lists.flatten()


# --- blocks: a part → counts of its images ------------------------------------------------------


def confusion_matrix(scores: Scores) -> np.ndarray:
    """The full confusion matrix of the images that take part, int64 (C + 1, C + 1) (``conventions.full_matrix``)."""
    classes = len(scores.categories)
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for table in scores.tables("confusion"):
        matrix += full_matrix(_confusion(scores, table)[1], classes)
    return matrix


def class_counts(scores: Scores, *, overlapping: bool) -> Iterator[ClassCounts]:
    """(correct, truth, predicted) pixels by image and class, F = 3; a block for each part."""
    classes = len(scores.categories)
    if overlapping:
        yield from _blocks(scores, "unions", lambda entries: _fields(entries, UNION_COUNTS))
        return
    for table in scores.tables("confusion"):
        image, confusion = _confusion(scores, table)
        yield from_confusion(confusion, image, images=table.num_rows, classes=classes)


def _confusion(scores: Scores, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The row of each cell, and the cells: int64 (K, 3) of class indices and pixels."""
    image, cells = flatten(table["confusion"])
    sides = [scores.index_of(cells.field(name)) for name in ("truth", "predicted")]
    return image, np.stack([*sides, np.asarray(cells.field("pixels"), np.int64)], axis=1)


def _blocks(scores: Scores, column: str, values_of: Callable[[pa.StructArray], np.ndarray]) -> Iterator[ClassCounts]:
    """A column of lists of structs with ``category_id``; ``values_of``: its entries → int64 (K, F)."""
    for table in scores.tables(column):
        image, entries = flatten(table[column])
        index = scores.index_of(entries.field("category_id"))
        scored, values = index != VOID, values_of(entries)
        yield from_rows(
            image[scored], index[scored], values[scored], units=table.num_rows, classes=len(scores.categories)
        )


def _fields(entries: pa.StructArray, names: Sequence[str]) -> np.ndarray:
    return np.stack([np.asarray(entries.field(name), np.int64) for name in names], axis=1)


def boundary_blocks(scores: Scores) -> Iterator[ClassCounts]:
    """Boundary counts by image and class (``boundary.BOUNDARY_FIELDS``); a block for each part."""
    return _blocks(scores, "boundary", lambda entries: _fields(entries, BOUNDARY_FIELDS))


def panoptic_blocks(scores: Scores) -> Iterator[ClassCounts]:
    """Matched and unmatched segments by image and class (``panoptic.panoptic_values``); a block for each part."""
    return _blocks(scores, "panoptic", lambda entries: panoptic_values(entries.to_pylist()))


def all_matches(scores: Scores, column: str) -> DetectionMatches:
    """Every detection and object of the images that take part."""
    ids = [category.id for category in scores.categories]
    tables = list(scores.tables(column, "number"))
    matches = join([DetectionMatches.from_column(table[column], ids) for table in tables])
    numbers = np.concatenate([np.asarray(table["number"].fill_null(-1), np.int64) for table in tables])
    matches = matches.ranked_by(numbers)
    ignored = list(scores.ignored)
    found, truth = (~np.isin(side, ignored) for side in (matches.category, matches.truth_category))
    return replace(
        matches,
        **{n: getattr(matches, n)[found] for n in ("image", "category", "score", "matched", "ignored")},
        **{n: getattr(matches, n)[truth] for n in ("truth_image", "truth_category", "objects")},
    )


def column_of(scores: Scores, names: Sequence[str]) -> pa.Table:
    """Small columns of every image that takes part, in order of image_id."""
    tables = list(scores.tables(*names))
    return pa.concat_tables(tables) if tables else pa.table({name: [] for name in names})
