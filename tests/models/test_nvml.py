"""How busy this process's GPUs are: which ones, what NVML says of each, and nothing where it says nothing."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from segjobs.models import nvml
from segjobs.models.nvml import Gpu, Reading, gpus_of, own_gpus
from tests.stand_in_nvml import LibraryNotFound, NotSupported, Nvml, StandInGpu, install

ONE, OTHER = "8a56a4bc-0000-4000-8000-000000000001", "0c4b2e1f-0000-4000-8000-000000000002"


def see(monkeypatch: pytest.MonkeyPatch, *uuids: str) -> None:
    """Torch sees GPUs of these UUIDs, in this order."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=uuids[number]))


def test_a_gpu_is_found_by_its_uuid_whatever_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML knows three, in the order of the bus; this process sees two, the other way round."""
    gpus = {f"GPU-{OTHER}": StandInGpu([7]), "GPU-of-another-process": StandInGpu([50]), f"GPU-{ONE}": StandInGpu([99])}
    install(monkeypatch, Nvml(gpus))
    see(monkeypatch, ONE, OTHER)
    found = own_gpus()
    assert [gpu.uuid for gpu in found] == [f"GPU-{ONE}", f"GPU-{OTHER}"]
    assert [gpu.read() for gpu in found] == [Reading(99, 2**30, 2**33), Reading(7, 2**30, 2**33)]


def test_what_nvml_does_not_support_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Nvml({f"GPU-{ONE}": StandInGpu([NotSupported(), 40])}))
    (gpu,) = gpus_of([ONE])
    assert gpu.read() is None
    assert gpu.read() == Reading(40, 2**30, 2**33), "it is asked again"


def test_a_mig_instance_has_no_gpu_s_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Nvml({f"GPU-{ONE}": StandInGpu([40])}))
    assert gpus_of([OTHER]) == []
    assert [gpu.uuid for gpu in gpus_of([OTHER, ONE])] == [f"GPU-{ONE}"]


def test_without_a_driver_or_the_library_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Nvml({f"GPU-{ONE}": StandInGpu([40])}, broken=LibraryNotFound()))
    assert gpus_of([ONE]) == []
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpus_of([ONE]) == []


def test_where_cuda_is_broken_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(number: int) -> SimpleNamespace:
        raise RuntimeError("CUDA driver version is insufficient for CUDA runtime version")

    install(monkeypatch, Nvml({f"GPU-{ONE}": StandInGpu([40])}))
    see(monkeypatch, ONE)
    monkeypatch.setattr(torch.cuda, "get_device_properties", broken)
    assert own_gpus() == []


class Driver:
    """libnvidia-ml.so.1 as NVIDIA's Python library calls it: a GPU, and one in MIG mode; status codes of nvml.h."""

    def nvmlInitWithFlags(self, flags: int) -> int:
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: Any, device: Any) -> int:
        known = [f"GPU-{ONE}".encode(), f"GPU-{OTHER}".encode()]
        if uuid.value not in known:
            return 6  # NVML_ERROR_NOT_FOUND
        device._obj.contents = pynvml.struct_c_nvmlDevice_t()
        self.mig = uuid.value == known[1]
        return 0

    def nvmlDeviceGetUtilizationRates(self, device: Any, rates: Any) -> int:
        rates._obj.gpu, rates._obj.memory = 93, 12
        return 3 if self.mig else 0  # NVML_ERROR_NOT_SUPPORTED

    def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> int:
        memory._obj.used, memory._obj.free, memory._obj.total = 3 * 2**30, 5 * 2**30, 8 * 2**30
        return 0


def test_by_nvidia_s_own_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlLib", Driver())
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    assert gpus_of(["ffffffff-0000-4000-8000-000000000003"]) == []
    (gpu,) = gpus_of([ONE])
    assert gpu.read() == Reading(93, 3 * 2**30, 8 * 2**30)
    (gpu,) = gpus_of([OTHER])
    assert gpu.read() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's driver is here")
def test_on_a_machine_without_a_driver_there_is_none() -> None:
    assert gpus_of([ONE]) == []


def test_the_module_brings_nothing_with_it() -> None:
    script = f"import sys, {nvml.__name__}; print({{'torch.nn', 'pynvml'}} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "set()\n"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_real_gpu_says_how_busy_it_is() -> None:
    gpus: list[Gpu] = own_gpus()
    assert len(gpus) == torch.cuda.device_count()
    for gpu in gpus:
        reading = gpu.read()
        assert reading is not None and 0 <= reading.busy_percent <= 100
        assert 0 < reading.used_bytes <= reading.total_bytes
