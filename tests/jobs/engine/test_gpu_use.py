"""How busy the GPUs were in a run: read by actors, counted by GPU and second, told in the summary. No GPU is needed."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from segjobs.config import ShardConfig
from segjobs.jobs.engine import gpu_use
from segjobs.jobs.engine.attempts import AttemptLog, open_attempts
from segjobs.jobs.engine.executor import Actors, InProcess, Stage, Work
from segjobs.jobs.engine.gpu_use import GpuLog, GpuReading, Sampler, fullest, gpu_line, mean_busy_percent
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.run import Summary, run_job
from segjobs.jobs.engine.shards import Job
from segjobs.manifest.parts import open_run
from segjobs.manifest.plan import make_plan
from segjobs.manifest.run_info import GpuUse
from segjobs.manifest.schema import Footer, make_categories
from segjobs.models import nvml
from segjobs.sources.synthetic import write_photos
from segjobs.storage import FileInfo, Storage
from tests.flow_process import run_flow
from tests.ray_head import Head
from tests.stages import labelled, stage_of
from tests.stand_in_nvml import UUID, LibraryNotFound, NotSupported, Nvml, StandInGpu, install

GIB = 2**30
ON_A_GPU = Actors(least=1, most=1, cpus=0.5, gpus=0.5)


def reading(gpu: str, second: int, busy_percent: int, used_gib: int = 1) -> GpuReading:
    return GpuReading(gpu, second, busy_percent, used_gib * GIB, 8 * GIB)


@pytest.fixture
def every_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings come at once, each a second of the node's clock later than the one before."""
    seconds = count(100)
    monkeypatch.setattr(gpu_use, "_EVERY_S", 0.005)
    monkeypatch.setattr(gpu_use, "time", SimpleNamespace(time=lambda: float(next(seconds))))


def see(monkeypatch: pytest.MonkeyPatch, **gpus: StandInGpu) -> None:
    """This process has these, by the digits of their UUIDs."""
    install(monkeypatch, Nvml({f"GPU-{uuid}": gpu for uuid, gpu in gpus.items()}))
    monkeypatch.setattr(nvml, "_uuids", lambda: list(gpus))


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gpu use"]


class Told:
    """What a sampler tells; ``enough`` is set once that is so much."""

    def __init__(self, enough: int) -> None:
        self.readings: list[list[GpuReading]] = []
        self.enough = threading.Event()
        self._enough = enough

    def __call__(self, readings: list[GpuReading]) -> None:
        self.readings.append(readings)
        if len(self.readings) == self._enough:
            self.enough.set()


# --- reading -----------------------------------------------------------------------------------


