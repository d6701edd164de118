"""How a job lies on a cluster: what each node has in; actors, their CPUs and GPUs, where images are decoded, out.

An actor lies on one node: what nodes have together says nothing of the largest that one of them can hold. Before the
start it is said what does not fit, with the numbers, unless the cluster may grow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from segjobs.config import ComputeConfig
from segjobs.errors import ClusterError

DECODE_CPUS = 1.0
"""CPUs of a decoding task."""

_SPARE_CPUS = 0.25  # of an actor on a CPU: decoding tasks fit in beside four of them
_ROUNDING = 1e-6  # of quotients of decimal fractions
_SMALL_CPUS = 4  # of a node: up to here an actor has one thread


@dataclass(frozen=True)
class Share:
    """CPUs and GPUs, in Ray's logical units: of a node, or of what lies on it."""

    cpus: float
    gpus: float = 0.0

    @staticmethod
    def of(resources: Mapping[str, float]) -> "Share":
        """From what Ray says, by the names of resources."""
        return Share(resources.get("CPU", 0.0), resources.get("GPU", 0.0))

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU(s)" + (f" and {self.gpus:g} GPU(s)" if self.gpus else "")

    def room(self, need: "Share", *, beside: float = 0.0) -> int:
        """How many of ``need`` fit in, with so many CPUs ``beside`` them."""
        by_cpus = max(0, int((self.cpus - beside + _ROUNDING) // need.cpus))
        return min(by_cpus, self.gpu_room(need.gpus)) if need.gpus else by_cpus

    def nearness(self, need: "Share") -> tuple[float, float]:
        """Of nodes none of which holds ``need``, the one that comes nearest to it has the greatest."""
        return min(self.gpus, need.gpus), self.cpus

    def gpu_room(self, share: float) -> int:
        """How many times so much of a GPU fits in; a part of one is a part of the same one."""
        return int(self.gpus) * int(1 / share + _ROUNDING) if share < 1 else int(self.gpus // share)


@dataclass(frozen=True)
class Resources:
    """What a cluster has: a share for each node. ``may_add``: shares of nodes that its autoscaler can add."""

    nodes: tuple[Share, ...]
    may_add: tuple[Share, ...] = ()

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)

    @property
    def largest_cpus(self) -> float:
        """CPUs of the node that has most."""
        return max((node.cpus for node in self.nodes), default=0.0)

    def room(self, need: Share, *, beside: float = 0.0) -> int:
        """How many of ``need`` fit on the nodes, with a task of so many CPUs ``beside`` them on one."""
        alone = [node.room(need) for node in self.nodes]
        if not beside:
            return sum(alone)
        hosts = [n for n, node in enumerate(self.nodes) if node.cpus >= beside]
        return max((sum(alone) - alone[n] + self.nodes[n].room(need, beside=beside) for n in hosts), default=0)


@dataclass(frozen=True)
class Layout:
    """How a job lies on the cluster. ``threads``: torch threads of one actor on a CPU."""

    min_actors: int
    max_actors: int
    cpus_per_actor: float
    gpus_per_actor: float
    threads: int
    decode: Literal["task", "actor"]

    @property
    def device(self) -> str:
        return "cuda" if self.gpus_per_actor else "cpu"

    def __str__(self) -> str:
        pool = f"{self.min_actors}" if self.min_actors == self.max_actors else f"{self.min_actors}-{self.max_actors}"
        what = f"{self.gpus_per_actor:g} GPU" if self.gpus_per_actor else f"{self.threads} CPU thread(s)"
        return f"{pool} actor(s) of {what}, decoding in {'tasks' if self.decode == 'task' else 'the actors'}"


def layout(compute: ComputeConfig, have: Resources) -> Layout:
    """Divide the cluster among the stages. Raises ClusterError where the pool's minimum does not fit.

    ``auto`` takes one actor per GPU share; without GPUs one single-threaded actor per CPU on small nodes (measured on
    two cores: 1.07 times one actor of two threads) and two threads each above four CPUs, where the models' memory
    starts to count. Where an autoscaler can add nodes that hold an actor, what is missing is waited for; so it is with
    a range of actors where the cluster has no CPU now, or no GPU.
    """
    gpus = compute.gpus_per_actor if compute.gpus_per_actor is not None else float(have.gpus >= 1)
    threads = compute.threads or max(1, int(compute.cpus_per_actor or (1 if have.largest_cpus <= _SMALL_CPUS else 2)))
    actor = Share(compute.cpus_per_actor or (1.0 if gpus else threads - _SPARE_CPUS), gpus)
    decode = compute.decode if compute.decode != "auto" else ("task" if gpus else "actor")
    # Actors hold their CPUs to the end: one decoding task has to fit beside all of them.
    beside = DECODE_CPUS if decode == "task" else 0.0
    fit = have.room(actor, beside=beside)
    low, _, high = compute.actors.partition("-")
    if compute.actors == "auto":
        by_threads = fit if gpus else sum(int(node.cpus // threads) for node in have.nodes)
        smallest = largest = max(1, min(fit, by_threads))
    else:
        smallest, largest = int(low), int(high or low)
    waits = bool(have.may_add) or (bool(high) and (not have.cpus or bool(gpus and not have.gpus)))
    if waits:
        ever = (*have.nodes, *have.may_add) if have.may_add else ()  # of a range it is not known what comes
        check_node(f"compute.actors={compute.actors}", actor, ever, unit="actor")
    else:
        _check_pool(compute.actors, smallest, actor, have, beside=beside)
    return Layout(smallest, largest, actor.cpus, gpus, threads, decode)


def _check_pool(actors: str, smallest: int, actor: Share, have: Resources, *, beside: float) -> None:
    """Raise ClusterError where so many actors do not fit on the nodes, with a decoding task beside them."""
    key = f"compute.actors={actors}"
    if actor.cpus <= have.cpus and actor.gpus <= have.gpus:
        check_node(key, actor, have.nodes, unit="actor")
    gpu_room = sum(node.gpu_room(actor.gpus) for node in have.nodes) if actor.gpus else smallest
    if smallest > gpu_room:
        raise ClusterError(
            f"{key} of {actor.gpus:g} GPU each: the cluster's {have.gpus:g} GPUs have room for {gpu_room}; lower "
            "compute.actors or set compute.gpus_per_actor=0"
        )
    others, instead = (f" and {beside:g} for a decoding task", ", or set compute.decode=actor") if beside else ("", "")
    mend = f"lower compute.actors or compute.cpus_per_actor{instead}"
    if smallest * actor.cpus + beside > have.cpus:
        raise ClusterError(
            f"{key} of {actor.cpus:g} CPUs each{others} need {smallest * actor.cpus + beside:g} CPUs, the cluster has "
            f"{have.cpus:g}: {mend}"
        )
    fit = have.room(actor, beside=beside)
    if smallest > fit:
        raise ClusterError(
            f"{key} of {actor} each{others}: the {len(have.nodes)} nodes of the cluster, one by one, have room for "
            f"{fit} actors: {mend}"
        )


def check_node(what: str, need: Share, nodes: Sequence[Share], *, unit: Literal["actor", "worker"]) -> None:
    """Raise ClusterError where there are nodes, and none of them can hold ``need``, even alone."""
    if nodes and not any(node.room(need) for node in nodes):
        largest = max(nodes, key=lambda node: node.nearness(need))
        raise ClusterError(
            f"{what} of {need} each: no node can hold one, the largest has {largest}; lower compute.cpus_per_{unit}, "
            f"compute.threads or compute.gpus_per_{unit}, or start larger nodes"
        )
