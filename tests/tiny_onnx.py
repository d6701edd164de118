"""Exported networks, tiny: one convolution of a pixel, its output in any form that exporters leave it in."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = np.array([[1.0, 0.0, 0.5], [0.0, 1.5, 0.0], [-1.0, 0.5, 1.0]], np.float32)
"""(class, channel): of three classes."""


def save_onnx(
    folder: Path,
    *,
    output: str = "logits",
    weights: np.ndarray = WEIGHTS,
    shape: tuple[Any, ...] = ("n", 3, "h", "w"),
    kind: int = TensorProto.FLOAT,
    external: dict[str, Any] | None = None,
    **described: Any,
) -> Path:
    """``folder / net.onnx`` with its model.json. ``output``: as model.json has it, and what the network ends in.

    ``external``: what the network says of its numbers' place (``location``, ``offset``, ``length``), instead of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = numpy_helper.from_array(
        weights[:, :, None, None].astype(helper.tensor_dtype_to_np_dtype(kind)), "weights"
    )
    if external is not None:
        numbers.ClearField("raw_data")
        numbers.data_location = TensorProto.EXTERNAL
        for key, value in external.items():
            numbers.external_data.add(key=key, value=str(value))
    nhwc = described.get("layout") == "NHWC"
    nodes = [helper.make_node("Transpose", ["images"], ["planes"], perm=[0, 3, 1, 2])] if nhwc else []
    nodes.append(helper.make_node("Conv", ["planes" if nhwc else "images", "weights"], ["logits"]))
    last, given = kind, "logits"
    if output == "probabilities":
        nodes.append(helper.make_node("Softmax", ["logits"], [given := "probabilities"], axis=1))
    elif output == "sigmoid":
        nodes.append(helper.make_node("Sigmoid", ["logits"], [given := "probability"]))
    elif output == "labels":
        nodes.append(helper.make_node("ArgMax", ["logits"], [given := "labels"], axis=1, keepdims=0))
        last = TensorProto.INT64
    if nhwc:
        nodes.append(helper.make_node("Transpose", [given], [given := "last"], perm=[0, 2, 3, 1]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info(given, last, None)],
        [numbers],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "net.onnx")
    names = ["background", "left", "right"][: max(len(weights), 2)]
    (folder / "model.json").write_text(json.dumps({"categories": names, "output": output, **described}))
    return folder / "net.onnx"
