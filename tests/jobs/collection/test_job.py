"""A collection from the command line: runs adopted, versions looked at, compared, restored and tidied."""

import json
from pathlib import Path
from typing import Any

import pytest

from segjobs.cli import run_verb
from segjobs.config import CollectionConfig, load_config, placed
from segjobs.errors import ConfigError, ExitCode, ItemError, ManifestError
from segjobs.manifest.collection import open_collection
from segjobs.manifest.manifest import Manifest
from segjobs.storage import Storage
from tests.collections_made import CLASSES, GONE_AT, commit, marks_of
from tests.made import manifest

pytestmark = pytest.mark.usefixtures("default_signals")
BROKEN = ItemError("TRUNCATED", "ends early")


def run(capfd: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert run_verb("collection", words) == ExitCode.DONE
    return json.loads(capfd.readouterr().out)


def test_runs_are_adopted_once_and_looked_at(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one = manifest(tmp_path / "run1", {"a": ["sr"], "b": BROKEN}, CLASSES)
    two = manifest(tmp_path / "run2", {"b": ["rr"], "c": ["sr"]}, CLASSES)
    key = f"collection.uri={tmp_path}/street"
    assert run_verb("collection", ["add", one, two, key, "--dry-run"]) == ExitCode.DONE
    shown = capfd.readouterr().out
    assert "new:          2\n" in shown and not (tmp_path / "street").exists()
    run(capfd, "add", one, two, key)
    again = run(capfd, "add", two, key)
    assert (again["version"], again["new"]) == (2, False)
    status = run(capfd, "status", key)
    assert (status["images"], status["origins"], status["files"]) == ({"ok": 3}, {"model": 3}, 1)
    assert status["collection"] == f"{tmp_path}/street@2"
    before = run(capfd, f"{key}@1")
    assert (before["images"], before["failures"]) == ({"ok": 1, "failed": 1}, {"TRUNCATED": 1})
    (newest, first, made) = run(capfd, "history", key)["versions"]
    assert (newest["run_id"], first["run_id"], made["what"]) == ("run2", "run1", "create table")
    assert [row.image_id for row in Manifest(Storage(), f"{tmp_path}/street")] == ["a", "b", "c"]


def test_versions_are_compared_and_restored(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    uri = tmp_path / "street"
    commit(Storage(), uri, {"a": ["sr"], "b": ["ss"]}, app_id="one")
    commit(Storage(), uri, {"b": ["rr"], "c": ["sr"]}, app_id="two", day=2, marks=marks_of(("a", GONE_AT)))
    key = f"collection.uri={uri}"
    found = run(capfd, "diff", "1", "2", key)
    assert found["counts"] == {"gone": 1, "labelled": 1, "added": 1} and found["examples"]["gone"] == ["a"]
    assert run(capfd, "diff", "2", "2", key)["counts"] == {}
    assert run_verb("collection", ["restore", "1", key, "--dry-run"]) == ExitCode.DONE
    assert "added 1, gone 1, labelled 1" in capfd.readouterr().out and open_collection(Storage(), str(uri)).version == 2
    assert run(capfd, "restore", "1", key)["version"] == 3
    assert run(capfd, "diff", "1", "3", key)["counts"] == {}
    assert run(capfd, "restore", "1", key)["version"] == 3, "it is restored"
    assert run(capfd, "history", key)["versions"][0]["what"] == "restored version 1"


def test_files_are_joined_and_old_ones_deleted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    uri, key = tmp_path / "street", f"collection.uri={tmp_path}/street"
    commit(Storage(), uri, {"a": ["sr"]}, app_id="one")
    commit(Storage(), uri, {"b": ["sr"]}, app_id="two", day=2)
    assert run(capfd, "compact", key)["new"] is False, "one file"
    assert run_verb("collection", ["vacuum", "keep_days=0", key, "--dry-run"]) == ExitCode.DONE
    assert "deletes:      1; versions" in capfd.readouterr().out
    assert len(list((uri / "masks").glob("*.parquet"))) == 2
    assert run(capfd, "vacuum", "keep_days=0", key)["files_deleted"] == 1
    assert [row.image_id for row in Manifest(Storage(), str(uri))] == ["a", "b"]
    assert run_verb("collection", ["diff", "1", "2", key]) == ExitCode.USAGE
    assert "a vacuum has taken it" in capfd.readouterr().err


def test_peoples_masks_that_a_restore_takes_back_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    uri, key = tmp_path / "street", f"collection.uri={tmp_path}/street"
    commit(Storage(), uri, {"a": ["sr"], "b": ["ss"]}, app_id="one")
    commit(Storage(), uri, {"b": ["rr"]}, app_id="two", day=2, human=True)
    assert run_verb("collection", ["restore", "1", key, "--dry-run"]) == ExitCode.DONE
    assert "labelled 1; of these 1 are people's masks, which version 2 keeps" in capfd.readouterr().out
    taken = run(capfd, "restore", "1", key)
    assert (taken["version"], taken["of_people"], taken["taken_back"]) == (3, 1, {"labelled": 1})
    assert run(capfd, "restore", "2", key)["taken_back"] == {"labelled": 1}, "and brought back"
    assert run(capfd, "diff", "2", "4", key)["counts"] == {}


def test_a_reader_of_an_older_version_is_told_of_a_vacuum(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    uri, key = tmp_path / "street", f"collection.uri={tmp_path}/street"
    commit(Storage(), uri, {"a": ["sr"]}, app_id="one")
    pinned = Manifest(Storage(), str(uri))
    commit(Storage(), uri, {"a": ["rr"]}, app_id="two", day=2)
    for keep in ((), ("keep_days=1e12",)):
        assert run(capfd, "vacuum", *keep, key)["files_deleted"] == 0, "30 days are kept, or all"
    assert len(list(pinned)) == 1
    run(capfd, "vacuum", "keep_days=0", key)
    with pytest.raises(ManifestError, match="a vacuum has taken it, or it was lost; open a newer version"):
        list(pinned)
    assert run_verb("collection", ["restore", "1", key]) == ExitCode.USAGE
    assert "a vacuum has taken" in capfd.readouterr().err


def test_what_another_tool_wrote_is_taken_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from deltalake import DeltaTable

    uri, key = tmp_path / "street", f"collection.uri={tmp_path}/street"
    commit(Storage(), uri, {"a": ["sr"], "b": ["ss"]}, app_id="one")
    DeltaTable(uri / "masks").delete("image_id = 'a'")
    assert run_verb("collection", ["status", key]) == ExitCode.USAGE
    assert "was not written by segjobs; restore an earlier version" in capfd.readouterr().err
    assert run_verb("collection", ["restore", "1", key, "--dry-run"]) == ExitCode.DONE
    assert "what another tool has written" in capfd.readouterr().out
    assert run(capfd, "restore", "1", key)["version"] == 3
    assert [row.image_id for row in Manifest(Storage(), str(uri))] == ["a", "b"]
    DeltaTable(uri / "masks").alter.set_table_properties({"delta.enableChangeDataFeed": "true"})
    assert run_verb("collection", ["status", key]) == ExitCode.USAGE
    assert "its Delta protocol is 1/4, another tool has raised it" in capfd.readouterr().err
    assert run(capfd, "status", f"{key}@3")["images"] == {"ok": 2}
    (uri / "masks/_delta_log" / f"{4:020d}.json").unlink()
    assert run(capfd, "status", key)["version"] == 3


def test_words_are_checked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert placed(["--config", "c.yaml", "diff", "6", "7", "a=b"]) == [
        *("do=diff", 'words=["6", "7"]', "--config", "c.yaml", "a=b")
    ]

    def refused(*words: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load_config(CollectionConfig, None, placed([*words, "collection.uri=x"]))
        return str(caught.value)

    assert "words: segjobs collection diff takes two versions, such as 6 7; got 1 word(s)" in refused("diff", "6")
    assert "'six' is no version" in refused("restore", "six")
    assert "did you mean 'status'?" in refused("stats")
    assert run_verb("collection", ["compact", f"collection.uri={tmp_path}@3"]) == ExitCode.USAGE
    assert "names a version" in capfd.readouterr().err
    commit(Storage(), tmp_path / "street", {"a": ["sr"]}, app_id="one")
    for run_uri, says in (("nowhere", "no manifest here"), ("street", "is a collection; runs are added")):
        words = ["add", f"{tmp_path}/{run_uri}", f"collection.uri={tmp_path}/street"]
        assert run_verb("collection", words) == ExitCode.USAGE
        assert says in capfd.readouterr().err
