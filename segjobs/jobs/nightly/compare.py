"""A listing compared with a collection: which images came, changed and went; the changes and their counts out.

    plan of all that is listed ┐
                               ├→ compare, a file of the table at a time → Compared
    a version of the table     ┤
    rows that wait for a look  ┘

| change | | what becomes of it |
|---|---|---|
| new | no row, or a gone one of other bytes | labelled |
| changed | other bytes | labelled |
| touched | another time, etag or place, the same bytes; or back again | its row's fingerprint is renewed |
| retry | failed before, with a code of ``retry.codes`` | labelled |
| stale | masks of another model or other processing | labelled, by policy and budget, the oldest first |
| waiting | as a night labelled it that its gate holds | told |
| held | a person's masks, whose image has other bytes now | told |
| gone | no longer listed | marked |
| same | none of these | nothing |
"""

import heapq
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest
from typing import Any

import pyarrow as pa

from segjobs.manifest.collection import Collection
from segjobs.manifest.held_nights import WAITING_SCHEMA
from segjobs.manifest.nights import CHANGES_SCHEMA, WAITING
from segjobs.manifest.plan import Plan
from segjobs.manifest.rows import planned_items
from segjobs.manifest.table_files import TableFile
from segjobs.storage import FileInfo
from segjobs.storage.uris import microseconds

_COLUMNS = ("image_id", "uri", "source", "error.code", "model", "processing", "origin", "run_id", "labelled_at",
            "gone_at")  # fmt: skip
_THREADS = 32  # files read at once, of which only the time or the place is another
_AT_ONCE = 4096
_NONE_WAITING = WAITING_SCHEMA.empty_table()


@dataclass(frozen=True)
class Policy:
    """What a night labels. ``model``, ``processing``: the columns' values of tonight's rows.

    ``tries``: run_id → image_id → how often it was tried again before. ``budget``: of stale images; None takes all.
    """

    model: str
    processing: str
    retry_codes: frozenset[str]
    retry_times: int
    relabel: bool
    budget: int | None
    mark_gone: bool
    tries: Callable[[str], Mapping[str, int]]


@dataclass
class Compared:
    """``changes``: rows of ``CHANGES_SCHEMA``. ``counts``: change → images, ``same`` and ``stale_kept`` too.

    ``newest``: the latest ``labelled_at`` of the table's rows.
    """

    changes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    counts: Counter[str] = field(default_factory=Counter[str])
    newest: datetime | None = None

    def add(self, change: str, file: FileInfo, *, sha256: str | None = None, tries: int = 0) -> None:
        self.counts[change] += 1
        moment = file.mtime_us
        self.changes.append(
            {"image_id": file.path, "change": change, "uri": file.uri, "size": file.size, "mtime": moment,
             "etag": file.etag, "sha256": sha256, "tries": tries}
        )  # fmt: skip

    def table(self) -> pa.Table:
        """The changes by image_id."""
        columns = {name: [one[name] for one in self.changes] for name in CHANGES_SCHEMA.names}
        arrays = [
            pa.array(values, pa.int64()).cast(CHANGES_SCHEMA.field(name).type)
            if name == "mtime"
            else pa.array(values, CHANGES_SCHEMA.field(name).type)
            for name, values in columns.items()
        ]
        return pa.Table.from_arrays(arrays, schema=CHANGES_SCHEMA).sort_by("image_id")


@dataclass(frozen=True)
class _Stale:
    """An image whose masks are of another model or other settings; ``touched``: and whose fingerprint is another."""

    labelled_at: datetime
    file: FileInfo
    sha256: str | None
    touched: bool

    def __lt__(self, other: "_Stale") -> bool:
        return (self.labelled_at, self.file.path) < (other.labelled_at, other.file.path)


def compare(
    plan: Plan,
    now: Collection | None,
    policy: Policy,
    digest_of: Callable[[FileInfo], str | None],
    waiting: pa.Table = _NONE_WAITING,
) -> Compared:
    """``digest_of``: SHA-256 of a file's bytes, None where they cannot be read; asked where only that can tell.

    ``waiting``: rows of held nights that the policy would make again (``held_nights.rows_waiting``).
    """
    found, stale = Compared(), list[_Stale]()
    ids, waiting_ids = (table["image_id"].to_pylist() for table in (plan.items, waiting))
    files = now.files if now is not None else ()
    done = met = 0
    for file, following in zip_longest(files or (None,), files[1:]):
        end, last = len(ids), len(waiting_ids)
        if following is not None:
            end, last = (bisect_left(some, following.part.first_id) for some in (ids, waiting_ids))
        listed = planned_items(plan.items.slice(done, end - done))
        rows = {} if now is None or file is None else _rows_of(now, file)
        _lay_over(rows, waiting.slice(met, last - met).to_pylist(), policy)
        done, met = end, last
        moments = [found.newest, *(row["labelled_at"] for row in rows.values())]
        found.newest = max((one for one in moments if one is not None), default=None)
        _compare_range(listed, rows, policy, digest_of, found, stale)
    _choose_stale(stale, policy, found)
    return found


