"""A network that ``export_network.py`` made, by ONNX Runtime: uint8 pixels in, logits out."""

from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort  # pyright: ignore[reportAttributeAccessIssue]  compiled

from segjobs.models.weights import first_line

_FAULTS = (ort.Fail, ort.InvalidArgument, ort.NotImplemented, ort.RuntimeException, ort.EPFail)


class OnnxNetwork:
    """See ``exported.Network``."""

    def __init__(self, path: Path, *, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin while they wait take the CPU from decoding and encoding beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(self._session.run(["logits"], {"images": pixels})[0])
        except _FAULTS as error:
            raise RuntimeError(first_line(error)) from error
