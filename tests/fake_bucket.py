"""A bucket in memory, opened by fsspec as ``gs://``: what gcsfs and adlfs promise, without their servers."""

import hashlib
import io
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from fsspec.spec import AbstractFileSystem


class FakeBucket(AbstractFileSystem):
    """Lives in this process alone. ``failures``: errors that the next reads and writes end with."""

    protocol = ("gs",)
    objects: ClassVar[dict[str, tuple[bytes, datetime]]] = {}
    failures: ClassVar[list[Exception]] = []
    _one_at_a_time = threading.Lock()

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        name = self._strip_protocol(path)
        if name in self.objects:
            body, mtime = self.objects[name]
            etag = f'"{hashlib.sha256(body).hexdigest()}"'
            return {"name": name, "type": "file", "size": len(body), "etag": etag, "mtime": mtime}
        if name == "bucket" or any(key.startswith(f"{name}/") for key in self.objects):  # that is there when empty too
            return {"name": name, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        folder = self._strip_protocol(path)
        below = [key for key in self.objects if key.startswith(f"{folder}/")]
        if not below:
            raise FileNotFoundError(path)
        return [self.info(name) for name in {f"{folder}/{key[len(folder) + 1 :].partition('/')[0]}" for key in below}]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        if self.failures:
            raise self.failures.pop(0)
        self.info(path)
        return self.objects[self._strip_protocol(path)][0][start:end]

    def _open(self, path: str, mode: str = "rb", **options: Any) -> io.BytesIO:
        return io.BytesIO(self.cat_file(path))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        with self._one_at_a_time:
            if mode == "create" and self._strip_protocol(path) in self.objects:
                raise FileExistsError(path)
            self.objects[self._strip_protocol(path)] = (value, datetime.now(UTC))
        if self.failures:  # the reply is lost
            raise self.failures.pop(0)

    def put_file(self, lpath: str, rpath: str, *args: Any, mode: str = "overwrite", **options: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes(), mode)

    def rm_file(self, path: str) -> None:
        self.info(path)
        del self.objects[self._strip_protocol(path)]
