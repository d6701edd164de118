"""Scores of parts of the images: a joined table, the images' sizes and groups of classes in, rows out.

table (.csv, .parquet) with image_id ─┐
width × height ───────────────────────┼─→ value of each image in each column → Scores, cut → a row for each value
groups of classes ────────────────────┘
"""

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from segjobs.config import BootstrapConfig, SlicesConfig, digest, nearest
from segjobs.config.evaluate import COLUMN
from segjobs.errors import ConfigError
from segjobs.evaluation.estimates import figures_of
from segjobs.evaluation.pairing import Pairing
from segjobs.evaluation.report_types import Figure, Slice
from segjobs.evaluation.scores import Scores, all_matches, class_counts, column_of
from segjobs.labels.splits import group_key
from segjobs.manifest.schema import Category
from segjobs.metrics.average_precision import accumulate
from segjobs.metrics.bootstrap import Estimates, Resampling, estimate, mean, semantic_figures
from segjobs.metrics.counts import ClassCounts, gather
from segjobs.storage import Storage
from segjobs.text import quoted

_MOST_VALUES = 100
_SIZE, _GROUP = "image size", "class group"
_SIZES = ((640 * 480, "small (to 0.3 MP)"), (1920 * 1080, "medium (to 2 MP)"))  # pixels, inclusive
_LARGE = "large (over 2 MP)"
_NO_ROW = "(not in the table)"


@dataclass(frozen=True)
class Slices:
    """``values``: column → image_id → value, of the joined table. ``groups``: name → class indices.

    ``units``: image_id → value of the column by which images are drawn together, where ``bootstrap.group`` names one.
    """

    size: bool
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])
    digest: str = ""
    units: Mapping[str, str] | None = None

    def grouped(self, image_ids: Sequence[str], rule: str | None) -> np.ndarray | None:
        """``bootstrap.group`` of each image as a number from 0, int64 (N,); None where each is its own."""
        if rule is None:
            return None
        units = self.units
        keys = [group_key(i, rule) if units is None else units.get(i, i) for i in image_ids]
        return np.unique(np.array(keys, object), return_inverse=True)[1].astype(np.int64)

    def rows(self, scores: Scores, pairing: Pairing, estimates: Estimates, settings: BootstrapConfig) -> list[Slice]:
        """A row for every value of every column, and for every group of classes; ``estimates`` are the set's."""
        return [*self._of_images(scores, pairing, settings), *self._of_classes(estimates, settings)]

    def _of_images(self, scores: Scores, pairing: Pairing, settings: BootstrapConfig) -> Iterator[Slice]:
        images = column_of(scores, ("image_id", "width", "height"))
        columns = {
            name: [values.get(i, _NO_ROW) for i in images["image_id"].to_pylist()]
            for name, values in self.values.items()
        }
        if self.size:
            sizes = [_size(row["width"] * row["height"]) for row in images.select(["width", "height"]).to_pylist()]
            if len(set(sizes)) > 1:
                columns[_SIZE] = sizes
        if not columns:
            return
        counts = _cut(class_counts(scores, overlapping=pairing.overlapping), columns)
        kind = pairing.kinds[0]
        matches = all_matches(scores, f"{kind}_matches") if pairing.has_detections else None
        groups = self.grouped(images["image_id"].to_pylist(), settings.group)
        resampling = Resampling(settings.resamples, settings.seed)
        for (column, value), blocks in sorted(counts.items()):
            kept = np.array([one == value for one in columns[column]])
            own = None if groups is None else np.unique(groups[kept], return_inverse=True)[1]
            estimates = estimate(gather(blocks, groups=own), resampling, semantic_figures)
            figures = dict(figures_of(estimates, confidence=settings.confidence).of_set)
            if matches is not None:
                precision = accumulate(matches.select(kept)).figures
                values = {f"{kind}_{name}": precision[name] for name in ("AP", "AP50")}
                figures |= {name: Figure(value=score, low=None, high=None) for name, score in values.items()}
            yield Slice(column=column, value=value, images=int(kept.sum()), scores=figures)

    def _of_classes(self, estimates: Estimates, settings: BootstrapConfig) -> Iterator[Slice]:
        for name, indices in self.groups.items():
            of_group = Estimates(
                {"mean_iou": mean(estimates.values["iou"][indices])},
                {"mean_iou": mean(estimates.samples["iou"][:, indices])},
            )
            figures = figures_of(of_group, confidence=settings.confidence).of_set
            yield Slice(column=_GROUP, value=name, images=None, scores=dict(figures))


