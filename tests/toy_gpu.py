"""The toy on a GPU that is in Ray's books alone: ``model.name=tests.toy_gpu:build``, a stand-in of NVML in its process.

NVML says that the GPU is busy for 40% of the time. Each actor is at its first batch until it was asked three times.
"""

import sys
import time
from collections.abc import Sequence

import torch

from segjobs.models import nvml
from tests.stand_in_nvml import UUID, Nvml, StandInGpu, module_of
from tests.toy_model import ToySegmenter

_ASKED, _LONGEST_S = 3, 120


class _Busy(ToySegmenter):
    def __init__(self, gpu: StandInGpu) -> None:
        super().__init__(seed=0, spoil=None, poison=None)
        self._gpu = gpu

    def forward(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        end = time.monotonic() + _LONGEST_S
        while self._gpu.asked < _ASKED and time.monotonic() < end:
            time.sleep(0.05)
        return super().forward(batch)


def build() -> ToySegmenter:
    """The factory, called on the driver and in each actor."""
    gpu = StandInGpu([40])
    sys.modules["pynvml"] = module_of(Nvml({f"GPU-{UUID}": gpu}))
    nvml._uuids = lambda: [UUID]
    return _Busy(gpu)
