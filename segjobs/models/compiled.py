"""``model.runtime=compile``: a semantic network through torch.compile, once for all sizes; a Segmenter in and out.

Sizes are symbols to the compiler (``dynamic=True``): padding images to a few sizes, so that each is compiled by itself,
would move what the network sees at their edges, and with it the masks. A batch of one image is compiled by itself.
"""

import os
import shutil

import torch

from segjobs.errors import ConfigError
from segjobs.models.base import Segmenter
from segjobs.models.factories import own_words
from segjobs.models.semantic import SemanticSegmenter

_DRAWN_HW = (256, 320)  # of the images that it is tried with: multiples of every divisor, and no square


def compile_network(segmenter: Segmenter) -> Segmenter:
    """``segmenter``, its network compiled for batches and for one image, of all sizes.

    Raises ConfigError where that fails, or nothing compiles.
    """
    assert isinstance(segmenter, SemanticSegmenter), "a semantic model of the table"  # noqa: S101
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"model.runtime=compile: torch compiles with a C++ compiler, and there is no {compiler} here; install one "
            "on every node, or take model.runtime=torch"
        )
    segmenter.module.compile(dynamic=True)
    drawn = torch.zeros((3, *_DRAWN_HW), dtype=torch.uint8)
    try:
        # Torch compiles a batch of one apart, and takes sides that are equal the first time to be equal ever after.
        segmenter.forward([drawn] * 2)
        segmenter.forward([drawn])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler raises anything
        raise ConfigError(
            f"model.runtime=compile: {segmenter.card.label} cannot be compiled: {own_words(error)}; take "
            "model.runtime=torch"
        ) from error
    return segmenter
