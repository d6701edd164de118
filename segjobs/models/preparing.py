"""What a semantic network of the table is shown of an image: uint8 pixels in, uint8 pixels at the network's size out.

A Segmenter's ``preprocess`` is this, and so is what decoding tasks do where the model has a GPU: then an image crosses
Ray's object store at the network's size, and the actor beside the GPU is spared the resizing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from segjobs.config import ENSEMBLE, ModelConfig
from segjobs.errors import ConfigError
from segjobs.manifest.schema import ModelCard
from segjobs.models.base import Segmenter
from segjobs.models.resize import padded_size, resize_array, resize_image, scaled_size, target_size, to_tensor
from segjobs.models.table import FROM_WEIGHTS, get_spec

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Preparing:
    """``rule``: of ``resize.py``; sides are padded to multiples of ``divisor``, to at least ``least``, by ``fill``.

    ``by``: what resizes; numpy gives the same bytes as torch, without it, and takes two to three times as long.
    ``factor``: both sides are so many times as long as by the rule (a view of ``model.tta``).
    """

    rule: str
    divisor: int
    least: int
    fill: tuple[int, int, int]
    by: Literal["torch", "numpy"]
    factor: float = 1.0

    def array(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) RGB → uint8 (h, w, 3): resized; padded at right and bottom. Raises ItemError TOO_LARGE."""
        size_hw = self.inner_size((image.shape[0], image.shape[1]))
        if size_hw != image.shape[:2]:
            image = self._resized(image, size_hw)
        return self.padded(image, self.padded_size(size_hw))

    def inner_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of an image of ``size_hw`` in what the network sees, without what is padded."""
        return scaled_size(target_size(self.rule, size_hw), self.factor)

    def padded_size(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width that the network takes for an image of ``size_hw``."""
        return padded_size(size_hw, divisor=self.divisor, least=self.least)

    def padded(self, image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
        """uint8 (H, W, 3) → uint8 (h, w, 3), ``size_hw``: the image at the top left, and ``fill``."""
        if image.shape[:2] == size_hw:
            return np.ascontiguousarray(image)
        padded = np.empty((*size_hw, 3), np.uint8)
        padded[:] = self.fill
        padded[: image.shape[0], : image.shape[1]] = image
        return padded

    def given(self, array: np.ndarray) -> "torch.Tensor":
        """What ``array`` made, as the Segmenter's ``forward`` takes it: a tensor (3, h, w), or the array itself."""
        return to_tensor(array) if self.by == "torch" else array  # pyright: ignore[reportReturnType]  an array

    def _resized(self, image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
        if self.by == "torch":
            return resize_image(to_tensor(image), size_hw).permute(1, 2, 0).numpy()
        return resize_array(image, size_hw)


def preparing_by_card(card: ModelCard, *, divisor: int, least: int, by: Literal["torch", "numpy"]) -> Preparing:
    """As the card's preprocessing has it; padded with the mean colour."""
    preprocessing = card.preprocessing
    scale = preprocessing.get("scale", 1 / 255)
    red, green, blue = (round(float(np.float32(value) * np.float32(1 / scale))) for value in preprocessing["mean"])
    return Preparing(preprocessing["resize"], divisor, least, (red, green, blue), by)


def check_preparing(segmenter: Segmenter, preparing: Preparing | None) -> None:
    """Raise ConfigError where decoding tasks would show ``segmenter`` something else than its ``preprocess`` does."""
    if preparing is not None and vars(segmenter).get("preparing") != preparing:
        raise ConfigError(
            f"compute.decode: {segmenter.card.label} prepares images in a way of its own, which decoding tasks do not "
            "know; set compute.decode=actor"
        )


def preparing_of(config: ModelConfig, card: ModelCard) -> Preparing | None:
    """What decoding tasks can do for the model; None for one that prepares images in ways of its own, or in several."""
    if (
        config.views
        or config.name == ENSEMBLE
        or ":" in config.name
        or config.name in FROM_WEIGHTS
        or card.task != "semantic"
    ):
        return None
    spec = get_spec(config.name)
    by = "numpy" if config.is_exported else "torch"
    return preparing_by_card(card, divisor=spec.divisor, least=spec.least, by=by)
