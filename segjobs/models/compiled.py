"""``model.runtime=compile``: a semantic network through torch.compile, once for all sizes; a Segmenter in and out.

Sizes are symbols to the compiler (``dynamic=True``): padding images to a few sizes, so that each is compiled by itself,
would move what the network sees at their edges, and with it the masks. A lone image is computed twice, as two: torch
compiles a batch of one apart, and on a CPU again and again, since its choice of kernels then goes by an image's size.
(On a CPU it goes by whether a batch has more than 15 images, too: a batch of 16 is compiled once more.)
"""

import os
import shutil

import torch
from torch import nn

from segjobs.errors import ConfigError
from segjobs.models.base import Segmenter
from segjobs.models.factories import own_words
from segjobs.models.semantic import SemanticSegmenter

_DRAWN_HW = (256, 320)  # of the images that it is tried with: multiples of every divisor, and no square


class _InPairs(nn.Module):
    """A network that is shown no fewer than two images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """float32 (N, 3, h, w) → the network's logits (N, C, h', w')."""
        given = self.network(batch if len(batch) > 1 else torch.cat([batch, batch]))
        if isinstance(given, torch.Tensor):
            return given[: len(batch)]
        return {name: logits[: len(batch)] for name, logits in given.items()}


def compile_network(segmenter: Segmenter) -> Segmenter:
    """``segmenter``, its network compiled, tried once. Raises ConfigError where that fails, or nothing compiles."""
    assert isinstance(segmenter, SemanticSegmenter), "a semantic model of the table"  # noqa: S101
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"model.runtime=compile: torch compiles with a C++ compiler, and there is no {compiler} here; install one "
            "on every node, or take model.runtime=torch"
        )
    segmenter.module.compile(dynamic=True)
    segmenter.module = _InPairs(segmenter.module)
    try:
        segmenter.forward([torch.zeros((3, *_DRAWN_HW), dtype=torch.uint8)] * 2)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler raises anything
        raise ConfigError(
            f"model.runtime=compile: {segmenter.card.label} cannot be compiled: {own_words(error)}; take "
            "model.runtime=torch"
        ) from error
    return segmenter
