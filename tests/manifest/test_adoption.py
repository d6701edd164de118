"""Runs that were made elsewhere, taken into a collection; those of other images of the same names are refused."""

from pathlib import Path
from typing import Any

import pytest

from segjobs.errors import ConflictError, ItemError
from segjobs.manifest.adoption import add_run
from segjobs.manifest.collection import open_collection
from segjobs.manifest.parts import open_run, read_rows
from segjobs.storage import Storage
from tests.collections_made import CLASSES
from tests.made import Picture, finished, row_of


def run_at(
    uri: Path, pictures: dict[str, Picture], *, root: str, sha256: str | None = "00", task: Any = "semantic"
) -> str:
    """A finished run of images below ``root``, in parts of two."""
    rows = [row_of(name, picture, CLASSES) for name, picture in sorted(pictures.items())]
    for row in rows:
        row["uri"] = f"{root}/{row['image_id']}"
        row["source"]["sha256"] = sha256
    return finished(uri, rows, CLASSES, cut=(2,), task=task)


def test_images_of_one_name_below_two_roots_are_no_image(tmp_path: Path) -> None:
    storage, street = Storage(), str(tmp_path / "street")
    one = run_at(tmp_path / "one", {"a": ["s"], "b": ["s"], "c": ["s"], "d": ["s"]}, root="/one")
    assert add_run(storage, street, open_run(storage, one)).version == 1
    two = open_run(storage, run_at(tmp_path / "two", {"b": ["r"], "x": ["r"], "z": ["r"]}, root="/two", sha256="11"))
    with pytest.raises(ConflictError, match=r"'b' is /two/b there and /one/b in .*street, of other bytes"):
        add_run(storage, street, two)
    assert open_collection(storage, street).version == 1
    # The same bytes elsewhere, others in the same place, and bytes that are not known are the image.
    for name, root, sha256 in (("changed", "/one", "11"), ("copied", "/two", "11"), ("unread", "/three", None)):
        run = open_run(storage, run_at(tmp_path / name, {"b": ["r"], "d": ["r"], "x": ["r"]}, root=root, sha256=sha256))
        assert add_run(storage, street, run).new
    assert [row["image_id"] for row in read_rows(storage, street)] == ["a", "b", "c", "d", "x"]
    assert not add_run(storage, street, open_run(storage, one)).new, "it is there, whatever became of its images"


def test_another_task_and_broken_rows(tmp_path: Path) -> None:
    storage, street = Storage(), str(tmp_path / "street")
    broken = run_at(tmp_path / "broken", {"a": ItemError("TRUNCATED", "ends early")}, root="/one", sha256=None)
    add_run(storage, street, open_run(storage, broken))
    objects = open_run(storage, run_at(tmp_path / "objects", {"q": ["s"]}, root="/one", task="instance"))
    with pytest.raises(ConflictError, match="holds semantic masks, and these are instance"):
        add_run(storage, street, objects)
    assert add_run(storage, street, open_run(storage, run_at(tmp_path / "two", {"a": ["s"]}, root="/two"))).version == 2
