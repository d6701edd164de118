"""Files of a remote store on their way before they are asked for: a shard's items in, each one's bytes when asked out.

    items ─→ up to 16 requests at a time, up to 64 MiB read and not yet asked for ─→ read_item(uri)

A request waits for the network most of its time: two decoding threads that wait for one each would get forty images a
second at 50 ms. Local files are read when they are asked for.
"""

import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from segjobs.sources.read import Reads
from segjobs.storage import FileInfo, is_remote

AT_ONCE = 16
MOST_BYTES = 2**26


class ReadAhead:
    """Reads ``items`` through ``reads``, in their order, as far ahead as the bounds let it. Thread-safe.

    A file that is larger than ``most_bytes`` goes alone.
    """

    def __init__(
        self, reads: Reads, items: Iterable[FileInfo], *, at_once: int = AT_ONCE, most_bytes: int = MOST_BYTES
    ) -> None:
        self._reads = reads
        self._at_once = at_once
        self._most_bytes = most_bytes
        self._waiting = deque(item for item in items if item.size >= 0 and is_remote(item.uri))
        self._begun: dict[str, deque[tuple[int, Future[tuple[bytes, FileInfo]]]]] = {}
        self._ahead = self._bytes = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(at_once, "read")  # without work they cost nothing, and end with this object

    def read_item(self, uri: str) -> tuple[bytes, FileInfo]:
        """As ``Storage.read_item``, whose errors come when the file is asked for."""
        with self._lock:
            self._fill()
            begun = self._begun.get(uri)
            found = begun.popleft() if begun else None
            if found is None:
                self._leave_out(uri)
        if found is None:
            return self._reads.read_item(uri)
        size, reading = found
        try:
            return reading.result()
        finally:
            with self._lock:
                self._ahead -= 1
                self._bytes -= size
                self._fill()

    def _fill(self) -> None:
        while self._waiting and self._ahead < self._at_once:
            item = self._waiting[0]
            if self._ahead and self._bytes + item.size > self._most_bytes:
                return
            self._waiting.popleft()
            reading = self._threads.submit(self._reads.read_item, item.uri)
            self._begun.setdefault(item.uri, deque()).append((item.size, reading))
            self._ahead += 1
            self._bytes += item.size

    def _leave_out(self, uri: str) -> None:
        """Of a file that is asked for before its turn."""
        place = next((place for place, item in enumerate(self._waiting) if item.uri == uri), None)
        if place is not None:
            del self._waiting[place]
