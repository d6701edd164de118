"""A child process that knows torch, for one that does not (``runtimes.py``): a request as JSON on standard input.

    export: PATH                  the network as ONNX, of any number and size of images
    compare: BATCH, answer: PATH  BATCH holds pixels, uint8 (N, h, w, 3), and another runtime's logits of them:
                                  the share of pixels that torch gives another label

What goes wrong is one line on standard error.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segjobs.config import ModelConfig, StorageConfig
from segjobs.errors import SegjobsError, WeightsError
from segjobs.models.factories import own_words
from segjobs.models.registry import build
from segjobs.models.semantic import SemanticSegmenter
from segjobs.models.upsample import upsample_on_cpu
from segjobs.storage import Storage

_OPSET = 17
_DRAWN_HW = (256, 320)  # of the images that the network is traced with: multiples of every divisor, and no square


class FromPixels(nn.Module):
    """A network with its normalisation: uint8 (N, h, w, 3) RGB → logits, float32 (N, C, h', w')."""

    def __init__(self, segmenter: SemanticSegmenter) -> None:
        super().__init__()
        preprocessing = segmenter.card.preprocessing
        scale = preprocessing.get("scale", 1 / 255)
        self.network = segmenter.module
        self.register_buffer("mean", torch.tensor(preprocessing["mean"])[:, None, None])
        self.register_buffer("std", torch.tensor(preprocessing["std"])[:, None, None])
        self.range = 1 / scale

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """As ``SemanticSegmenter.forward`` does."""
        logits = self.network((pixels.permute(0, 3, 1, 2).float() / self.range - self.mean) / self.std)
        return logits if isinstance(logits, torch.Tensor) else logits["out"]


def export(segmenter: SemanticSegmenter, path: Path) -> None:
    """Write ``segmenter``'s network to ``path``. Raises WeightsError where it is of one size of images alone."""
    network = FromPixels(segmenter).eval()
    drawn = torch.randint(0, 256, (2, *_DRAWN_HW, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing tells of every size that Python looks at
        # By tracing (dynamo=False), which takes seconds; torch.export took 98 s for LR-ASPP and gives the same network.
        torch.onnx.export(
            network,
            (drawn,),
            str(path),
            dynamo=False,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "n", 1: "h", 2: "w"}, "logits": {0: "n", 2: "h", 3: "w"}},
        )


def other_share(segmenter: SemanticSegmenter, pixels: np.ndarray, logits: np.ndarray) -> float:
    """Share of the pixels uint8 (N, h, w, 3) whose label by ``logits`` (N, C, h', w') is another than by torch's."""
    with torch.inference_mode():
        ours = segmenter.forward([torch.from_numpy(one).permute(2, 0, 1) for one in pixels])
    size_hw = (pixels.shape[1], pixels.shape[2])
    other = 0
    for one, theirs in zip(ours, logits, strict=True):
        labels, expected = (
            upsample_on_cpu(np.ascontiguousarray(given, np.float32), size_hw)[0] for given in (theirs, one.numpy())
        )
        other += np.count_nonzero(labels != expected)
    return other / (len(pixels) * size_hw[0] * size_hw[1])


def work(request: dict[str, Any]) -> None:
    """What ``request`` asks for. Raises a SegjobsError, or whatever an exporter raises."""
    config = ModelConfig.model_validate(request["model"])
    segmenter = build(config, Storage(StorageConfig.model_validate(request["storage"])), device="cpu")
    if segmenter.card.digest != request["digest"]:
        raise WeightsError(f"{config.weights}: other weights than the job began with; run it again")
    assert isinstance(segmenter, SemanticSegmenter), "a semantic model of the table"  # noqa: S101
    if "export" in request:
        export(segmenter, Path(request["export"]))
    else:
        with np.load(request["compare"]) as batch:
            share = other_share(segmenter, batch["pixels"], batch["logits"])
        Path(request["answer"]).write_text(json.dumps({"other": share}), encoding="utf-8")


def main() -> None:
    """The work of this process."""
    try:
        work(json.load(sys.stdin))
    except SegjobsError as error:
        sys.exit(str(error))
    except Exception as error:  # exporters raise anything
        sys.exit(own_words(error))


if __name__ == "__main__":
    main()
