"""Requests on their way before they are asked for: how many, how many bytes, and that nothing is read twice."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from segjobs.sources.read_ahead import ReadAhead
from segjobs.storage import FileInfo


def item(name: str, size: int = 10, scheme: str = "s3://b") -> FileInfo:
    return FileInfo(f"{scheme}/{name}", name, size, 1, "e")


class Store:
    """Notes what is read; ``gate``: reads wait for it. ``together``: so many reads meet before one ends."""

    def __init__(self, *, together: int = 1) -> None:
        self.read: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self._meeting = threading.Barrier(together)
        self._lock = threading.Lock()

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
        with self._lock:
            self.read.append(uri)
        self._meeting.wait(30)
        assert self.gate.wait(30)
        if uri.endswith("bad"):
            raise OSError(5, "cut short", uri)
        return uri.encode(), item(uri)


def names(store: Store) -> list[str]:
    return sorted(uri.rpartition("/")[2] for uri in store.read)


def test_one_reader_has_several_requests_in_flight() -> None:
    store = Store(together=4)
    items = [item(f"{number}") for number in range(8)]
    ahead = ReadAhead(store, items, at_once=4)
    assert [ahead.read_item(one.uri)[0] for one in items] == [one.uri.encode() for one in items]
    assert names(store) == [str(number) for number in range(8)], "each once"


def test_what_is_read_and_not_asked_for_is_bounded() -> None:
    store = Store()
    ahead = ReadAhead(store, [item(f"{number}") for number in range(9)], at_once=8, most_bytes=35)
    ahead.read_item("s3://b/0")
    ahead._threads.shutdown()
    assert names(store) == ["0", "1", "2", "3"], "of ten bytes each"


def test_a_file_beyond_the_bound_goes_alone() -> None:
    store = Store()
    ahead = ReadAhead(store, [item("a", 10), item("large", 100), item("b", 10)], most_bytes=35)
    for name in ("a", "large", "b"):
        assert ahead.read_item(f"s3://b/{name}")[0] == f"s3://b/{name}".encode()
    assert names(store) == ["a", "b", "large"]


def test_errors_come_with_their_file() -> None:
    store = Store()
    ahead = ReadAhead(store, [item("a"), item("bad"), item("c")])
    assert ahead.read_item("s3://b/a")[0] == b"s3://b/a"
    with pytest.raises(OSError, match="cut short"):
        ahead.read_item("s3://b/bad")
    assert ahead.read_item("s3://b/c")[0] == b"s3://b/c"


def test_a_file_that_is_asked_for_before_its_turn_or_twice_is_read_then() -> None:
    store = Store()
    ahead = ReadAhead(store, [item("a"), item("b"), item("c")], at_once=1)
    for name in ("c", "a", "b", "b"):
        assert ahead.read_item(f"s3://b/{name}")[0] == f"s3://b/{name}".encode()
    assert names(store) == ["a", "b", "b", "c"]


def test_one_file_under_two_names_is_read_for_each() -> None:
    store = Store()
    one = item("a")
    ahead = ReadAhead(store, [one, one])
    assert [ahead.read_item(one.uri)[0] for _ in range(2)] == [b"s3://b/a"] * 2
    assert names(store) == ["a", "a"]


def test_local_files_and_those_that_were_not_there_wait_to_be_asked_for() -> None:
    store = Store()
    ahead = ReadAhead(store, [item("a"), item("b", scheme="/d"), item("c", -1)])
    ahead.read_item("s3://b/a")
    ahead._threads.shutdown()
    assert names(store) == ["a"]


def test_many_threads_get_each_file_once() -> None:
    store = Store()
    items = [item(f"{number}") for number in range(200)]
    ahead = ReadAhead(store, items, most_bytes=60)
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda one: ahead.read_item(one.uri)[0], items))
    assert read == [one.uri.encode() for one in items]
    assert len(store.read) == 200
