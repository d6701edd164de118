"""Rows of a collection brought up to date: its files and what is to change in, the files that take their place out.

    files, by image_id  │ a        │ f        │ p      …
    rows, marks         │     b  c │          │      z …   ─→ merge ─→ Replaced (a file, the tables that follow it) …

Each file owns the image_ids from its first one up to the next file's, so that a file is rewritten only where something
falls into its range, and one file is in memory at a time, however large the table is. What comes out lies by image_id
again, in files of about the same size.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segjobs.manifest.schema import SOURCE_TYPE
from segjobs.manifest.table_files import TableFile

MARK_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        ("uri", pa.string()),  # null keeps the row's
        ("source", SOURCE_TYPE),  # null keeps the row's
        ("gone_at", pa.timestamp("us", tz="UTC")),  # null: the image is there
    ]
)
"""What changes of a row without its masks: the fingerprint of the same bytes, or that the image is gone."""
FILE_BYTES = 32 * 2**20
"""Of a file's rows in memory; on disk, compressed, about two thirds of it."""


@dataclass(frozen=True)
class Changes:
    """``rows()``: tables of ``COLLECTION_SCHEMA``, each image once, in order of image_id over all of them; it is called
    for each attempt. ``marks``: ``MARK_SCHEMA``, in order of image_id; they hold of ``rows`` too, where the
    table has files."""

    rows: Callable[[], Iterable[pa.Table]]
    marks: pa.Table


@dataclass(frozen=True)
class Replaced:
    """``old``: the file that goes; None where none does. ``tables``: what comes, one a file."""

    old: TableFile | None
    tables: Iterator[pa.Table]


def merge(
    files: Sequence[TableFile], read: Callable[[TableFile], pa.Table], changes: Changes, *, file_bytes: int = FILE_BYTES
) -> Iterator[Replaced]:
    """The files that something falls into, with what takes their place, in order; the others are not named.

    ``files``: sorted, their ranges of image_id apart. A row takes the place of an older one of its image, but no
    model's row that of a human's. Each ``tables`` must be used up before the next one is asked for.
    """
    rows, marks = _Rows(changes.rows()), changes.marks
    mark_ids: list[str] = marks["image_id"].to_pylist()
    done = 0
    for file, following in zip_longest(files, files[1:]):
        high: str | None = following.part.first_id if following else None
        end = len(mark_ids) if high is None else bisect_left(mark_ids, high)
        here, done = marks.slice(done, end - done), end
        first = rows.first_below(high)
        if first is None and not here.num_rows:
            continue
        behind = first is not None and first > file.part.last_id and not here.num_rows
        if behind and file.size_bytes > file_bytes // _LARGE:
            yield Replaced(None, cut(rows.below(high), file_bytes))
        else:
            yield Replaced(file, cut(_with_marks(_interleaved(read(file), rows.below(high)), here), file_bytes))
    if not files:
        yield Replaced(None, cut(rows.below(None), file_bytes))


_LARGE = 4
"""A file of a quarter of the bytes, compressed, is not rewritten for rows that lie behind it."""


class _Rows:
    """A stream of sorted tables, taken range by range."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._tables = iter(tables)
        self._rest: pa.Table | None = None

    def first_below(self, high: str | None) -> str | None:
        """The next image_id, if it is below ``high``."""
        while self._rest is None or not self._rest.num_rows:
            self._rest = next(self._tables, None)
            if self._rest is None:
                return None
        first: str = self._rest["image_id"][0].as_py()
        return first if high is None or first < high else None

    def below(self, high: str | None) -> Iterator[pa.Table]:
        """What is left below ``high``, table by table."""
        while self.first_below(high) is not None:
            table = self._rest
            assert table is not None, "first_below has looked"  # noqa: S101
            ids: list[str] = table["image_id"].to_pylist()
            end = len(ids) if high is None else bisect_left(ids, high)
            self._rest = table.slice(end)
            yield table.slice(0, end)


def _interleaved(old: pa.Table, new: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Both in order of image_id; of an image that is in both, the row that ``prevails``."""
    ids: list[str] = old["image_id"].to_pylist()
    done = 0
    for table in new:
        end = bisect_right(ids, table["image_id"][-1].as_py())
        yield _united(old.slice(done, end - done), table)
        done = end
    yield old.slice(done)


