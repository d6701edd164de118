"""Score images on the cluster: the ranges of an evaluation in, a task each, parts of counts that can be resumed out.

ranges of image_id → tasks: evaluation/score_range.py → scores/part-00012.parquet
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial

import pyarrow as pa

from segjobs.evaluation.pairing import Pairing, Range
from segjobs.evaluation.score_range import publish_range
from segjobs.jobs.engine.ray_data import dataset_of, map_blocks, rows_of
from segjobs.manifest.parts import list_parts


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
    publish = partial(score_block, pairing=pairing, uri=uri)
    for row in rows_of(map_blocks(dataset_of(pending), publish)):
        yield row["ok"], row["others"]


def score_block(block: pa.Table, *, pairing: Pairing, uri: str) -> pa.Table:
    """Task: one range (JSON) → its part is published; how many images of it are ok, and how many others there are."""
    number, text = block["number"][0].as_py(), block["range"][0].as_py()
    ok, others = publish_range(number, Range.from_json(text), pairing, uri)
    return pa.table({"ok": [ok], "others": [others]})
