"""What a training worker is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import ray

from segjobs.config import TrainConfig
from segjobs.jobs.train.feed import Feed
from segjobs.jobs.train.follow import MailboxHandle
from segjobs.manifest.schema import ModelCard
from segjobs.models.weights import Weights
from segjobs.storage import Storage
from segjobs.training.examples import ExampleSource


@dataclass(frozen=True)
class TrainTask:
    """All that a worker needs to know. ``places``: of the images to score, int32 (N, 3), in the object store.

    ``validation_steps``: steps between two validations; ``amounts``: of each class, for weights of the loss.
    """

    config: TrainConfig
    identity: Mapping[str, object]
    digest: str
    card: ModelCard
    weights: Weights
    storage: Storage
    feed: Feed
    validation: ExampleSource | None
    places: "ray.ObjectRef | None"
    validation_steps: int
    amounts: tuple[int, ...]
    threads: int
    mailbox: MailboxHandle
    facts: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True)
class WorkerRank:
    """Which worker this is, of how many, and its torch device."""

    rank: int
    world: int
    device: str
