"""A collection on disk and on S3: commits once, read by every library, classes joined, versions for ever."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from segjobs.config import InputConfig, S3Config, StorageConfig
from segjobs.errors import ConfigError, ConflictError, ItemError, ManifestError, StorageError
from segjobs.manifest import collection, table_files
from segjobs.manifest.collection import create_collection, open_collection
from segjobs.manifest.manifest import Manifest
from segjobs.manifest.parts import image_ids_of, open_run, read_rows
from segjobs.manifest.schema import COLLECTION_SCHEMA, LATER_COLUMNS, Category
from segjobs.manifest.table_files import log_uri
from segjobs.sources.images import list_images
from segjobs.storage import Storage, join
from tests.collections_made import CLASSES, GONE_AT, commit, footer_of_run, marks_of
from tests.fault_proxy import Fault, fault_proxy
from tests.made import GREY, manifest, scored
from tests.small_disk import fill

Store = tuple[Storage, str]
BROKEN = ItemError("TRUNCATED", "ends early")


def ids(storage: Storage, uri: str) -> list[str]:
    return [row["image_id"] for row in read_rows(storage, uri)]


def test_each_version_is_a_manifest_and_stays(shared_store: Store) -> None:
    storage, uri = shared_store
    assert commit(storage, uri, {"a": ["sr"], "c": BROKEN}, app_id="one").version == 1
    assert (
        commit(storage, uri, {"b": ["ss"], "c": ["rr"]}, app_id="two", day=2, marks=marks_of(("a", GONE_AT))).version
        == 2
    )
    assert ids(storage, uri) == ["b", "c"] and ids(storage, f"{uri}@1") == ["a", "c"]
    run = open_run(storage, uri)
    assert (run.uri, image_ids_of(storage, run)) == (f"{uri}@2", ["b", "c"])
    assert (run.info.counts.images, run.info.counts.failed, run.info.counts.segments) == (2, 0, 2)
    before = open_run(storage, f"{uri}@1").info
    assert before.failures == {"TRUNCATED": 1} and before.examples == {"TRUNCATED": ("c", "ends early")}
    manifest = Manifest(storage, uri)
    assert (len(manifest), manifest.uri, manifest.task) == (2, f"{uri}@2", "semantic")
    assert next(iter(manifest)).mask("sky").all()
    assert manifest.to_arrow(["image_id", "origin"]).to_pylist()[0] == {"image_id": "b", "origin": "model"}
    with pytest.raises(ManifestError, match="no version 3; its newest is 2"):
        open_run(storage, f"{uri}@3")


def test_a_table_of_a_release_with_fewer_columns_is_read_and_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, uri = Storage(), str(tmp_path / "street")
    fewer = pa.schema([one for one in COLLECTION_SCHEMA if one.name not in LATER_COLUMNS.names])
    with monkeypatch.context() as then:
        for module in (table_files, collection):
            then.setattr(module, "COLLECTION_SCHEMA", fewer)
        then.setattr(collection, "LATER_COLUMNS", pa.schema([]))
        commit(storage, uri, {"a": ["sr"], "m": ["ss"]}, app_id="one")
    old = open_collection(storage, uri)
    (file,) = old.files
    assert pa.schema(old.table.schema().to_arrow()).names == fewer.names
    assert old.columns(file, ["image_id", "margin"]).to_pylist()[0] == {"image_id": "a", "margin": None}
    assert ids(storage, uri) == ["a", "m"] and next(read_rows(storage, uri))["annotated_by"] is None
    table = Manifest(storage, uri).to_arrow(["image_id", "entropy"])
    assert table.to_pylist() == [{"image_id": "a", "entropy": None}, {"image_id": "m", "entropy": None}]
    commit(storage, uri, {"b": ["rr"]}, app_id="two", day=2)
    now = open_collection(storage, uri)
    assert pa.schema(now.table.schema().to_arrow()).names == COLLECTION_SCHEMA.names
    assert ids(storage, uri) == ["a", "b", "m"] and ids(storage, f"{uri}@1") == ["a", "m"]
    # An old file that is not rewritten has the new columns to every reader.
    commit(storage, uri, {"x": ["rr"]}, app_id="three", day=3)
    assert now.table.to_pandas(columns=["image_id", "margin"])["margin"].isna().all()
    open_collection(storage, uri).restore(1)
    assert ids(storage, uri) == ["a", "m"]
    assert commit(storage, uri, {"c": ["rr"]}, app_id="four", day=4).new and ids(storage, uri) == ["a", "c", "m"]


def test_what_is_committed_is_not_committed_again(tmp_path: Path) -> None:
    storage, uri = Storage(), str(tmp_path / "street")
    first = commit(storage, uri, {"a": ["sr"]}, app_id="one")
    assert (first.version, first.new) == (1, True)
    again = commit(storage, uri, {"a": ["rr"]}, app_id="one", day=9)
    assert (again.version, again.new) == (1, False)
    # A restore takes it back, and then it can be committed anew.
    commit(storage, uri, {"b": ["sr"]}, app_id="two", day=2)
    open_collection(storage, uri).table.restore(1)
    now = open_collection(storage, uri)
    assert (now.version, now.holds("one"), now.holds("two")) == (3, 1, None)
    assert ids(storage, uri) == ["a"]
    assert commit(storage, uri, {"b": ["sr"]}, app_id="two", day=2).version == 4
    assert ids(storage, uri) == ["a", "b"]
    now = open_collection(storage, uri)
    assert [entry.get("run_id") for entry in now.history()] == ["run2", None, "run2", "run1", None]


class _Hasty(Storage):
    """A store in which somebody else, or this one's own lost request, is first with the commit."""

    def __init__(self, before: Any) -> None:
        super().__init__()
        self.before = before

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        if "_delta_log" in uri and self.before is not None:
            before, self.before = self.before, None
            before(uri, data)
        return super().put_if_absent(uri, data)


