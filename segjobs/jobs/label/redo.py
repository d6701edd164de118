"""Failed images tried again: a finished run in; what a new run takes of its rows as they are, and what it labels, out.

    items of a shard ─┬→ good in the finished run, the same file ─→ its row, as it is ─┬→ rows of the shard
                      └→ failed with a code to redo, changed, new ─→ the worker ───────┘

Nothing of the finished run is changed: what comes out is a run of its own, whole, at another output.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from segjobs.config import RedoConfig
from segjobs.errors import ConfigError
from segjobs.jobs.engine.executor import OnRow, Work, Worker
from segjobs.jobs.engine.shards import TIMES_SCHEMA
from segjobs.jobs.engine.standing import differences
from segjobs.jobs.engine.watchdog import OnStuck
from segjobs.manifest.parts import Run, open_run, read_part
from segjobs.manifest.rows import planned_items
from segjobs.manifest.schema import MANIFEST_SCHEMA
from segjobs.storage import Storage
from segjobs.storage.uris import microseconds


@dataclass(frozen=True)
class Redo:
    """The finished run, which failures are tried again, and of how many ``images``; pickles small."""

    storage: Storage
    uri: str
    run_id: str
    codes: tuple[str, ...]
    images: int

    @property
    def identity(self) -> dict[str, Any]:
        """What of it makes the new run another one."""
        return {"run_id": self.run_id, "codes": list(self.codes)}


def open_redo(config: RedoConfig, storage: Storage, identity: Mapping[str, Any]) -> Redo | None:
    """The run that the config names; None where it names none.

    ``identity``: the new run's, of model and settings. Raises ConfigError where the finished run's is another, or where
    nothing of it is to be tried again.
    """
    if config.uri is None:
        return None
    run = open_run(storage, config.uri)
    made = {key: value for key, value in run.info.identity.items() if key not in ("input", "redo")}
    lines = differences(made, identity, deep=True)
    if run.info.verb != "label":
        lines = [f"it was made by {run.info.verb}"]
    if lines:
        raise ConfigError(f"redo.uri: {config.uri} is not of this model and these settings: {'; '.join(lines)}")
    codes = tuple(sorted(run.info.failures if config.codes is None else set(config.codes)))
    count = sum(run.info.failures.get(code, 0) for code in codes)
    if not count:
        failed = ", ".join(f"{code} {number}" for code, number in run.info.failures.items()) or "none"
        wanted = f" with {', '.join(codes)}" if config.codes else ""
        raise ConfigError(f"redo.codes: {config.uri} has no failed image{wanted} (it has {failed})")
    return Redo(storage, config.uri, run.info.run_id, codes, count)


def redoing(make: Callable[[OnStuck], Worker], redo: Redo, report: OnStuck) -> Worker:
    """``make(report)``, which is given those items alone that have no row to take."""
    worker, run = make(report), open_run(redo.storage, redo.uri)
    taking = partial(_with_taken, redo=redo, run=run)

    def shown(items: pa.Table, on_row: OnRow) -> pa.Table:
        show = worker.shown
        return taking(items, worker.work if show is None else lambda rest: show(rest, on_row), on_row)

    return Worker(
        lambda items: taking(items, worker.work),
        lambda items: taking(items, worker.isolated),
        shown,
        proven=run.info.counts.ok > 0,
    )


def _with_taken(items: pa.Table, work: Work, on_row: OnRow = lambda row: None, *, redo: Redo, run: Run) -> pa.Table:
    taken = taken_rows(items, redo, run)
    for status in taken["status"].to_pylist():
        on_row({"status": status})
    known = set(taken["image_id"].to_pylist())
    rest = items.filter(pa.array([image_id not in known for image_id in items["image_id"].to_pylist()], pa.bool_()))
    if not rest.num_rows:
        return taken
    return pa.concat_tables([taken, work(rest)], promote_options="default")


def taken_rows(items: pa.Table, redo: Redo, run: Run) -> pa.Table:
    """Rows of the finished run, of those items whose file is the same and whose failure is not to be tried again."""
    planned = {file.path: (file.size, file.mtime_us, file.etag) for file in planned_items(items)}
    found = [MANIFEST_SCHEMA.empty_table()]
    for part in run.parts:
        if part.last_id >= min(planned) and part.first_id <= max(planned):
            rows = read_part(redo.storage, run, part).replace_schema_metadata()
            small = rows.select(["image_id", "source", "error"]).to_pylist()
            kept = [planned.get(row["image_id"]) == _print_of(row) and _code(row) not in redo.codes for row in small]
            found.append(rows.filter(pa.array(kept, pa.bool_())))
    taken = pa.concat_tables(found, promote_options="default")
    for field in TIMES_SCHEMA:
        taken = taken.append_column(field, pa.array([0.0] * taken.num_rows, field.type))
    for name in ("shard", "shard_key"):
        taken = taken.append_column(name, pa.array([items[name][0].as_py()] * taken.num_rows, items[name].type))
    return taken


def _print_of(row: Mapping[str, Any]) -> tuple[int, int, str]:
    """The fingerprint as the plan has it; of a file that was not there, that of one that is not."""
    source = row["source"]
    if source["mtime"] is None:
        return -1, 0, ""
    return source["size"], microseconds(source["mtime"]), source["etag"] or ""


def _code(row: Mapping[str, Any]) -> str | None:
    return row["error"] and row["error"]["code"]
