"""Lists of files: which lines are names, which file each means, and what is wrong with a list."""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segjobs.config import InputConfig
from segjobs.errors import ConfigError, StorageError
from segjobs.sources.images import list_images
from segjobs.sources.lists import list_of_files
from segjobs.storage import Storage, join
from tests.sources.test_images import Store, fill, listed


def parquet(**columns: object) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def ids_of(folder: Path, name: str, data: bytes | str) -> list[str]:
    """The image_ids of a list in ``folder``, in its order; with a ? behind those of files that are not there."""
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return [f.path + "?" * (f.size < 0) for f in list_images(Storage(), InputConfig(uri=str(folder / name)))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("x/0.png", "x/1.png", "y/0.png", "#1.png", "e\u0301.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    return tmp_path


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
    with pytest.raises(ConfigError, match=r"no column 'uri'; it has 'path', 'image_id'; set input\.column"):
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


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("./x/0.png\n./x/1.png\n./y/0.png\n", ["x/0.png", "x/1.png", "y/0.png"]),
        ("./x/0.png\n./x/1.png\n", ["x/0.png", "x/1.png"]),  # as find . writes it: the folder's ids
        ("x/0.png\r\nx/1.png\r\n", ["0.png", "1.png"]),
        ("x/../y/0.png\nx//0.png\n", ["y/0.png", "x/0.png"]),
        ("#1.png\n# a comment\n#\n", ["#1.png"]),
        ("a\x85b.png\nc\u2028d.png\n", ["a\x85b.png?", "c\u2028d.png?"]),
        ("\u00e9.png\n", ["e\u0301.png"]),  # one character in the list, two on the disk
    ],
)
def test_lines_of_a_text(text: str, ids: list[str], folder: Path) -> None:
    assert ids_of(folder, "list.txt", text) == ids


def test_dots_behind_a_link_are_what_the_disk_says(folder: Path) -> None:
    (folder / "elsewhere/deep").mkdir(parents=True)
    (folder / "elsewhere/0.png").write_bytes(b"22")
    (folder / "link").symlink_to(folder / "elsewhere/deep")
    (folder / "list.txt").write_text("link/../0.png\nx/0.png\n")
    found = list_images(Storage(), InputConfig(uri=str(folder / "list.txt")))
    assert [file.size for file in found] == [2, 1]


@pytest.mark.parametrize(
    ("name", "data", "ids"),
    [
        ("list.csv", "uri, image_id\nx/0.png, a\n\ny/0.png, b\n", ["a", "b"]),
        ("list.parquet", parquet(uri=["x/0.png", "y/0.png"], image_id=[7, 10]), ["7", "10"]),
        ("list.parquet", parquet(uri=["x/0.png"], **{" image_id": ["a"]}, when=["2"]), ["a"]),
    ],
)
def test_ids_of_a_table(name: str, data: bytes | str, ids: list[str], folder: Path) -> None:
    assert ids_of(folder, name, data) == ids


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("list.txt", "./x/0.png\nx/../x/0.png\n", r"lists 'x/\.\./x/0\.png' more than once \(as '\./x/0\.png' too\)"),
        ("list.csv", "uri,image_id\nx/0.png\n", "column 'image_id' has an empty value in row 1"),
        ("list.csv", "uri,image_id\nx/0.png,\n", "column 'image_id' has an empty value in row 1"),
        ("list.csv", "uri,n\nx/0.png,1\na, b.png,2\n", "row 2 has 3 fields, the header 2; put names with commas"),
        ("list.csv", "uri,uri\nx/0.png,1\n", "has two columns 'uri'"),
        ("list.csv", "", "empty; expected a header line"),
        ("list.csv", "uri\na\rb\n", "not readable as CSV: new-line character seen"),
        ("list.parquet", parquet(uri=["x/0.png"], image_id=[None]), "column 'image_id' has an empty value in row 1"),
        ("list.parquet", parquet(uri=["x/0.png"], image_id=[True]), r"has bool values \(row 1\); expected text"),
        ("list.parquet", parquet(uri=[b"x/0.png"]), r"column 'uri' has bytes values \(row 1\); expected text"),
        ("list.parquet", parquet(uri=["x/0.png"])[:-9], "not a Parquet file that can be read"),
    ],
)
def test_what_is_wrong_with_a_list(name: str, data: bytes | str, message: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        ids_of(folder, name, data)


class NoFiles(Storage):
    """Has the list alone."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    def read(self, uri: str) -> bytes:
        return self._data

    def info(self, uri: str) -> None:
        super()._of(uri)


_LIST = parquet(uri=["a", "b"], image_id=["1", "2"])


@settings(max_examples=100)
@example("l.csv", b'"\x00\n\x00')
@example("l.txt", b"./\n./a.png")
@given(
    st.sampled_from(["l.txt", "l.csv", "l.parquet"]),
    st.one_of(
        st.binary(max_size=80),
        st.text('uri,"\n\r ;#./:s3\0\u2028é', max_size=60).map(str.encode),
        st.tuples(st.integers(0, len(_LIST) - 1), st.integers(1, 255)).map(
            lambda edit: _LIST[: edit[0]] + bytes([_LIST[edit[0]] ^ edit[1]]) + _LIST[edit[0] + 1 :]
        ),
    ),
)
def test_no_list_gives_another_error_than_ours(name: str, data: bytes) -> None:
    try:
        files = list(list_of_files(NoFiles(data), f"/d/{name}", "uri"))
    except (ConfigError, StorageError) as error:
        assert "\n" not in str(error)
        return
    assert all(file.path for file in files)
