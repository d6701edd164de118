"""What is in a manifest, counted: rows of one shard in, a small JSON value out, and such values added up.

    rows (a part, or what becomes one) → count_rows → counts → add_counts → counts of the run → statistics

Counts come from areas and sizes alone, never from masks, and add up in any order to the same numbers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from segjobs.manifest.schema import Category

SMALL_PX, LARGE_PX = 32**2, 96**2
"""COCO's bounds of small, medium and large objects, in pixels of area (pycocotools, ``areaRng``)."""

Counts = dict[str, Any]


def count_rows(rows: pa.Table) -> Counts:
    """Rows with ``status``, ``width``, ``height`` and ``segments`` → their counts.

    ``images``: all rows; ``ok``; ``empty``: ok without a segment. ``pixels``, ``width``, ``height``: of ok
    rows. ``mask_px``: summed areas. ``classes``: category id (as text) → ``images`` that have it,
    ``objects``, ``crowds``, ``pixels``, and objects by COCO's sizes; crowd regions count as objects too.
    """
    ok = rows.filter(pa.array(np.array(rows["status"].to_pylist(), object) == "ok", pa.bool_()))
    widths, heights = (ok[name].to_numpy().astype(np.int64) for name in ("width", "height"))
    segments = ok["segments"].combine_chunks()
    flat = segments.flatten()
    owner = np.repeat(np.arange(ok.num_rows), segments.value_lengths().to_numpy(zero_copy_only=False))
    seen = np.asarray(flat.field("area")) > 0  # an object without a pixel is there for scores alone
    flat, owner = flat.filter(pa.array(seen)), owner[seen]
    ids, areas = (flat.field(name).to_numpy(zero_copy_only=False).astype(np.int64) for name in ("category_id", "area"))
    crowds = flat.field("iscrowd").to_numpy(zero_copy_only=False).astype(bool)
    return {
        "images": rows.num_rows,
        "ok": ok.num_rows,
        "empty": ok.num_rows - int(np.unique(owner).size),
        "pixels": int((widths * heights).sum()),
        "mask_px": int(areas.sum()),
        "width": _extent(widths),
        "height": _extent(heights),
        "classes": {
            str(category_id): {
                "images": int(np.unique(owner[chosen]).size),
                "objects": int(chosen.sum()),
                "crowds": int(crowds[chosen].sum()),
                "pixels": int(areas[chosen].sum()),
                "area": _extent(areas[chosen]),
                "small": int((areas[chosen] < SMALL_PX).sum()),
                "large": int((areas[chosen] >= LARGE_PX).sum()),
            }
            for category_id in np.unique(ids).tolist()
            for chosen in (ids == category_id,)
        },
    }


def add_counts(one: Counts, two: Counts) -> Counts:
    """The counts of both; either may be empty. Sums, except ``min`` and ``max``."""
    if not one or not two:
        return one or two
    total: Counts = {}
    for key in [*one, *(key for key in two if key not in one)]:
        a, b = one.get(key), two.get(key)
        if a is None or b is None:
            total[key] = b if a is None else a
        elif isinstance(a, dict):
            total[key] = add_counts(a, b)
        else:
            total[key] = min(a, b) if key == "min" else max(a, b) if key == "max" else a + b
    return total


def statistics(counts: Counts, categories: Sequence[Category], *, covers: bool) -> dict[str, Any]:
    """Counts of a run → what statistics.json holds, every category of the manifest in it.

    ``covers``: the segments of an image never overlap (semantic, panoptic), so that the rest of its
    pixels is unlabelled; ``unlabelled_px`` is null otherwise. Areas in pixels; shares in [0, 1].
    """
    pixels, ok = counts.get("pixels", 0), counts.get("ok", 0)
    per_class = []
    for category in categories:
        found = counts.get("classes", {}).get(str(category.id), {})
        objects, area = found.get("objects", 0), found.get("area", {})
        per_class.append(
            {
                "category_id": category.id,
                "category": category.name,
                "images": found.get("images", 0),
                "objects": objects,
                "crowds": found.get("crowds", 0),
                "pixels": found.get("pixels", 0),
                "share": found.get("pixels", 0) / pixels if pixels else None,
                "area": {"min": area.get("min"), "mean": _mean(area, objects), "max": area.get("max")},
                "small": found.get("small", 0),
                "medium": objects - found.get("small", 0) - found.get("large", 0),
                "large": found.get("large", 0),
            }
        )
    return {
        "images": {
            "total": counts.get("images", 0),
            "ok": ok,
            "failed": counts.get("images", 0) - ok,
            "without_segments": counts.get("empty", 0),
        },
        "size": {
            edge: {
                "min": counts.get(edge, {}).get("min"),
                "mean": _mean(counts.get(edge, {}), ok),
                "max": counts.get(edge, {}).get("max"),
            }
            for edge in ("width", "height")
        },
        "pixels": pixels,
        "unlabelled_px": pixels - counts.get("mask_px", 0) if covers else None,
        "objects": sum(entry["objects"] for entry in per_class),
        "classes": per_class,
    }


def _extent(values: np.ndarray) -> dict[str, int]:
    """Sum, least and greatest of integers; empty where there are none."""
    return {"sum": int(values.sum()), "min": int(values.min()), "max": int(values.max())} if values.size else {}


def _mean(extent: dict[str, int], count: int) -> float | None:
    return extent["sum"] / count if count else None