def _cut(
    blocks: Iterable[ClassCounts], columns: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], list[ClassCounts]]:
    """Blocks of images → those of each value of each column, by column and value."""
    found: dict[tuple[str, str], list[ClassCounts]] = defaultdict(list)
    start = 0
    for block in blocks:
        for column, values in columns.items():
            here = np.array(values[start : start + block.units], object)
            for value in sorted(set(here)):
                found[column, value].append(block.select(here == value))
        start += block.units
    return found


def _size(pixels: int) -> str:
    return next((name for limit, name in _SIZES if pixels <= limit), _LARGE)


def open_slices(
    config: SlicesConfig, storage: Storage, categories: Sequence[Category], group: str | None = None
) -> Slices:
    """Read the joined table and match the groups' classes. Raises ConfigError with every problem.

    ``group``: ``bootstrap.group``, which may name a column.
    """
    problems: list[str] = []
    index = {category.name: number for number, category in enumerate(categories)}
    for group, names in config.groups.items():
        problems += [
            f"slices.groups.{group}: {name!r} is no class of the truth; {nearest(name, index)}"
            for name in names
            if name not in index
        ]
    values: dict[str, dict[str, str]] = {}
    column = group.removeprefix(COLUMN) if group is not None and group.startswith(COLUMN) else None
    units: dict[str, str] | None = None
    if config.uri is not None:
        table = _read_table(storage, config.uri)
        if "image_id" not in table.column_names:
            raise ConfigError(f"slices.uri: {config.uri}: no column 'image_id'; it has {quoted(table.column_names)}")
        known: list[str] = [name for name in table.column_names if name != "image_id"]
        image_ids = table["image_id"].to_pylist()
        if column in known:
            units = dict(zip(image_ids, map(str, table[column].to_pylist()), strict=True))
        elif column is not None:
            problems.append(f"bootstrap.group: {column!r} is no column of {config.uri}; {nearest(column, known)}")
        for name in config.columns if config.columns is not None else [one for one in known if one != column]:
            if name not in known:
                problems.append(f"slices.columns: {name!r} is no column of the table; {nearest(name, known)}")
                continue
            texts = [str(value) for value in table[name].to_pylist()]
            if len(set(texts)) > _MOST_VALUES:
                problems.append(
                    f"slices.columns: {name!r} has {len(set(texts))} values; name columns of at most {_MOST_VALUES}"
                )
            values[name] = dict(zip(image_ids, texts, strict=True))
    if problems:
        raise ConfigError(*problems)
    groups = {name: [index[one] for one in names] for name, names in config.groups.items()}
    whole = (config.size, values, groups, *(() if units is None else (units,)))
    return Slices(config.size, values, groups, digest(*whole), units)


def _read_table(storage: Storage, uri: str) -> pa.Table:
    try:
        data = storage.read(uri)
    except OSError as error:
        raise ConfigError(f"slices.uri: {uri}: cannot be read: {error.strerror or error}") from None
    try:
        if uri.lower().endswith(".parquet"):
            return pq.read_table(pa.BufferReader(data))
        return pyarrow.csv.read_csv(io.BytesIO(data))
    except pa.ArrowException as error:
        raise ConfigError(f"slices.uri: {uri}: not readable as a table: {error}") from None
