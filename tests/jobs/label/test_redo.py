"""Failed images tried again by a new run: what was good is taken as it is, and only the rest is labelled."""

from pathlib import Path
from typing import Any

import pytest

from segjobs.config import LabelConfig
from segjobs.errors import ConfigError
from segjobs.manifest.parts import open_run, read_rows
from segjobs.storage import Storage
from tests.in_process import label_in_process
from tests.jobs.label.test_job import picture, save

STORAGE = Storage()


def config_of(root: Path, name: str, **settings: Any) -> LabelConfig:
    places = {"input": {"uri": str(root / "photos")}, "output": {"uri": str(root / name)}}
    model = {"name": "tests.toy_model:build"}
    return LabelConfig.model_validate({**places, "model": model, "shard": {"images": 3}, **settings})


@pytest.fixture
def failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight photographs in three shards, labelled: 1 and 4 met an error of that day, 6 is no image."""
    for number in range(8):
        save(tmp_path / "photos" / f"{number}.png", picture(number, (9, 7)))
    (tmp_path / "photos" / "6.png").write_bytes(b"no image")
    monkeypatch.setenv("TOY_FAILS", "1,4")
    summary = label_in_process(config_of(tmp_path, "first"))
    assert (summary.ok, summary.failures) == (5, {"MODEL_ERROR": 2, "UNREADABLE": 1})
    monkeypatch.delenv("TOY_FAILS")
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    (tmp_path / "log").mkdir()
    return tmp_path


def labelled_of(root: Path) -> list[int]:
    """The numbers of the images that went through the network, in order."""
    return sorted(int(line) for path in (root / "log").iterdir() for line in path.read_text().split())


def rows_of(root: Path, name: str) -> dict[str, dict[str, Any]]:
    return {row.pop("image_id"): {**row, "run_id": None} for row in read_rows(STORAGE, str(root / name))}


def test_what_failed_is_labelled_and_what_was_good_is_taken(failed: Path) -> None:
    redo = {"uri": str(failed / "first"), "codes": ["MODEL_ERROR"]}
    summary = label_in_process(config_of(failed, "second", redo=redo))
    assert (summary.ok, summary.failures, labelled_of(failed)) == (7, {"UNREADABLE": 1}, [1, 4])
    first, second = rows_of(failed, "first"), rows_of(failed, "second")
    assert sorted(second) == [f"{number}.png" for number in range(8)]
    assert {name for name, row in second.items() if row != first[name]} == {"1.png", "4.png"}
    runs = [open_run(STORAGE, str(failed / name)).info for name in ("first", "second")]
    assert runs[1].identity["redo"] == {"run_id": runs[0].run_id, "codes": ["MODEL_ERROR"]}
    assert {row["run_id"] for row in read_rows(STORAGE, str(failed / "second"))} == {runs[1].run_id}
    assert label_in_process(config_of(failed, "second", redo=redo)).complete_before


def test_what_changed_or_came_since_is_labelled_too(failed: Path) -> None:
    save(failed / "photos" / "0.png", picture(10, (9, 7)))
    save(failed / "photos" / "9.png", picture(9, (9, 7)))
    (failed / "photos" / "7.png").unlink()
    summary = label_in_process(config_of(failed, "second", redo={"uri": str(failed / "first")}, shard={"images": 4}))
    assert (summary.images, summary.failures, labelled_of(failed)) == (8, {"UNREADABLE": 1}, [1, 4, 9, 10])


def test_another_model_s_rows_are_not_taken(failed: Path) -> None:
    redo = {"uri": str(failed / "first")}
    with pytest.raises(
        ConfigError, match=r"redo\.uri: .*first is not of this model .*: postprocess\.min_area_px was 0, is 3$"
    ):
        label_in_process(config_of(failed, "second", redo=redo, postprocess={"min_area_px": 3}))
    with pytest.raises(ConfigError, match=r"has no failed image with TIMEOUT \(it has MODEL_ERROR 2, UNREADABLE 1\)"):
        label_in_process(config_of(failed, "second", redo={**redo, "codes": ["TIMEOUT"]}))
    with pytest.raises(ValueError, match=r"give that too"):
        config_of(failed, "second", redo={"codes": ["TIMEOUT"]})
