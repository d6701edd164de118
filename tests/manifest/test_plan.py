"""The plan: order, shards, digest, and its way through a file."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjobs.config import ShardConfig
from segjobs.errors import ConfigError
from segjobs.manifest.plan import make_plan, read_plan, select, write_plan
from segjobs.storage import FileInfo


def files(*sizes: int) -> list[FileInfo]:
    return [FileInfo(f"/d/{n:03d}", f"{n:03d}", size, 1_000_000 + n, "") for n, size in enumerate(sizes)]


def shards_of(plan) -> list[list[str]]:
    return [items["image_id"].to_pylist() for _, items in plan.shards()]


def test_shards_are_bounded_by_count_and_by_bytes() -> None:
    plan = make_plan(files(10, 10, 10, 100, 5, 5, -1), ShardConfig(images=3, bytes=30))
    assert shards_of(plan) == [["000", "001", "002"], ["003"], ["004", "005", "006"]]
    assert (plan.num_shards, plan.num_bytes) == (3, 140)


def test_the_order_of_the_listing_does_not_matter() -> None:
    listing = files(*range(1, 200))
    one, two = (make_plan(order, ShardConfig(images=7)) for order in (listing, listing[::-1]))
    assert one.digest == two.digest
    assert one.items.equals(two.items)
    assert shards_of(make_plan(listing, ShardConfig(images=50), limit=3)) == [["000", "001", "002"]]


@pytest.mark.parametrize(
    "change", [{"size": 2}, {"mtime_us": 5}, {"etag": "e"}, {"uri": "/e/000"}, {"path": "0001"}], ids=str
)
def test_any_change_of_an_item_changes_the_digest(change: dict[str, object]) -> None:
    listing = files(1, 1)
    changed = [replace(listing[0], **change), listing[1]]
    assert make_plan(changed, ShardConfig()).digest != make_plan(listing, ShardConfig()).digest


def test_the_cut_is_not_part_of_the_digest() -> None:
    listing = files(*[1] * 10)
    assert make_plan(listing, ShardConfig(images=3)).digest == make_plan(listing, ShardConfig(images=4)).digest


def test_a_selection_is_the_plan_of_its_items() -> None:
    listing = files(*[1] * 7)
    taken = np.array([True, False, True, True, False, False, True])
    part = select(make_plan(listing, ShardConfig(images=2)), taken, ShardConfig(images=3))
    assert shards_of(part) == [["000", "002", "003"], ["006"]]
    assert part.digest == make_plan([listing[n] for n in (0, 2, 3, 6)], ShardConfig()).digest


def test_an_empty_plan() -> None:
    plan = make_plan([], ShardConfig())
    assert (plan.num_shards, plan.num_bytes, shards_of(plan)) == (0, 0, [])
    assert read_plan(write_plan(plan, {}))[0].digest == plan.digest


def test_two_files_of_one_id_are_refused() -> None:
    with pytest.raises(ConfigError, match="/d/000 and /e both have the image_id '000'"):
        make_plan([*files(1), FileInfo("/e", "000", 1, 0, "")], ShardConfig())


@given(st.lists(st.tuples(st.text(min_size=1), st.integers(-1, 2**40)), max_size=30, unique_by=lambda pair: pair[0]))
def test_a_plan_survives_its_file(rows: list[tuple[str, int]]) -> None:
    plan = make_plan([FileInfo("/" + p, p, size, 7, "e") for p, size in rows], ShardConfig(images=4, bytes=2**30))
    again, metadata = read_plan(write_plan(plan, {b"segjobs": b"{}"}))
    assert again.items.equals(plan.items)
    assert again.digest == plan.digest
    assert metadata == {b"segjobs": b"{}"}
    ids = plan.items["image_id"].to_pylist()
    assert ids == sorted(path for path, _ in rows)
