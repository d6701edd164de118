"""Small files of a collection that are joined keep their rows."""

from pathlib import Path

from segjobs.manifest.collection import open_collection
from segjobs.manifest.merge import Changes, Replaced
from segjobs.manifest.parts import read_rows
from segjobs.manifest.versions import compaction, contents_of, difference
from segjobs.storage import Storage
from tests.collections_made import NO_MARKS, commit, footer_of_run, rows_of


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
