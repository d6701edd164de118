"""What a training is made of besides the network: learning rate, optimiser, running mean, and their checkpoint.

    output.uri/checkpoints/step-00000120.pt   everything that goes on from step 120     the last one is kept
    output.uri/checkpoints/best-00000090.pt   the weights of the best validation so far   the best one is kept

Each is published whole by one put-if-absent. A new one is there before the one that it replaces is deleted, so a
training that is killed at any moment finds one to go on from; nothing else is ever deleted.
"""

import io
import math
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from segjobs.config import OptimiserConfig, ScheduleConfig
from segjobs.errors import ManifestError
from segjobs.storage import Storage, join

FOLDER = "checkpoints"
_STEP = re.compile(r"step-(\d{8,})\.pt")
_BEST = re.compile(r"best-(\d{8,})\.pt")
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
        if isinstance(layer, _NormBase) and (
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
    return [layer for layer in module.modules() if isinstance(layer, _NormBase)]


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


# --- checkpoints --------------------------------------------------------------------------------


@dataclass
class Record:
    """How far a training is.

    ``stale``: validations since the best one; ``lines``: of metrics.jsonl; ``losses``: of the steps since the last one.
    """

    step: int = 0
    best_step: int | None = None
    best_score: float | None = None
    stale: int = 0
    seconds: float = 0.0
    lines: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoints:
    """Of one training. ``identity``: digest of its inputs and settings."""

    uri: str
    storage: Storage
    identity: str

    def save(self, record: Record, tensors: Mapping[str, Any]) -> None:
        """Publish the state after ``record.step`` steps; earlier ones, and best weights that it replaces, go."""
        self._put(f"step-{record.step:08d}.pt", {"record": asdict(record), "identity": self.identity, **tensors})
        self._delete(_STEP, kept=record.step)
        self._delete(_BEST, kept=record.best_step)

    def save_best(self, step: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Publish the weights after ``step`` steps. The next ``save`` must name it, or a restart drops it."""
        self._put(f"best-{step:08d}.pt", dict(weights))

    def load(self) -> tuple[Record, dict[str, Any]] | None:
        """The last state, or None at the beginning. Best weights that it does not name are dropped."""
        steps = self._steps(_STEP)
        if not steps:
            self._delete(_BEST, kept=None)
            return None
        content = self._read(f"step-{max(steps):08d}.pt")
        record = Record(**content.pop("record"))
        if content.pop("identity") != self.identity:
            raise ManifestError(f"{join(self.uri, FOLDER)}: a checkpoint of another training; choose a new output.uri")
        self._delete(_BEST, kept=record.best_step)
        return record, content

    def load_best(self, step: int) -> dict[str, torch.Tensor]:
        """Weights of ``save_best``."""
        return self._read(f"best-{step:08d}.pt")

    def _put(self, name: str, content: Mapping[str, Any]) -> None:
        data = io.BytesIO()
        torch.save(content, data)
        self.storage.put_if_absent(join(self.uri, FOLDER, name), data.getvalue())

    def _read(self, name: str) -> dict[str, Any]:
        uri = join(self.uri, FOLDER, name)
        try:
            return torch.load(io.BytesIO(self.storage.read(uri)), map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, OSError) as error:
            raise ManifestError(f"{uri}: cannot be read ({error}); delete it to go on from the one before") from error

    def _steps(self, pattern: re.Pattern[str]) -> list[int]:
        names = self.storage.list_names(join(self.uri, FOLDER))
        return [int(found[1]) for name in names if (found := pattern.fullmatch(name))]

    def _delete(self, pattern: re.Pattern[str], *, kept: int | None) -> None:
        for name in sorted(self.storage.list_names(join(self.uri, FOLDER))):
            found = pattern.fullmatch(name)
            if found and int(found[1]) != kept:
                self.storage.delete(join(self.uri, FOLDER, name))
