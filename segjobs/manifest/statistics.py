"""What is in a manifest, counted: rows of one shard in, a small JSON value out, and such values added up.

    rows (a part, or what becomes one) → count_rows → counts → add_counts → counts of the run → statistics

Counts come from areas and sizes alone, never from masks, and add up in any order to the same numbers.
"""

from collections.abc import Sequence
from typing import TypedDict, cast

import numpy as np
import pyarrow as pa

from segjobs.manifest.schema import Category

SMALL_PX, LARGE_PX = 32**2, 96**2
"""COCO's bounds of small, medium and large objects, in pixels of area (pycocotools, ``areaRng``)."""


class Extent(TypedDict, total=False):
    """Integers' sum, least and greatest; empty where there are none."""

    sum: int
    min: int
    max: int


class ClassCounts(TypedDict, total=False):
    """One class's; see ``count_rows``."""

    images: int
    objects: int
    crowds: int
    pixels: int
    area: Extent
    small: int
    large: int


class Counts(TypedDict, total=False):
    """See ``count_rows``; empty before anything is counted. What an older release did not count is absent."""

    images: int
    ok: int
    empty: int
    pixels: int
    mask_px: int
    width: Extent
    height: Extent
    classes: dict[str, ClassCounts]


class ExtentEntry(TypedDict):
    """Least, mean and greatest; None of nothing."""

    min: int | None
    mean: float | None
    max: int | None


class ClassEntry(TypedDict):
    """One class in statistics.json."""

    category_id: int
    category: str
    images: int
    objects: int
    crowds: int
    pixels: int
    share: float | None
    area: ExtentEntry
    small: int
    medium: int
    large: int


class ImagesEntry(TypedDict):
    """Images by what became of them."""

    total: int
    ok: int
    failed: int
    without_segments: int


class Statistics(TypedDict):
    """What statistics.json holds; see ``statistics``."""

    images: ImagesEntry
    size: dict[str, ExtentEntry]
    pixels: int
    unlabelled_px: int | None
    objects: int
    classes: list[ClassEntry]


_Tree = dict[str, "int | _Tree"]


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
    owner: np.ndarray = np.repeat(np.arange(len(ok)), segments.value_lengths().to_numpy(zero_copy_only=False))
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
    return cast("Counts", _add(cast("_Tree", one), cast("_Tree", two)))


def _add(one: _Tree, two: _Tree) -> _Tree:
    if not one or not two:
        return one or two
    total = {**one, **{key: value for key, value in two.items() if key not in one}}
    for key in one.keys() & two.keys():
        a, b = one[key], two[key]
        if isinstance(a, dict) and isinstance(b, dict):
            total[key] = _add(a, b)
        elif isinstance(a, int) and isinstance(b, int):
            total[key] = min(a, b) if key == "min" else max(a, b) if key == "max" else a + b
    return total


def statistics(counts: Counts, categories: Sequence[Category], *, covers: bool) -> Statistics:
    """Counts of a run → what statistics.json holds, every category of the manifest in it.

    ``covers``: the segments of an image never overlap (semantic, panoptic), so that the rest of its
    pixels is unlabelled; ``unlabelled_px`` is null otherwise. Areas in pixels; shares in [0, 1].
    """
    pixels, ok = counts.get("pixels", 0), counts.get("ok", 0)
    per_class: list[ClassEntry] = []
    for category in categories:
        found = counts.get("classes", {}).get(str(category.id), ClassCounts())
        objects, area = found.get("objects", 0), found.get("area", Extent())
        per_class.append(
            {
                "category_id": category.id,
                "category": category.name,
                "images": found.get("images", 0),
                "objects": objects,
                "crowds": found.get("crowds", 0),
                "pixels": found.get("pixels", 0),
                "share": found.get("pixels", 0) / pixels if pixels else None,
                "area": _entry(area, objects),
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
            "width": _entry(counts.get("width", Extent()), ok),
            "height": _entry(counts.get("height", Extent()), ok),
        },
        "pixels": pixels,
        "unlabelled_px": pixels - counts.get("mask_px", 0) if covers else None,
        "objects": sum(entry["objects"] for entry in per_class),
        "classes": per_class,
    }


def _extent(values: np.ndarray) -> Extent:
    return {"sum": int(values.sum()), "min": int(values.min()), "max": int(values.max())} if values.size else {}


def _entry(extent: Extent, count: int) -> ExtentEntry:
    mean = extent["sum"] / count if count and "sum" in extent else None
    return {"min": extent.get("min"), "mean": mean, "max": extent.get("max")}
