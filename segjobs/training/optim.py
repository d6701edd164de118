"""What a step of a training stands on: learning rate, frozen parts, optimiser, running mean."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from segjobs.config import OptimiserConfig, ScheduleConfig

_NORMS = (  # timm's and smp's own are subclasses of these
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
_BACKBONES = ("backbone.", "encoder.", "features.")  # torchvision's, smp's, and FCN's VGG-16


def learning_rate(step: int, steps: int, optimiser: OptimiserConfig, schedule: ScheduleConfig) -> float:
    """Of a step (from 0) of ``steps``: it rises in equal steps, then falls by the schedule to nearly zero."""
    highest, warm = optimiser.learning_rate, min(schedule.warmup_steps, steps - 1)
    if step < warm:
        return highest * (step + 1) / (warm + 1)
    progress = (step - warm) / max(1, steps - warm)
    if schedule.decay == "cosine":  # Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983
        return highest * 0.5 * (1 + math.cos(math.pi * progress))
    return highest * (1 - progress) ** schedule.power if schedule.decay == "poly" else highest


def freeze(module: nn.Module, what: Iterable[str]) -> None:
    """Take parameters out of the training: those of the ``backbone``, those of every batch ``norm``."""
    if "backbone" in what:
        for name, parameter in module.named_parameters():
            if name.startswith(_BACKBONES):
                parameter.requires_grad_(False)
    if "norm" in what:
        for layer in _norms(module):
            layer.requires_grad_(False)


def to_train_mode(module: nn.Module, frozen: Iterable[str]) -> None:
    """Train mode, but for layers whose statistics are to stay."""
    module.train()
    for name, layer in module.named_modules():
        if isinstance(layer, _NORMS) and (
            "norm" in frozen or ("backbone" in frozen and f"{name}.".startswith(_BACKBONES))
        ):
            layer.eval()


def make_optimiser(module: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Over the parameters that learn; biases and norms without weight decay."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "sgd":
        return torch.optim.SGD(groups, config.learning_rate, momentum=config.momentum)
    return torch.optim.AdamW(groups, config.learning_rate)


def _norms(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, _NORMS)]


class RunningMean:
    """Exponential mean of a module's tensors, statistics of norms included; integers are taken as they are.

    The decay rises from 0.1 as (1 + step) / (10 + step) until ``decay``, so that the first steps are forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.tensors = {key: value.detach().clone() for key, value in module.state_dict().items()}
        self._decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        for key, value in module.state_dict().items():
            mean = self.tensors[key]
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)
