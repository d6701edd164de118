"""Nights of a collection: what came, changed and went; each committed once; its gate, its page."""

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segjobs
from segjobs.config import CollectionConfig, LabelConfig, NightlyConfig, StorageConfig
from segjobs.errors import ConfigError, ConflictError, ExitCode, ManifestError, StorageError
from segjobs.jobs.collection.job import collection
from segjobs.jobs.engine.executor import InProcess
from segjobs.jobs.label.job import make_job
from segjobs.jobs.nightly import job, labelling
from segjobs.jobs.nightly.job import nightly
from segjobs.manifest.collection import open_collection, processing_of
from segjobs.manifest.iceberg import open_catalogue
from segjobs.manifest.nights import Night, nights_of, read_end
from segjobs.manifest.parts import open_run, read_rows
from segjobs.results import DryRun, NightlyResult
from segjobs.storage import FileInfo, Storage
from tests.in_process import label_in_process
from tests.manifest.test_iceberg import config_at as iceberg_at
from tests.manifest.test_iceberg import rows_of
from tests.toy_model import expected_ids


def config_of(folder: Path, **settings: Any) -> NightlyConfig:
    model = {"name": "tests.toy_model:build", **settings.pop("model", {})}
    return NightlyConfig.model_validate(
        {
            "input": {"uri": str(folder / "photos")},
            "collection": {"uri": str(folder / "street")},
            "model": model,
            "compute": {"actors": 1},
            "shard": {"images": 3},
            "max_failed_fraction": 1,
            **settings,
        }
    )


def night(folder: Path, **settings: Any) -> NightlyResult:
    result = nightly(config_of(folder, **settings), executor=InProcess())
    assert isinstance(result, NightlyResult)
    return result


def draw(folder: Path, name: str, number: int) -> None:
    path = folder / "photos" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(number).integers(0, 256, (8, 9, 3), np.uint8)
    image[0, 0, 2] = number
    Image.fromarray(image).save(path)


def forward_passes(log: Path) -> list[int]:
    numbers = [int(line) for file in log.iterdir() for line in file.read_text().split()]
    for file in log.iterdir():
        file.unlink()
    return sorted(numbers)


def check_against_a_fresh_run(folder: Path, name: str, **settings: Any) -> None:
    """The table's rows are those of a run over what is there now."""
    config = LabelConfig.model_validate(
        {"input": {"uri": str(folder / "photos")}, "output": {"uri": str(folder / name)},
         "model": {"name": "tests.toy_model:build"}, "compute": {"actors": 1}, "max_failed_fraction": 1, **settings}
    )  # fmt: skip
    label_in_process(config)
    fresh, now = (
        {
            row["image_id"]: (row["uri"], row["source"], row["status"], row["segments"], row["confidence"])
            for row in rows
        }
        for rows in (read_rows(Storage(), str(folder / name)), read_rows(Storage(), str(folder / "street")))
    )
    assert now == fresh


def test_nights_bring_the_table_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.mkdir()
    monkeypatch.setenv("TOY_LOG", str(log))
    photos, street = tmp_path / "photos", str(tmp_path / "street")
    for number in range(7):
        draw(tmp_path, f"a/{number}.png", number)
    (photos / "broken.png").write_bytes(b"\x89PNG no")
    planned = nightly(config_of(tmp_path), dry_run=True)
    assert isinstance(planned, DryRun) and planned.tables[0]["new"] == 8 and not (tmp_path / "street").exists()
    first = night(tmp_path)
    assert (first.version, first.counts, first.failures) == (1, {"new": 8}, {"TRUNCATED": 1})
    assert forward_passes(log) == list(range(7))
    check_against_a_fresh_run(tmp_path, "fresh1")
    forward_passes(log)

    draw(tmp_path, "a/7.png", 7)  # comes
    draw(tmp_path, "a/0.png", 10)  # changes
    os.utime(photos / "a/1.png", (5, 5))  # is touched
    (photos / "a/2.png").unlink()  # goes
    shutil.copy(photos / "a/3.png", photos / "a/33.png")  # another name: another image
    second = night(tmp_path)
    assert second.counts == {"new": 2, "changed": 1, "touched": 1, "gone": 1, "same": 5}
    assert (second.version, forward_passes(log)) == (2, [3, 7, 10])
    check_against_a_fresh_run(tmp_path, "fresh2")
    forward_passes(log)

    third = night(tmp_path)
    assert (third.counts, third.version, third.run, forward_passes(log)) == ({"same": 9}, 3, None, [])
    draw(tmp_path, "a/2.png", 2)  # is back, the same bytes
    assert night(tmp_path).counts == {"touched": 1, "same": 9}
    check_against_a_fresh_run(tmp_path, "fresh3")
    assert [entry.get("night", "") != "" for entry in open_collection(Storage(), street).history()] == [True] * 4 + [
        False
    ]
    assert len(list(read_rows(Storage(), f"{street}@1"))) == 8, "every version stays"
    index = (tmp_path / "street/nights/index.html").read_text()
    assert all(f'href="{one.night}/index.html"' in index for one in (first, second, third))
    assert "a/7.png" in Path(second.page).read_text()


