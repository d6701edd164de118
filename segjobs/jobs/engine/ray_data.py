"""Tables through Ray Data as they are: a block for each one, a task for each block, rows as they come.

Whatever jobs set of Ray Data's, they set here: for a process, and for one dataset.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import ray
from ray.data import DataContext, ExecutionOptions, ExecutionResources
from ray.exceptions import RayError

from segjobs.jobs.engine.executor import Actors, Rows, Work
from segjobs.jobs.engine.ray_calls import Given, blocks_of, dataset_of_blocks, map_blocks_by
from segjobs.jobs.engine.ray_errors import own_error
from segjobs.jobs.engine.ray_private import ExecutionCallback, map_batches, without_iteration_metrics

_SPOT_WAIT_S = 24 * 3600  # a job may wait that long for preemptible nodes to come back
_INIT_DEATHS = 20  # model loading can be killed by preemption as often as this in a row


def settle() -> None:
    """Set for this process what every job needs."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = None  # a shard stays one block from plan to part
    context.raise_original_map_exception = True  # own_error finds it; Ray Data's wrapper loses the cause on its way
    context.execution_no_progress_timeout_s = _SPOT_WAIT_S
    context.max_consecutive_actor_init_deaths = _INIT_DEATHS


@contextmanager
def set_for_now() -> Generator[None]:
    """While it is entered, settings are a copy of those before, which come back as they were."""
    with DataContext.current(DataContext.get_current().copy()):
        yield


def keep_order(dataset: "ray.data.Dataset") -> None:
    """Let its blocks come in their order."""
    dataset.context.execution_options.preserve_order = True


def read_ahead(dataset: "ray.data.Dataset", most_bytes: int, callback: type[ExecutionCallback]) -> None:
    """Let its blocks come in their order, at most ``most_bytes`` of them ahead; ``callback``: is called meanwhile."""
    context = dataset.context
    ahead = ExecutionResources.for_limits(object_store_memory=most_bytes)
    context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, callback]
    context.downstream_capacity_backpressure_ratio = None  # most_bytes are the bound
    context.execution_options = ExecutionOptions(preserve_order=True, resource_limits=ahead)


def dataset_of(blocks: Sequence[pa.Table]) -> "ray.data.Dataset":
    """One block for each table. ``ray.data.from_arrow`` would start workers to look at every one, and wait for them."""
    return dataset_of_blocks(list(blocks))


def map_blocks(
    blocks: "ray.data.Dataset",
    task: Work,
    *,
    num_cpus: float = 1,
    at_once: int | None = None,
    waiting: float | None = None,
) -> "ray.data.Dataset":
    """``task`` for each block, at most ``at_once`` of them at a time.

    ``waiting``: so many blocks, by their bytes, may wait for each one that is at work; as many as find room, without.
    """
    pool = ray.data.TaskPoolStrategy(size=at_once)
    done = map_blocks_by(blocks, task, num_cpus=num_cpus, compute=pool)
    if waiting is not None:
        done.context.downstream_capacity_backpressure_ratio = waiting
    return done


def map_in_actors(
    blocks: "ray.data.Dataset", kind: Callable[Given, Work], arguments: tuple[object, ...], actors: Actors
) -> "ray.data.Dataset":
    """``kind(*arguments)`` in each of a pool of actors, called with blocks."""
    pool = ray.data.ActorPoolStrategy(
        min_size=actors.least,
        max_size=actors.most,
        max_tasks_in_flight_per_actor=actors.in_flight,
        max_concurrent_calls_per_actor=actors.at_once,
        enable_true_multi_threading=True,
    )
    return map_batches(
        blocks,
        kind,
        fn_constructor_args=arguments,
        compute=pool,
        num_cpus=actors.cpus,
        num_gpus=actors.gpus or None,
    )


def rows_of(dataset: "ray.data.Dataset") -> Rows:
    """Run it and hand its rows on as they come. Raises the SegjobsError that stopped a task."""
    try:
        with without_iteration_metrics():
            for block in blocks_of(dataset):
                yield from block.to_pylist()
    except RayError as error:
        raise own_error(error) or error from error
