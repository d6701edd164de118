"""Whole runs as commands of their own, watched from outside: a command in, what it published and took out.

Nothing in the measured job knows that it is measured: the times are those of the files that it
publishes, memory and CPU time are what the operating system counts for its processes.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq

from segjobs.config import LabelConfig, to_yaml
from segjobs.errors import ClusterError
from segjobs.manifest.parts import open_run
from segjobs.manifest.run_info import GpuUse
from segjobs.storage import Storage, join

_PLAIN = Path(__file__).with_name("plain_script.py")
_OURS = {"OMP_WAIT_POLICY", "RAY_idle_worker_killing_time_threshold_ms"}
"""What this package sets in the environment of its own processes; a plain script has to do without."""
_SAMPLE_S = 0.5
_GROWN = 1.02  # times its resident memory: then what of it is a process's own is asked anew
_LAST_LINES = 12


@dataclass(frozen=True)
class Published:
    """One file of results: when it was complete (Unix time in seconds) and how many images it holds."""

    at_s: float
    images: int


@dataclass(frozen=True)
class SteadyWindow:
    """``images`` were completed after ``begin_s`` and until ``end_s`` (Unix time in seconds)."""

    begin_s: float
    end_s: float
    images: int

    @property
    def images_per_s(self) -> float:
        return self.images / (self.end_s - self.begin_s)


def steady_window(published: Iterable[Published], actors: int, *, waiting: int) -> SteadyWindow:
    """The longest stretch between two alike moments: one actor has just finished a file, the others are under way.

    That is from the file number ``actors + waiting`` to the file number ``n - actors + 1`` of n: before, an actor
    may still start, and up to ``waiting`` files that were ready before the writers were come in a burst; afterwards,
    an actor may find nothing more to do. Work that was begun before the window and ended in it stands for as much
    that was begun in it and ends later. Raises ValueError for fewer than ``2 * actors + waiting`` files.
    """
    files = sorted(published, key=lambda one: one.at_s)
    first, last = actors + waiting - 1, len(files) - actors
    if last <= first:
        raise ValueError(
            f"{len(files)} files by {actors} actors have no steady state; at least {2 * actors + waiting} have"
        )
    return SteadyWindow(files[first].at_s, files[last].at_s, sum(one.images for one in files[first + 1 : last + 1]))


@dataclass(frozen=True)
class Memory:
    """Peaks in bytes. ``uss``: what a process has for itself, without the object store that all map."""

    driver_rss: int = 0
    driver_uss: int = 0
    worker_rss: int = 0
    worker_uss: int = 0


@dataclass(frozen=True)
class Observed:
    """One run. ``cpu_s``: (Unix time, CPU seconds until then of all its processes on this machine), ascending.

    ``ended_s``: Unix time at which its command was over. ``first_mask_s``: that of its first mask, where its files
    tell. ``phases_s``: seconds of its start by phase, and ``gpus``: how busy they were, by UUID, where its run.json
    tells.
    """

    started_s: float
    published: Sequence[Published]
    memory: Memory
    cpu_s: Sequence[tuple[float, float]]
    ended_s: float = 0.0
    first_mask_s: float | None = None
    phases_s: Mapping[str, float] = field(default_factory=dict[str, float])
    gpus: Mapping[str, GpuUse] = field(default_factory=dict[str, GpuUse])

    @property
    def command_s(self) -> float:
        """Seconds from the command to its end."""
        return self.ended_s - self.started_s

    @property
    def first_file_s(self) -> float:
        """Seconds from the command to its first published file."""
        return min(one.at_s for one in self.published) - self.started_s

    @property
    def first_file_images(self) -> int:
        return min(self.published, key=lambda one: one.at_s).images

    @property
    def whole(self) -> SteadyWindow:
        """From the command to its last file."""
        return SteadyWindow(
            self.started_s, max(one.at_s for one in self.published), sum(p.images for p in self.published)
        )

    @property
    def working(self) -> SteadyWindow:
        """From the first mask to the last file, for a job that writes late and in bursts."""
        assert self.first_mask_s is not None  # noqa: S101
        whole = self.whole
        return SteadyWindow(self.first_mask_s, whole.end_s, whole.images)

    def cpu_ms(self, window: SteadyWindow) -> float:
        """CPU milliseconds per image within a window: independent of what else the machine does."""
        at_s, spent_s = zip(*self.cpu_s, strict=True)
        begin, end = np.interp([window.begin_s, window.end_s], at_s, spent_s)
        return float(1000 * (end - begin) / window.images)


def run_label(config: LabelConfig, scratch: Path) -> Observed:
    """Run the label job as its command would; ``config.output.uri`` must be new. Raises ClusterError."""
    file = scratch / "label.yaml"
    file.write_text(to_yaml(config))

    def published() -> list[Published]:
        storage, uri = Storage(config.storage), config.output.uri
        rows = {part.name: part.rows for part in open_run(storage, uri).parts}
        return [Published(f.mtime_us / 1e6, rows[f.path]) for f in storage.walk(join(uri, "parts"))]

    run = _run([sys.executable, "-m", "segjobs", "label", "--config", str(file)], config.compute.address, published)
    timings = open_run(Storage(config.storage), config.output.uri).info.timings
    return replace(run, phases_s=timings.start or {}, gpus=timings.gpus or {})


@dataclass(frozen=True)
class PlainArguments:
    """The plain script's: local folders, a torchvision name, the network's size (``256x256``), the pool."""

    folder: Path
    output: Path
    model: str
    size: str
    batch_size: int
    actors: int
    gpus_per_actor: float


def run_plain(arguments: PlainArguments, address: str | None) -> Observed:
    """Run the plain script; ``arguments.output`` must be new. Raises ClusterError."""
    words = (arguments.folder, arguments.output, arguments.model, arguments.size)
    words += (arguments.batch_size, arguments.actors, arguments.gpus_per_actor)

    def published() -> list[Published]:
        files = arguments.output.glob("*.parquet")
        return [Published(file.stat().st_mtime, pq.read_metadata(file).num_rows) for file in files]

    run = _run([sys.executable, str(_PLAIN), *map(str, words)], address, published)
    at_s = [pq.read_table(file, columns=["at"])["at"].to_numpy() for file in arguments.output.glob("*.parquet")]
    return replace(run, first_mask_s=float(np.concatenate(at_s).min()))


def _run(command: Sequence[str], address: str | None, published: Callable[[], Sequence[Published]]) -> Observed:
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
    environment |= {"RAY_ADDRESS": target, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    started_s = time.time()
    with subprocess.Popen(  # noqa: S603
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        watch = _Watch(process.pid, everywhere=target != "local")
        watch.start()
        try:
            said, _ = process.communicate()
            ended_s = time.time()
        finally:
            if process.poll() is None:
                process.terminate()
            watch.stop()
    if process.returncode:
        lines = " | ".join(said.splitlines()[-_LAST_LINES:])
        raise ClusterError(f"a measured run ended with exit code {process.returncode}: {lines}")
    return Observed(started_s, published(), watch.memory(), watch.cpu_s, ended_s)


class _Watch(threading.Thread):
    """Samples a driver and its Ray workers: its descendants, or (``everywhere``) all workers of this machine."""

    def __init__(self, driver_pid: int, *, everywhere: bool) -> None:
        super().__init__(daemon=True)
        self.cpu_s: list[tuple[float, float]] = []
        self._driver = psutil.Process(driver_pid)
        self._everywhere = everywhere
        self._rss: dict[int, int] = {}
        self._uss: dict[int, int] = {}
        self._rss_at_uss: dict[int, int] = {}
        self._cpu: dict[int, float] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            self._sample()

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def memory(self) -> Memory:
        """Peaks of the driver and of the largest worker."""
        driver = self._driver.pid
        rss, uss = ({**values} for values in (self._rss, self._uss))
        own = rss.pop(driver, 0), uss.pop(driver, 0)
        return Memory(*own, max(rss.values(), default=0), max(uss.values(), default=0))

    def _sample(self) -> None:
        now = time.time()
        for process in self._processes():
            try:
                times = process.cpu_times()
                self._cpu[process.pid] = times.user + times.system
                if process.pid == self._driver.pid or _is_worker(process):
                    self._note_memory(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it ended between the listing and the question
        self.cpu_s.append((now, sum(self._cpu.values())))

    def _note_memory(self, process: psutil.Process) -> None:
        """USS is asked for when RSS has grown: the kernel walks all pages for it, while the process waits."""
        pid, rss = process.pid, process.memory_info().rss
        self._rss[pid] = max(rss, self._rss.get(pid, 0))
        if rss > _GROWN * self._rss_at_uss.get(pid, 0):
            self._rss_at_uss[pid] = rss
            self._uss[pid] = max(process.memory_full_info().uss, self._uss.get(pid, 0))

    def _processes(self) -> list[psutil.Process]:
        try:
            family = [self._driver, *self._driver.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        if not self._everywhere:
            return family
        return [*family, *(process for process in psutil.process_iter() if _is_worker(process))]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "".join(process.cmdline()[:1]).startswith("ray::")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
