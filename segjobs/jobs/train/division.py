"""How a training lies on the cluster: what its nodes have in; workers, and what each has, out."""

from dataclasses import dataclass

from segjobs.config import TrainComputeConfig
from segjobs.errors import ClusterError
from segjobs.jobs.engine.layout import DECODE_CPUS, Resources, Share, check_node


@dataclass(frozen=True)
class Division:
    """How a training lies on the cluster. ``threads``: torch threads of one worker on a CPU."""

    workers: int
    cpus: float
    gpus: float
    threads: int


def divide(compute: TrainComputeConfig, have: Resources) -> Division:
    """Workers and what each has, leaving CPUs to the tasks that read. Raises ClusterError where it does not fit."""
    gpus = compute.gpus_per_worker if compute.gpus_per_worker is not None else float(have.gpus >= 1)
    workers = compute.workers
    if workers == "auto":
        workers = max(1, sum(node.gpu_room(gpus) for node in have.nodes)) if gpus else 1
    if have.cpus <= DECODE_CPUS and not have.may_add:
        raise ClusterError(
            f"the cluster has {have.cpus:g} CPU(s), and a training needs more than {DECODE_CPUS:g}: one reads what the "
            "workers learn from. On a machine of one CPU, start Ray with two (ray start --head --num-cpus=2) and set "
            "compute.address=auto"
        )
    node = have.largest_cpus
    cpus = compute.cpus_per_worker or (min(1.0, node) if gpus else _share(workers, have))
    worker, key = Share(cpus, gpus), f"compute.workers={workers}"
    if worker.cpus <= have.cpus and worker.gpus <= have.gpus:
        check_node(key, worker, have.nodes, unit="worker")
    if have.room(worker, beside=DECODE_CPUS) < workers:
        raise ClusterError(
            f"{key} of {cpus:g} CPUs and {gpus:g} GPUs each, and {DECODE_CPUS:g} CPU "
            f"to read, do not fit: the cluster has {have.cpus:g} CPUs and {have.gpus:g} GPUs on {len(have.nodes)} "
            "node(s); lower compute.workers or compute.cpus_per_worker"
        )
    threads = compute.threads or max(1, int(min(have.cpus / workers, node)) if not gpus else int(cpus))
    return Division(workers, cpus, gpus, threads)


def _share(workers: int, have: Resources) -> float:
    """The most CPUs that each of so many workers can have, with room for what reads beside them; else an equal part."""
    reading = max(DECODE_CPUS, have.cpus / 8)
    equal = (have.cpus - reading) / workers
    parts = {(node.cpus - taken) / count for node in have.nodes for taken in (0, reading) for count in (1, workers)}
    fitting = [
        one for one in {equal, *parts} if 0 < one <= equal and have.room(Share(one), beside=DECODE_CPUS) >= workers
    ]
    return max(fitting, default=equal)
