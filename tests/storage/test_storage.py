"""The one door to files, on the local disk and on a real S3 server."""

import errno
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from segjobs.config import S3Config, StorageConfig
from segjobs.errors import ConfigError, StorageError
from segjobs.storage import Storage, is_remote, join, local_path, local_uri
from segjobs.storage.uris import microseconds

Store = tuple[Storage, str]
NAMES = [
    "plain.txt",
    "with space.txt",
    "ünï ∆ 漢.txt",
    "hash#?%25+&=.txt",
    "new\nline.txt",
    "quote'\".txt",
    "a/b/c.txt",
]


def test_what_is_put_is_read_and_listed(store: Store) -> None:
    storage, root = store
    for name in NAMES:
        assert storage.put_if_absent(join(root, name), name.encode())
    assert {file.path: file.size for file in storage.walk(root)} == {name: len(name.encode()) for name in NAMES}
    for file in storage.walk(root):
        data, found = storage.read_item(file.uri)
        assert data == file.path.encode() == storage.read(file.uri)
        assert (found.size, found.mtime_us, found.etag) == (file.size, file.mtime_us, file.etag)
        assert storage.info(file.uri) == found
    assert storage.list_names(join(root, "a/b")) == {"c.txt"}
    assert storage.list_names(join(root, "nothing here")) == set()


def test_put_never_replaces(store: Store) -> None:
    storage, root = store
    uri = join(root, "part")
    assert storage.put_if_absent(uri, b"first")
    assert not storage.put_if_absent(uri, b"second")
    assert storage.read(uri) == b"first"


def test_a_file_is_deleted_once_and_again(store: Store) -> None:
    storage, root = store
    for name in ("a", "b"):
        storage.put_if_absent(join(root, name), b"x")
    for _ in range(2):
        storage.delete(join(root, "a"))
    assert storage.list_names(root) == {"b"}


def test_one_of_many_writers_wins(store: Store) -> None:
    storage, root = store
    bodies = [bytes([n]) * 100_000 for n in range(16)]
    with ThreadPoolExecutor(16) as threads:
        won = list(threads.map(lambda body: storage.put_if_absent(join(root, "part"), body), bodies))
    assert won.count(True) == 1
    assert storage.read(join(root, "part")) == bodies[won.index(True)]
    assert [file.path for file in storage.walk(root)] == ["part"]


def test_a_file_is_put_without_being_read_whole(store: Store, tmp_path: Path) -> None:
    storage, root = store
    (tmp_path / "made").write_bytes(bytes(range(256)) * 100_000)
    uri = join(root, "deep/er/file.json")
    assert storage.put_file_if_absent(uri, tmp_path / "made")
    assert storage.read(uri) == (tmp_path / "made").read_bytes()
    (tmp_path / "other").write_bytes(b"other")
    assert not storage.put_file_if_absent(uri, tmp_path / "other")
    assert not storage.put_if_absent(uri, b"other")
    (tmp_path / "made").unlink()
    assert len(storage.read(uri)) == 25_600_000
    assert [file.path for file in storage.walk(root)] == ["deep/er/file.json"]


def test_a_file_from_another_disk_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link(source: Path, target: Path) -> None:
        if Path(source).parent == tmp_path:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "made").write_bytes(b"made")
    assert Storage().put_file_if_absent(str(tmp_path / "out/file"), tmp_path / "made")
    assert not Storage().put_file_if_absent(str(tmp_path / "out/file"), tmp_path / "made")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"], "nothing temporary stays"
    assert (tmp_path / "out/file").read_bytes() == b"made"


