"""Ray for one job: ``connect`` joins or starts a cluster and tells what it has, which ``layout.py`` divides.

``expected`` tells what a local one will have, without starting it.
"""

import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager, nullcontext

import ray

from segjobs.config import ClusterConfig
from segjobs.errors import ClusterError
from segjobs.jobs import set_environment
from segjobs.jobs.engine.auth import check_access, check_token, keep_token
from segjobs.jobs.engine.layout import Resources, Share
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.ray_calls import nodes_alive, own_address, start_ray
from segjobs.jobs.engine.ray_data import settle
from segjobs.jobs.engine.ray_private import lean_node, node_kinds, on_loopback, this_machine, without_log_level

_LOCAL_START_S = 300  # in which a Ray of this machine must be up, however busy that is
_SOCKET_NAME_BYTES = 107  # of AF_UNIX
_SESSION, _SOCKET = "/ray/session_2026-01-01_00-00-00_000000", "/sockets/plasma_store"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
_CONNECT_S = 20  # in which a cluster's address must answer


def connect(compute: ClusterConfig, progress: Progress | None = None) -> Resources:
    """Join the cluster at ``compute.address``, else RAY_ADDRESS's, else start a local Ray; what it has.

    A Ray that is already initialised in this process is used as it is. ``progress``: is told of it.
    Raises ClusterError.
    """
    if not ray.is_initialized():
        target = _target(compute)
        doing = "starting Ray" if target == "local" else f"joining Ray at {target}"
        with progress.phase("ray", doing) if progress else nullcontext():
            check_access(target, compute)
            _start(target)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, and told once
    # A run of fewer shards than actors is no mistake, and the advice is about a knob that jobs do not have.
    warnings.filterwarnings("ignore", "The minimum number of concurrent actors", UserWarning)
    settle()
    return Resources(
        tuple(Share.of(node["Resources"]) for node in nodes_alive()), tuple(Share.of(kind) for kind in node_kinds())
    )


def expected(compute: ClusterConfig, progress: Progress | None = None) -> Resources:
    """What ``connect`` will find: this machine is asked where that would start a local Ray. Raises ClusterError."""
    if ray.is_initialized() or _target(compute) != "local":
        return connect(compute, progress)
    return Resources((Share(*this_machine()),))


def _target(compute: ClusterConfig) -> str:
    return compute.address or os.environ.get("RAY_ADDRESS") or "local"


def _check_address(target: str) -> None:
    """Raise ClusterError where nothing listens at ``host:port`` or refuses us; Ray itself would try for minutes."""
    host, separator, port = target.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdecimal():
        return  # "local", "auto": for Ray to resolve
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"Ray at {target!r} cannot be reached: {error}; start it there or correct compute.address"
        ) from error
    check_token(target)


def _check_temporary() -> None:
    """Raise ClusterError where Ray's sockets would have longer names than Linux takes."""
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.environ.get(name, "/tmp")  # noqa: S108  # as Ray chooses it
    room = _SOCKET_NAME_BYTES - len(f"{_SESSION}_{os.getpid()}{_SOCKET}")
    if len(os.fsencode(folder)) > room:
        raise ClusterError(
            f"{name}={folder} has {len(os.fsencode(folder))} bytes, and Ray's sockets below it have room for {room}: "
            "set RAY_TMPDIR to a shorter folder, such as /tmp, and run the command again"
        )


def _listens_to_loopback_alone(target: str) -> bool:
    """Whether the Ray at ``host:port`` is a local one of this machine, as jobs start them."""
    host, separator, port = target.rpartition(":")
    if not separator or host not in _LOOPBACK or not port.isdecimal():
        return False
    try:
        socket.create_connection((own_address(), int(port)), timeout=_CONNECT_S).close()
    except OSError:
        return True
    return False


def start_local(**options: object) -> None:
    """Start a Ray of this process's own; ``options`` of ``ray.init``, such as num_cpus. Raises ClusterError."""
    _check_temporary()
    keep_token()
    begin = time.monotonic()
    try:
        with lean_node(_LOCAL_START_S), _with_bytecode():
            _init("local", include_dashboard=False, **options)
    except ClusterError as error:
        raise ClusterError(
            f"no local Ray came up in {time.monotonic() - begin:.0f} s (this machine: {os.cpu_count()} CPUs, a load of "
            f"{os.getloadavg()[0]:.0f}): {error}; end what else runs here and run the command again, or set "
            "compute.address to a cluster"
        ) from error


@contextmanager
def _with_bytecode() -> Generator[None]:
    """While it is entered, processes that are started may write bytecode, whatever the environment says.

    Of a local Ray a dozen import thousands of modules. Where none may keep what it has compiled, as in images that set
    PYTHONDONTWRITEBYTECODE, each does it anew at every start, in three times the CPU time.
    """
    kept = os.environ.pop(_NO_BYTECODE, None)
    try:
        yield
    finally:
        if kept is not None:
            os.environ[_NO_BYTECODE] = kept


def _init(target: str, **options: object) -> None:
    set_environment()
    try:
        with without_log_level():
            start_ray(target, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise ClusterError(f"Ray at {target!r} cannot be joined: {text}") from error


def _start(target: str) -> None:
    _check_address(target)
    logging.getLogger("ray").setLevel(logging.ERROR)
    on_term = signal.getsignal(signal.SIGTERM)
    if target == "local":
        start_local()
    else:
        with on_loopback() if _listens_to_loopback_alone(target) else nullcontext():
            _init(target)
    # Ray puts its own handler there, which exits with 1: a stopped job exits with 75.
    if on_term is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_term)