def _rows_of(now: Collection, file: TableFile) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in now.columns(file, _COLUMNS).to_pylist()}


def _lay_over(rows: dict[str, dict[str, Any]], waiting: Sequence[dict[str, Any]], policy: Policy) -> None:
    """Put rows that wait, the older nights' first, in the place of the table's older ones; a person's rows stay.

    ``waits``: the change that the image is without them.
    """
    for row in waiting:
        old = rows.get(row["image_id"])
        newer = old is not None and (old["run_id"] == row["run_id"] or old["labelled_at"] > row["labelled_at"])
        if old is not None and (newer or old["origin"] == "human"):
            continue
        gone_at = old["gone_at"] if old else None
        waits = old["waits"] if old and "waits" in old else "new" if old is None or gone_at else "changed"
        about = {"model": policy.model, "processing": policy.processing, "origin": "model"}
        rows[row["image_id"]] = {**row, **about, "gone_at": gone_at, "waits": waits}


def _compare_range(
    listed: Sequence[FileInfo],
    rows: dict[str, dict[str, Any]],
    policy: Policy,
    digest_of: Callable[[FileInfo], str | None],
    found: Compared,
    stale: list[_Stale],
) -> None:
    doubtful: list[FileInfo] = []
    for file in listed:
        row = rows.get(file.path)
        if row is None:
            found.add("new", file)
        elif _print_of(row) == (file.uri, file.size, file.mtime_us, file.etag):
            _settle(file, row, policy, found, stale, touched=row["gone_at"] is not None)
        elif (row["source"] or {}).get("sha256") is None or row["source"]["size"] != file.size:
            _changed(file, row, found)
        else:
            doubtful.append(file)
    for file, sha256 in _digests(doubtful, digest_of):
        row = rows[file.path]
        if sha256 == row["source"]["sha256"]:
            _settle(file, row, policy, found, stale, touched=True)
        else:
            _changed(file, row, found)
    listed_ids = {file.path for file in listed}
    for image_id, row in rows.items():
        # What only a held night's run has is in no version: there is nothing to mark.
        if image_id not in listed_ids and row["gone_at"] is None and row.get("waits") != "new":
            if policy.mark_gone:
                found.add("gone", FileInfo(row["uri"], image_id, 0, 0, ""))
            else:
                found.counts["same"] += 1


def _print_of(row: Mapping[str, Any]) -> tuple[str, int, int, str]:
    source = row["source"] or {}
    if source.get("mtime") is None:  # listed, and not there
        return row["uri"], -1, 0, ""
    return row["uri"], source["size"], microseconds(source["mtime"]), source["etag"] or ""


def _changed(file: FileInfo, row: Mapping[str, Any], found: Compared) -> None:
    if row["origin"] == "human":
        found.add("held", file)
    else:
        found.add(row.get("waits") or ("new" if row["gone_at"] is not None else "changed"), file)


def _settle(
    file: FileInfo, row: Mapping[str, Any], policy: Policy, found: Compared, stale: list[_Stale], *, touched: bool
) -> None:
    """An image of the bytes that its row is of."""
    sha256 = (row["source"] or {}).get("sha256")
    code = row["error"]["code"] if row["error"] else None
    if row["origin"] != "human":
        if code in policy.retry_codes:
            tries = policy.tries(row["run_id"]).get(file.path, 0)
            if tries < policy.retry_times:
                found.add("retry", file, tries=tries + 1)
                return
        if (row["model"], row["processing"]) != (policy.model, policy.processing):
            stale.append(_Stale(row["labelled_at"], file, sha256, touched))
            return
    if "waits" in row:
        found.add(WAITING, file)
        return
    _unlabelled(file, sha256, found, touched=touched, otherwise="same")


def _unlabelled(file: FileInfo, sha256: str | None, found: Compared, *, touched: bool, otherwise: str) -> None:
    if touched:
        found.add("touched", file, sha256=sha256)
    else:
        found.counts[otherwise] += 1


def _choose_stale(stale: list[_Stale], policy: Policy, found: Compared) -> None:
    chosen: set[str] = set()
    if policy.relabel:
        oldest = stale if policy.budget is None else heapq.nsmallest(policy.budget, stale)
        chosen = {one.file.path for one in oldest}
    for one in stale:
        if one.file.path in chosen:
            found.add("stale", one.file)
        else:
            _unlabelled(one.file, one.sha256, found, touched=one.touched, otherwise="stale_kept")


def _digests(
    files: Sequence[FileInfo], digest_of: Callable[[FileInfo], str | None]
) -> Iterable[tuple[FileInfo, str | None]]:
    with ThreadPoolExecutor(_THREADS) as threads:
        for start in range(0, len(files), _AT_ONCE):
            some = files[start : start + _AT_ONCE]
            yield from zip(some, threads.map(digest_of, some), strict=True)
