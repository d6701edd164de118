"""Stages of a few lines, for tests of the runs that every job is."""

import pyarrow as pa

from segjobs.errors import ItemError
from segjobs.jobs.engine.executor import Actors, Stage, Tasks, Work, Worker
from segjobs.jobs.engine.shards import TIMES_SCHEMA
from segjobs.manifest.rows import Author, failed_row, ok_row, planned_items, rows_table

TIMES_MS = {"read_ms": 1500.0, "decode_ms": 0.0, "forward_ms": 250.0, "encode_ms": 0.0}


def stage_of(work: Work, name: str = "labelling", place: Tasks | Actors | None = None) -> Stage:
    """A stage that does ``work``, on half a CPU."""
    return Stage(name, lambda _: Worker(work, work), place or Tasks(cpus=0.5))


def labelled(items: pa.Table) -> pa.Table:
    """Planned items → rows, in the other order; images whose name ends in 5 are failed."""
    rows = []
    for item in planned_items(items):
        row = ok_row(item, Author("run"), sha256="00", size_hw=(1, 2), segments=[])
        if item.path.endswith("5"):
            row = failed_row(item, Author("run"), ItemError("TRUNCATED", f"{item.path} ends early"))
        rows.append({**row, **TIMES_MS})
    return rows_table(rows[::-1], TIMES_SCHEMA, items)
