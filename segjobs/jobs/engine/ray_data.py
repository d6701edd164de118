"""Tables through Ray Data as they are: a block for each one, a task for each block, rows as they come."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pyarrow as pa
import ray
from ray.exceptions import RayError

from segjobs.jobs.engine.cluster import own_error


def dataset_of(blocks: Sequence[pa.Table]) -> "ray.data.Dataset":
    """One block for each table. ``ray.data.from_arrow`` would start workers to look at every one, and wait for them."""
    return ray.data.from_blocks(list(blocks))


def map_blocks(
    blocks: "ray.data.Dataset",
    task: Callable[[pa.Table], pa.Table],
    *,
    num_cpus: float = 1,
    at_once: int | None = None,
) -> "ray.data.Dataset":
    """``task`` for each block, at most ``at_once`` of them at a time."""
    pool = ray.data.TaskPoolStrategy(size=at_once)
    return blocks.map_batches(task, batch_size=None, batch_format="pyarrow", num_cpus=num_cpus, compute=pool)


def rows_of(dataset: "ray.data.Dataset") -> Iterator[dict[str, Any]]:
    """Run it and hand its rows on as they come. Raises the SegjobsError that stopped a task."""
    try:
        for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from cast(pa.Table, block).to_pylist()
    except RayError as error:
        raise own_error(error) or error from error