def _failing(code: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_without_hard_links_a_name_is_taken_by_a_rename(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", _failing(code))
    storage, uri = Storage(), str(tmp_path / "out/part")
    (tmp_path / "made").write_bytes(b"made")
    assert storage.put_if_absent(uri, b"first")
    assert not storage.put_if_absent(uri, b"second")
    assert not storage.put_file_if_absent(uri, tmp_path / "made")
    assert storage.read(uri) == b"first"
    assert storage.put_file_if_absent(str(tmp_path / "out/file"), tmp_path / "made")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        "part": b"first",
        "file": b"made",
    }
    assert (tmp_path / "made").read_bytes() == b"made"


def test_without_any_way_to_publish_it_says_what_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _failing(errno.EPERM))
    monkeypatch.setattr("segjobs.storage.local.rename_new", _failing(errno.EINVAL))
    with pytest.raises(StorageError, match=r"part: cannot write: its file system has no hard links .*; take a place"):
        Storage().put_if_absent(str(tmp_path / "part"), b"data")
    assert not list(tmp_path.iterdir()), "nothing temporary stays"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full; free some space and run the command again"),
        (errno.EDQUOT, "the disk is full; free some space and run the command again"),
        (errno.EROFS, "cannot write: Read-only file system; mend its rights or mount, or take another place"),
        (errno.EACCES, "cannot write: Permission denied; mend its rights or mount, or take another place"),
        (errno.EIO, "cannot write: Input/output error"),
    ],
)
@pytest.mark.parametrize("where", ["fsync", "link", "mkdir"])
def test_a_disk_that_takes_no_more(
    code: int, words: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made").write_bytes(b"made")
    monkeypatch.setattr(os, where, _failing(code))
    uri = str(tmp_path / "out/part")
    for put in (
        lambda: Storage().put_if_absent(uri, b"data"),
        lambda: Storage().put_file_if_absent(uri, tmp_path / "made"),
    ):
        with pytest.raises(StorageError, match=rf"^{uri}: {words}$"):
            put()


@pytest.mark.parametrize("seconds", [253_402_300_800, 2**40, -(2**40)])
def test_dates_beyond_the_calendar_are_its_ends(seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What disks keep differs; what they tell is beyond Python's dates."""
    real = os.stat(tmp_path)
    status = os.stat_result((33188, *real[1:6], 3, *real[7:]), {"st_mtime_ns": seconds * 10**9})
    monkeypatch.setattr("segjobs.storage.local._status", lambda _: status)
    info = Storage().info(str(tmp_path / "a.jpg"))
    assert info is not None
    table = pa.table({"mtime": pa.array([info.mtime_us], pa.int64()).cast(pa.timestamp("us", tz="UTC"))})
    assert table["mtime"][0].as_py().year in (1, 9999)


@pytest.mark.parametrize("us", [0, -1_500_000, 1_700_000_000_123_457, 253_402_300_799_999_999, -62_135_596_800_000_000])
def test_microseconds_of_a_date_are_exact(us: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
    assert microseconds(moment) == microseconds(moment.replace(tzinfo=None)) == us
    assert microseconds(datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))) > 253_402_300_799_999_999


def test_a_missing_file(store: Store) -> None:
    storage, root = store
    assert storage.info(join(root, "none")) is None
    assert not storage.exists(join(root, "none"))
    with pytest.raises(FileNotFoundError):
        storage.read(join(root, "none"))


def test_get_file_downloads(store: Store, tmp_path: Path) -> None:
    storage, root = store
    storage.put_if_absent(join(root, "weights"), b"w" * 1000)
    storage.get_file(join(root, "weights"), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"w" * 1000


def test_a_storage_pickles_after_use(store: Store) -> None:
    storage, root = store
    storage.put_if_absent(join(root, "x"), b"x")
    assert pickle.loads(pickle.dumps(storage)).read(join(root, "x")) == b"x"  # noqa: S301


@pytest.mark.slow
def test_s3_listing_pages(s3_server: StorageConfig) -> None:
    storage = Storage(s3_server)
    names = [f"{n:04d}.jpg" for n in range(1100)]  # a page of S3 holds 1000
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: storage.put_if_absent(f"s3://segjobs/pages/{name}", b"x"), names))
    assert [file.path for file in storage.walk("s3://segjobs/pages")] == names


@pytest.mark.slow
def test_s3_that_cannot_be_used_stops_the_job(s3_server: StorageConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="no bucket 'elsewhere'"):
        list(Storage(s3_server).walk("s3://elsewhere/x"))
    nowhere = Storage(StorageConfig(s3=S3Config(endpoint_url="http://127.0.0.1:1")))
    with pytest.raises(StorageError, match=r"cannot reach http://127.0.0.1:1"):
        nowhere.read("s3://segjobs/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="access denied"):
        Storage(s3_server).read("s3://segjobs/x")


def test_hidden_files_and_dangling_links_are_skipped_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(b"x")
    (tmp_path / ".hidden.jpg").write_bytes(b"x")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    assert [file.path for file in Storage().walk(str(tmp_path))] == ["a/x.jpg"]


def test_names_that_are_not_utf8_are_listed_and_read(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff%.jpg", "wb") as file:
        file.write(b"bytes")
    (info,) = Storage().walk(str(tmp_path))
    assert info.path == "%FF%.jpg"
    assert info.uri.encode().isascii()
    assert Storage().read(info.uri) == b"bytes"
    assert local_uri(local_path(info.uri)) == info.uri


def test_a_failed_write_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        Storage().put_if_absent(str(tmp_path / "file" / "below"), b"x")
    with pytest.raises(StorageError, match="no such folder"):
        list(Storage().walk(str(tmp_path / "none")))


def test_other_schemes_do_not_open() -> None:
    for uri in ("ftp://host/x.jpg", "github://org:repo@/x", "simplecache::s3://bucket/x", "memory://x"):
        with pytest.raises(ConfigError, match="cannot open"):
            is_remote(uri)
    with pytest.raises(ConfigError, match="no bucket"):
        Storage().read("s3://")


def test_a_store_that_replaces_files_is_refused_at_the_first_one(tmp_path: Path) -> None:
    class Replacing(Storage):
        def put_if_absent(self, uri: str, data: bytes) -> bool:
            return True

    with pytest.raises(StorageError, match="ignores 'If-None-Match"):
        Replacing().put_first("s3://bucket/street/masks/_delta_log/0.json", b"{}")
    assert Storage().put_first(str(tmp_path / "first"), b"1") and not Storage().put_first(str(tmp_path / "first"), b"2")
    assert (tmp_path / "first").read_bytes() == b"1"
