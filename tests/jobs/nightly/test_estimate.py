"""What a night would cost: by hand from a rate, by the record of earlier nights, and by a probe that leaves nothing."""

from pathlib import Path
from typing import Any

import pytest

from segjobs.cli import run_verb
from segjobs.jobs.engine.executor import InProcess
from segjobs.jobs.engine.layout import Layout
from segjobs.jobs.nightly.estimate import Rate, cost, rate_of_nights
from segjobs.jobs.nightly.job import nightly
from segjobs.jobs.nightly.labelling import Machines, machines_of
from segjobs.manifest.nights import begin, end, nights_of, read_end
from segjobs.results import DryRun
from segjobs.storage import Storage
from tests.jobs.nightly.test_job import config_of, draw, forward_passes, night
from tests.manifest.test_nights import NAME, change, night_of

GPUS, CPUS = Machines(8, 64), Machines(0, 16)


def test_hours_are_images_by_the_rate_and_money_is_hours_by_the_price() -> None:
    # 100 images/s: 720,000 images in 7,200 s.
    rate = Rate(1000, 10.0, GPUS, "measured in a night")
    told = cost(720_000, rate, GPUS, 2.5)
    assert told["hours"] == "2 at 100.0 images/s, measured in a night"
    assert told["GPU-hours"] == "16 (8 GPU(s) × hours)"
    assert told["price"] == "5.00 (hours × price_per_hour=2.5)"
    assert told["not in it"].startswith("listing")
    half = cost(720_000, rate, Machines(4, 32), 2.5)
    assert half["hours"] == "4 at 50.0 images/s, measured in a night on 8 GPU(s), scaled to 4"
    assert (half["GPU-hours"], half["price"]) == ("16 (4 GPU(s) × hours)", "10.00 (hours × price_per_hour=2.5)")
    started = cost(360_000, Rate(64, 0.64, CPUS, "measured on 64 images now", 3600.0), CPUS, None)
    assert started["hours"] == "2 at 100.0 images/s, measured on 64 images now, and 3600 s of start"
    assert started["CPU-hours"] == "32 (16 CPU(s) × hours)" and "price" not in started


def test_what_was_not_measured_is_said() -> None:
    told = cost(10, None, CPUS, 1.0)
    assert told == {
        "hours": "not known: no night has labelled anything yet; --probe 64 labels that many of its images, and tells"
    }
    other = cost(10, Rate(1, 1.0, GPUS, "measured in a night"), CPUS, 1.0)["hours"]
    assert other.startswith("not known: there are CPUs, and what was measured in a night was on GPUs;")
    unknown = cost(3600, Rate(1, 1.0, None, "measured in an older night"), CPUS, None)
    assert unknown["hours"] == "1 at 1.0 images/s, measured in an older night"


def test_machines_are_those_of_the_actors() -> None:
    lay = Layout(2, 16, 1.0, 0.5, 1, "task")
    assert machines_of(lay, 64, 4) == Machines(4, 16), "a pool that may grow to 16 has room for eight"
    assert machines_of(Layout(3, 3, 2.0, 0.0, 2, "actor"), 16, 0) == Machines(0, 6)


def test_the_newest_night_that_labelled_anything_is_the_measure(tmp_path: Path) -> None:
    uri = str(tmp_path / "street")
    records: list[dict[str, Any]] = [
        {"images": 10, "seconds": 5.0, "machines": {"gpus": 2.0, "cpus": 8.0}},
        {"images": 0, "seconds": 0.0, "machines": None},
    ]
    names = [NAME, "2026-02-02T02-00-00"]
    for name, record in zip(names, records, strict=True):
        one = night_of(uri, change("a", "new"))
        one = type(one)(uri, name, one.changes, one.counts, 1, None)
        begin(Storage(), one)
        end(Storage(), one, record)
    assert rate_of_nights(Storage(), uri, names) == Rate(10, 5.0, Machines(2.0, 8.0), f"measured in {NAME}")
    assert rate_of_nights(Storage(), uri, names[1:]) is None


def test_a_probe_labels_so_many_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.mkdir()
    monkeypatch.setenv("TOY_LOG", str(log))
    for number in range(9):
        draw(tmp_path, f"{number}.png", number)

    def probed(images: int, **keys: Any) -> dict[str, Any]:
        told = nightly(config_of(tmp_path, **keys), dry_run=True, probed=images, executor=InProcess())
        assert isinstance(told, DryRun)
        return dict(told.tables[0])

    first = probed(4, price_per_hour=3)
    passes = forward_passes(log)
    assert len(passes) == 4, "really labelled"
    assert first["probe"].startswith("4 images of ") and first["probe"].endswith("; nothing is kept")
    assert "measured on 4 images now" in first["hours"] and {"CPU-hours", "price"} <= first.keys()
    assert first["to label"] == first["new"] == 9
    assert not (tmp_path / "street").exists(), "what was not there before is not there"
    assert probed(4)["probe"].split(" labelled")[0] == first["probe"].split(" labelled")[0]
    assert forward_passes(log) == passes, "the same ones"
    assert probed(64)["probe"].startswith("9 images"), "all that there are"

    done = night(tmp_path)
    assert done.counts == {"new": 9}, "the night labels them all"
    record = read_end(Storage(), done.uri, done.night)
    assert record["machines"] == {"gpus": 0.0, "cpus": 1}
    draw(tmp_path, "9.png", 9)
    planned = nightly(config_of(tmp_path), dry_run=True)
    assert isinstance(planned, DryRun) and f"measured in {done.night}" in str(planned.tables[0]["hours"])
    before = sorted((tmp_path / "street").rglob("*"))
    assert probed(1)["probe"].startswith("1 images")
    assert sorted((tmp_path / "street").rglob("*")) == before
    assert nights_of(Storage(), done.uri) == ([done.night], [])
    night(tmp_path)
    nothing = probed(5)
    assert nothing["probe"] == "no image is to be labelled" and "hours" not in nothing


def test_a_probe_that_fails_leaves_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, "1.png", 1)
    monkeypatch.setattr("segjobs.jobs.nightly.estimate.label_run", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        nightly(config_of(tmp_path), dry_run=True, probed=1, executor=InProcess())
    assert not (tmp_path / "street").exists()


@pytest.mark.usefixtures("default_signals")
def test_a_probe_goes_with_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["input.uri=photos", "collection.uri=street", "model.name=unet"]
    assert run_verb("nightly", [*words, "--probe", "64"]) == 2
    assert "--probe measures what --dry-run tells; add --dry-run" in capsys.readouterr().err
    for wrong in ("0", "-3", "x"):
        with pytest.raises(SystemExit):
            run_verb("nightly", [*words, "--dry-run", f"--probe={wrong}"])
        assert "is no number of images; expected such as 64" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_verb("label", [*words[:1], "--dry-run", "--probe", "64"])


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_probe_on_ray_tells_the_start_apart(tmp_path: Path) -> None:
    for number in range(6):
        draw(tmp_path, f"{number}.png", number)
    told = nightly(config_of(tmp_path), dry_run=True, probed=4)
    assert isinstance(told, DryRun)
    assert str(told.tables[0]["hours"]).endswith(" s of start") and "measured on 4 images" in str(
        told.tables[0]["hours"]
    )
    assert not (tmp_path / "street").exists()