def test_readings_are_told_from_the_first_shard_to_the_end(every_moment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = StandInGpu([0, 90, 100]), StandInGpu([NotSupported(), NotSupported(), 7])
    see(monkeypatch, a=one, b=other)
    told = Told(3)
    sampler = Sampler(told)
    time.sleep(0.05)
    assert (one.asked, told.readings) == (0, []), "before a shard is at work nothing is read"
    sampler.begin()
    sampler.begin()
    assert told.enough.wait(30)
    sampler.end()
    assert told.readings[:3] == [
        [reading("GPU-a", 100, 0)],
        [reading("GPU-a", 101, 90)],
        [reading("GPU-a", 102, 100), reading("GPU-b", 102, 7)],
    ]
    told_at_the_end = len(told.readings)
    time.sleep(0.05)
    assert len(told.readings) == told_at_the_end == one.asked
    assert threads() == []


def test_where_nvml_says_nothing_nothing_is_told_and_the_thread_ends(
    every_moment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(1)
    install(monkeypatch, Nvml({"GPU-a": StandInGpu([5])}, broken=LibraryNotFound()))
    monkeypatch.setattr(nvml, "_uuids", lambda: ["a"])
    sampler = Sampler(told)
    sampler.begin()
    for thread in threads():
        thread.join(30)
    assert threads() == [] and told.readings == []
    sampler.end()


def test_a_sampler_that_never_had_a_shard_ends_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = StandInGpu([5])
    see(monkeypatch, a=gpu)
    Sampler(Told(1)).end()
    assert (threads(), gpu.asked) == ([], 0)


# --- counting ----------------------------------------------------------------------------------


def test_of_a_second_of_a_gpu_one_reading_counts_whoever_made_it() -> None:
    """Two actors share GPU-a, and one of them was restarted; GPU-b is another node's."""
    log = GpuLog()
    for second in (10, 11, 12):
        log.add([reading("GPU-a", second, 90, used_gib=second - 7)], at_work=True)
        log.add([reading("GPU-a", second, 50, used_gib=7)], at_work=True)
    log.add([reading("GPU-b", 11, 30)], at_work=True)
    log.add([reading("GPU-a", 13, 10)], at_work=True)
    assert log.use() == {
        "GPU-a": GpuUse((3 * 90 + 10) / 4, 4, 5 * GIB, 8 * GIB),
        "GPU-b": GpuUse(30.0, 1, 1 * GIB, 8 * GIB),
    }


def test_a_wait_between_shards_counts_and_one_behind_the_last_does_not() -> None:
    log = AttemptLog()
    log.begin("labelling of shard 0")
    log.read([reading("GPU-a", 10, 100)])
    log.end("labelling of shard 0")
    log.read([reading("GPU-a", 11, 0, used_gib=6)])
    log.read([reading("GPU-a", 12, 0)])
    assert log.gpu_use() == {"GPU-a": GpuUse(100.0, 1, 1 * GIB, 8 * GIB)}
    log.begin("labelling of shard 1")
    assert log.gpu_use() == {"GPU-a": GpuUse(33.3, 3, 6 * GIB, 8 * GIB)}
    log.read([reading("GPU-a", 13, 80)])
    log.end("labelling of shard 1")
    log.read([reading("GPU-a", 14, 0), reading("GPU-b", 14, 0)])
    log.stop()
    log.begin("labelling of shard 2")
    assert log.gpu_use() == {"GPU-a": GpuUse(45.0, 4, 6 * GIB, 8 * GIB)}, "a shard that is left is no work"


def test_a_gpu_without_work_is_idle_while_another_has_some() -> None:
    log = AttemptLog()
    log.begin("labelling of shard 0")
    log.begin("labelling of shard 1")
    log.read([reading("GPU-a", 10, 100), reading("GPU-b", 10, 100)])
    log.end("labelling of shard 0")
    log.read([reading("GPU-a", 11, 0), reading("GPU-b", 11, 100)])
    assert {gpu: one.busy_percent for gpu, one in log.gpu_use().items()} == {"GPU-a": 50.0, "GPU-b": 100.0}


def test_the_line() -> None:
    one = {"GPU-a": GpuUse(93.4, 100, int(21.3 * GIB), 80 * GIB)}
    assert gpu_line(one) == "GPUs: 1, busy 93% of the time, 21.3 of 80 GiB at most"
    two = {**one, "GPU-b": GpuUse(60.0, 300, 7 * GIB, 8 * GIB)}
    assert (mean_busy_percent(two), fullest(two)) == ((93.4 + 3 * 60) / 4, two["GPU-b"])
    assert gpu_line(two) == "GPUs: 2, busy 68% of the time (60–93%), 7.0 of 8 GiB at most", "of the one with least left"


# --- runs --------------------------------------------------------------------------------------


def until(gpu: StandInGpu, asked: int) -> Work:
    """Labels a shard, and is at work until the GPU has been asked so often."""

    def work(items: pa.Table) -> pa.Table:
        end = time.monotonic() + 60
        while gpu.asked < asked and time.monotonic() < end:
            time.sleep(0.001)
        return labelled(items)

    return work


def run(uri: Path, *stages: Stage) -> Summary:
    """Shards of two images."""
    files = [FileInfo(f"/d/{n}", f"{n:02d}", 10, 1_000_000, "") for n in range(4)]
    footer = Footer("semantic", make_categories(["sky"]), "digest")
    job = Job("label", str(uri), make_plan(files, ShardConfig(images=2)), {}, footer, {})
    return run_job(Storage(), job, stages, Progress("label"), executor=InProcess())


def test_a_run_s_figures_reach_its_summary_and_run_json(
    every_moment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu = StandInGpu([40], memory=(3 * GIB, 8 * GIB))
    see(monkeypatch, a=gpu)
    summary = run(tmp_path, stage_of(until(gpu, 5), place=ON_A_GPU))
    assert summary.gpus == {"GPU-a": GpuUse(40.0, gpu.asked, 3 * GIB, 8 * GIB)} and gpu.asked >= 5
    assert open_run(Storage(), str(tmp_path)).info.timings.gpus == summary.gpus
    assert threads() == []
    assert run(tmp_path, stage_of(labelled, place=ON_A_GPU)).gpus == {}, "nothing was to be done"


def test_a_run_that_fails_leaves_no_thread(every_moment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def work(items: pa.Table) -> pa.Table:
        raise OSError("no")

    see(monkeypatch, a=StandInGpu([40]))
    with pytest.raises(OSError, match="no"):
        run(tmp_path, stage_of(work, place=ON_A_GPU))
    assert threads() == []


def test_a_run_without_figures_keeps_none(every_moment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, Nvml(broken=LibraryNotFound()))
    monkeypatch.setattr(nvml, "_uuids", lambda: ["a"])
    assert run(tmp_path, stage_of(labelled, place=ON_A_GPU)).gpus == {}
    assert list(json.loads((tmp_path / "run.json").read_text())["timings"]) == ["seconds", "stages", "start"]


_ON_A_CPU = """
import sys, threading
from segjobs.config import ShardConfig
from segjobs.jobs.engine.executor import Actors, InProcess
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.run import run_job
from segjobs.jobs.engine.shards import Job
from segjobs.manifest.plan import make_plan
from segjobs.manifest.schema import Footer
from segjobs.storage import FileInfo, Storage
from tests.stages import labelled, stage_of

seen = []

def work(items):
    seen.extend(thread.name for thread in threading.enumerate())
    return labelled(items)

plan = make_plan([FileInfo("/d/0", "00", 10, 1_000_000, "")], ShardConfig())
job = Job("label", sys.argv[1], plan, {}, Footer("semantic", (), "digest"), {})
stage = stage_of(work, place=Actors(least=1, most=1, cpus=0.5))
run_job(Storage(), job, [stage], Progress("label"), executor=InProcess())
print({"pynvml", "segjobs.models.nvml", "torch"} & set(sys.modules), "MainThread" in seen, "gpu use" in seen)
"""


def test_a_run_on_cpus_imports_nothing_for_it_and_starts_no_thread(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_CPU, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout == "set() True False\n", done.stderr


# --- on Ray ------------------------------------------------------------------------------------


def test_an_actor_tells_the_run_s_record(
    ray_session: None, every_moment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two actors on one GPU, as they are in their processes; the record is an actor of Ray's."""
    from segjobs.jobs.engine.ray_calls import end_actor
    from segjobs.jobs.engine.ray_executor import RayAttempt, StageActor

    gpu = StandInGpu([75], memory=(2 * GIB, 8 * GIB))
    see(monkeypatch, a=gpu)
    (tmp_path / "plan.parquet").touch()
    attempts = open_attempts(Storage(), str(tmp_path))
    attempt = RayAttempt(attempts, Progress("label"))
    files = [FileInfo("/d/0", "00", 10, 1_000_000, "")]
    items = make_plan(files, ShardConfig(images=2)).items.append_column("shard_key", pa.array(["key"]))
    actors = [StageActor(stage_of(until(gpu, 6), place=ON_A_GPU), attempts) for _ in range(2)]
    assert len(threads()) == 2 and gpu.asked == 0
    for actor in actors:
        assert actor(items).num_rows == 1
    on_a_cpu = StageActor(stage_of(labelled), attempts)
    assert on_a_cpu(items).num_rows == 1
    assert len(threads()) == 2
    for actor in actors:
        assert actor._sampler is not None
        actor._sampler.end()
    (use,) = attempt.gpus().values()
    assert (use.busy_percent, use.used_bytes, use.total_bytes) == (75.0, 2 * GIB, 8 * GIB)
    assert 5 <= use.seconds <= gpu.asked, "the last of them may have come behind the shard"
    end_actor(attempts.record)
    while attempt.gpus():  # until it is gone, which costs the figure and not the job
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_actors_on_a_half_of_a_gpu_each_are_one_gpu(ray_head: Head, tmp_path: Path) -> None:
    """The GPU is in the head's books alone, and NVML a stand-in in the actors: see ``tests/toy_gpu.py``."""
    write_photos(tmp_path / "photos", count=6, seed=0, sizes_hw=((48, 64),))
    words = [f"input.uri={tmp_path}/photos", f"output.uri={tmp_path}/out", "model.name=tests.toy_gpu:build"]
    words += ["shard.images=1", "compute.actors=2", "compute.gpus_per_actor=0.5", "compute.cpus_per_actor=0.5"]
    token = {name: ray_head.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")}
    code, out, err = run_flow("label", *words, f"compute.address={ray_head.address}", **token)
    assert code == 0, err
    assert "\nGPUs: 1, busy 40% of the time, 1.0 of 8 GiB at most\n" in err
    timings = open_run(Storage(), str(tmp_path / "out")).info.timings
    assert timings.gpus is not None and timings.gpus.keys() == {f"GPU-{UUID}"}
    use = timings.gpus[f"GPU-{UUID}"]
    assert (use.busy_percent, use.used_bytes, use.total_bytes) == (40.0, GIB, 8 * GIB)
    assert 2 <= use.seconds <= timings.seconds, "one reading of each second, of which two actors made two"
    assert json.loads(out)["gpus"] == {f"GPU-{UUID}": asdict(use)}