def test_failures_are_tried_again_so_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, "1.png", 1)
    draw(tmp_path, "2.png", 2)
    retry = {"codes": ["MODEL_ERROR"], "times": 2}
    monkeypatch.setenv("TOY_FAILS", "2")
    assert night(tmp_path, retry=retry).failures == {"MODEL_ERROR": 1}
    assert night(tmp_path, retry=retry).counts == {"retry": 1, "same": 1}
    assert night(tmp_path, retry=retry).counts == {"same": 1, "retry": 1}
    assert night(tmp_path, retry=retry).counts == {"same": 2}, "twice, and no more"
    monkeypatch.delenv("TOY_FAILS")
    assert night(tmp_path, retry={**retry, "times": 3}).failures == {}
    assert night(tmp_path, retry={**retry, "times": 9}).counts == {"same": 2}


def test_a_better_model_reaches_the_oldest_first_by_budget(tmp_path: Path) -> None:
    for number in range(5):
        draw(tmp_path, f"{number}.png", number)
    night(tmp_path)
    draw(tmp_path, "9.png", 9)
    better: dict[str, Any] = {"model": {"options": {"seed": 1}}}
    assert night(tmp_path, **better).counts == {"new": 1, "stale_kept": 5}
    relabel: dict[str, Any] = {**better, "stale": "relabel", "budget_images": 3}
    assert night(tmp_path, **relabel).counts == {"stale": 3, "stale_kept": 2, "same": 1}
    assert night(tmp_path, **relabel).counts == {"stale": 2, "same": 4}
    assert night(tmp_path, **relabel).counts == {"same": 6}
    other = {**relabel, "postprocess": {"min_area_px": 5}}
    assert night(tmp_path, **other).counts == {"stale": 3, "stale_kept": 3}
    with pytest.raises(ValueError, match="no effect with stale=keep"):
        config_of(tmp_path, budget_images=3)


def test_a_night_that_misses_its_gate_is_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        draw(tmp_path, f"{number}.png", number)
    (tmp_path / "photos/broken.png").write_bytes(b"\x89PNG no")
    gate = ["failed <= 10%", "drift[dark] <= 0.2", "confidence drop <= 0.05"]
    held = night(tmp_path, gate=gate)
    assert (held.exit_code, held.version) == (ExitCode.GATE_MISSED, None)
    assert held.gate == {"failed <= 10%": False, "drift[dark] <= 0.2": True, "confidence drop <= 0.05": True}
    assert "failed <= 10%: missed (0.2)" in capsys.readouterr().err
    assert not (tmp_path / "street/masks").exists()
    key = {"collection": {"uri": str(tmp_path / "street")}}
    status = collection(CollectionConfig.model_validate(key))
    assert not isinstance(status, DryRun) and status.figures == {
        "version": None,
        "nights": 1,
        "nights_begun": [],
        "nights_held": [held.night],
    }
    assert f"no version yet; 1 nights\nnight {held.night} is held by its gate" in capsys.readouterr().err
    published = collection(CollectionConfig.model_validate({**key, "do": "publish", "words": [held.run]}))
    assert not isinstance(published, DryRun) and published.figures["version"] == 1
    assert len(list(read_rows(Storage(), str(tmp_path / "street")))) == 5
    assert night(tmp_path, gate=gate).exit_code == ExitCode.DONE, "nothing was labelled"
    draw(tmp_path, "9.png", 9)
    assert night(tmp_path, gate=["confidence >= 0.99"], on_gate="publish").version == 3
    draw(tmp_path, "10.png", 10)
    again = night(tmp_path, gate=["confidence >= 0.99"])
    status = collection(CollectionConfig.model_validate(key))
    assert not isinstance(status, DryRun) and status.figures["nights_held"] == [again.night]
    with pytest.raises(ConfigError, match=r"'drak' is no class of the model; did you mean 'dark'\?"):
        night(tmp_path, gate=["drift[drak] <= 0.2"])


