"""Finished manifests made of plain masks, as a run would leave them: for tests of what reads manifests."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from segjobs.config import ShardConfig
from segjobs.errors import ItemError
from segjobs.manifest.parts import Run, part_bytes, part_uri, publish_part, receipt_of, write_run
from segjobs.manifest.plan import make_plan, write_plan
from segjobs.manifest.rle import encode_label_map
from segjobs.manifest.rows import Author, failed_row, ok_row, planned_items
from segjobs.manifest.run_info import RunCounts, RunInfo, Timings
from segjobs.manifest.schema import FOOTER_KEY, MANIFEST_SCHEMA, Category, Footer, Task
from segjobs.manifest.segments import Segment
from segjobs.storage import FileInfo, Storage, join

Row = Sequence[Segment] | ItemError
"""What becomes of an image: its segments, or why it has none."""


def segment_of(mask: np.ndarray, category: Category, **keys: Any) -> Segment:
    """bool (H, W) with a pixel or more → one segment; ``keys``: score, iscrowd."""
    segment = Segment.from_mask(category, mask, **keys)
    assert segment is not None
    return segment


def segments_of(
    ids: np.ndarray, categories: Mapping[int, Category] | Sequence[Category], *, void: int, crowds: Container[int] = ()
) -> list[Segment]:
    """A map of ids, uint8 or uint16 (H, W), each with its category → one segment per id; ``void`` is none."""
    size_hw = (ids.shape[0], ids.shape[1])
    return [
        Segment.from_region(categories[region.index], region, size_hw, iscrowd=region.index in crowds)
        for region in encode_label_map(ids, void=void)
    ]


def info_of(footer: Footer, counts: RunCounts, *, run_id: str = "0123456789abcdef", **keys: Any) -> RunInfo:
    """The content of a run.json without parts; ``keys``: what is not as here."""
    empty = {"failures": {}, "examples": {}, "timings": Timings(1.5, {}), "identity": {}, "config": {}}
    made = {"run_id": run_id, "verb": "label", "version": "0.1.0", "finished": "2026-01-31T12:00:00+00:00"}
    return RunInfo(**{**made, **empty, "counts": counts, "footer": footer, **keys})


def write_manifest(
    uri: str,
    rows: Mapping[str, tuple[tuple[int, int], Row]],
    categories: Sequence[Category],
    *,
    task: Task = "instance",
    model: str | None = None,
    shard: int = 2,
    storage: Storage | None = None,
) -> Run:
    """Publish a manifest. ``rows``: image_id → (size_hw, segments or error); ``shard``: images of a part."""
    storage = storage or Storage()
    footer = Footer(task, tuple(categories), "0" * 64, {"label": model} if model else None)
    files = [FileInfo(f"/photos/{image_id}", image_id, 10, 0, "") for image_id in rows]
    plan = make_plan(files, ShardConfig(images=shard))
    author, receipts = Author("0123456789abcdef", model), []
    storage.put_if_absent(join(uri, "plan.parquet"), write_plan(plan, {FOOTER_KEY: b"{}"}))
    for number, items in plan.shards():
        made = []
        for item in planned_items(items):
            size_hw, row = rows[item.path]
            if isinstance(row, ItemError):
                made.append(failed_row(item, author, row))
            else:
                made.append(ok_row(item, author, sha256="0" * 64, size_hw=size_hw, segments=row, confidence=0.5))
        data, _ = publish_part(storage, uri, number, part_bytes(pa.Table.from_pylist(made, MANIFEST_SCHEMA), footer))
        receipts.append(receipt_of(part_uri(uri, number), data, items["image_id"].to_pylist(), run_id=author.run_id))
    failed = len(rows) - sum(receipt.ok for receipt in receipts)
    segments = sum(receipt.segments for receipt in receipts)
    info = info_of(footer, RunCounts(len(rows), len(rows) - failed, failed, segments), run_id=author.run_id)
    run = Run(uri, tuple(receipt.part for receipt in receipts), info)
    write_run(storage, run)
    return run
