"""The documents of an export on a disk that is full: one line, wherever in their making it is found out."""

from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pytest

from segjobs.errors import StorageError
from segjobs.exporters.base import Document, Series
from segjobs.jobs.export.documents import Documents
from segjobs.storage import Storage

DOCUMENTS = (Document("images.txt", "", (Series("image", "", "\n", "\n"),)),)


def rows(text: str) -> pa.Table:
    image = {"image": [text], "records": [[]], "image_id": ["a"], "uri": ["a"], "error": [None]}
    return pa.table(image, schema=pa.schema([
        ("image", pa.string()), ("records", pa.list_(pa.string())), ("image_id", pa.string()), ("uri", pa.string()),
        ("error", pa.struct([("code", pa.string())])),
    ]))  # fmt: skip


@pytest.mark.parametrize("text", ["short: found out at the end", "long" * 100_000])
def test_a_full_disk(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(_: Documents, stack: ExitStack, name: str) -> BinaryIO:
        return stack.enter_context(open("/dev/full", "wb"))

    monkeypatch.setattr(Documents, "_create", create)
    out = str(tmp_path / "out")
    with (
        pytest.raises(StorageError, match=rf"^{out}: the disk is full; free some space and run the command again$"),
        Documents(Storage(), out, DOCUMENTS) as documents,
    ):
        documents.add(rows(text))
        documents.publish()
    assert not list((tmp_path / "out").iterdir()), "nothing temporary stays"


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match=r"file/out: cannot write: Not a directory$"),
        Documents(Storage(), str(tmp_path / "file/out"), DOCUMENTS),
    ):
        pass
