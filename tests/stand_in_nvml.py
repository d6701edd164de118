"""A ``pynvml`` for tests without a GPU: what NVML would answer, given by the test.

``install`` puts it in the place of NVIDIA's (https://pypi.org/project/nvidia-ml-py); its errors are a tree, as there.
"""

import sys
import types
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

UUID = "8a56a4bc-0000-4000-8000-000000000001"
"""Of a GPU, as torch has it."""


class NVMLError(Exception):
    """As ``pynvml.NVMLError``."""


class NotSupported(NVMLError):
    """Of a MIG instance, say."""


class NotFound(NVMLError):
    """No GPU has that UUID."""


class LibraryNotFound(NVMLError):
    """No driver is installed."""


@dataclass
class StandInGpu:
    """``busy``: the answers in their order, the last again and again; an error is raised. ``memory``: used, total."""

    busy: list[int | NVMLError]
    memory: tuple[int, int] = (2**30, 8 * 2**30)
    asked: int = 0

    def utilization(self) -> SimpleNamespace:
        answer = self.busy[min(self.asked, len(self.busy) - 1)]
        self.asked += 1
        if isinstance(answer, NVMLError):
            raise answer
        return SimpleNamespace(gpu=answer, memory=1)


@dataclass
class Nvml:
    """``gpus``: by UUID as NVML has it. ``broken``: what its start raises."""

    gpus: dict[str, StandInGpu] = field(default_factory=dict)
    broken: NVMLError | None = None

    def start(self) -> None:
        if self.broken is not None:
            raise self.broken

    def handle(self, uuid: str) -> StandInGpu:
        if uuid not in self.gpus:
            raise NotFound(uuid)
        return self.gpus[uuid]


def module_of(nvml: Nvml) -> types.ModuleType:
    """What ``import pynvml`` is to give."""
    module = types.ModuleType("pynvml")
    module.__dict__.update(
        NVMLError=NVMLError,
        nvmlInit=nvml.start,
        nvmlDeviceGetHandleByUUID=nvml.handle,
        nvmlDeviceGetUtilizationRates=StandInGpu.utilization,
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(used=gpu.memory[0], total=gpu.memory[1]),
    )
    return module


def install(monkeypatch: pytest.MonkeyPatch, nvml: Nvml) -> None:
    """``import pynvml`` gives it from now on."""
    monkeypatch.setitem(sys.modules, "pynvml", module_of(nvml))
