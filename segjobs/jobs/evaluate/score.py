"""Score images: two sides of an evaluation in, one row of counts per image out, in parts that can be resumed.

    run.json × 2 → ranges of image_id → tasks: join, count → scores/part-00012.parquet

A task holds the masks of its range (``evaluation/pairing.py``) and nothing more. What it publishes are counts,
from which every score, convention, slice and interval follows without another look at a mask.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segjobs.evaluation.pairing import SCORES_SCHEMA, Pairing, Range
from segjobs.evaluation.score_image import _foreign_row, _score_image
from segjobs.jobs.engine.ray_data import dataset_of, map_blocks, rows_of
from segjobs.manifest.parts import PartInfo, Run, list_parts, part_uri, read_part
from segjobs.storage import Storage

_COLUMNS = ("image_id", "uri", "width", "height", "status", "error", "segments", "confidence")


def score(pairing: Pairing, spans: Sequence[Range], uri: str) -> Iterator[tuple[int, int]]:
    """Publish the scores of every range below ``uri``, but for those that stand there.

    Yields (number of images ok, number of others) as ranges end. Raises the SegjobsError of a task.
    """
    standing = list_parts(pairing.storage, uri, "scores")
    pending = [
        pa.table({"number": [number], "range": [json.dumps(asdict(span))]})
        for number, span in enumerate(spans)
        if number not in standing
    ]
    if not pending:
        return
    publish = partial(score_range, pairing=pairing, uri=uri)
    for row in rows_of(map_blocks(dataset_of(pending), publish)):
        yield row["ok"], row["others"]


def read_scores(storage: Storage, uri: str, count: int, *, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The ``count`` parts of scores below ``uri`` in order of image_id, one in memory at a time."""
    for number in range(count):
        data = storage.read(part_uri(uri, number, "scores"))
        yield pq.read_table(pa.BufferReader(data), columns=list(columns) if columns else None)


# --- the task ----------------------------------------------------------------------------------


def score_range(block: pa.Table, *, pairing: Pairing, uri: str) -> pa.Table:
    """Task: one range (JSON) → its part of ``SCORES_SCHEMA``, sorted by image_id, and how many are ok."""
    number, text = block["number"][0].as_py(), block["range"][0].as_py()
    rows = pa.Table.from_pylist(score_rows(Range.from_json(text), pairing), schema=SCORES_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", row_group_size=1000)
    pairing.storage.put_if_absent(part_uri(uri, number, "scores"), sink.getvalue().to_pybytes())
    statuses = rows["status"].to_pylist()
    ok, extra = statuses.count("ok"), statuses.count("extra")
    return pa.table({"ok": [ok], "others": [len(statuses) - ok - extra]})


def score_rows(span: Range, pairing: Pairing) -> list[dict[str, Any]]:
    """The rows of one range, of every image that either side has."""
    truth = dict(_rows_in(pairing.storage, pairing.truth.run, span.truth, span))
    if span.foreign is None:
        predicted = dict(_rows_in(pairing.storage, pairing.predictions.run, span.predictions, span))
    else:
        predicted = {
            image_id: _foreign_row(text, truth.get(image_id), pairing) for image_id, text in span.foreign.items()
        }
    return [_score_image(key, truth.get(key), predicted.get(key), pairing) for key in sorted({*truth, *predicted})]


def _rows_in(
    storage: Storage, run: Run | None, parts: Iterable[PartInfo], span: Range
) -> Iterator[tuple[str, dict[str, Any]]]:
    assert run is not None  # noqa: S101
    for part in parts:
        for row in read_part(storage, run, part, columns=_COLUMNS).to_pylist():
            if span.holds(row["image_id"]):
                yield row["image_id"], row
