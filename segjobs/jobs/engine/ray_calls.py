"""Ray's public calls, with whole types: its own annotations leave parts of these unknown.

a handle of an actor, whose methods are Asked: handle.method.remote(…) → ObjectRef → ray.get → the answer
"""

from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, Protocol, TypedDict, TypeVar

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Given = ParamSpec("Given")
Answer = TypeVar("Answer")
_untyped: Any = ray


class Asked(Protocol[Given, Answer]):
    """A method of an actor, as other processes have it."""

    def remote(self, *args: Given.args, **kwargs: Given.kwargs) -> "ray.ObjectRef[Answer]":
        """Ask; what the actor answers, some time."""
        ...


def start_ray(address: str, **options: object) -> None:
    """``ray.init``."""
    _untyped.init(address=address, **options)


def total_resources() -> dict[str, float]:
    """What the whole cluster has, by name."""
    return _untyped.cluster_resources()


def own_address() -> str:
    """This node's."""
    return _untyped.util.get_node_ip_address()


class Node(TypedDict):
    """What is looked at of a node."""

    NodeID: str
    NodeManagerAddress: str
    Resources: dict[str, float]


def nodes_alive() -> list[Node]:
    """Those of the cluster."""
    return [node for node in _untyped.nodes() if node["Alive"]]


def is_client() -> bool:
    """Whether this process speaks to the cluster by Ray's client."""
    return bool(_untyped.util.client.ray.is_connected())


def ask_node(
    node: Node, task: Callable[Given, Answer], *args: Given.args, **kwargs: Given.kwargs
) -> "ray.ObjectRef[Answer]":
    """Run a task on this node and no other, once; what it answers, some time."""
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
    return _untyped.remote(task).options(**options).remote(*args, **kwargs)


def is_answered(answer: "ray.ObjectRef[Answer]", wait_s: float) -> bool:
    """Whether an actor has answered within ``wait_s`` seconds."""
    return bool(_untyped.wait([answer], timeout=wait_s)[0])


def end_actor(handle: object) -> None:
    """``ray.kill``."""
    _untyped.kill(handle)


def dataset_of_blocks(blocks: list[pa.Table]) -> "ray.data.Dataset":
    """``ray.data.from_blocks``."""
    return _untyped.data.from_blocks(blocks)


def map_blocks_by(blocks: Any, task: Callable[[pa.Table], pa.Table], **options: object) -> "ray.data.Dataset":
    """``Dataset.map_batches`` of whole blocks."""
    return blocks.map_batches(task, batch_size=None, batch_format="pyarrow", **options)


def blocks_of(dataset: Any) -> Iterator[pa.Table]:
    """Run it; whole blocks as they come."""
    return iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