def later_than(run: str | None) -> None:
    """Wait for the second after a run's end: moments in a table are whole seconds, and nights here take less."""
    assert run is not None
    finished = datetime.fromisoformat(open_run(Storage(), run).info.finished)
    while datetime.now(UTC) < finished + timedelta(seconds=1):
        sleep(0.05)


def test_what_a_night_holds_waits_and_is_labelled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.mkdir()
    monkeypatch.setenv("TOY_LOG", str(log))
    photos, street = tmp_path / "photos", str(tmp_path / "street")
    for number in range(4):
        draw(tmp_path, f"{number}.png", number)
    night(tmp_path)
    forward_passes(log)
    draw(tmp_path, "0.png", 10)  # changes
    draw(tmp_path, "1.png", 11)  # changes, and again tomorrow
    draw(tmp_path, "2.png", 12)  # changes, and goes tomorrow
    draw(tmp_path, "4.png", 4)  # comes
    draw(tmp_path, "5.png", 5)  # comes, and changes tomorrow
    (photos / "3.png").unlink()  # goes, and is back tomorrow
    gate = ["confidence >= 0.99"]
    held = night(tmp_path, gate=gate)
    assert (held.version, forward_passes(log)) == (None, [4, 5, 10, 11, 12])

    later_than(held.run)
    draw(tmp_path, "1.png", 21)
    draw(tmp_path, "5.png", 25)
    draw(tmp_path, "6.png", 6)
    draw(tmp_path, "3.png", 3)
    (photos / "2.png").unlink()
    following = night(tmp_path)
    assert following.counts == {"new": 2, "changed": 1, "waiting": 2, "gone": 1, "touched": 1}
    assert (following.version, forward_passes(log)) == (2, [6, 21, 25])
    assert night(tmp_path).counts == {"waiting": 2, "same": 4}
    assert f"held by its gate since an earlier night: {held.run}" in Path(following.page).read_text()
    assert [row["image_id"] for row in read_rows(Storage(), street)] == ["0.png", "1.png", "3.png", "5.png", "6.png"]

    key: dict[str, Any] = {"collection": {"uri": street}, "words": [held.run]}
    published = collection(CollectionConfig.model_validate({**key, "do": "publish"}))
    assert not isinstance(published, DryRun) and published.figures["version"] == 4
    again = collection(CollectionConfig.model_validate({**key, "do": "publish"}))
    assert not isinstance(again, DryRun) and not again.figures["new"]
    check_against_a_fresh_run(tmp_path, "fresh")
    forward_passes(log)
    assert (night(tmp_path).counts, forward_passes(log)) == ({"same": 6}, []), "nothing is labelled twice"
    with pytest.raises(ManifestError, match="is in version 4; segjobs collection restore VERSION takes versions back"):
        collection(CollectionConfig.model_validate({**key, "do": "discard"}))
    index = (tmp_path / "street/nights/index.html").read_text()
    assert "<td>held</td>" not in index, "it was published"


