"""Rows that images had before they are labelled again: file by file, a few of many, or lost."""

from pathlib import Path

from segjobs.errors import ItemError
from segjobs.jobs.nightly.earlier import Earlier, earlier_of
from segjobs.manifest.collection import open_collection
from segjobs.storage import Storage
from tests.collections_made import CLASSES, commit
from tests.manifest.test_nights import change, night_of


def test_rows_of_several_files_and_of_one_that_is_lost(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    commit(Storage(), uri, {"a": ["ss"], "b": ["sr"], "c": ItemError("TRUNCATED", "ends early")}, app_id="1")
    table = open_collection(Storage(), uri)
    (first,) = table.files
    # A second file: what lies behind a large one is not merged into it, and here by hand.
    commit(Storage(), tmp_path / "other", {"x": ["rr"], "z": ["ss"]}, app_id="1")
    other = open_collection(Storage(), str(tmp_path / "other"))
    (second,) = other.files
    (Path(uri) / "masks" / second.part.name).write_bytes((tmp_path / "other/masks" / second.part.name).read_bytes())
    table.__dict__["files"] = (first, second)
    earlier = Earlier(table, ["a", "b", "c", "x", "z"])
    assert list(earlier.rows_of(["a", "c", "n"])) == ["a"], "c has no masks, and n is new"
    found = earlier.rows_of(["b", "x", "z"])
    assert [(name, row["segments"][0]["category"]) for name, row in found.items()] == [
        ("b", "sky"),
        ("x", "road"),
        ("z", "sky"),
    ]
    assert earlier.categories == CLASSES and earlier.lost == 0
    (Path(uri) / "masks" / second.part.name).unlink()  # as a vacuum does
    lost = Earlier(table, ["a", "x", "z"])
    assert (list(lost.rows_of(["a", "x", "z"])), lost.lost) == (["a"], 2)


def test_of_many_images_some_are_drawn(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    names = [f"{number:02}" for number in range(20)]
    commit(Storage(), uri, {name: ["ss"] for name in names}, app_id="1")
    table = open_collection(Storage(), uri)
    drawn, again = (set(Earlier(table, names, most=5).rows_of(names)) for _ in range(2))
    assert drawn == again and len(drawn) == 5


def test_only_stale_images_have_masks_of_the_same_bytes(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    commit(Storage(), uri, {"a": ["ss"], "b": ["ss"]}, app_id="1")
    commit(Storage(), uri, {"a": ["rr"]}, app_id="2", day=2)
    night = night_of(uri, change("a", "stale"), change("b", "changed"), change("c", "new"))
    (row,) = earlier_of(Storage(), night).rows_of(["a", "b", "c"]).values()
    assert row["segments"][0]["category"] == "sky", "of version 1, which the night was compared with"
    none = earlier_of(Storage(), night_of(str(tmp_path / "nowhere"), change("c", "new")))
    assert (none.rows_of(["c"]), none.categories, none.lost) == ({}, (), 0)
