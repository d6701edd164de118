"""A table of a million rows of three masks each: what a night of it, and a look at it, take on this machine.

    uv run python -m tests.torture.scale --rows 1000000 --folder /tmp/scale

    rows made from their numbers ─→ table ─→ two nights (their images together, then spread), status, a reader's start
                                                       each in a process of its own ─→ a line: seconds, memory, files

The nights' masks are made beforehand, as their runs would have left them: what is measured is what the driver does
with the table. What stands in FOLDER is used again.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from segjobs.config import CollectionConfig, ShardConfig
from segjobs.jobs.collection.job import collection
from segjobs.jobs.nightly.compare import Policy, compare
from segjobs.manifest.collection import as_rows, create_collection, find_collection, open_collection, processing_of
from segjobs.manifest.merge import MARK_SCHEMA, Changes
from segjobs.manifest.nights import Night, begin, commit_night
from segjobs.manifest.parts import Run, open_run, part_bytes, part_uri, publish_part, receipt_of, write_run
from segjobs.manifest.plan import make_plan
from segjobs.manifest.run_info import RunCounts
from segjobs.manifest.schema import MANIFEST_SCHEMA, SEGMENT_TYPE, SOURCE_TYPE, Footer, make_categories
from segjobs.storage import FileInfo, Storage, join
from tests.manifests import info_of

NEW, CHANGED = 10_000, 1000
MASKS = 3
_COUNTS_BYTES = 190  # of a mask's run-length code
_CHUNK = 20_000
_MODEL: Any = {"label": "unet@1", "digest": "1", "weights": "none", "options": {}, "preprocessing": {}, "licence": None}
_FOOTER = Footer("instance", make_categories(["car", "road", "sky"]), "0" * 64, _MODEL)
_MOMENT_US = 1_700_000_000_000_000
_POLICY = Policy("unet@1", processing_of({}), frozenset(), 3, False, None, True, lambda run_id: {})


@dataclass(frozen=True)
class Scale:
    """A table of ``rows`` rows in ``folder``; every tenth number is left out, for images that come later."""

    folder: Path
    rows: int = 1_000_000

    @property
    def street(self) -> str:
        return str(self.folder / "street")

    def numbers(self) -> np.ndarray:
        """Those of the table's images, int64 (rows,)."""
        several = np.arange(self.rows * 10 // 9 + 10)
        return several[several % 10 != 0][: self.rows]

    def changes(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """New and changed images' numbers of the night ``together`` or ``spread``."""
        new, old = np.arange(1, self.rows // 9) * 10, self.numbers()
        if name == "spread":
            later, others = new[1::2], old[1::2]
            return later[:: max(1, len(later) // NEW)][:NEW], others[:: len(others) // CHANGED][:CHANGED]
        middle = len(new) // 2 - len(new) // 2 % 2
        first = int(np.searchsorted(old, new[middle]))
        return new[middle::2][:NEW], old[first - first % 2 :: 2][:CHANGED]


def image_id(number: int) -> str:
    return f"{number // 1000:05}/{number:08}.jpg"


def file_of(number: int, size: int) -> FileInfo:
    return FileInfo(f"/photos/{image_id(number)}", image_id(number), size, _MOMENT_US, "")


def rows_of(numbers: np.ndarray, size: int, run_id: str) -> pa.Table:
    """Rows of ``MANIFEST_SCHEMA`` of images of ``size`` bytes, whose masks are noise that does not compress."""
    count, masks = len(numbers), len(numbers) * MASKS
    noise = np.random.default_rng(int(numbers[0])).integers(48, 112, masks * _COUNTS_BYTES, np.uint8)
    counts = pa.StringArray.from_buffers(
        masks,
        pa.py_buffer(np.arange(0, len(noise) + 1, _COUNTS_BYTES, np.int32)),
        pa.py_buffer(np.where(noise == 92, 47, noise).astype(np.uint8)),
    )
    ids = [image_id(number) for number in numbers.tolist()]

    def lists(values: pa.Array, length: int, kind: pa.ListType) -> pa.Array:
        return pa.ListArray.from_arrays(np.arange(0, len(values) + 1, length, np.int32), values).cast(kind)

    sizes_hw = lists(pa.array(np.tile([480, 640], masks), pa.int32()), 2, pa.list_(pa.int32()))
    boxes = pa.array(np.random.default_rng(0).integers(0, 400, masks * 4), pa.float32())
    columns = {
        "category_id": pa.array(np.tile([0, 1, 2], count), pa.int32()),
        "category": pa.array(["car", "road", "sky"] * count),
        "score": pa.array(np.random.default_rng(1).random(masks, np.float32)),
        "bbox": lists(boxes, 4, SEGMENT_TYPE.field("bbox").type),
        "area": pa.array(np.random.default_rng(2).integers(1, 90_000, masks)),
        "iscrowd": pa.array(np.zeros(masks, bool)),
        "segmentation": pa.StructArray.from_arrays([sizes_hw, counts], ["size", "counts"]),
        "stated_bbox": pa.nulls(masks, SEGMENT_TYPE.field("stated_bbox").type),
        "stated_area": pa.nulls(masks, pa.float64()),
    }
    segments = pa.StructArray.from_arrays(list(columns.values()), fields=list(SEGMENT_TYPE))
    source = {
        "size": pa.array(np.full(count, size)),
        "mtime": pa.array(np.full(count, _MOMENT_US)).cast(SOURCE_TYPE.field("mtime").type),
        "etag": pa.nulls(count, pa.string()),
        "sha256": pa.array([f"{number:064x}" for number in numbers.tolist()]),
    }
    return pa.table(
        {
            "image_id": ids,
            "uri": [f"/photos/{one}" for one in ids],
            "width": pa.array(np.full(count, 640), pa.int32()),
            "height": pa.array(np.full(count, 480), pa.int32()),
            "source": pa.StructArray.from_arrays(list(source.values()), fields=list(SOURCE_TYPE)),
            "status": ["ok"] * count,
            "error": pa.nulls(count, MANIFEST_SCHEMA.field("error").type),
            "segments": pa.ListArray.from_arrays(np.arange(0, masks + 1, MASKS, np.int32), segments),
            "confidence": np.random.default_rng(3).random(count, np.float32),
            "run_id": [run_id] * count,
            "model": ["unet@1"] * count,
        }
    ).cast(MANIFEST_SCHEMA)


def make_table(scale: Scale) -> None:
    """The table's first version, unless it is there."""
    numbers, info = scale.numbers(), info_of(_FOOTER, RunCounts(0, 0, 0, 0), run_id="first")

    def rows(joint: Footer) -> Iterator[pa.Table]:
        for start in range(0, len(numbers), _CHUNK):
            made = rows_of(numbers[start : start + _CHUNK], 1000, "first")
            yield as_rows(made, info, _FOOTER, to=joint.categories)

    create_collection(Storage(), scale.street).commit(
        lambda joint: Changes(partial(rows, joint), MARK_SCHEMA.empty_table()), _FOOTER, app_id="first"
    )


def make_run(scale: Scale, name: str) -> Run:
    """The run of a night, as ``label`` would have left it."""
    storage, new, changed = Storage(), *scale.changes(name)
    uri = join(scale.street, "runs", f"{night_name(name)}-{name}")
    numbers, parts = np.sort(np.concatenate([new, changed])), []
    for part, start in enumerate(range(0, len(numbers), 1000)):
        rows = rows_of(numbers[start : start + 1000], 2000, name)
        data, _ = publish_part(storage, uri, part, part_bytes(rows, _FOOTER))
        parts.append(receipt_of(part_uri(uri, part), data, rows["image_id"].to_pylist(), run_id=name).part)
    info = info_of(_FOOTER, RunCounts(len(numbers), len(numbers), 0, MASKS * len(numbers)), run_id=name)
    run = Run(uri, tuple(parts), info)
    write_run(storage, run)
    return run


def night_name(name: str) -> str:
    return {"together": "2026-02-01T02-00-00", "spread": "2026-02-02T02-00-00"}[name]


# --- what is measured ----------------------------------------------------------------------------


def night(scale: Scale, name: str) -> dict[str, Any]:
    """List, compare and commit."""
    storage, (new, changed) = Storage(), scale.changes(name)
    start = time.monotonic()
    now = find_collection(storage, scale.street)
    others = np.concatenate([new, changed])
    if name == "spread":  # and what the night before has brought
        others = np.concatenate([others, *scale.changes("together")])
    numbers = np.union1d(scale.numbers(), others)
    sizes = np.where(np.isin(numbers, others), 2000, 1000)
    listed = (file_of(int(number), int(size)) for number, size in zip(numbers, sizes, strict=True))
    plan = make_plan(listed, ShardConfig())
    found = compare(plan, now, _POLICY, lambda file: None)
    tonight = Night(scale.street, night_name(name), found.table(), dict(found.counts), now.version if now else 0, name)
    begin(storage, tonight)
    compared_s = time.monotonic() - start
    done = commit_night(storage, tonight)
    return {
        "counts": dict(found.counts),
        "compare_s": compared_s,
        "commit_s": time.monotonic() - start - compared_s,
        "files_written": done.added,
        "files_rewritten": done.rewritten,
    }


def status(scale: Scale) -> dict[str, Any]:
    """``segjobs collection status``."""
    start = time.monotonic()
    found = collection(CollectionConfig.model_validate({"collection": {"uri": scale.street}}))
    return {"status_s": time.monotonic() - start, **json.loads(found.text())}


def opened(scale: Scale) -> dict[str, Any]:
    """What a reader of the collection does before its first row."""
    start = time.monotonic()
    counts = open_run(Storage(), scale.street).info.counts
    return {"open_s": time.monotonic() - start, "images": counts.images, "segments": counts.segments}


def _measured(what: Any, place: Any) -> None:
    figures = what()
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures |= {"cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1000}
    place.put({key: round(value, 1) if isinstance(value, float) else value for key, value in figures.items()})


def in_a_process(what: Any) -> dict[str, Any]:
    """What ``what()`` gives, and the most memory that its process had, in MB (10⁶ bytes)."""
    context = multiprocessing.get_context("spawn")
    place = context.SimpleQueue()
    process = context.Process(target=_measured, args=(what, place))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"a measurement ended with {process.exitcode}")
    return place.get()


def measure(scale: Scale) -> dict[str, Any]:
    """All of it, by name; a night that is in the table already is committed no more."""
    make_table(scale)
    report: dict[str, Any] = {"rows": scale.rows}
    for name in ("together", "spread"):
        make_run(scale, name)
        report[name] = in_a_process(partial(night, scale, name))
    report["status"] = in_a_process(partial(status, scale))
    report["open"] = in_a_process(partial(opened, scale))
    newest = open_collection(Storage(), scale.street)
    report["files"] = len(newest.files)
    report["table_mb"] = round(sum(file.size_bytes for file in newest.files) / 1e6)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True, help="the table; kept")
    sys.stdout.write(json.dumps(measure(Scale(**vars(parser.parse_args()))), indent=1) + "\n")