def test_two_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    create_collection(Storage(), uri)
    other = _Hasty(lambda *_: commit(Storage(), uri, {"b": ["sr"]}, app_id="other", day=2))
    assert commit(other, uri, {"a": ["sr"]}, app_id="one").version == 2
    assert ids(Storage(), uri) == ["a", "b"]
    # The same run, committed by two: once.
    same = _Hasty(lambda *_: commit(Storage(), uri, {"c": ["sr"]}, app_id="same", day=3))
    done = commit(same, uri, {"c": ["sr"]}, app_id="same", day=3)
    assert (done.version, done.new, open_collection(Storage(), uri).version) == (3, False, 3)


def test_a_reply_that_is_lost_is_no_second_commit(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    create_collection(Storage(), uri)
    lost = _Hasty(lambda where, data: Storage().put_if_absent(where, data))
    done = commit(lost, uri, {"a": ["sr"]}, app_id="one")
    assert (done.version, done.new, open_collection(Storage(), uri).version) == (1, True, 1)


_THREE_VERSIONS = """
import sys
from segjobs.config import StorageConfig
from segjobs.manifest.collection import open_collection
from segjobs.storage import Storage
from tests.collections_made import commit
storage, uri = Storage(StorageConfig.model_validate_json(sys.argv[2])), sys.argv[1]
done = commit(storage, uri, {"a": ["sr"]}, app_id="one")
assert (done.version, done.new) == (1, True), done
commit(storage, uri, {"b": ["sr"]}, app_id="two", day=2)
open_collection(storage, uri).restore(1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lost", "reset", "busy"])
def test_requests_of_a_commit_that_are_lost_in_a_bucket(tmp_path: Path, s3_server: StorageConfig, kind: str) -> None:
    """Of the table's making, of a file, of the commit and of a restore: each is there once, and no other version is."""
    assert s3_server.s3.endpoint_url is not None
    uri = f"s3://segjobs/{tmp_path.name}/street"
    with fault_proxy(s3_server.s3.endpoint_url) as proxy:
        config = StorageConfig(s3=S3Config(endpoint_url=proxy.url))
        names = [f"_delta_log/{0:020d}.json", "masks/masks-", f"_delta_log/{1:020d}.json", f"_delta_log/{3:020d}.json"]
        proxy.faults = [Fault(kind, "PUT", name) for name in names]
        # In a process of its own: what deltalake does with the interpreter's lock held would stop the proxy.
        command = [sys.executable, "-c", _THREE_VERSIONS, uri, config.model_dump_json()]
        subprocess.run(command, check=True, timeout=100)
        assert not [fault for fault in proxy.faults if fault.times], "all were met"
    storage = Storage(s3_server)
    now = open_collection(storage, uri)
    made = ["RESTORE", "MERGE", "MERGE", "CREATE TABLE"]
    assert (now.version, [entry["operation"] for entry in now.history()]) == (3, made)
    assert (ids(storage, uri), ids(storage, f"{uri}@2")) == (["a"], ["a", "b"])


def test_a_full_disk_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    commit(Storage(), uri, {"a": ["sr"]}, app_id="one")

    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="full"):
        commit(_Hasty(full), uri, {"b": ["sr"]}, app_id="two")
    assert (open_collection(Storage(), uri).version, ids(Storage(), uri)) == (1, ["a"])
    assert commit(Storage(), uri, {"b": ["sr"]}, app_id="two").version == 2


