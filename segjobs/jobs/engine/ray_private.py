"""What jobs need of Ray beyond its public names, in one file: each has a test that fails where a release changes it."""

import inspect
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from random import SystemRandom
from types import ModuleType
from typing import Any, ParamSpec, Protocol

import ray
from ray import _raylet
from ray._private import parameter, ray_constants, services, state, worker
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray.cloudpickle import cloudpickle_fast
from ray.data._internal.block_batching.iter_batches import BatchIterator
from ray.data._internal.execution.execution_callback import ExecutionCallback

from segjobs.jobs.engine.ray_calls import is_client

__all__ = [
    "ExecutionCallback",
    "free_by_node",
    "free_ports",
    "lean_node",
    "lean_training",
    "map_batches",
    "node_kinds",
    "on_loopback",
    "other_drivers",
    "pickled",
    "this_machine",
    "without_iteration_metrics",
    "without_log_level",
]

Given = ParamSpec("Given")
_services: Any = services  # its annotations name none of its types
_PORTS = range(20_000, 30_000)  # Ray's workers have those below, Linux gives those from 32,768 on to connections
_state: Any = state.state
_worker: Any = worker
_extension: Any = _raylet
_LEVEL_LINE = b"Set ray log level from environment variable"
_AGENTS_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


@contextmanager
def lean_node(patience_s: float) -> Generator[None]:
    """While it is entered, ``ray.init`` starts a node of fewer processes, and waits ``patience_s`` seconds for it.

    Its servers, that of its metrics too, which asks for no token, listen on the loopback interface alone.

    Left out are the autoscaler's monitor, the log monitor and the dashboard's server, of no use to one job on one
    machine: 11 of the 25 CPU seconds of a start. Ray itself waits 30 s for a node, a constant in its code, and leaves
    one that was too late behind, to compete with the next attempt. The node, in its turn, waits for the ports of its
    two agents, which import for seconds, and aborts after 15 s of that: all three are told them beforehand. For a node
    that has ended, nothing waits longer than Ray does.
    """
    ports: dict[str, int] = dict(zip(_AGENTS_PORTS, free_ports(len(_AGENTS_PORTS)), strict=True))
    lean = partial(parameter.RayParams, no_monitor=True, include_log_monitor=False, **ports)
    nodes: list[subprocess.Popen[bytes]] = []
    with (
        on_loopback(),
        _replaced(parameter, "RayParams", lean),
        _replaced(services, "start_api_server", _start_no_server),
        _replaced(services, "start_raylet", _told(_services.start_raylet, ports, nodes)),
        _replaced(services, "get_node", _patient(_services.get_node, patience_s, nodes)),
    ):
        yield


@contextmanager
def lean_training() -> Generator[None]:
    """While it is entered, a training that starts on a Ray without a dashboard's server has no cleaner.

    The cleaner, an actor, asks that server each second whether the training's controller is alive, waits ten seconds
    for an answer that never comes, and the end of the training twelve for the cleaner. What it is there for, to give
    back the CPUs of a controller that died, Ray does by itself when the driver ends.
    """
    if is_client() or _has_server():
        yield
        return
    from ray.train.v2._internal.execution.callback import ControllerCallback  # imports Ray Train
    from ray.train.v2.api import data_parallel_trainer

    with _replaced(data_parallel_trainer, "PlacementGroupCleanerCallback", ControllerCallback):
        yield


def _has_server() -> bool:
    """Whether the cluster has a dashboard's server, of which the states of actors are asked."""
    address: object = _worker.global_worker.gcs_client.internal_kv_get(
        ray_constants.DASHBOARD_ADDRESS.encode(), ray_constants.KV_NAMESPACE_DASHBOARD
    )
    return bool(address)


def on_loopback() -> AbstractContextManager[None]:
    """While it is entered, this machine's address is that of its loopback interface for Ray.

    So it is on Windows and macOS; elsewhere Ray turns it into one that other machines reach, whatever it is told.
    """
    return _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False)


def _start_no_server(*_: object, **__: object) -> tuple[str, None]:
    """The dashboard's URL, and its process."""
    return "", None


class _Started(Protocol):
    """What Ray says of a node that it has started."""

    @property
    def process(self) -> "subprocess.Popen[bytes]": ...


