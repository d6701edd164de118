"""Listing: every kind of input, and reading what was planned."""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segjobs.config import InputConfig
from segjobs.errors import ConfigError
from segjobs.sources.images import list_images
from segjobs.storage import Storage, join

Store = tuple[Storage, str]
FILES = ["a/1.jpg", "a/2.PNG", "a/b/3.tif", "a/notes.txt", "c/4.jpeg", "[x]/5.jpg"]


def fill(storage: Storage, root: str) -> None:
    for name in FILES:
        storage.put_if_absent(join(root, name), name.encode())


def listed(storage: Storage, uri: str, **options: object) -> list[str]:
    return sorted(file.path for file in list_images(storage, InputConfig.model_validate({"uri": uri, **options})))


def test_a_folder_a_glob_and_a_file(store: Store) -> None:
    storage, root = store
    fill(storage, root)
    assert listed(storage, root) == ["[x]/5.jpg", "a/1.jpg", "a/2.PNG", "a/b/3.tif", "c/4.jpeg"]
    assert listed(storage, root, include=["*.jp*g"]) == ["[x]/5.jpg", "a/1.jpg", "c/4.jpeg"]
    assert listed(storage, root, exclude=["a/*", "5.JPG"]) == ["c/4.jpeg"]
    assert listed(storage, f"{root}/a/**/*.*", exclude=["*.txt"]) == ["1.jpg", "2.PNG", "b/3.tif"]
    assert listed(storage, f"{root}/?/*.jp*") == ["a/1.jpg", "c/4.jpeg"]
    assert listed(storage, join(root, "a/1.jpg")) == ["1.jpg"]
    assert listed(storage, join(root, "[x]/5.jpg")) == ["5.jpg"], "a name that exists is no glob"


def test_lists_of_uris(store: Store) -> None:
    storage, root = store
    fill(storage, root)
    rows = [join(root, "a/1.jpg"), join(root, "c/4.jpeg"), join(root, "c/gone.jpg")]
    storage.put_if_absent(join(root, "list.txt"), ("# mine\n\n" + "\n".join(rows[:2]) + "\nc/gone.jpg\n").encode())
    assert listed(storage, join(root, "list.txt")) == ["a/1.jpg", "c/4.jpeg", "c/gone.jpg"]
    found = {f.path: f.size for f in list_images(storage, InputConfig(uri=join(root, "list.txt")))}
    assert found == {"a/1.jpg": 7, "c/4.jpeg": 8, "c/gone.jpg": -1}

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"path": rows, "image_id": ["x", "y", "z"]}), sink)
    storage.put_if_absent(join(root, "list.parquet"), sink.getvalue().to_pybytes())
    assert listed(storage, join(root, "list.parquet"), column="path") == ["x", "y", "z"]
    with pytest.raises(ConfigError, match=r"no column 'uri'; it has path, image_id; set input\.column"):
        listed(storage, join(root, "list.parquet"))


def test_a_csv_list_and_what_can_be_wrong_with_it(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"1")
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["uri", "city"], ["1.jpg", "Bern"]])
    assert listed(Storage(), str(tmp_path / "list.csv")) == ["1.jpg"]
    (tmp_path / "twice.txt").write_text("1.jpg\n1.jpg\n")
    with pytest.raises(ConfigError, match="more than once"):
        listed(Storage(), str(tmp_path / "twice.txt"))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        listed(Storage(), str(tmp_path / "binary.txt"))
    (tmp_path / "no.parquet").write_bytes(b"no")
    with pytest.raises(ConfigError, match="not a Parquet file"):
        listed(Storage(), str(tmp_path / "no.parquet"))
    (tmp_path / "hole.csv").write_text("uri,x\n1.jpg,1\n,2\n")
    with pytest.raises(ConfigError, match="empty value in row 2"):
        listed(Storage(), str(tmp_path / "hole.csv"))


def test_nothing_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        listed(Storage(), str(tmp_path / "none"))
