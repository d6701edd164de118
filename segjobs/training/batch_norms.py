"""Batch norms and small batches: a training's config and its model's card in, nothing or what cannot be learnt out.

A batch norm that sees one value of a channel has no variance to divide by: one image a batch, where the network pools
it to a single cell (DeepLab always, a U-Net on a small crop).
"""

import torch

from segjobs.config import TrainConfig
from segjobs.errors import ConfigError
from segjobs.manifest.schema import ModelCard
from segjobs.models.table import FROM_WEIGHTS, get_spec
from segjobs.training.optim import to_train_mode

_UNKNOWN_PX = 512  # a side, where only the images say it
_TOO_FEW = "more than 1 value per channel"  # as torch says it


def check_batch(config: TrainConfig, card: ModelCard) -> None:
    """Raise ConfigError where a step of one image cannot be learnt from, before anything is started.

    The network is tried without memory or arithmetic, on torch's device "meta", at the largest size that it is shown.
    """
    if config.batch_size > 1 or card.task != "semantic":
        return
    if ":" in card.name or card.name in FROM_WEIGHTS:
        return  # told at its first step
    spec = get_spec(card.name)
    height, width = (
        -(-max(side, spec.least) // spec.divisor) * spec.divisor
        for side in _shown_hw(config, card.preprocessing["resize"])
    )
    with torch.device("meta"):
        module = spec.network(card.options, len(card.categories))
        to_train_mode(module, config.optimiser.freeze)
        try:
            module(torch.empty(1, 3, height, width))
        except ValueError as error:
            if is_too_small(error):
                raise ConfigError(f"batch_size: {too_small(1, (height, width))}") from error
            raise


def is_too_small(error: ValueError) -> bool:
    """Whether a batch norm raised it."""
    return _TOO_FEW in str(error)


def too_small(images: int, size_hw: tuple[int, int]) -> str:
    """What is said of a batch of so many images of that size."""
    return (
        f"{images} image(s) of {size_hw[0]}x{size_hw[1]} pixels leave(s) the model's batch norms one value a channel, "
        "of which they learn nothing: raise batch_size, or set optimiser.freeze=[norm]"
    )


def _shown_hw(config: TrainConfig, rule: str) -> tuple[int, int]:
    height, _, width = rule.partition("x")
    sides = (int(height), int(width)) if width else (_UNKNOWN_PX, _UNKNOWN_PX)
    if not config.augment.enabled:
        return sides
    high = config.augment.scale[1]
    scaled = (round(sides[0] * high), round(sides[1] * high)) if width else sides
    crop = config.augment.crop_px or scaled
    return (min(crop[0], scaled[0]), min(crop[1], scaled[1])) if width else crop