def _united(old: pa.Table, new: pa.Table) -> pa.Table:
    both = pa.concat_tables([old, new])
    found = pc.index_in(new["image_id"], value_set=old["image_id"].combine_chunks()).to_numpy().astype(float)
    rows = np.flatnonzero(~np.isnan(found))
    places = found[rows].astype(np.int64)
    keep = np.ones(both.num_rows, bool)
    wins = _prevail(new.take(pa.array(rows)), old.take(pa.array(places)))
    keep[np.where(wins, places, old.num_rows + rows)] = False
    kept = both.filter(pa.array(keep))
    return kept.take(pc.sort_indices(kept["image_id"]))


def _prevail(new: pa.Table, old: pa.Table) -> np.ndarray:
    """Which rows take the place of others of their images: the newest do, and humans' before models'. bool (N,)"""
    human, stands = (np.array([one == "human" for one in table["origin"].to_pylist()], bool) for table in (new, old))
    later, earlier = (np.array(table["labelled_at"].cast(pa.int64()).to_pylist(), np.int64) for table in (new, old))
    return np.where(human == stands, later >= earlier, human)


def _with_marks(tables: Iterable[pa.Table], marks: pa.Table) -> Iterator[pa.Table]:
    """The rows with what the marks say of them; a mark of no row, or of other bytes than the row's, says nothing."""
    for table in tables:
        found = pc.index_in(table["image_id"], value_set=marks["image_id"].combine_chunks())
        place = found.to_numpy(zero_copy_only=False).astype(float)
        chosen = np.flatnonzero(~np.isnan(place))
        if not chosen.size:
            yield table
            continue
        of_rows = marks.take(pa.array(place[chosen].astype(np.int64)))
        stated = pc.struct_field(of_rows["source"], "sha256").to_pylist()
        held = pc.struct_field(table["source"].take(pa.array(chosen)), "sha256").to_pylist()
        fits = np.array([one is None or one == other for one, other in zip(stated, held, strict=True)], bool)
        yield _marked(table, chosen[fits], of_rows.filter(pa.array(fits)))


def _marked(table: pa.Table, rows: np.ndarray, marks: pa.Table) -> pa.Table:
    """``marks``: one for each of ``rows``, positions in the table."""
    for name in ("uri", "source", "gone_at"):
        column = marks[name].cast(table.schema.field(name).type)
        says = np.ones(len(rows), bool) if name == "gone_at" else column.is_valid().to_numpy(zero_copy_only=False)
        taken = np.array(range(table.num_rows), np.int64)
        taken[rows[says]] = np.flatnonzero(says) + table.num_rows
        both = pa.chunked_array([*table[name].chunks, *column.chunks], table.schema.field(name).type)
        table = table.set_column(
            table.schema.get_field_index(name), table.schema.field(name), both.take(pa.array(taken))
        )
    return table


def cut(tables: Iterable[pa.Table], file_bytes: int = FILE_BYTES) -> Iterator[pa.Table]:
    """Sorted tables as files of about ``file_bytes`` in memory; none but a last one has less than half of it."""
    kept: list[pa.Table] = []
    size = 0
    for piece in chain.from_iterable(_pieces(table, file_bytes // 8) for table in tables):
        kept.append(piece)
        size += piece.nbytes
        if size > file_bytes * 3 // 2:
            file: list[pa.Table] = []
            taken = 0
            while taken < file_bytes and len(kept) > 1:
                taken += kept[0].nbytes
                file.append(kept.pop(0))
            size -= taken
            yield pa.concat_tables(file)
    if size or any(piece.num_rows for piece in kept):
        yield pa.concat_tables(kept)


def _pieces(table: pa.Table, most_bytes: int) -> Iterator[pa.Table]:
    if table.num_rows:
        step = max(1, int(table.num_rows * most_bytes / max(table.nbytes, 1)))
        for start in range(0, table.num_rows, step):
            yield table.slice(start, step)
