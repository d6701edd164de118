"""A network that ``export_network.py`` made, by OpenVINO: uint8 pixels in, logits out."""

from pathlib import Path

import numpy as np
import openvino

_PRECISIONS = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}


class OpenVinoNetwork:
    """See ``exported.Network``."""

    def __init__(self, path: Path, *, threads: int, precision: str) -> None:
        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # two actors' threads would be pinned to the same cores
        }
        self._request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        self._request.infer([pixels], share_inputs=True)
        return np.array(self._request.get_output_tensor(0).data, np.float32)