@pytest.mark.slow
def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    """Whatever it has room for last: the table is as before or as after, and the same commit is made when there is."""
    uri, filler = str(small_disk / "street"), small_disk / "filler"
    for number in range(9):  # the tenth version is followed by a checkpoint
        commit(Storage(), uri, {f"{number}": ["sr"]}, app_id=f"{number}", day=number + 1)
    said: list[str] = []
    for free in range(0, 120_000, 4096):
        fill(filler, free)
        try:
            done = commit(Storage(), uri, {"z": ["sr"]}, app_id="last", day=10)
        except StorageError as error:
            said.append(str(error))
            there = ids(Storage(), uri)
            assert (open_collection(Storage(), uri).version, "z" in there) in ((9, False), (10, True))
            continue
        break
    assert done.version == 10 and said, "some of it had no room"
    assert all("full" in line for line in said if "cannot be used" not in line), said
    assert len(ids(Storage(), uri)) == 10
    assert [entry.get("appId") for entry in open_collection(Storage(), uri).history()].count("last") == 1


_KILLED = """
import sys
from segjobs.config import StorageConfig
from segjobs.storage import Storage
from tests.collections_made import commit
storage = Storage(StorageConfig.model_validate_json(sys.argv[2]))
commit(storage, sys.argv[1], {"a": ["sr"], "b": ["rr"]}, app_id="one")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", [f"{step}:{when}" for step in ("table", "files", "commit") for when in ("before", "after")]
)
def test_killed_at_any_step_the_same_commit_is_made_once(shared_store: Store, point: str) -> None:
    storage, uri = shared_store
    environment = {**os.environ, "SEGJOBS_CRASH_AT": point}
    command = [sys.executable, "-c", _KILLED, uri, storage.config.model_dump_json()]
    died = subprocess.run(command, env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    if point != "table:before":
        there = open_collection(storage, uri)
        assert (there.version, len(there.files)) == ((1, 1) if point == "commit:after" else (0, 0))
    commit(storage, uri, {"a": ["sr"], "b": ["rr"]}, app_id="one")
    assert (ids(storage, uri), open_collection(storage, uri).version) == (["a", "b"], 1)


@pytest.mark.slow
def test_many_at_once_are_all_in_the_table_once(shared_store: Store) -> None:
    """Six commits of five apps by threads of their own, and no order given: what was asked for is there, once each."""
    storage, uri = shared_store
    create_collection(storage, uri)
    with ThreadPoolExecutor(6) as threads:
        jobs = [threads.submit(commit, storage, uri, {name: ["sr"]}, app_id=name) for name in "abcdea"]
        done = [job.result() for job in jobs]
    assert sorted(one.version for one in done if one.new) == [1, 2, 3, 4, 5]
    assert (ids(storage, uri), open_collection(storage, uri).version) == (list("abcde"), 5)
    history = open_collection(storage, uri).history()
    assert sorted(entry["appId"] for entry in history if "appId" in entry) == list("abcde")


def test_classes_of_one_name_have_one_id(tmp_path: Path) -> None:
    storage, uri = Storage(), str(tmp_path / "street")
    commit(storage, uri, {"a": ["sr"]}, app_id="one")
    other = (Category(0, "road", GREY), Category(1, "tree", GREY))
    commit(storage, uri, {"b": ["rt"]}, app_id="two", day=2, categories=other)
    manifest = Manifest(storage, uri)
    assert [(one.id, one.name) for one in manifest.categories] == [(0, "sky"), (1, "road"), (2, "tree")]
    rows = {row.image_id: row for row in manifest}
    assert rows["b"].label_map().tolist() == [[1, 2]] and rows["a"].label_map().tolist() == [[0, 1]]


def test_what_cannot_be_joined_is_refused(tmp_path: Path) -> None:
    storage, uri = Storage(), str(tmp_path / "street")
    with pytest.raises(ManifestError, match="no collection here"):
        open_collection(storage, uri)
    with pytest.raises(ConfigError, match="names a version"):
        create_collection(storage, f"{uri}@3")
    collection = create_collection(storage, uri)
    with pytest.raises(ManifestError, match="is empty"):
        open_run(storage, uri)
    commit(storage, uri, {"a": ["sr"]}, app_id="one")
    with pytest.raises(ConflictError, match="semantic masks, and these are instance"):
        collection.commit(lambda joint: pytest.fail(), replace(footer_of_run(), task="instance"), app_id="two")


@pytest.mark.parametrize("name", ["with space", "100% köln", "日本+1&2=3", "a@7/x", "[b]*{c}", "it's; e:f"])
def test_names_of_places(shared_store: Store, name: str) -> None:
    storage, place = shared_store
    uri = join(place, name, "street")
    commit(storage, uri, {"a": ["sr"], "ü %41@2/b c.png": ["sr"]}, app_id="one")
    commit(storage, uri, {"c": ["sr"]}, app_id="two", day=2)
    now = open_collection(storage, uri)
    assert ids(storage, f"{uri}@1") == ["a", "ü %41@2/b c.png"]
    assert [now.columns(file, ["image_id"]).num_rows for file in now.files] == [3]
    now.restore(1)
    assert ids(storage, uri) == ["a", "ü %41@2/b c.png"]


def test_damage_is_told(tmp_path: Path) -> None:
    storage, uri = Storage(), str(tmp_path / "street")
    commit(storage, uri, {"a": ["sr"]}, app_id="one")
    (file,) = (tmp_path / "street/masks").glob("*.parquet")
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    with pytest.raises(ManifestError, match="not those that were written"):
        ids(storage, uri)
    (tmp_path / "street/masks/_delta_log" / f"{2:020d}.json").write_text("{")
    with pytest.raises(StorageError, match="its table cannot be used"):
        open_run(storage, uri)


def test_a_file_of_another_tool_is_told(tmp_path: Path) -> None:
    from deltalake import write_deltalake

    storage, uri = Storage(), str(tmp_path / "street")
    commit(storage, uri, {"a": ["sr"]}, app_id="one")
    rows = open_collection(storage, uri).table.to_pyarrow_table()
    write_deltalake(join(uri, "masks"), rows, mode="append")
    with pytest.raises(ManifestError, match="was not written by segjobs"):
        open_run(storage, uri)
    assert ids(storage, f"{uri}@1") == ["a"]


def test_checkpoints_keep_what_was_committed(tmp_path: Path) -> None:
    storage, uri = Storage(), str(tmp_path / "street")
    for number in range(1, 12):
        commit(storage, uri, {f"{number:02}": ["sr"]}, app_id=f"app{number}", day=number)
    assert f"{10:020d}.checkpoint.parquet" in storage.list_names(log_uri(uri))
    now = open_collection(storage, uri)
    assert (now.version, now.holds("app3"), len(ids(storage, uri))) == (11, 3, 11)
    assert len(now.files) == 1, "small files are joined as rows come behind them"


def test_jobs_take_a_version_and_name_it(tmp_path: Path) -> None:
    truth = manifest(tmp_path / "truth", {"a": ["sr"], "b": ["rr"], "c": ["ss"]}, CLASSES)
    uri = str(tmp_path / "street")
    commit(Storage(), uri, {"a": ["sr"], "b": ["ss"]}, app_id="one")
    commit(Storage(), uri, {"b": ["rr"], "c": ["ss"]}, app_id="two", day=2, marks=marks_of(("a", GONE_AT)))
    old, new = (scored(tmp_path, truth, at, at[-2:]) for at in (f"{uri}@1", uri))
    assert (old.predictions.uri, new.predictions.uri) == (f"{uri}@1", f"{uri}@2")
    assert (old.images["ok"], old.images["missing"], new.images["missing"]) == (2, 1, 1)
    assert new.predictions.model == "unet@1" and new.predictions.run_id == old.predictions.run_id[:-1] + "2"
    listed = [(file.path, file.size) for file in list_images(Storage(), InputConfig(uri=uri))]
    assert listed == [("b", -1), ("c", -1)], "rows of letters are of no files"
