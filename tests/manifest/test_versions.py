"""Small files of a collection that are joined keep their rows."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from segjobs.errors import ItemError
from segjobs.manifest.collection import Collection, open_collection
from segjobs.manifest.merge import Changes, Replaced
from segjobs.manifest.parts import read_rows
from segjobs.manifest.versions import compaction, contents_of, difference, unneeded
from segjobs.storage import Storage
from tests.collections_made import GONE_AT, NO_MARKS, commit, footer_of_run, marks_of, rows_of


def test_neighbours_are_joined(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    commit(Storage(), uri, {"a": ["sr"]}, app_id="0")
    for number, name in enumerate("bcd", 1):
        now = open_collection(Storage(), uri)
        steps = [Replaced(None, iter([rows_of({name: ["sr"]}, day=number)]))]
        assert now.attempt(steps, footer_of_run(), "MERGE", {}, app_id=str(number)) is not None
    now = open_collection(Storage(), uri)
    before = list(read_rows(Storage(), uri))
    assert len(now.files) == 4
    most = 2 * max(file.size_bytes for file in now.files)
    done = now.attempt(compaction(now, file_bytes=most), now.footer, "OPTIMIZE", {}, app_id=None)
    assert done is not None and (done.added, done.rewritten) == (2, 4)
    joined = open_collection(Storage(), uri)
    assert len(joined.files) == 2 and list(read_rows(Storage(), uri)) == before
    assert not difference(now, joined).counts
    assert contents_of(joined).images == {"ok": 4}
    # What is committed afterwards finds its file.
    joined.commit(lambda _: Changes(lambda: [rows_of({"c": ["rr"]}, day=9)], NO_MARKS), footer_of_run(), app_id="9")
    assert difference(joined, open_collection(Storage(), uri)).examples == {"labelled": ["c"]}


def counted(collection: Collection, *, read: bool) -> object:
    """What is in it, by the log, or (``read``) as if the log said nothing of values."""
    if read:
        collection.__dict__["files"] = tuple(replace(file, alike={}) for file in collection.files)
    return contents_of(collection)


def test_what_is_counted_by_the_log_is_what_is_there(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    commit(Storage(), uri, {"a": ["sr"], "b": ["ss"]}, app_id="1")
    commit(Storage(), uri, {"c": ["sr"]}, app_id="2", day=2, human=True)
    commit(Storage(), uri, {"d": ItemError("TIMEOUT", "slow")}, app_id="3", day=3, marks=marks_of(("b", GONE_AT)))
    for version in range(1, 4):
        collection = open_collection(Storage(), f"{uri}@{version}")
        assert counted(collection, read=False) == counted(collection, read=True)
    found = contents_of(open_collection(Storage(), uri))
    assert (found.images, found.gone, found.failures) == ({"ok": 2, "failed": 1}, 1, {"TIMEOUT": 1})
    assert (found.origins, found.models) == ({"model": 2, "human": 1}, {"none": 3})
    (whole,) = open_collection(Storage(), f"{uri}@1").files
    assert whole.alike == {"status": "ok", "origin": "model", "model": None, "gone_at": None}
    (mixed,) = open_collection(Storage(), uri).files
    assert mixed.alike == {"model": None}


def test_rows_that_a_restore_took_away_are_told_and_brought_back(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    commit(Storage(), uri, {"b": ["sr"]}, app_id="1")
    commit(Storage(), uri, {"a": ["sr"], "c": ["sr"]}, app_id="2", day=2, human=True)
    open_collection(Storage(), uri).restore(1)
    one, two, three = (open_collection(Storage(), f"{uri}@{version}") for version in (1, 2, 3))
    assert difference(two, three).counts == {"removed": 2} and difference(two, three).human == 0
    assert difference(one, two).counts == {"added": 2} and difference(one, two).human == 2
    three.restore(2)
    assert not difference(two, open_collection(Storage(), uri)).counts


def test_files_that_no_kept_version_has_are_unneeded(tmp_path: Path) -> None:
    """Also where checkpoints have forgotten what the table lost, which they do after a week."""
    uri, now, day = str(tmp_path / "street"), datetime.now(UTC), timedelta(days=1)
    for number in range(12):
        commit(Storage(), uri, {f"{number:02}": ["sr"]}, app_id=f"{number}", day=number + 1)
    newest = open_collection(Storage(), uri)
    (file,) = newest.files
    older = {path.name for path in (tmp_path / "street/masks").glob("*.parquet")} - {file.part.name}
    assert len(older) == 11
    assert unneeded(newest, keep=30 * day, at=now + 29 * day) == []
    assert set(unneeded(newest, keep=30 * day, at=now + 31 * day)) == older
    assert set(unneeded(newest, keep=0 * day, at=now + day / 4)) == older
    (tmp_path / "street/masks" / f"masks-{0:064}.parquet").write_bytes(b"of an attempt at work, or that died")
    (tmp_path / "street/masks" / "part-1.parquet").write_bytes(b"of another tool")
    assert len(unneeded(newest, keep=0 * day, at=now + day / 4)) == 11
    assert len(unneeded(newest, keep=0 * day, at=now + 2 * day)) == 12
    # A restore brings files of earlier versions back.
    newest.restore(1)
    assert len(set(unneeded(open_collection(Storage(), uri), keep=0 * day, at=now + day / 4))) == 11
    (first,) = open_collection(Storage(), uri).files
    assert first.part.name not in unneeded(open_collection(Storage(), uri), keep=0 * day, at=now + 90 * day)
    os.utime(tmp_path / "street/masks" / first.part.name, (5, 5))
    assert len(unneeded(open_collection(Storage(), uri), keep=0 * day, at=now + 90 * day)) == 12


def test_an_older_version_has_its_own_history(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    for number in range(4):
        commit(Storage(), uri, {f"{number}": ["sr"]}, app_id=f"{number}", day=number + 1)
    old, newest = open_collection(Storage(), f"{uri}@2"), open_collection(Storage(), uri)
    assert [(entry["version"], entry.get("appId")) for entry in old.history()] == [(2, "1"), (1, "0"), (0, None)]
    assert [entry["version"] for entry in newest.history(since=2)] == [4, 3]
    assert newest.history()[2:] == old.history() and newest.history(since=4) == []
    moment = datetime.fromtimestamp(old.history()[0]["timestamp"] / 1000, UTC)
    assert old.run().info.finished == moment.isoformat(timespec="seconds")
