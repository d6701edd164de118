"""Which is to blame, a file or its store: errors of every kind, of one file, of all, for a moment and for good."""

import errno
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from segjobs.errors import StorageError
from segjobs.sources.blame import Blame
from segjobs.storage import FileInfo, Storage

ITEMS = [FileInfo(f"/photos/{name}.jpg", f"{name}.jpg", 1, 1, "") for name in "abcdefgh"]
A, B, C = (item.uri for item in ITEMS[:3])
ALL = [item.uri for item in ITEMS]
TROUBLE = [errno.EIO, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ECONNRESET, errno.ENODEV, errno.EACCES, errno.EPERM]
OWN = [errno.EFBIG, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.ENODATA]


class Broken(Storage):
    """Reads of ``uris`` fail with ``number``, ``times`` times each."""

    def __init__(self, number: int, uris: Sequence[str], times: int = 10**6) -> None:
        super().__init__()
        self.number = number
        self.left = dict.fromkeys(uris, times)
        self.reads: Counter[str] = Counter()

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
        self.reads[uri] += 1
        if self.left.get(uri, 0):
            self.left[uri] -= 1
            raise OSError(self.number, os.strerror(self.number), uri)
        return b"x", FileInfo(uri, uri, 1, 1, "")


def names(number: int) -> str:
    return errno.errorcode[number]


@pytest.mark.parametrize("number", TROUBLE, ids=names)
def test_trouble_that_passes_costs_nothing(number: int) -> None:
    storage = Broken(number, [A], times=1)
    assert Blame(storage, ITEMS, pause_s=0).read_item(A)[0] == b"x"
    assert storage.reads == {A: 2, B: 1}, "another file is asked for before it is tried once more"


@pytest.mark.parametrize("number", TROUBLE, ids=names)
def test_trouble_of_all_is_the_stores(number: int) -> None:
    storage = Broken(number, ALL)
    with pytest.raises(StorageError, match=r"a\.jpg: cannot be read .*, and neither can others \(/photos/b\.jpg: "):
        Blame(storage, ITEMS, pause_s=0).read_item(A)


@pytest.mark.parametrize("number", TROUBLE, ids=names)
def test_trouble_of_one_file_is_its_own(number: int) -> None:
    blame = Blame(Broken(number, [A]), ITEMS, pause_s=0)
    assert blame.read_item(C)[0] == b"x"
    with pytest.raises(OSError) as caught:
        blame.read_item(A)
    assert caught.value.errno == number
    assert blame.read_item(B)[0] == b"x"


def test_the_only_file_is_tried_once_more() -> None:
    storage = Broken(errno.EIO, [A])
    with pytest.raises(OSError, match="Input/output error"):
        Blame(storage, pause_s=0).read_item(A)
    assert storage.reads == {A: 2}


def test_several_in_a_row_are_the_stores_though_one_can_be_read() -> None:
    """As where the one that is asked for is in a cache."""
    blame = Blame(Broken(errno.EIO, ALL[1:]), ITEMS, pause_s=0)
    assert blame.read_item(A)[0] == b"x"
    for uri in ALL[1:4]:
        with pytest.raises(OSError):
            blame.read_item(uri)
    with pytest.raises(StorageError, match=r"e\.jpg: cannot be read \(Input/output error\), the 4th file in a row"):
        blame.read_item(ALL[4])
    blame = Blame(Broken(errno.EACCES, ALL[1:]), ITEMS, pause_s=0)
    blame.read_item(A)
    for uri in ALL[1:]:  # of rights that many files lack, the disk is not guilty
        with pytest.raises(PermissionError):
            blame.read_item(uri)


@pytest.mark.parametrize("number", OWN, ids=names)
def test_what_only_one_file_can_be_is_not_asked_about(number: int) -> None:
    storage = Broken(number, ALL)
    with pytest.raises(OSError) as caught:
        Blame(storage, ITEMS).read_item(A)
    assert (caught.value.errno, storage.reads.total()) == (number, 1)


def test_a_file_that_is_gone_and_a_disk_that_is_gone(tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    (mount / "photos").mkdir(parents=True)
    (mount / "photos/b.jpg").write_bytes(b"x")
    blame = Blame(Storage())
    with pytest.raises(FileNotFoundError):
        blame.read_item(str(mount / "photos/a.jpg"))
    (mount / "photos/b.jpg").unlink()
    with pytest.raises(StorageError, match=r"a\.jpg: is gone, and .*/photos is empty: mount its disk"):
        blame.read_item(str(mount / "photos/a.jpg"))
    (mount / "photos").rmdir()
    with pytest.raises(StorageError, match=r"and .*/disk is empty"):
        blame.read_item(str(mount / "photos/a.jpg"))
    (mount / "elsewhere").mkdir()
    with pytest.raises(FileNotFoundError):
        blame.read_item(str(mount / "photos/a.jpg"))


def test_each_read_is_held_by_the_name_of_its_image() -> None:
    held: list[str] = []

    @contextmanager
    def holding(names: Sequence[str]) -> Iterator[None]:
        held.extend(names)
        yield

    Blame(Broken(errno.EIO, [A], times=1), ITEMS, holding=holding, pause_s=0).read_item(A)
    assert held == ["a.jpg"] * 3, "another's read is on its account"