def _told(
    start: Callable[Given, _Started], ports: Mapping[str, int], nodes: list["subprocess.Popen[bytes]"]
) -> Callable[Given, _Started]:
    """``start`` after writing the files in which a node looks for its agents' ports; the node is added to ``nodes``."""
    signature = inspect.signature(start)

    def start_raylet(*args: Given.args, **kwargs: Given.kwargs) -> _Started:
        given = signature.bind(*args, **kwargs).arguments
        for name, port in ports.items():
            _extension.persist_port(given["session_dir"], given["node_id"], name, port)
        info = start(*args, **kwargs)
        nodes.append(info.process)
        return info

    return start_raylet


def free_ports(count: int) -> list[int]:
    """TCP ports of this machine on which nothing listens, each another one.

    Not any that the system would give (``bind`` to port 0): it gives of the same ones to every connection, and a server
    that imports for seconds before it listens found its port taken by then.
    """
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < count:
            port = SystemRandom().choice(_PORTS)
            try:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    return ports


@contextmanager
def without_log_level() -> Generator[None]:
    """While it is entered, a driver that ``ray.init`` makes does not tell of RAY_BACKEND_LOG_LEVEL.

    Ray's C++ side writes that line to standard error whatever the level. All else that comes while it starts is kept.
    """
    make = _extension.CoreWorker

    def quietly(*args: object, **kwargs: object) -> object:
        with _stderr_without(_LEVEL_LINE):
            return make(*args, **kwargs)

    with _replaced(_raylet, "CoreWorker", quietly):
        yield


@contextmanager
def _stderr_without(text: bytes) -> Generator[None]:
    """What the process writes to standard error meanwhile comes after it, but for lines that hold ``text``."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            for line in file:
                if text not in line:
                    os.write(2, line)


@contextmanager
def _replaced(place: ModuleType | type, name: str, value: object) -> Generator[None]:
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def without_iteration_metrics() -> AbstractContextManager[None]:
    """While it is entered, nobody is told every five seconds how a dataset's blocks are taken.

    What is sent then has a record of each block of the input: at 16,130 shards the driver's main thread pickled these
    for 95% of its time, on a busy machine, and hardly took a block.
    """
    return _replaced(BatchIterator, "UPDATE_METRICS_INTERVAL_S", math.inf)


def _patient(
    look: Callable[[str, str], dict[str, object]], patience_s: float, nodes: Sequence["subprocess.Popen[bytes]"]
) -> Callable[[str, str], dict[str, object]]:
    """``look`` until it finds the node; its RuntimeError once ``patience_s`` are over or one of ``nodes`` has ended."""
    end = time.monotonic() + patience_s

    def get_node(gcs_address: str, node_id: str) -> dict[str, object]:
        while True:
            try:
                return look(gcs_address, node_id)
            except RuntimeError:
                time.sleep(0.1)
                if time.monotonic() > end or any(node.poll() is not None for node in nodes):
                    raise

    return get_node


def map_batches(blocks: Any, kind: Callable[..., object], **options: object) -> "ray.data.Dataset":
    """``blocks.map_batches`` of whole blocks; where there are GPUs, it asks for a ``batch_size`` and cuts by that."""
    return blocks.map_batches_internal(kind, batch_size=None, batch_format="pyarrow", **options)


def pickled(thing: object) -> bytes:
    """``thing`` as Ray's workers get it: lambdas and closures too."""
    return cloudpickle_fast.dumps(thing)


def node_kinds() -> list[dict[str, float]]:
    """Resources of each kind of node that the cluster's autoscaler can add, where it has told the cluster of them."""
    config = None if is_client() else _state.get_cluster_config()
    groups: Any = config.node_group_configs if config else ()
    return [dict(group.resources) for group in groups if group.max_count == -1 or group.max_count > group.min_count]


def free_by_node() -> dict[str, dict[str, float]]:
    """Node id → the resources that nobody holds there now; nothing where Ray's client does not know."""
    return {} if is_client() else _state.available_resources_per_node()


def other_drivers() -> int:
    """How many processes besides this one have work done by the cluster."""
    own = ray.get_runtime_context().get_job_id()
    alive = [job for job in _state.job_table() if not job["IsDead"] and job["JobID"] != own]
    return sum("/ray/dashboard/" not in job["Entrypoint"] for job in alive)  # its own server is a driver too


def this_machine() -> tuple[float, float]:
    """The CPUs and GPUs that a node has which ``ray.init`` starts here."""
    spec: Any = ResourceAndLabelSpec()
    spec.resolve(is_head=True)
    return float(spec.num_cpus), float(spec.num_gpus)
