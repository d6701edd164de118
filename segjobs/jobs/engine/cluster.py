"""Ray for one job: which cluster, and what fits on it.

``connect`` joins or starts a cluster and tells what it has, ``expected`` what a local one will have; ``layout`` divides
that among model actors, decoding and writing, and says before the start what is missing.
"""

import logging
import os
import signal
import socket
import threading
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import ray

from segjobs.config import ClusterConfig, ComputeConfig
from segjobs.errors import ClusterError
from segjobs.jobs.engine.auth import check_access, check_token
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.ray_calls import start_ray, total_resources
from segjobs.jobs.engine.ray_data import settle
from segjobs.jobs.engine.ray_private import lean_node, this_machine

DECODE_CPUS = 1.0
"""CPUs of a decoding task."""

_SPARE_CPUS = 0.25  # of an actor on a CPU: decoding tasks fit in beside four of them
_LOCAL_START_S = 300  # in which a Ray of this machine must be up, however busy that is
_CONNECT_S = 20  # in which a cluster's address must answer


@dataclass(frozen=True)
class Resources:
    """What the whole cluster has, in Ray's logical units."""

    cpus: float
    gpus: float


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
    have = total_resources()
    return Resources(have.get("CPU", 0.0), have.get("GPU", 0.0))


def expected(compute: ClusterConfig, progress: Progress | None = None) -> Resources:
    """What ``connect`` will find: this machine is asked where that would start a local Ray. Raises ClusterError."""
    if ray.is_initialized() or _target(compute) != "local":
        return connect(compute, progress)
    return Resources(*this_machine())


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


def start_local(**options: object) -> None:
    """Start a Ray of this process's own; ``options`` of ``ray.init``, such as num_cpus. Raises ClusterError."""
    begin = time.monotonic()
    try:
        with lean_node(_LOCAL_START_S):
            _init("local", include_dashboard=False, **options)
    except ClusterError as error:
        raise ClusterError(
            f"no local Ray came up in {time.monotonic() - begin:.0f} s (this machine: {os.cpu_count()} CPUs, a load of "
            f"{os.getloadavg()[0]:.0f}): {error}; end what else runs here and run the command again, or set "
            "compute.address to a cluster"
        ) from error


def _init(target: str, **options: object) -> None:
    try:
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
        _init(target)
    # Ray puts its own handler there, which exits with 1: a stopped job exits with 75.
    if on_term is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_term)


def layout(compute: ComputeConfig, have: Resources) -> Layout:
    """Divide the cluster among the stages. Raises ClusterError where the pool's minimum does not fit.

    ``auto`` takes one actor per GPU share; without GPUs one single-threaded actor per CPU on a small
    machine (measured on two cores: 1.07 times one actor of two threads) and two threads each above
    four CPUs, where the models' memory starts to count.
    """
    gpus = compute.gpus_per_actor if compute.gpus_per_actor is not None else float(have.gpus >= 1)
    threads = compute.threads or max(1, int(compute.cpus_per_actor or (1 if have.cpus <= 4 else 2)))
    cpus = compute.cpus_per_actor or (1.0 if gpus else threads - _SPARE_CPUS)
    decode = compute.decode if compute.decode != "auto" else ("task" if gpus else "actor")
    # Actors hold their CPUs to the end: one decoding task has to fit beside all of them.
    beside = DECODE_CPUS if decode == "task" else 0.0
    low, _, high = compute.actors.partition("-")
    if compute.actors == "auto":
        fit = min(int((have.cpus - beside) // cpus), _gpu_actors(have, gpus) if gpus else int(have.cpus // threads))
        smallest = largest = max(1, fit)
    else:
        smallest, largest = int(low), int(high or low)
    if gpus and smallest > _gpu_actors(have, gpus):
        raise ClusterError(
            f"compute.actors={compute.actors} of {gpus:g} GPU each: the cluster's {have.gpus:g} GPUs have room for "
            f"{_gpu_actors(have, gpus)}; lower compute.actors or set compute.gpus_per_actor=0"
        )
    if smallest * cpus + beside > have.cpus:
        decoding = f" and {beside:g} for a decoding task", ", or set compute.decode=actor"
        others, instead = decoding if beside else ("", "")
        raise ClusterError(
            f"compute.actors={compute.actors} of {cpus:g} CPUs each{others} need "
            f"{smallest * cpus + beside:g} CPUs, the cluster has {have.cpus:g}: lower compute.actors or "
            f"compute.cpus_per_actor{instead}"
        )
    return Layout(smallest, largest, cpus, gpus, threads, decode)


def _gpu_actors(have: Resources, share: float) -> int:
    """How many actors of so much GPU fit; a part of one is a part of the same one."""
    return int(have.gpus) * int(1 / share + 1e-6) if share < 1 else int(have.gpus // share)
