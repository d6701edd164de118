"""What the page's tests are made of: small manifests, and reports that the evaluation itself writes.

write_run_of     label maps of image files → a finished manifest
make_report      drawn label maps of any classes → scored in this process → the report, one of ``Kind``
"""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv

from segjobs.errors import ItemError
from segjobs.evaluation.report_types import Report
from segjobs.manifest.parts import Run, part_bytes, part_uri, publish_part, receipt_of, write_run
from segjobs.manifest.rows import Author, failed_row, ok_row
from segjobs.manifest.run_info import RunCounts
from segjobs.manifest.schema import MANIFEST_SCHEMA, Category, Footer, Task, make_categories
from segjobs.manifest.segments import Segment
from segjobs.storage import FileInfo, Storage
from tests import manifests
from tests.made import scored

STREET = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
IMAGES = tuple(f"val/frankfurt/{number:06d}.png" for number in range(12))
Kind = Literal["semantic", "objects", "agreement"]
"""semantic: with a baseline, boundaries, slices, a gate and disputes; agreement: without truth."""
HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "javascript:alert(1)",
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "cat\u202egnp.exe",
    "'; DROP TABLE classes; --",
    "😀👩‍👩‍👧 𝔠𝔩𝔞𝔰𝔰",
    "</style><style>body{display:none}</style>",
    "a" * 4000,
    "nul\x00 newline\n tab\t \ud800",
    "&amp;&lt;b&gt;",
    "]]><!--",
)


def segments_of(ids: np.ndarray, categories: Sequence[Category]) -> list[Segment]:
    """Segments of a label map, uint8 (H, W) of indices into ``categories``; 255 is unlabelled."""
    return manifests.segments_of(ids, categories, void=255)


def write_run_of(
    uri: Path,
    maps: Mapping[Path, np.ndarray],
    categories: Sequence[Category],
    *,
    confidence: Mapping[str, float] | None = None,
    task: Task = "semantic",
) -> str:
    """Write a finished manifest of these images and their label maps, four to a part; its URI."""
    author = Author("0123456789abcdef", "unet@0123456789ab" if confidence else None)
    rows = []
    for path, ids in sorted(maps.items()):
        data = path.read_bytes()
        rows.append(
            ok_row(
                FileInfo(str(path), path.name, len(data), 1, ""),
                author,
                sha256=hashlib.sha256(data).hexdigest(),
                size_hw=ids.shape,
                segments=segments_of(ids, categories),
                confidence=(confidence or {}).get(path.name),
            )
        )
    return write_rows(uri, rows, categories, label=author.model, task=task)


def write_rows(
    uri: Path, rows: list[dict[str, Any]], categories: Sequence[Category], *, label: str | None, task: Task
) -> str:
    """Write a finished manifest of these rows, four to a part; its URI."""
    storage = Storage()
    card = {"name": "unet", "label": label, "weights": "none", "digest": "0123456789ab" * 5} if label else None
    footer = Footer(task, tuple(categories), "digest", card)
    parts = []
    for number, start in enumerate(range(0, len(rows), 4)):
        some = rows[start : start + 4]
        data, _ = publish_part(
            storage, str(uri), number, part_bytes(pa.Table.from_pylist(some, schema=MANIFEST_SCHEMA), footer)
        )
        parts.append(
            receipt_of(
                part_uri(str(uri), number), data, [row["image_id"] for row in some], run_id=some[0]["run_id"]
            ).part
        )
    ok = sum(row["status"] == "ok" for row in rows)
    counts = RunCounts(len(rows), ok, len(rows) - ok, 0)
    info = manifests.info_of(footer, counts, config={"input": {"uri": "photos"}})
    write_run(storage, Run(str(uri), tuple(parts), info))
    return str(uri)


def drawn_maps(rng: np.random.Generator, classes: int, count: int) -> list[np.ndarray]:
    """Label maps, uint8 (48, 64), of squares of 8 pixels, each of some class or unlabelled (255)."""
    coarse = rng.integers(0, classes, (count, 6, 8))
    coarse[rng.random(coarse.shape) < 0.05] = 255
    return list(coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8))


def changed(rng: np.random.Generator, ids: np.ndarray, classes: int) -> np.ndarray:
    """The map as a model might see it: moved by a pixel, one square in six of another class."""
    guess = np.roll(ids, 1, axis=1)
    squares = rng.random((6, 8)).repeat(8, axis=0).repeat(8, axis=1) < 1 / 6
    return np.where(squares & (ids != 255), (ids + 1) % classes, guess).astype(np.uint8)


@cache
def make_report(
    *, names: tuple[str, ...] = STREET, image_ids: tuple[str, ...] = IMAGES, kind: Kind = "semantic"
) -> Report:
    """The report of drawn images. The first has no prediction, that of the second failed, the third's truth failed,
    and one more has no truth; ``names``: at most 255 classes. Equal arguments give the very same report."""
    with tempfile.TemporaryDirectory() as folder:
        return _scored(Path(folder), names, tuple(sorted(image_ids)), kind)


def _scored(folder: Path, names: tuple[str, ...], image_ids: tuple[str, ...], kind: Kind) -> Report:
    rng = np.random.default_rng(0)
    categories, gone = make_categories(names), ItemError("TRUNCATED", "ends early")
    task: Task = "instance" if kind == "objects" else "semantic"

    def row(image_id: str, ids: np.ndarray | None, confidence: float | None = None) -> dict[str, Any]:
        item, author = FileInfo(f"photos/{image_id}", image_id, 1, 1, ""), Author("run")
        if ids is None:
            return failed_row(item, author, gone)
        segments = segments_of(ids, categories)
        if confidence is not None:
            segments = [replace(segment, score=float(rng.uniform(0.5, 1))) for segment in segments]
        return ok_row(item, author, sha256="00", size_hw=ids.shape, segments=segments, confidence=confidence)

    maps = dict(zip(image_ids, drawn_maps(rng, len(names), len(image_ids)), strict=True))
    missing, failed, no_truth, *_ = image_ids
    truth = [row(one, None if one == no_truth else ids) for one, ids in maps.items()]

    def predicted(name: str) -> str:
        rows = [
            row(one, None if one == failed else changed(rng, ids, len(names)), float(rng.uniform(0.5, 1)))
            for one, ids in {**maps, "~extra.png": maps[missing]}.items()
            if one != missing
        ]
        return write_rows(folder / name, rows, categories, label=f"{name}@0123456789ab", task=task)

    table = folder / "table.csv"
    csv = pa.table({"image_id": list(image_ids), "city": [f"city {n % 3}" for n in range(len(image_ids))]})
    pyarrow.csv.write_csv(csv, table)
    settings: dict[str, Any] = {"bootstrap": {"resamples": 50}}
    if kind == "semantic":
        settings |= {
            "baseline": {"uri": predicted("baseline")},
            "boundary": {"enabled": True},
            "slices": {"uri": str(table)},
            "gate": ["miou >= 0.1", f"iou[{names[0]}] >= 0.999"],
            "disputes": {"min_px": 1, "min_score": 0.5, "limit": 12},
        }
    truth_uri = write_rows(folder / "truth", truth, categories, label=None, task=task)
    if kind == "agreement":
        return scored(folder, None, predicted("ours"), baseline={"uri": truth_uri}, **settings)
    return scored(folder, truth_uri, predicted("ours"), **settings)
