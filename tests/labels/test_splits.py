"""Splits by the hash of a key: the promised shares, and nothing moves when images come; and splits by lists."""

import hashlib
from typing import Any

import numpy as np
import pytest

from segjobs.errors import ConfigError
from segjobs.labels.splits import check_splits, group_key, split_by_lists, split_by_shares

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def names_of(image_ids: list[str], shares: dict[str, float], group: str | None = None) -> list[str]:
    members = split_by_shares(image_ids, shares, group).members
    taken = np.stack([members[name] for name in shares])
    assert (taken.sum(axis=0) == 1).all(), "every image in one split"
    return [list(shares)[place] for place in taken.argmax(axis=0)]


def test_shares_are_kept_and_the_hash_decides() -> None:
    image_ids = [f"photos/{number:05d}.jpg" for number in range(20_000)]
    found = names_of(image_ids, SHARES)
    for name, share in SHARES.items():
        # Four standard deviations of a binomial count.
        assert abs(found.count(name) - share * 20_000) < 4 * (20_000 * share * (1 - share)) ** 0.5
    for image_id, name in list(zip(image_ids, found, strict=True))[:200]:
        point = int(hashlib.sha256(image_id.encode()).hexdigest()[:16], 16) / 2**64
        assert name == ("train" if point < 0.8 else "val" if point < 0.9 else "test")


def test_images_stay_where_they_are_whatever_comes() -> None:
    old = [f"{number}.jpg" for number in range(0, 500, 2)]
    new = sorted([f"{number}.jpg" for number in range(500)])
    before, after = (
        dict(zip(old, names_of(old, SHARES), strict=True)),
        dict(zip(new, names_of(new, SHARES), strict=True)),
    )
    assert all(after[image_id] == name for image_id, name in before.items())
    fewer = dict(zip(new, names_of(new, {"train": 0.8, "rest": 0.2}), strict=True))
    assert all((fewer[image_id] == "train") == (name == "train") for image_id, name in after.items())


@pytest.mark.parametrize("group", ["folder", r"^(clip\d+)/"])
def test_groups_stay_together(group: str) -> None:
    image_ids = [f"clip{clip}/{number}.jpg" for clip in range(40) for number in range(5)]
    found = names_of(image_ids, SHARES, group)
    assert all(len(set(found[start : start + 5])) == 1 for start in range(0, 200, 5))
    assert set(found) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("group", "key"),
    [(None, "a/b/s1_02.jpg"), ("folder", "a/b"), (r"s\d", "s1"), (r"(s\d)_(\d+)", "s1"), ("x(y)?", "a/b/s1_02.jpg")],
)
def test_the_key_of_a_group(group: str | None, key: str) -> None:
    assert group_key("a/b/s1_02.jpg", group) == key


def test_lists_name_images_in_any_form() -> None:
    image_ids = ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.v2.png", "5.jpg"]
    lists = {"train": "# mine\na/1.jpg\n2\n\nghost\n", "val": "b/3\n4.v2\n2.jpg\n"}
    splits = split_by_lists(image_ids, {name: name for name in lists}, lambda split, where: lists[where])
    assert {name: taken.tolist() for name, taken in splits.members.items()} == {
        "train": [True, True, False, False, False],
        "val": [False, True, True, True, False],
    }
    assert [(one.check, one.count, one.examples) for one in splits.leftovers] == [
        ("listed_without_image", 1, ("train: ghost",)),
        ("in_no_split", 1, ("5.jpg",)),
        ("in_two_splits", 1, ("a/2.jpg",)),
    ]
    with pytest.raises(ConfigError, match=r"splits\.val: v\.txt: none of its 1 names is an image"):
        split_by_lists(image_ids, {"val": "v.txt"}, lambda split, where: "zzz")


@pytest.mark.parametrize(
    ("splits", "group", "message"),
    [
        ({"train": 0.8, "val": 0.1}, None, r"shares \[0\.8, 0\.1\]: expected numbers over 0 that add up to 1"),
        ({"train": 1.0, "val": 0.0}, None, "expected numbers over 0"),
        ({"train": 0.5, "val": "v.txt"}, None, "shares and lists are mixed"),
        ({"parts": 1.0}, None, r"splits\.parts: not a name"),
        ({"a/b": 1.0}, None, r"splits\.a/b: not a name"),
        ({}, "folder", "group: only splits by shares"),
        ({"train": 1.0}, "(", "group: '\\(' is no regular expression"),
    ],
)
def test_splits_that_make_no_sense(splits: dict[str, Any], group: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_splits(splits, group)


def test_good_splits_pass() -> None:
    for splits, group in (
        ({}, None),
        (SHARES, "folder"),
        ({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, None),
        ({"a": "x"}, None),
    ):
        check_splits(splits, group)
