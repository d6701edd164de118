"""Classes by other names: renamed, merged, dropped, and the masks that come of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from segjobs.errors import ConfigError
from segjobs.labels.base import Masks
from segjobs.labels.rename import class_map, remap
from segjobs.manifest.rle import decode, paint
from segjobs.manifest.schema import Category, Task
from tests.manifests import segments_of

CATEGORIES = (
    Category(3, "car", (1, 0, 0), True),
    Category(5, "truck", (2, 0, 0), True),
    Category(7, "tree", (3, 0, 0), False),
    Category(9, "grass", (4, 0, 0), False),
)
IDS = np.array([[3, 3, 5, 7], [9, 9, 5, 255]], np.uint8)


def masks_of(ids: np.ndarray) -> Masks:
    return Masks(segments_of(ids, {category.id: category for category in CATEGORIES}, void=255))


def mapped(classes: Mapping[str, str | None], task: Task = "semantic", ids: np.ndarray = IDS) -> Masks:
    table = class_map(CATEGORIES, classes, task)
    assert table is not None
    return remap(masks_of(ids), table)


def test_no_table_changes_nothing() -> None:
    assert class_map(CATEGORIES, {}, "semantic") is None


def test_merged_regions_become_one_segment() -> None:
    rows = mapped({"car": "vehicle", "truck": "vehicle"}).segments
    assert [(row.category, row.category_id, row.area, list(row.bbox)) for row in rows] == [
        ("vehicle", 3, 4, [0.0, 0.0, 3.0, 2.0]),
        ("tree", 7, 1, [3.0, 0.0, 1.0, 1.0]),
        ("grass", 9, 2, [0.0, 1.0, 2.0, 1.0]),
    ]
    assert decode(rows[0].counts, (2, 4)).tolist() == ((IDS == 3) | (IDS == 5)).tolist()


def test_objects_stay_apart_and_stuff_is_united() -> None:
    rows = mapped({"car": "vehicle", "truck": "vehicle", "tree": "plants", "grass": "plants"}, "panoptic").segments
    assert [(row.category, row.area) for row in rows] == [("vehicle", 2), ("vehicle", 2), ("plants", 3)]
    rows = mapped({"tree": "plants", "grass": "plants"}, "instance").segments
    assert [(row.category, row.area) for row in rows] == [("car", 2), ("truck", 2), ("plants", 1), ("plants", 2)]


def test_dropped_classes_are_unlabelled_and_counted() -> None:
    masks = mapped({"tree": None, "grass": None})
    assert [row.category for row in masks.segments] == ["car", "truck"]
    assert [(one.check, one.count, one.detail) for one in masks.findings] == [
        ("dropped_classes", 2, "grass (1), tree (1)")
    ]


def test_a_star_stands_for_all_others() -> None:
    assert [row.category for row in mapped({"*": None, "car": "car"}).segments] == ["car"]
    assert [(row.category, row.area) for row in mapped({"*": "thing", "tree": "tree"}).segments] == [
        ("thing", 6),
        ("tree", 1),
    ]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ({"car": "auto"}, [(3, "auto"), (5, "truck"), (7, "tree"), (9, "grass")]),
        ({"car": "truck"}, [(5, "truck"), (7, "tree"), (9, "grass")]),
        ({"car": "truck", "truck": "car"}, [(3, "truck"), (5, "car"), (7, "tree"), (9, "grass")]),
        ({"car": "truck", "truck": "van"}, [(3, "truck"), (5, "van"), (7, "tree"), (9, "grass")]),
        ({"*": None, "grass": "green", "tree": "green"}, [(7, "green")]),
    ],
)
def test_ids_of_the_new_classes(classes: dict[str, str | None], expected: list[tuple[int, str]]) -> None:
    table = class_map(CATEGORIES, classes, "semantic")
    assert table is not None
    assert [(category.id, category.name) for category in table.categories] == expected


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"tre": None}, r"classes: 'tre' is no class of the labels; did you mean 'tree'"),
        ({"tree": ""}, r"classes\.tree: the new name is empty"),
        ({"*": None}, "every class is dropped"),
    ],
)
def test_tables_that_make_no_sense(classes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        class_map(CATEGORIES, classes, "semantic")


def test_random_merges_against_a_lookup_of_pixels() -> None:
    rng = np.random.default_rng(4)
    names = [category.name for category in CATEGORIES]
    for _ in range(40):
        classes = {name: rng.choice(["a", "b", "car"]) if rng.random() < 0.8 else None for name in names}
        if not any(classes.values()):
            continue
        ids = rng.choice([3, 5, 7, 9, 255], (6, 5)).astype(np.uint8)
        table = class_map(CATEGORIES, classes, "semantic")
        assert table is not None
        by_name = {category.name: category.id for category in table.categories}
        lookup = {255: 999} | {c.id: by_name.get(str(classes[c.name]), 999) for c in CATEGORIES}
        rows = remap(masks_of(ids), table).segments
        pairs = [(row.category_id, row.counts) for row in rows]
        assert np.array_equal(paint(pairs, ids.shape, 999), np.vectorize(lookup.get)(ids))
