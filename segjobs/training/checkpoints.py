"""A training's checkpoints: how far it is and all that it goes on from.

    output.uri/checkpoints/step-00000120.pt   everything that goes on from step 120     the last one is kept
    output.uri/checkpoints/best-00000090.pt   the weights of the best validation so far   the best one is kept

Each is published whole by one put-if-absent. A new one is there before the one that it replaces is deleted, so a
training that is killed at any moment finds one to go on from; nothing else is ever deleted.
"""

import io
import pickle
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

import torch

from segjobs.errors import ManifestError
from segjobs.manifest.seal import open_bytes, sealed_bytes
from segjobs.storage import Storage, join

FOLDER = "checkpoints"
_STEP = re.compile(r"step-(\d{8,})\.pt")
_BEST = re.compile(r"best-(\d{8,})\.pt")


@dataclass
class TrainingState:
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


class CheckpointTensors(TypedDict):
    """Everything else that a training goes on from: state dicts, ``mean`` empty without a running mean."""

    module: dict[str, torch.Tensor]
    mean: dict[str, torch.Tensor]
    optimiser: dict[str, Any]
    scaler: dict[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """Of one training. ``identity``: digest of its inputs and settings."""

    uri: str
    storage: Storage
    identity: str

    def save(self, record: TrainingState, tensors: CheckpointTensors) -> None:
        """Publish the state after ``record.step`` steps; earlier ones, and best weights that it replaces, go."""
        self._put(f"step-{record.step:08d}.pt", {"record": asdict(record), "identity": self.identity, **tensors})
        self._delete(_STEP, kept=record.step)
        self._delete(_BEST, kept=record.best_step)

    def save_best(self, step: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Publish the weights after ``step`` steps. The next ``save`` must name it, or a restart drops it."""
        self._put(f"best-{step:08d}.pt", dict(weights))

    def load(self) -> tuple[TrainingState, CheckpointTensors] | None:
        """The last state, or None at the beginning. Best weights that it does not name are dropped."""
        steps = self._steps(_STEP)
        if not steps:
            self._delete(_BEST, kept=None)
            return None
        content = self._read(f"step-{max(steps):08d}.pt")
        record = TrainingState(**content.pop("record"))
        if content.pop("identity") != self.identity:
            raise ManifestError(f"{join(self.uri, FOLDER)}: a checkpoint of another training; choose a new output.uri")
        self._delete(_BEST, kept=record.best_step)
        return record, content

    def load_best(self, step: int) -> dict[str, torch.Tensor]:
        """Weights of ``save_best``."""
        return self._read(f"best-{step:08d}.pt")

    def _put(self, name: str, content: Mapping[str, object]) -> None:
        data = io.BytesIO()
        torch.save(content, data)
        self.storage.put_if_absent(join(self.uri, FOLDER, name), sealed_bytes(data.getvalue()))

    def _read(self, name: str) -> Any:
        uri = join(self.uri, FOLDER, name)
        data = open_bytes(self.storage.read(uri), uri, mend="delete it to go on from the one before")
        try:
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
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
