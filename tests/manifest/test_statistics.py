"""Counts of rows: by hand, in any order, and against a loop over decoded masks."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from segjobs.manifest.rle import decode
from segjobs.manifest.schema import MANIFEST_SCHEMA, Category
from segjobs.manifest.statistics import add_counts, count_rows, statistics
from tests.manifests import segments_of

CATEGORIES = (Category(1, "cat", (1, 0, 0)), Category(5, "dog", (2, 0, 0)), Category(6, "emu", (3, 0, 0)))


def row_of(name: str, ids: np.ndarray | None, crowd: int = 0) -> dict[str, Any]:
    base = {"image_id": name, "uri": name, "run_id": "r", "status": "failed"}
    if ids is None:
        return base
    categories = {category.id: category for category in CATEGORIES}
    segments = [segment.to_row() for segment in segments_of(ids, categories, void=255, crowds=(crowd,))]
    return {**base, "status": "ok", "height": ids.shape[0], "width": ids.shape[1], "segments": segments}


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=MANIFEST_SCHEMA)


def test_counts_by_hand() -> None:
    small = np.array([[1, 1, 5], [255, 5, 5]], np.uint8)
    large = np.full((100, 100), 5, np.uint8)
    large[:40, :40] = 1
    rows = table(row_of("a", small, crowd=5), row_of("b", None), row_of("c", large), row_of("d", small * 0 + 255))
    total = statistics(count_rows(rows), CATEGORIES, covers=True)
    assert total["images"] == {"total": 4, "ok": 3, "failed": 1, "without_segments": 1}
    assert total["size"]["width"] == {"min": 3, "mean": (3 + 100 + 3) / 3, "max": 100}
    assert (total["pixels"], total["unlabelled_px"], total["objects"]) == (6 + 10_000 + 6, 1 + 6, 4)
    cat, dog, emu = total["classes"]
    assert cat == {
        "category_id": 1, "category": "cat", "images": 2, "objects": 2, "crowds": 0, "pixels": 1602,
        "share": 1602 / 10_012, "area": {"min": 2, "mean": 801.0, "max": 1600}, "small": 1, "medium": 1, "large": 0,
    }  # fmt: skip
    assert (dog["images"], dog["crowds"], dog["pixels"], dog["small"], dog["large"]) == (2, 1, 8403, 1, 0)
    assert (emu["images"], emu["objects"], emu["share"], emu["area"]["mean"]) == (0, 0, 0.0, None)
    assert statistics(count_rows(rows), CATEGORIES, covers=False)["unlabelled_px"] is None


def test_nothing_counts_as_nothing() -> None:
    empty = statistics({}, CATEGORIES, covers=True)
    assert (empty["pixels"], empty["images"]["total"], empty["classes"][0]["share"]) == (0, 0, None)
    failed = statistics(count_rows(table(row_of("a", None))), CATEGORIES, covers=True)
    assert (failed["images"]["failed"], failed["size"]["width"]["min"]) == (1, None)
    assert add_counts({}, {"a": 1}) == add_counts({"a": 1}, {}) == {"a": 1}


def test_shards_add_up_in_any_order_and_equal_a_loop_over_masks() -> None:
    rng = np.random.default_rng(6)
    shapes = rng.integers(1, 40, (24, 2)).tolist()
    rows = [row_of(str(n), rng.choice([1, 5, 255], shape).astype(np.uint8)) for n, shape in enumerate(shapes)]
    whole = count_rows(table(*rows))
    parts = [count_rows(table(*rows[start : start + 5])) for start in range(0, 24, 5)]
    for order in (range(5), reversed(range(5)), rng.permutation(5)):
        total: dict[str, Any] = {}
        for place in order:
            total = add_counts(total, parts[place])
        assert json.dumps(total, sort_keys=True) == json.dumps(whole, sort_keys=True)
    expected = {1: [0, 0], 5: [0, 0]}
    for row in rows:
        for segment in row["segments"]:
            area = int(decode(segment["segmentation"]["counts"], (row["height"], row["width"])).sum())
            expected[segment["category_id"]][0] += 1
            expected[segment["category_id"]][1] += area
    found = statistics(whole, CATEGORIES, covers=True)
    assert [[entry["objects"], entry["pixels"]] for entry in found["classes"][:2]] == list(expected.values())
    assert found["pixels"] == sum(height * width for height, width in shapes)
    assert found["unlabelled_px"] == found["pixels"] - expected[1][1] - expected[5][1]


@pytest.mark.parametrize(("area", "kind"), [(1023, "small"), (1024, "medium"), (9215, "medium"), (9216, "large")])
def test_the_bounds_of_sizes_are_cocos(area: int, kind: str) -> None:
    ids = np.full((96, 97), 255, np.uint8)
    ids.ravel()[:area] = 1
    entry = statistics(count_rows(table(row_of("a", ids))), CATEGORIES, covers=True)["classes"][0]
    assert {name: entry[name] for name in ("small", "medium", "large") if entry[name]} == {kind: 1}