def test_a_held_night_is_given_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw(tmp_path, "1.png", 1)
    held = night(tmp_path, gate=["confidence >= 0.99"])
    assert night(tmp_path).counts == {"waiting": 1}
    assert f"{held.run} is held by its gate: segjobs collection publish {held.run}" in capsys.readouterr().err
    better: dict[str, Any] = {"model": {"options": {"seed": 1}}}
    planned = nightly(config_of(tmp_path, **better), dry_run=True)
    assert isinstance(planned, DryRun) and planned.tables[0]["new"] == 1, "another model's masks are none to wait for"
    key: dict[str, Any] = {"collection": {"uri": str(tmp_path / "street")}, "words": [held.run]}
    told = collection(CollectionConfig.model_validate({**key, "do": "discard"}), dry_run=True)
    assert isinstance(told, DryRun) and told.tables[0]["discarded"] == "no"
    for new in (True, False):
        done = collection(CollectionConfig.model_validate({**key, "do": "discard"}))
        assert not isinstance(done, DryRun) and done.figures["new"] is new
    with pytest.raises(ManifestError, match=r"was discarded: .* segjobs collection add"):
        collection(CollectionConfig.model_validate({**key, "do": "publish"}))
    assert night(tmp_path).counts == {"new": 1}
    assert "<td>discarded</td>" in (tmp_path / "street/nights/index.html").read_text()


def test_masks_of_a_better_model_are_compared_with_those_before(tmp_path: Path) -> None:
    for number in range(4):
        draw(tmp_path, f"{number}.png", number)
    night(tmp_path)
    draw(tmp_path, "9.png", 9)
    # A pixel of less confidence than this is unlabelled now, and had a class before.
    half: dict[str, Any] = {"postprocess": {"min_confidence": 0.5}, "stale": "relabel"}
    result = night(tmp_path, gate=["disagreement <= 10%", "disagreement[dark] <= 0.9"], **half)
    figures = read_end(Storage(), result.uri, result.night)["figures"]
    greens = [np.asarray(Image.open(tmp_path / f"photos/{number}.png"))[..., 1] for number in range(4)]
    expected = np.mean([green / np.float32(255) < 0.5 for green in greens])
    assert (figures["relabelled"], figures["compared"]) == (4, 4)
    assert figures["disagreement"] == pytest.approx(expected)
    assert result.gate == {"disagreement <= 10%": False, "disagreement[dark] <= 0.9": True}
    page = Path(result.page).read_text()
    assert page.count(" · before</figcaption>") == 4 and "Beside their earlier masks" in page


