"""A commit as Delta's log has it, and what is stated of a file."""

import json

from segjobs import __version__
from segjobs.manifest.delta_log import Added, Commit, Removed, log_text, stats_of
from tests.collections_made import rows_of


def test_a_commit_is_lines_of_json() -> None:
    commit = Commit(
        "MERGE", {"run_id": "r"}, [Added("new.parquet", 9, {"numRecords": 1})], [Removed("old.parquet", 8)], "night", 2
    )
    info, txn, gone, new = (json.loads(line) for line in log_text(commit, read_version=6, at_ms=5).splitlines())
    assert info["commitInfo"] == {
        "timestamp": 5,
        "operation": "MERGE",
        "operationParameters": {},
        "readVersion": 6,
        "isBlindAppend": False,
        "engineInfo": f"segjobs {__version__}",
        "run_id": "r",
    }
    assert txn == {"txn": {"appId": "night", "version": 2, "lastUpdated": 5}}
    assert (gone["remove"]["path"], gone["remove"]["deletionTimestamp"], gone["remove"]["dataChange"]) == (
        *("old.parquet", 5),
        True,
    )
    assert (new["add"]["path"], new["add"]["size"], json.loads(new["add"]["stats"])) == (
        *("new.parquet", 9),
        {"numRecords": 1},
    )
    same = Commit("OPTIMIZE", {}, [Added("a", 1, {})], [], same_rows=True, metadata={"id": "x"})
    _, metadata, new = (json.loads(line) for line in log_text(same, read_version=0, at_ms=5).splitlines())
    assert metadata == {"metaData": {"id": "x"}} and new["add"]["dataChange"] is False


def test_what_is_stated_of_a_file() -> None:
    stats = stats_of(rows_of({"a": ["s"], "b": ["rr"]}, day=3))
    assert stats["numRecords"] == 2
    least, greatest, nulls = stats["minValues"], stats["maxValues"], stats["nullCount"]
    assert isinstance(least, dict) and isinstance(greatest, dict) and isinstance(nulls, dict)
    assert (least["image_id"], greatest["image_id"], least["width"], greatest["width"]) == ("a", "b", 1, 2)
    assert "confidence" not in least and (nulls["confidence"], nulls["gone_at"], nulls["image_id"]) == (2, 2, 0)
