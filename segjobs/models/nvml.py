"""How busy this process's GPUs are, as nvidia-smi has it: the GPUs that torch sees in, a Reading of each out.

    torch: UUID of each device ─→ NVML: handle ─→ read(): busy, memory

CUDA and NVML count devices in orders of their own, and NVML counts those that CUDA_VISIBLE_DEVICES hides: the UUID
alone is the same to both. Where NVML does not say it (no driver library, no permission, a MIG instance, another maker's
GPU), there is no figure rather than a wrong one, and no error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reading:
    """``busy_percent``: of the last second or less, the time in which the GPU computed anything, for whomever.

    ``used_bytes`` of ``total_bytes``: the GPU's memory, of all processes.
    """

    busy_percent: int
    used_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Gpu:
    """A GPU by its UUID, such as ``GPU-8a56a4bc-…``, and NVML's handle of it."""

    uuid: str
    handle: Any

    def read(self) -> Reading | None:
        """None where NVML does not say."""
        import pynvml

        try:
            busy = pynvml.nvmlDeviceGetUtilizationRates(self.handle).gpu
            memory = pynvml.nvmlDeviceGetMemoryInfo(self.handle)
        except pynvml.NVMLError:
            return None
        return Reading(int(busy), int(memory.used), int(memory.total))


def own_gpus() -> list[Gpu]:
    """Those that this process sees and NVML knows. Imports torch."""
    return gpus_of(_uuids())


def gpus_of(uuids: Sequence[str]) -> list[Gpu]:
    """Of these UUIDs, as torch has them (without ``GPU-``), the GPUs that NVML knows."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    found: list[Gpu] = []
    for uuid in (f"GPU-{uuid}" for uuid in uuids):
        try:
            found.append(Gpu(uuid, pynvml.nvmlDeviceGetHandleByUUID(uuid)))
        except pynvml.NVMLError:
            continue  # a MIG instance's is none of a GPU
    return found


def _uuids() -> list[str]:
    import torch

    try:
        visible = range(torch.cuda.device_count())
        return [str(torch.cuda.get_device_properties(number).uuid) for number in visible]
    except RuntimeError:  # CUDA is broken: who computes on it says so
        return []
