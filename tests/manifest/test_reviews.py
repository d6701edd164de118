"""Reviews on disk and on S3: numbered once, begun and ended, read back as they were written."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from segjobs.errors import ManifestError
from segjobs.manifest.reviews import (
    PICKED_SCHEMA,
    Review,
    claim,
    open_review,
    read_seal,
    reviews_of,
    seal,
    sent_rows,
)
from segjobs.storage import Storage
from tests.collections_made import footer_of_run, rows_of


def made(uri: str, number: int, *names: str) -> Review:
    rows = rows_of({name: ["sr"] for name in names})
    rows = rows.append_column("score", pa.array([0.5] * len(names), pa.float64()))
    rows = rows.append_column("hash", pa.array([2**64 - 1] * len(names), pa.uint64()))
    return Review(uri, number, rows, {"count": 3}, 7, footer_of_run(), "0.1", {"human": 2})


def test_a_number_is_taken_once(shared_store: tuple[Storage, str]) -> None:
    storage, uri = shared_store
    assert reviews_of(storage, uri) == ([], [])
    own = made(uri, 1, "a", "b")
    assert claim(storage, own) and claim(storage, own), "what stands there is this very review"
    assert not claim(storage, made(uri, 1, "c"))
    assert reviews_of(storage, uri) == ([], [1])
    assert seal(storage, own, {"images": 2}) and not seal(storage, own, {"images": 2})
    assert claim(storage, made(uri, 2, "c")) and reviews_of(storage, uri) == ([1], [2])
    assert read_seal(storage, uri, 1)["images"] == 2
    again = open_review(storage, uri, 1)
    assert again.rows.schema.equals(PICKED_SCHEMA) and again.rows.to_pylist() == own.rows.to_pylist()
    assert (again.settings, again.version, again.footer, again.left_out) == ({"count": 3}, 7, own.footer, {"human": 2})
    sent = [row for rows in sent_rows(storage, uri, [1, 2], ["image_id", "hash"]) for row in rows.to_pylist()]
    assert sent == [{"image_id": name, "hash": 2**64 - 1} for name in "abc"]


def test_damage_is_named(tmp_path: Path) -> None:
    storage, uri = Storage(), str(tmp_path)
    claim(storage, made(uri, 1, "a"))
    path = tmp_path / "reviews" / "00001" / "picked.parquet"
    data: Any = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ManifestError, match=r"picked\.parquet is damaged"):
        open_review(storage, uri, 1)
    with pytest.raises(ManifestError, match=r"picked\.parquet is damaged"):
        list(sent_rows(storage, uri, [1], ["image_id"]))
