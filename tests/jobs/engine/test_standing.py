"""What stands at output.uri: found, compared, refused with what differs; equal files are published once."""

import os
from pathlib import Path

import pytest

from segjobs.errors import ConflictError, ManifestError, StorageError
from segjobs.jobs.engine.standing import (
    check_names,
    check_writable,
    differences,
    publish_same,
    read_standing,
    read_standing_json,
    unlike,
)
from segjobs.storage import Storage, join

OLD = {"model": {"name": "unet", "options": {"depth": 5, "width": 1}}, "seed": 0, "gone": [1, 2]}
NEW = {"model": {"name": "unet", "options": {"depth": 4, "width": 1}}, "seed": 0, "new": "ü"}


def test_what_differs_with_both_values() -> None:
    assert differences(OLD, OLD) == []
    assert differences(OLD, NEW) == [
        "gone was [1, 2], is null",
        'model was {"name": "unet", "options": {"depth": 5, "width": 1}}, '
        'is {"name": "unet", "options": {"depth": 4, "width": 1}}',
        'new was null, is "ü"',
    ]
    assert differences(OLD, NEW, deep=True) == [
        "gone was [1, 2], is null",
        "model.options.depth was 5, is 4",
        'new was null, is "ü"',
    ]
    assert differences({"a": None}, {"a": {"b": 1}}, deep=True) == ['a was null, is {"b": 1}']
    (long,) = differences({"a": "x" * 1000}, {"a": 1})
    assert long == f'a was "{"x" * 118}…, is 1'


def test_what_stands_is_refused_in_one_line() -> None:
    lines = ["seed was 0, is 1", "loss was null, is 2"]
    said = (
        "out holds another training; seed was 0, is 1; loss was null, is 2. Choose a new output.uri to start a new one"
    )
    assert str(unlike("out holds another training", lines, "one", finished=True)) == said
    assert str(unlike("out holds another training", lines, "one", finished=False)) == (
        f"{said}, restore the old settings to finish this one, or delete its folder: it is not finished"
    )
    check_names("out holds a report with", OLD, OLD)
    with pytest.raises(
        ConflictError,
        match=r"^out holds a report with other gone, model\.options\.depth, new: choose a new output\.uri$",
    ):
        check_names("out holds a report with", OLD, NEW)


def test_a_file_that_is_there_is_read_and_one_that_is_not_is_none(store: tuple[Storage, str]) -> None:
    storage, root = store
    uri = join(root, "train.json")
    assert (read_standing(storage, uri), read_standing_json(storage, uri)) == (None, None)
    storage.put_if_absent(uri, b'{"a": 1}')
    assert (read_standing(storage, uri), read_standing_json(storage, uri)) == (b'{"a": 1}', {"a": 1})


@pytest.mark.parametrize("data", [b"", b'{"a": ', b"\xff\xfe", b"[1]"])
def test_a_damaged_file_is_told_by_its_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(data)
    with pytest.raises(ManifestError, match=r"report\.json is damaged: .*; choose a new output\.uri$"):
        read_standing_json(Storage(), str(path))


def test_equal_files_are_published_once_and_another_one_is_left(store: tuple[Storage, str]) -> None:
    storage, root = store
    uri = join(root, "scores.json")
    for _ in range(2):
        publish_same(storage, uri, b"1", "belongs to another evaluation")
    with pytest.raises(ConflictError, match=r"scores\.json belongs to another evaluation; choose a new output\.uri$"):
        publish_same(storage, uri, b"2", "belongs to another evaluation")
    assert storage.read(uri) == b"1"


def test_an_output_that_can_be_no_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for fine in (tmp_path, tmp_path / "a" / "b"):
        check_writable(str(fine))
    check_writable("s3://no-such-bucket/x")
    for uri in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "run"):
        with pytest.raises(
            StorageError, match=rf"^output\.uri: {uri}: {tmp_path}/notes\.txt is a file; give a folder$"
        ):
            check_writable(str(uri))
    monkeypatch.setattr(os, "access", lambda *_: False)  # whoever runs the tests as root may write everywhere
    with pytest.raises(StorageError, match=f"{tmp_path} may not be written; give another folder"):
        check_writable(str(tmp_path / "a"))
