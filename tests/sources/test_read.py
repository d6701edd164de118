"""Reading one file of many: what is compared, and which error becomes which code."""

import errno
import hashlib
import os
import tempfile
from pathlib import Path

import pytest

from segjobs.config import InputConfig, StorageConfig
from segjobs.errors import ItemError, StorageError
from segjobs.sources.images import list_images
from segjobs.sources.read import item_error, opened_item, opened_original, read_file, read_item, read_original
from segjobs.storage import FileInfo, Storage


def code_of(item: FileInfo) -> str:
    with pytest.raises(ItemError) as caught:
        read_item(Storage(), item)
    return caught.value.code


def test_reading_checks_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "1.jpg"
    path.write_bytes(b"12345")
    (item,) = list_images(Storage(), InputConfig(uri=str(tmp_path)))
    assert read_item(Storage(), item) == b"12345"

    path.write_bytes(b"123456")
    assert code_of(item) == "CHANGED"
    path.write_bytes(b"54321")
    os.utime(path, ns=(0, 0))
    assert code_of(item) == "CHANGED", "the same size at another time is another file"
    path.unlink()
    assert code_of(item) == "NOT_FOUND"
    path.mkdir()
    assert code_of(item) == "UNREADABLE"
    assert code_of(FileInfo(str(tmp_path / "never"), "never", -1, 0, "")) == "NOT_FOUND"


def test_an_opened_file_is_read_by_slices_and_compared_before_and_after(tmp_path: Path) -> None:
    path = tmp_path / "1.tif"
    path.write_bytes(b"0123456789")
    (item,) = list_images(Storage(), InputConfig(uri=str(tmp_path)))
    with opened_item(Storage(), item) as data:
        assert (len(data), data[2:4], data[-1:], data[20:]) == (10, b"23", b"9", b"")
    small = Storage(StorageConfig(max_item_bytes=9))
    for storage, after, code in ((small, b"0123456789", "TOO_LARGE"), (Storage(), b"changed", "CHANGED")):
        with pytest.raises(ItemError) as caught, opened_item(storage, item):
            path.write_bytes(after)
        assert caught.value.code == code
    path.unlink()
    with pytest.raises(ItemError) as caught, opened_item(Storage(), item):
        pytest.fail("nothing to open")
    assert caught.value.code == "NOT_FOUND"


@pytest.mark.slow
def test_a_remote_file_is_opened_as_a_copy_that_goes_again(
    s3_server: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    storage = Storage(s3_server)
    storage.put_if_absent("s3://segjobs/huge/1.tif", b"0123456789")
    (item,) = list_images(storage, InputConfig(uri="s3://segjobs/huge/"))
    for opened in (
        opened_item(storage, item),
        opened_original(storage, item.uri, sha256=hashlib.sha256(b"0123456789").hexdigest()),
    ):
        with opened as data:
            assert (len(data), data[3:5]) == (10, b"34")
            assert list(tmp_path.iterdir())
        assert not list(tmp_path.iterdir())


def test_an_image_is_compared_by_content_and_not_by_time(tmp_path: Path) -> None:
    path = tmp_path / "1.jpg"
    path.write_bytes(b"12345")
    sha256 = hashlib.sha256(b"12345").hexdigest()
    os.utime(path, ns=(0, 0))
    assert read_original(Storage(), str(path), sha256=sha256) == b"12345"
    path.write_bytes(b"54321")
    assert read_original(Storage(), str(path), sha256=None) == b"54321"
    with pytest.raises(ItemError) as caught:
        read_original(Storage(), str(path), sha256=sha256)
    assert str(caught.value) == (
        f"CHANGED: {path}: not the file that was labelled (its sha256 differs); prepare or label it anew"
    )


@pytest.mark.parametrize(
    ("number", "code", "image", "label"),
    [
        (errno.ENOENT, "NOT_FOUND", "no such file", "the label is gone"),
        (errno.ENOTDIR, "NOT_FOUND", "no such file", "the label is gone"),
        (errno.ETIMEDOUT, "TIMEOUT", "words; see storage.deadline_s", "words; see storage.deadline_s"),
        (errno.EFBIG, "TOO_LARGE", "words", "words"),
        (errno.EACCES, "UNREADABLE", "cannot be read: words", "the label cannot be read: words"),
        (errno.EPERM, "UNREADABLE", "cannot be read: words", "the label cannot be read: words"),
        (errno.EISDIR, "UNREADABLE", "cannot be read: words", "the label cannot be read: words"),
        (errno.ELOOP, "UNREADABLE", "cannot be read: words", "the label cannot be read: words"),
        (errno.ENAMETOOLONG, "UNREADABLE", "cannot be read: words", "the label cannot be read: words"),
        (errno.EINVAL, "UNREADABLE", "cannot be read: words", "the label cannot be read: words"),
        (errno.EIO, "UNREADABLE", "cannot be read: words", "the label cannot be read: words"),
        (errno.ENXIO, "UNREADABLE", "cannot be read: words", "the label cannot be read: words"),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
def test_each_errno_has_its_code_and_its_words(number: int, code: str, image: str, label: str) -> None:
    error = OSError(number, "words", "/d/1.jpg")
    assert str(item_error(error, "s3://b/1.jpg")) == f"{code}: s3://b/1.jpg: {image}"
    assert str(item_error(error, "s3://b/1.txt", what="the label")) == f"{code}: s3://b/1.txt: {label}"


def test_an_error_without_a_number_is_told_by_its_text() -> None:
    assert str(item_error(OSError("odd"), "x")) == "UNREADABLE: x: cannot be read: odd"


def test_a_file_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    storage = Storage(StorageConfig(max_item_bytes=4))
    path = tmp_path / "1.png"
    path.write_bytes(b"12345")
    with pytest.raises(ItemError) as caught:
        read_file(storage, str(path), what="the mask")
    assert str(caught.value) == f"TOO_LARGE: {path}: 5 bytes, storage.max_item_bytes is 4"
    path.write_bytes(b"1234")
    assert read_file(storage, str(path)) == b"1234"


def test_what_is_wrong_with_the_store_is_no_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open files: every image would fail, so the job stops."""
    path = tmp_path / "1.png"
    path.write_bytes(b"1")

    def no_more(*args: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", no_more)
    with pytest.raises(StorageError, match="Too many open files"):
        read_file(Storage(), str(path))
