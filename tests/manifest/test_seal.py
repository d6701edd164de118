"""Files that vouch for themselves: each flipped bit and missing end is told in one line; old files are read."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segjobs.errors import ManifestError
from segjobs.manifest.seal import check_seal, open_json, open_table, sealed_json, sealed_table

MEND = "move it away"
TABLE = pa.table({"image_id": ["a", "sealed-sha256:" + "0" * 64], "size": [1, 2]})
RECORD = {"counts": {"ok": 16}, "note": "sealed-sha256: is no seal", "words": "ü"}


def read_table(data: bytes) -> Any:
    return open_table(data, "out/plan.parquet", mend=MEND).to_pydict()


def read_json(data: bytes) -> Any:
    return open_json(data, "out/run.json", mend=MEND)


FILES = [(sealed_table(TABLE), read_table), (sealed_json(RECORD, indent=1), read_json)]


def test_what_is_sealed_is_read_back_by_anybody() -> None:
    (table, _), (record, _) = FILES
    assert read_table(table) == TABLE.to_pydict() == pq.read_table(pa.BufferReader(table)).to_pydict()
    assert read_json(record) == RECORD
    assert list(json.loads(record)) == [*RECORD, "segjobs_seal"]
    kept = open_table(sealed_table(TABLE, metadata={b"a": b"1"}), "x", mend=MEND)
    assert kept.schema.metadata == {b"a": b"1"}
    assert open_table(table, "x", mend=MEND, columns=["size"]).to_pydict() == {"size": [1, 2]}
    assert sealed_table(TABLE) == table, "equal rows, equal bytes"


@pytest.mark.parametrize(("data", "read"), FILES, ids=["parquet", "json"])
def test_every_flipped_bit_and_every_missing_end_is_told(data: bytes, read: Callable[[bytes], Any]) -> None:
    draw = np.random.default_rng(0)
    for bit in draw.choice(8 * len(data), 500, replace=False).tolist():
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ManifestError, match=rf"^out/\S+ is damaged: .*; {MEND}$"):
            read(bytes(broken))
    for end in draw.choice(len(data), 50, replace=False).tolist():
        with pytest.raises(ManifestError, match=rf"^out/\S+ is damaged: .*; {MEND}$"):
            read(data[:end])


def test_a_file_of_an_earlier_release_has_no_seal() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(TABLE.slice(0, 1), sink)
    assert read_table(sink.getvalue().to_pybytes()) == {"image_id": ["a"], "size": [1]}
    assert read_json(b'{"a": 1}') == {"a": 1}
    check_seal(b"anything", "x", mend=MEND)


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000], ids=range(6))
def test_what_is_no_record_is_told(text: bytes) -> None:
    with pytest.raises(ManifestError, match=r"^out/run\.json is damaged: [^\n]*; move it away$"):
        read_json(text)


def test_a_column_that_is_not_there_is_told() -> None:
    with pytest.raises(ManifestError, match=r"^x is damaged: it has no column 'status'; move it away$"):
        open_table(sealed_table(TABLE), "x", mend=MEND, columns=["image_id", "status"])
