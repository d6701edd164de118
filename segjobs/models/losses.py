"""The loss of a semantic model: logits and label maps in, one number to lower out.

    cross-entropy · w + Dice · w + focal · w, by ``LossConfig``; pixels of VOID take part in none of them

Cross-entropy and focal loss are means over the labelled pixels, their number and not their weights: the mean of
several batches (or workers) by their labelled pixels is then exactly that of one large batch. Dice is a ratio of
sums, and is not: there, it is the mean of the batches' own.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from segjobs.config import LossConfig, nearest
from segjobs.errors import ConfigError
from segjobs.manifest.rle import VOID


def semantic_loss(
    logits: torch.Tensor, truth: torch.Tensor, config: LossConfig, *, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Logits, any float (N, C, H, W), and int64 (N, H, W) of class indices or VOID → scalar float32.

    ``class_weights``: float32 (C,), for cross-entropy and focal loss. Where all is VOID, the loss is 0 and has
    gradients (of 0). Dice: Milletari et al. 2016 (https://arxiv.org/abs/1606.04797), over the batch, the mean of all
    classes, 0 for those that do not occur. Focal: Lin et al. 2017 (https://arxiv.org/abs/1708.02002), of softmax.
    """
    logits = logits.float()
    labelled = truth != VOID
    count = labelled.sum().clamp(min=1)
    terms = []
    if config.cross_entropy:
        total = F.cross_entropy(
            logits,
            truth,
            weight=class_weights,
            ignore_index=VOID,
            reduction="sum",
            label_smoothing=config.label_smoothing,
        )
        terms.append(config.cross_entropy * total / count)
    if config.focal:
        known = truth.masked_fill(~labelled, 0)
        each = _focal(logits, known, config.focal_gamma) * labelled
        if class_weights is not None:
            each = each * class_weights[known]
        terms.append(config.focal * each.sum() / count)
    if config.dice:
        terms.append(config.dice * _dice()(logits, truth))
    return torch.stack(terms).sum()


def resolve_class_weights(
    wanted: str | Mapping[str, float] | None, names: Sequence[str], amounts: Sequence[int] | None
) -> list[float] | None:
    """``LossConfig.class_weights`` → a weight for each class, in the order of ``names``; None: all alike.

    ``balanced``: inversely to ``amounts``, each class's labelled pixels in the data, so that all classes of the data
    carry the same in sum and a pixel carries 1 on average; 1 for classes that do not occur. Raises ConfigError.
    """
    if wanted is None:
        return None
    if isinstance(wanted, Mapping):
        problems = [
            f"loss.class_weights: {name!r} is no class; {nearest(name, names)}" for name in wanted if name not in names
        ]
        if problems:
            raise ConfigError(*problems)
        return [float(wanted.get(name, 1.0)) for name in names]
    if amounts is None or len(amounts) != len(names):
        raise ConfigError(
            "loss.class_weights: 'balanced' needs the number of pixels of each class; give weights by name"
        )
    present = sum(amount > 0 for amount in amounts)
    return [sum(amounts) / (present * amount) if amount else 1.0 for amount in amounts]


def _focal(logits: torch.Tensor, known: torch.Tensor, gamma: float) -> torch.Tensor:
    """Of each pixel, (N, H, W). smp's FocalLoss takes each class for a yes-or-no question; this one is softmax's."""
    entropy = F.cross_entropy(logits, known, reduction="none")
    return (1 - torch.exp(-entropy)) ** gamma * entropy


@cache
def _dice() -> nn.Module:
    from segmentation_models_pytorch.losses import DiceLoss  # here: the import takes seconds (timm)

    return DiceLoss("multiclass", ignore_index=VOID)
