"""Tables through Ray Data as they are: a block for each one, a task for each block, rows as they come."""

from collections.abc import Callable, Sequence

import pyarrow as pa
import ray
from ray.exceptions import RayError

from segjobs.jobs.engine.cluster import own_error
from segjobs.jobs.engine.executor import Actors, Rows, Work
from segjobs.jobs.engine.ray_calls import Given, blocks_of, dataset_of_blocks, map_blocks_by
from segjobs.jobs.engine.ray_private import map_batches


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
        for block in blocks_of(dataset):
            yield from block.to_pylist()
    except RayError as error:
        raise own_error(error) or error from error
