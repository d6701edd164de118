"""Documents of a whole export, written as its parts come: rows in, published files out, little in memory.

Each document has one or more series of texts; the first goes straight into the document's file, every further one
into a file of its own that is appended at the end. The files lie in a temporary folder beside the output (or, for S3,
where temporary files lie), which is gone afterwards, whatever happens.
"""

import filecmp
import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, TypedDict

import pyarrow as pa

from segjobs.errors import ConflictError
from segjobs.exporters.base import Document, Series
from segjobs.storage import Storage, is_remote, join, local_path, writing

FAILURES = "failures.jsonl"


class PublishedFile(TypedDict):
    """A document as export.json lists it."""

    path: str
    bytes: int
    sha256: str


@dataclass
class _Open:
    """A series that is being written. ``count``: texts so far."""

    series: Series
    file: BinaryIO
    count: int = 0

    def add(self, texts: Sequence[str]) -> None:
        between = self.series.separator.encode()
        for text in texts:
            self.file.write(between if self.count else b"")
            self.count += 1
            self.file.write((f'{{"id":{self.count},{text}' if self.series.numbered else text).encode())


class Documents:
    """The documents of one export, and the list of its failures. A context: leaving it removes what is temporary."""

    def __init__(self, storage: Storage, uri: str, documents: Sequence[Document]) -> None:
        self._storage, self._uri, self._documents = storage, uri, documents

    def __enter__(self) -> "Documents":
        beside = None if is_remote(self._uri) else local_path(self._uri)
        with writing(self._uri), ExitStack() as stack:
            if beside is not None:
                beside.mkdir(parents=True, exist_ok=True)
            self._folder = Path(stack.enter_context(TemporaryDirectory(prefix=".documents-", dir=beside)))
            self._open = [
                [
                    _Open(series, self._create(stack, f"{number}-{place}"))
                    for place, series in enumerate(document.series)
                ]
                for number, document in enumerate(self._documents)
            ]
            for document, opened in zip(self._documents, self._open, strict=True):
                if opened:
                    opened[0].file.write(document.text.encode())
                for one in opened:
                    one.file.write(one.series.before.encode())
            self._failures = _Open(Series("records", "", "\n", "\n"), self._create(stack, "failures"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        with writing(self._uri):  # what is still in memory goes to the disk
            self._stack.close()

    def _create(self, stack: ExitStack, name: str) -> BinaryIO:
        return stack.enter_context((self._folder / name).open("w+b"))

    def add(self, rows: pa.Table) -> None:
        """The rows of the next part (``EXPORT_SCHEMA``). Raises StorageError where the disk is full."""
        with writing(self._uri):
            self._add(rows)

    def _add(self, rows: pa.Table) -> None:
        images = [text for text in rows["image"].to_pylist() if text is not None]
        records = [text for texts in rows["records"].to_pylist() for text in texts]
        for opened in self._open:
            for one in opened:
                one.add(images if one.series.column == "image" else records)
        columns = (rows[name].to_pylist() for name in ("image_id", "uri", "error"))
        self._failures.add(
            [
                json.dumps({"image_id": image_id, "uri": uri, **error}, ensure_ascii=False)
                for image_id, uri, error in zip(*columns, strict=True)
                if error
            ]
        )

    def publish(self) -> list[PublishedFile]:
        """Publish every document; path, bytes and SHA-256 of each. Raises ConflictError where another stands there."""
        with writing(self._uri):
            return self._publish_all()

    def _publish_all(self) -> list[PublishedFile]:
        for opened in self._open:
            for one in opened:
                one.file.write(one.series.after.encode() if one.count or one.series.before else b"")
            for further in opened[1:]:
                further.file.seek(0)
                shutil.copyfileobj(further.file, opened[0].file, 1 << 20)
        found: list[PublishedFile] = []
        for number, (document, opened) in enumerate(zip(self._documents, self._open, strict=True)):
            path = self._folder / f"{number}-0"
            if opened:
                opened[0].file.flush()
            else:
                path.write_text(document.text, encoding="utf-8")
            found.append(self._publish(document.path, path))
        if self._failures.count:
            self._failures.file.write(b"\n")
            self._failures.file.flush()
            found.append(self._publish(FAILURES, self._folder / "failures"))
        return found

    def _publish(self, name: str, path: Path) -> PublishedFile:
        uri = join(self._uri, name)
        if not self._storage.put_file_if_absent(uri, path):
            standing = self._folder / "standing"
            self._storage.get_file(uri, standing)
            if not filecmp.cmp(standing, path, shallow=False):
                raise ConflictError(
                    f"{uri} is there and differs: it belongs to something else; choose a new output.uri"
                )
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"path": name, "bytes": path.stat().st_size, "sha256": sha256}
