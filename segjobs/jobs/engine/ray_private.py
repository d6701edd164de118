"""What jobs need of Ray beyond its public names, in one file: each has a test that fails where a release changes it."""

import inspect
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import ModuleType
from typing import Any, ParamSpec, Protocol

import ray
from ray._private import parameter, services
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray._raylet import persist_port  # type: ignore[attr-defined]  # of an extension module
from ray.cloudpickle import cloudpickle_fast
from ray.data._internal.execution.execution_callback import ExecutionCallback

__all__ = ["ExecutionCallback", "free_ports", "lean_node", "map_batches", "pickled", "this_machine"]

Given = ParamSpec("Given")
_services: Any = services  # its annotations name none of its types
_AGENTS_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


@contextmanager
def lean_node(patience_s: float) -> Generator[None]:
    """While it is entered, ``ray.init`` starts a node of fewer processes, and waits ``patience_s`` seconds for it.

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
        _replaced(parameter, "RayParams", lean),
        _replaced(services, "start_api_server", _start_no_server),
        _replaced(services, "start_raylet", _told(_services.start_raylet, ports, nodes)),
        _replaced(services, "get_node", _patient(_services.get_node, patience_s, nodes)),
    ):
        yield


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
            persist_port(given["session_dir"], given["node_id"], name, port)
        info = start(*args, **kwargs)
        nodes.append(info.process)
        return info

    return start_raylet


def free_ports(count: int) -> list[int]:
    """TCP ports of this machine on which nothing listens, each another one."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Generator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


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


def this_machine() -> tuple[float, float]:
    """The CPUs and GPUs that a node has which ``ray.init`` starts here."""
    spec: Any = ResourceAndLabelSpec()
    spec.resolve(is_head=True)
    return float(spec.num_cpus), float(spec.num_gpus)
