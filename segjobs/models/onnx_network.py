"""An exported network as ``SemanticSegmenter`` takes it: normalised images in, class logits out, by ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as ort  # pyright: ignore[reportAttributeAccessIssue]  compiled
from torch import nn

from segjobs.errors import WeightsError
from segjobs.models.onnx_description import Exported
from segjobs.models.weights import Weights, first_line

_FAULTS = (ort.Fail, ort.InvalidArgument, ort.InvalidGraph, ort.InvalidProtobuf, ort.NotImplemented)
_FAULTS += (ort.RuntimeException, ort.EPFail, ort.NoSuchFile, ort.NoModel)
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_TINY = 1e-7  # a probability of 0 has no logarithm


class OnnxLogits(nn.Module):
    """float32 (N, 3, h, w), normalised → logits (N, C, h', w').

    Of probabilities the logits are logarithms, of a label map 0 and a large number; softmax gives them back.
    """

    def __init__(
        self,
        weights: Weights,
        exported: Exported,
        resize: str,
        *,
        device: str,
        external: Mapping[str, Path] | None = None,
    ) -> None:
        super().__init__()
        assert weights.path is not None, "a file"  # noqa: S101
        self._uri, self._exported = weights.uri, exported
        provider = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise WeightsError(
                f"{self._uri}: ONNX Runtime has no {provider} here: pip install onnxruntime-gpu in place of "
                "onnxruntime, or set compute.gpus_per_actor=0"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # As bytes, those beside it too: no file is read that the digest says nothing of.
        beside = {name: path.read_bytes() for name, path in (external or {}).items()}
        if beside and not hasattr(options, "add_external_initializers_from_files_in_memory"):
            raise WeightsError(
                f"{self._uri}: its numbers lie in {', '.join(beside)}, which ONNX Runtime {onnxruntime.__version__} "
                "takes from its path alone: upgrade it to 1.24 or later, or export the network into one file"
            )
        if beside:
            options.add_external_initializers_from_files_in_memory(
                list(beside), list(beside.values()), [len(data) for data in beside.values()]
            )
        try:
            self._session = onnxruntime.InferenceSession(weights.path.read_bytes(), options, providers=[provider])
        except _FAULTS as error:
            raise WeightsError(f"{self._uri}: not readable as ONNX: {first_line(error)}; export it again") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _TYPES or len(inputs[0].shape) != 4:
            given = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
            raise WeightsError(
                f"{self._uri}: its inputs are {given}; expected one of images, floats of four dimensions"
            )
        height, width = inputs[0].shape[1:3] if exported.layout == "NHWC" else inputs[0].shape[2:4]
        self.fixed_size = type(height) is int or type(width) is int
        """Whether it takes images of one size alone."""
        if type(height) is type(width) is int and resize != f"{height}x{width}":
            raise WeightsError(
                f"{self._uri}: takes images of {height}x{width} (height x width) alone, and they would be resized by "
                f"{resize!r}; set model.resize={height}x{width}, or resize in model.json"
            )
        self._input: Any = inputs[0]
        self._output: str = self._session.get_outputs()[0].name

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """The first output, as logits. Raises RuntimeError where the network fails, or gives another shape."""
        pixels = batch.flip(1) if self._exported.channels == "BGR" else batch
        if self._exported.layout == "NHWC":
            pixels = pixels.permute(0, 2, 3, 1)
        array = np.ascontiguousarray(pixels.cpu().numpy(), _TYPES[self._input.type])
        # A network may be exported for one image at a time.
        parts = np.split(array, len(array)) if self._input.shape[0] == 1 else [array]
        try:
            found = [np.asarray(self._session.run([self._output], {self._input.name: part})[0]) for part in parts]
        except _FAULTS as error:
            raise RuntimeError(first_line(error)) from error
        return self._logits(torch.from_numpy(np.concatenate(found))).to(batch.device)

    def _logits(self, given: torch.Tensor) -> torch.Tensor:
        kind, classes = self._exported.output, len(self._exported.categories)
        if self._exported.layout == "NHWC" and given.ndim == 4:
            given = given.permute(0, 3, 1, 2)
        if kind == "labels":
            labels = given[:, 0] if given.ndim == 4 else given
            if labels.ndim != 3 or labels.min() < 0 or labels.max() >= classes:
                raise RuntimeError(
                    f"labels {tuple(given.shape)} of {given.min()} to {given.max()}, with {classes} classes"
                )
            return 20 * nn.functional.one_hot(labels.long(), classes).permute(0, 3, 1, 2).float()
        values = given.float()
        if values.ndim != 4 or not (values.shape[1] == classes or (classes == 2 and values.shape[1] == 1)):
            raise RuntimeError(
                f"an output of {tuple(given.shape)}, expected {classes} channels as model.json has categories"
            )
        if kind == "logits":
            return values if values.shape[1] == classes else torch.cat([torch.zeros_like(values), values], 1)
        if values.shape[1] != classes:
            values = torch.cat([1 - values, values], 1)
        return values.clamp(min=_TINY).log()
