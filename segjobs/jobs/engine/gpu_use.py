"""How busy the GPUs were while a run was at work: readings of each GPU once a second in, a figure a GPU out.

    actor with a GPU: Sampler, from its first shard on ─→ the run's record: GpuLog ─→ run.py: summary, run.json

A GPU that waits for images is idle, and its seconds count: all from the first shard of an actor on it to the end of the
run's last shard, as far as actors live. Several actors on one GPU, or one that was restarted, read the same: of each
second of a GPU one reading counts, whoever made it.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from segjobs.manifest.run_info import GpuUse

_EVERY_S = 1.0


@dataclass(frozen=True)
class GpuReading:
    """``gpu``: its UUID. ``second``: of the Unix time of its node. Else see ``segjobs.models.nvml.Reading``."""

    gpu: str
    second: int
    busy_percent: int
    used_bytes: int
    total_bytes: int


Tell = Callable[[list[GpuReading]], None]


class Sampler:
    """From ``begin`` on tells once a second how busy this process's GPUs are, until it is ended or the process is."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._begun = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="gpu use", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """A shard is at work; again and again, from any thread."""
        self._begun.set()

    def end(self) -> None:
        """Nothing is told after it."""
        self._ended.set()
        self._begun.set()
        self._thread.join()

    def _follow(self) -> None:
        self._begun.wait()
        if self._ended.is_set():
            return
        from segjobs.models.nvml import own_gpus

        gpus = own_gpus()
        while gpus and not self._ended.wait(_EVERY_S):
            second = int(time.time())
            readings = [(gpu.uuid, reading) for gpu in gpus if (reading := gpu.read()) is not None]
            if readings:
                self._tell([GpuReading(uuid, second, **asdict(one)) for uuid, one in readings])


@dataclass
class _Sum:
    """Readings of one GPU, added up."""

    seconds: int = 0
    busy_percents: int = 0
    used_bytes: int = 0
    total_bytes: int = 0

    def add(self, other: "_Sum") -> None:
        self.seconds += other.seconds
        self.busy_percents += other.busy_percents
        self.used_bytes = max(self.used_bytes, other.used_bytes)
        self.total_bytes = other.total_bytes


class GpuLog:
    """What all actors of a run read, in sums that do not grow with it."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._waiting: dict[str, _Sum] = {}
        self._counted: dict[str, _Sum] = {}

    def add(self, readings: Sequence[GpuReading], *, at_work: bool) -> None:
        """``at_work``: a shard of the run is; else they count once one is again, and never after the last."""
        for one in readings:
            if one.second > self._last.get(one.gpu, 0):
                self._last[one.gpu] = one.second
                reading = _Sum(1, one.busy_percent, one.used_bytes, one.total_bytes)
                self._waiting.setdefault(one.gpu, _Sum()).add(reading)
        if at_work:
            self.count()

    def count(self) -> None:
        """A shard is at work: what was read until now counts."""
        for gpu, one in self._waiting.items():
            self._counted.setdefault(gpu, _Sum()).add(one)
        self._waiting = {}

    def use(self) -> dict[str, GpuUse]:
        """By UUID, in its order."""
        return {
            gpu: GpuUse(round(one.busy_percents / one.seconds, 1), one.seconds, one.used_bytes, one.total_bytes)
            for gpu, one in sorted(self._counted.items())
        }


def mean_busy_percent(gpus: Mapping[str, GpuUse]) -> float:
    """Of all seconds of all GPUs; of one or more."""
    return sum(one.busy_percent * one.seconds for one in gpus.values()) / sum(one.seconds for one in gpus.values())


def fullest(gpus: Mapping[str, GpuUse]) -> GpuUse:
    """The one with least memory left for more; of one or more."""
    return max(gpus.values(), key=lambda one: one.used_bytes / one.total_bytes)


def gpu_line(gpus: Mapping[str, GpuUse]) -> str:
    """One or more for a person: how many, their share of the time and its extremes, the memory of the fullest."""
    busy = [one.busy_percent for one in gpus.values()]
    extremes = f" ({min(busy):.0f}–{max(busy):.0f}%)" if len(gpus) > 1 else ""
    memory = f"{fullest(gpus).used_bytes / 2**30:.1f} of {fullest(gpus).total_bytes / 2**30:.0f} GiB at most"
    return f"GPUs: {len(gpus)}, busy {mean_busy_percent(gpus):.0f}% of the time{extremes}, {memory}"
