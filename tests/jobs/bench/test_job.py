"""The bench: its arithmetic by hand, and one small run of the command whose figures must fit together."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from segjobs.config import BenchConfig, InputConfig, load_config
from segjobs.errors import ConfigError, ConflictError
from segjobs.jobs.bench import job
from segjobs.jobs.bench.bare_model import Bare, BareModel, StageTime
from segjobs.jobs.bench.job import _check_plain, _check_shards, _inputs, _Measured, _report, _tables, bench, bottleneck
from segjobs.jobs.bench.runs import Memory, Observed, Published, SteadyWindow, _Watch, steady_window
from segjobs.jobs.engine.layout import Layout, Resources, Share
from segjobs.manifest.plan import make_plan
from segjobs.manifest.rows import planned_items
from segjobs.manifest.run_info import GpuUse
from segjobs.models.semantic import SemanticSegmenter
from segjobs.sources.images import list_images
from segjobs.sources.synthetic import write_photos
from segjobs.storage import Storage
from tests.flow_process import REPOSITORY, run_flow


def test_steady_state_of_one_actor_is_all_after_its_first_file() -> None:
    files = [Published(10.0, 64), Published(12.0, 64), Published(14.0, 64), Published(15.0, 8)]
    window = steady_window(files, actors=1, waiting=0)
    assert window == SteadyWindow(10.0, 15.0, 136)
    assert window.images_per_s == 136 / 5


def test_steady_state_of_two_actors_leaves_out_the_start_and_the_tail() -> None:
    # One actor ends a file at 10, 12, 14, 16, the other at 11, 13, 15: 8 images a second together. From 11 on
    # both have had one; after 15 only one is left.
    files = [Published(float(at), 8) for at in (10, 11, 12, 13, 14, 15, 16)]
    assert steady_window(reversed(files), actors=2, waiting=0) == SteadyWindow(11.0, 15.0, 32)


def test_files_that_waited_for_their_writer_are_no_steady_state() -> None:
    files = [Published(at, 8) for at in (19.8, 19.9, 20.0, 21.0, 23.0, 25.0)]
    assert steady_window(files, actors=1, waiting=3) == SteadyWindow(21.0, 25.0, 16)


def test_steady_state_of_actors_that_end_together() -> None:
    files = [Published(at, 8) for at in (10.0, 10.0, 12.0, 12.0, 14.0, 14.0)]
    assert steady_window(files, actors=2, waiting=0) == SteadyWindow(10.0, 14.0, 24)


def test_too_few_files_have_no_steady_state() -> None:
    with pytest.raises(ValueError, match="6 files by 2 actors have no steady state; at least 7 have"):
        steady_window([Published(float(at), 8) for at in range(6)], actors=2, waiting=3)


def test_figures_of_one_run() -> None:
    files = [Published(107.0, 10), Published(105.0, 30), Published(111.0, 10)]
    run = Observed(100.0, files, Memory(), [(100.0, 0.0), (104.0, 8.0), (108.0, 12.0), (112.0, 20.0)])
    assert (run.first_file_s, run.first_file_images) == (5.0, 30)
    assert run.whole == SteadyWindow(100.0, 111.0, 50)
    # 9 CPU seconds were spent until 105, 18 until 111.
    assert run.cpu_ms(SteadyWindow(105.0, 111.0, 20)) == 450.0


def test_what_holds_a_process_up_is_asked_only_when_it_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def memory_full_info(self: psutil.Process) -> Any:
        asked.append(self.pid)
        return given(self)

    given = psutil.Process.memory_full_info
    monkeypatch.setattr(psutil.Process, "memory_full_info", memory_full_info)
    grow = "import sys\nkept = []\nprint()\nfor _ in sys.stdin:\n    kept.append(b'x' * 50_000_000)\n    print()"
    with subprocess.Popen([sys.executable, "-u", "-c", grow], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        watch, seen = _Watch(process.pid, everywhere=False), list[Memory]()
        for _ in range(2):
            process.stdout.readline()
            for _ in range(4):
                watch._sample()
            seen.append(watch.memory())
            process.stdin.write(b"\n")
            process.stdin.flush()
        process.stdin.close()
    assert asked == [process.pid] * 2 and len(watch.cpu_s) == 8
    assert all(0 < one.driver_uss <= one.driver_rss for one in seen)
    assert seen[1].driver_uss - seen[0].driver_uss > 45_000_000


def test_a_job_that_writes_late_works_from_its_first_mask_on() -> None:
    run = Observed(100.0, [Published(130.0, 10), Published(131.0, 30)], Memory(), [], first_mask_s=111.0)
    assert run.working == SteadyWindow(111.0, 131.0, 40)
    assert run.working.images_per_s == 2.0


@pytest.mark.parametrize(
    ("cpus", "gpus", "stage"),
    [
        (2, 0, "forward"),  # shared CPUs: the most expensive stage
        (4, 1, "decode"),  # 2.25 ms of the CPUs against 2 ms of the GPU
        (8, 1, "forward"),  # 1.125 ms against 2
    ],
)
def test_bottleneck(cpus: float, gpus: float, stage: str) -> None:
    assert bottleneck({"decode": 5.0, "encode": 4.0, "forward": 20.0 if not gpus else 2.0}, cpus, gpus) == stage


def config_of(*overrides: str) -> BenchConfig:
    return load_config(BenchConfig, str(REPOSITORY / "conf" / "bench.yaml"), overrides)


def test_a_run_too_short_for_a_steady_state_is_refused() -> None:
    lay, have = Layout(2, 2, 0.75, 0, 1, "actor"), Resources((Share(2),))
    _check_shards(config_of("images=896"), lay, have)
    with pytest.raises(ConfigError, match=r"images: 895 are 13 shards of 64; 2 actors .* with 14 or more"):
        _check_shards(config_of("images=895"), lay, have)


def test_what_the_plain_script_cannot_do_is_refused() -> None:
    _check_plain(config_of("plain_script=false", "model.resize=short:520"))
    for other in ("model.resize=null", "model.resize=short:520", "input.uri=s3://bucket/photos"):
        with pytest.raises(ConfigError, match="plain_script=false"):
            _check_plain(config_of(other))


def test_a_model_that_is_none_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ray(*_: object) -> None:
        raise AssertionError("a Ray is asked for")

    monkeypatch.setattr(job, "connect", no_ray)
    with pytest.raises(ConfigError, match="'unett' is no model; did you mean 'unet'"):
        bench(config_of("model.name=unett"))


def test_images_are_repeated_by_links(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", count=2, seed=0, sizes_hw=((8, 9),))
    inputs = _inputs(config_of(f"input.uri={tmp_path / 'photos'}"), tmp_path / "links", 5)
    links = sorted(Path(inputs.uri).iterdir())
    assert [link.name for link in links] == [f"{n:07d}_photo_{n % 2:05d}.jpg" for n in range(5)]
    assert all(link.resolve().is_file() for link in links)


def test_an_input_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no image matches"):
        _inputs(config_of(f"input.uri={tmp_path}"), tmp_path / "links", 5)


def observed(rate: float, command_s: float, **about: Any) -> Observed:
    """A run of 20 files of 8 images, one after the other at ``rate``, the first after ten seconds."""
    files = [Published(10 + 8 * number / rate, 8) for number in range(20)]
    return Observed(0.0, files, Memory(), [(0.0, 0.0), (command_s, command_s)], command_s, **about)


def test_rounds_become_figures() -> None:
    have, lay = Resources((Share(2),)), Layout(1, 1, 1.0, 0, 1, "actor")
    measured = _Measured(have, lay)
    measured.bare = [Bare(50.0, 100.0, 100.0)] * 3
    measured.stages = [{"read": StageTime(9.0, 0.4), "forward": StageTime(20.0, 20.0)}] * 2
    measured.label = [
        observed(40.0, 30.0, phases_s={"imports": 4.0, "ray": 6.0}),
        observed(80.0, 15.0, phases_s={"imports": 4.5, "ray": 12.0}),
    ]
    measured.plain = [observed(20.0, 60.0, first_mask_s=2.0)] * 2
    report = _report(config_of("input.uri=s3://bucket/photos", "plain_script=false", "shard.images=8"), measured)
    ratios = report["ratios"]
    assert ratios["pipeline / bare forward"]["runs"] == [0.4, 0.8]
    assert ratios["pipeline / bare forward"]["noisy"]
    assert ratios["whole run, pipeline / plain script"]["runs"] == [2.0, 4.0]
    assert report["pipeline"]["whole_run_s"] == {
        "median": 22.5,
        "min": 15.0,
        "max": 30.0,
        "noisy": True,
        "runs": [30.0, 15.0],
    }
    assert {phase: one["runs"] for phase, one in report["start_s"].items()} == {
        "imports": [4.0, 4.5],
        "ray": [6.0, 12.0],
    }
    assert (report["stages_ms"]["read"]["median"], report["stages_cpu_ms"]["read"]["median"]) == (9.0, 0.4)
    assert report["get_cpu_ms"] == report["stages_cpu_ms"]["read"], "of a remote input"
    assert _report(config_of(), measured)["get_cpu_ms"] is None
    shown = io.StringIO()
    for table in _tables(report):
        Console(file=shown, width=200).print(table)
    assert shown.getvalue().count("too noisy to judge") == len(ratios) == 5


def test_the_pipelines_gpus_where_each_run_tells_of_some() -> None:
    measured = _Measured(Resources((Share(8, 2),)), Layout(2, 2, 1.0, 1, 1, "task"))
    measured.bare = [Bare(50.0, 100.0, 100.0)] * 3
    measured.stages = [{"read": StageTime(9.0, 0.4), "forward": StageTime(20.0, 20.0)}]
    full, empty = GpuUse(90.0, 30, 6 * 2**30, 80 * 2**30), GpuUse(60.0, 10, 2**30, 80 * 2**30)
    measured.label = [
        observed(80.0, 30.0, gpus={"GPU-1": full, "GPU-2": empty}),
        observed(80.0, 30.0, gpus={"GPU-1": full}),
    ]
    report = _report(config_of("shard.images=8"), measured)
    assert (report["gpus"]["count"], report["gpus"]["total_mb"]) == (2, 81920)
    assert report["gpus"]["busy_percent"]["runs"] == [82.5, 90.0], "(90 * 30 + 60 * 10) / 40, and one alone"
    assert report["gpus"]["used_mb"]["runs"] == [6144.0, 6144.0]
    shown = io.StringIO()
    for table in _tables(report):
        Console(file=shown, width=200).print(table)
    assert "2 GPU(s), pipeline" in shown.getvalue() and "82.5 – 90.0" in shown.getvalue()
    measured.label[1] = observed(80.0, 30.0)
    report = _report(config_of("shard.images=8"), measured)
    assert report["gpus"] is None
    for table in _tables(report):
        Console(file=shown, width=200).print(table)
    assert shown.getvalue().count("GPU(s), pipeline") == 1


def test_of_another_runtime_torchs_own_forward_stands_beside() -> None:
    measured = _Measured(Resources((Share(2),)), Layout(1, 1, 1.0, 0, 1, "actor"))
    measured.bare = [Bare(50.0, 100.0, 100.0, 40.0), Bare(50.0, 100.0, 100.0, 60.0)]
    measured.stages = [{"read": StageTime(9.0, 0.4), "forward": StageTime(20.0, 20.0)}]
    measured.label = [observed(80.0, 30.0)]
    config = config_of("model.runtime=onnxruntime", "shard.images=8")
    report = _report(config, measured)
    assert report["ratios"]["pipeline / bare forward"]["median"] == 0.8
    assert report["ratios"]["pipeline / bare torch forward"]["median"] == 1.6
    assert (report["runtime"], report["bare"]["torch forward"]["runs"]) == ("onnxruntime", [40.0, 60.0])
    shown = io.StringIO()
    for table in _tables(report):
        Console(file=shown, width=200).print(table)
    assert "lraspp_mobilenet_v3_large by onnxruntime" in shown.getvalue()
    assert "bare forward alone by torch; one process" in shown.getvalue()


@pytest.mark.parametrize(("postprocess", "by_runs"), [("min_confidence=0", True), ("min_confidence=0.5", False)])
def test_stages_are_those_of_the_pipeline(
    postprocess: str, by_runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def runs(self: SemanticSegmenter, outputs: Any, sizes_hw: Any) -> Any:
        asked.append(len(outputs))
        return given(self, outputs, sizes_hw)

    given = SemanticSegmenter.runs
    monkeypatch.setattr(SemanticSegmenter, "runs", runs)
    write_photos(tmp_path / "photos", count=5, seed=0, sizes_hw=((48, 64),))
    inputs = InputConfig(uri=str(tmp_path / "photos"))
    config = config_of("model.resize=32x32", "compute.batch_size=2", f"postprocess.{postprocess}", "bare_s=0.01")
    files = planned_items(make_plan(list_images(Storage(), inputs), config.shard).items)
    times = BareModel(config, files, "cpu", 1).stage_times(str(tmp_path / "out"))
    assert list(times) == ["read", "decode", "prepare", "forward", "restore", "encode", "write"]
    # Two batches before, uncounted, and all three.
    assert asked == ([2, 2, 2, 2, 1] if by_runs else [])
    parts = [pq.read_table(tmp_path / "out" / f"part-0000{n}.parquet") for n in range(2)]
    assert [part.num_rows for part in parts] == [4, 5]
    assert parts[1]["segments"].null_count == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_figures_of_a_small_bench_fit_together(ray_environment: dict[str, str], tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", count=40, seed=0, sizes_hw=((48, 64), (64, 48)))
    words = [f"input.uri={tmp_path / 'photos'}", f"output.uri={tmp_path / 'out'}", "images=40", "memory_images=60"]
    words += [
        "repeats=1",
        "bare_s=0.5",
        "model.resize=64x64",
        "shard.images=2",
        "compute.batch_size=4",
        "compute.actors=1",
    ]
    words = ["--config", str(REPOSITORY / "conf" / "bench.yaml"), *words]
    code, stdout, err = run_flow("bench", *words, **ray_environment)
    assert code == 0, err
    report = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert json.loads(stdout) == {**report, "exit_code": 0}

    bare, pipeline, plain = report["bare"], report["pipeline"], report["plain_script"]
    assert len(bare["predict"]["runs"]) == 2 and len(pipeline["images_per_s"]["runs"]) == 1
    rate = pipeline["images_per_s"]["median"]
    for kind in ("predict", "forward", "forward_split"):
        ratio = report["ratios"][f"pipeline / bare {kind}"]["median"]
        assert ratio == pytest.approx(rate / (sum(bare[kind]["runs"]) / 2), rel=0.01, abs=0.001)
    ratio = report["ratios"]["pipeline / plain script"]["median"]
    assert ratio == pytest.approx(rate / plain["images_per_s"]["median"], rel=0.01, abs=0.001)
    for side in (pipeline, plain):
        assert 0 < side["startup_s"]["median"] < side["first_file_s"]["median"]
        assert side["cpu_ms_per_image"]["median"] > 0
        assert side["whole_run_images_per_s"]["median"] < side["images_per_s"]["median"]
        assert side["whole_run_s"]["median"] > side["first_file_s"]["median"]

    stages = report["stages_ms"]
    assert stages.keys() == report["stages_cpu_ms"].keys() and report["get_cpu_ms"] is None
    assert list(report["start_s"])[:2] == ["imports", "weights"] and report["start_s"]["ray"]["median"] > 0
    whole = report["ratios"]["whole run, pipeline / plain script"]["median"]
    sides = (side["whole_run_s"]["median"] for side in (plain, pipeline))
    assert whole == pytest.approx(next(sides) / next(sides), rel=0.01, abs=0.001)
    assert list(stages) == ["read", "decode", "prepare", "forward", "restore", "encode", "write"]
    assert stages[report["bottleneck"]]["median"] == max(stage["median"] for stage in stages.values())
    assert [run["images"] for run in report["memory_mb"]] == [40, 60]
    for run in report["memory_mb"]:
        assert 100 < run["driver_uss"] <= run["driver_rss"] < 10_000
        assert 100 < run["worker_uss"] <= run["worker_rss"] < 10_000
    assert "images/s" in err and "bottleneck" in err

    with pytest.raises(ConflictError, match=r"bench\.json is there already"):
        bench(config_of(*words[2:]))