def test_nights_are_appended_to_an_iceberg_table_when_they_are_in_the_collection(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", 1)
    first = night(tmp_path)  # before there was a catalogue
    place = iceberg_at(tmp_path)
    keys: dict[str, Any] = {"publish": {"iceberg": place.model_dump()}}
    draw(tmp_path, "2.png", 2)
    held = night(tmp_path, gate=["confidence >= 0.99"], **keys)
    catalogue = open_catalogue(place)

    def appended() -> list[str]:
        return sorted(rows_of(catalogue, f"{place.table}_nights")["night"].to_pylist())

    assert appended() == [first.night], "what the collection has; not what is held"
    words = [held.run]
    collection(CollectionConfig.model_validate({"collection": {"uri": held.uri}, "do": "publish", "words": words}))
    assert night(tmp_path, **keys).counts == {"same": 2}
    assert appended() == [first.night, held.night]
    draw(tmp_path, "3.png", 3)
    broken = {"publish": {"iceberg": {"table": "a.b", "properties": {**place.properties, "warehouse": "nowhere://x"}}}}
    with pytest.raises(StorageError, match=r"publish.iceberg: a.b: .* the night is done, and the next one appends"):
        night(tmp_path, **broken)
    assert night(tmp_path, **keys).counts == {"same": 3}, "the night that could not be appended was done"
    assert len(appended()) == 3
    assert {row["image_id"] for row in rows_of(catalogue, str(place.table)).to_pylist()} == {"1.png", "2.png", "3.png"}
    planned = nightly(config_of(tmp_path, publish={"iceberg": {"table": "a.b", "catalog": "none"}}), dry_run=True)
    assert isinstance(planned, DryRun), "nobody is asked"


_KILLED = """
import sys
from pathlib import Path
from tests.jobs.nightly.test_job import night
night(Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", ["night:after", "part-1:after", "commit:before", "commit:after"])
def test_a_night_killed_anywhere_is_ended_by_the_same_command(tmp_path: Path, point: str) -> None:
    for number in range(7):
        draw(tmp_path, f"{number}.png", number)
    environment = {**os.environ, "SEGJOBS_CRASH_AT": point}
    died = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    draw(tmp_path, "late.png", 99)  # comes while the night runs: the next one's
    (tmp_path / "photos/6.png").unlink()
    ended = night(tmp_path)
    assert (ended.counts, ended.version) == ({"new": 7}, 1)
    assert len(list((tmp_path / "street/runs").iterdir())) == 1
    following = night(tmp_path)
    assert (following.counts, following.version) == ({"new": 1, "gone": 1, "same": 6}, 2)
    check_against_a_fresh_run(tmp_path, "fresh")


def test_two_nights_at_once_end_with_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        draw(tmp_path, f"{number}.png", number)
    own, others = job.begin, list[NightlyResult]()

    def late(storage: Storage, later: Night) -> bool:
        if not others:
            monkeypatch.undo()
            others.append(night(tmp_path))  # another one, that began and ended since this one has compared
        return own(storage, later)

    monkeypatch.setattr(job, "begin", late)
    ours = night(tmp_path)
    (other,) = others
    assert (ours.counts, other.counts) == ({"new": 4}, {"new": 4}) and (other.version, ours.version) == (1, 2)
    check_against_a_fresh_run(tmp_path, "fresh")
    assert night(tmp_path).counts == {"same": 4}


_AT_ONCE = """
import sys
from segjobs.config import NightlyConfig
from segjobs.jobs.engine.executor import InProcess
from segjobs.jobs.nightly.job import nightly
nightly(NightlyConfig.model_validate_json(sys.argv[1]), executor=InProcess())
"""


@pytest.mark.slow
def test_two_commands_at_once_end_with_one_table(tmp_path: Path, shared_store: tuple[Storage, str]) -> None:
    """Whichever begins, commits and ends first: they share a night, or have one each."""
    storage, place = shared_store
    for number in range(6):
        draw(tmp_path, f"{number}.png", number)
    keys = {"collection": {"uri": f"{place}/street"}, "storage": storage.config.model_dump()}
    command = [sys.executable, "-c", _AT_ONCE, config_of(tmp_path, **keys).model_dump_json()]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    assert [row["image_id"] for row in read_rows(storage, f"{place}/street")] == [f"{n}.png" for n in range(6)]
    names = [entry["night"] for entry in open_collection(storage, f"{place}/street").history() if "night" in entry]
    assert len(names) == len(set(names)) and sorted(names) == nights_of(storage, f"{place}/street")[0]
    assert night(tmp_path, **keys).counts == {"same": 6}


class _Ahead(datetime):
    """A clock that is ten years ahead."""

    @classmethod
    def now(cls, tz: Any = None) -> "_Ahead":
        return cls.fromtimestamp(datetime.now(tz).timestamp() + 3.2e8, tz)


def test_a_clock_that_goes_back_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, "1.png", 1)
    draw(tmp_path, "2.png", 2)
    for module in ("segjobs.jobs.nightly.job", "segjobs.jobs.engine.run"):
        monkeypatch.setattr(f"{module}.datetime", _Ahead)
    first = night(tmp_path)
    monkeypatch.undo()
    draw(tmp_path, "1.png", 9)
    second = night(tmp_path)
    assert second.counts == {"changed": 1, "same": 1} and first.night < second.night
    check_against_a_fresh_run(tmp_path, "fresh")
    assert night(tmp_path).counts == {"same": 2}
    assert status_of(tmp_path)["nights"] == 3


def status_of(folder: Path) -> dict[str, Any]:
    result = collection(CollectionConfig.model_validate({"collection": {"uri": str(folder / "street")}}))
    assert not isinstance(result, DryRun)
    return dict(result.figures)


def test_what_a_held_night_saw_gone_and_touched_is_for_later_nights_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        draw(tmp_path, f"{number}.png", number)
    night(tmp_path)
    (tmp_path / "photos/0.png").unlink()
    draw(tmp_path, "9.png", 9)
    held = night(tmp_path, gate=["confidence >= 0.99"])
    assert held.counts == {"new": 1, "gone": 1, "same": 2} and held.version is None
    draw(tmp_path, "0.png", 0)
    draw(tmp_path, "9.png", 10)
    monkeypatch.setattr("segjobs.jobs.engine.run.datetime", _Ahead)  # moments are whole seconds
    assert night(tmp_path).counts == {"new": 1, "touched": 1, "same": 2}
    key = {"collection": {"uri": str(tmp_path / "street")}}
    collection(CollectionConfig.model_validate({**key, "do": "publish", "words": [held.run]}))
    check_against_a_fresh_run(tmp_path, "fresh")


def test_a_begun_night_is_not_gone_on_with_by_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, "1.png", 1)
    monkeypatch.setattr("segjobs.jobs.nightly.job.commit_night", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        night(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ConflictError, match="begun with another model or other settings"):
        night(tmp_path, model={"options": {"seed": 1}})
    assert night(tmp_path).version == 1


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_nights_in_a_bucket_on_ray(tmp_path: Path, s3_server: StorageConfig) -> None:
    street = f"s3://segjobs/{tmp_path.name}/street"
    for number in range(4):
        draw(tmp_path, f"{number}.png", number)
    keys: dict[str, Any] = {"collection": {"uri": street}, "storage": s3_server.model_dump()}
    assert isinstance(nightly(config_of(tmp_path, **keys), dry_run=True, probed=2), DryRun)
    assert not Storage(s3_server).list_names(street) and not list(Storage(s3_server).walk(f"{street}/probes"))
    first = segjobs.nightly(config=config_of(tmp_path, **keys).model_dump())
    (tmp_path / "photos/0.png").unlink()
    os.utime(tmp_path / "photos/1.png", (5, 5))
    second = nightly(config_of(tmp_path, **keys))
    assert isinstance(second, NightlyResult)
    assert (first.version, second.version, second.run) == (1, 2, None)
    assert second.counts == {"touched": 1, "gone": 1, "same": 2}
    storage = Storage(s3_server)
    assert [row["image_id"] for row in read_rows(storage, street)] == ["1.png", "2.png", "3.png"]
    assert [row["image_id"] for row in read_rows(storage, f"{street}@1")] == [f"{number}.png" for number in range(4)]
    assert storage.exists(second.page) and storage.exists(f"{street}/nights/index.html")


def test_the_result_is_a_line(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", 1)
    line = json.loads(night(tmp_path).text())
    assert (line["counts"], line["version"], line["exit_code"]) == ({"new": 1}, 1, 0)
    assert line["collection"] == str(tmp_path / "street")
    image = np.asarray(Image.open(tmp_path / "photos/1.png"))
    (row,) = read_rows(Storage(), str(tmp_path / "street"))
    assert {one["category_id"] for one in row["segments"]} == set(np.unique(expected_ids(image)).tolist())
    assert row["origin"] == "model" and row["processing"] and row["gone_at"] is None


def test_margin_and_entropy_make_no_other_night(tmp_path: Path) -> None:
    card = job.resolve_model(labelling.label_config_of(config_of(tmp_path), "o"), Storage())
    files = [FileInfo("/x/a.png", "a.png", 1, 1, "")]
    on, off = (labelling.job_of(config_of(tmp_path, uncertainty=value), card, files) for value in (True, False))
    assert on.run_id == off.run_id and processing_of(on.identity) == processing_of(off.identity)
    assert on.config["uncertainty"] is True and config_of(tmp_path).uncertainty
    label = make_job(labelling.label_config_of(config_of(tmp_path), "o"), on.plan, card)
    assert label.run_id != on.run_id, "a run of label without them is not one with them"
    assert processing_of(label.identity) == processing_of(on.identity), "and its masks are the same"
