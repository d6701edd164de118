"""What each training step sees: (seed, step, rank) in, a batch of augmented examples out, on Ray Data.

    range(steps) ─→ [tasks: Order → places → Reader: mask, image → augment] ─→ prefetched batches, in order

Everything is a function of the seed and of an example's position in one endless sequence: position p stands in
epoch p // epoch_size; step s takes the positions from s · B on, and of N workers, rank r the r-th of N equal slices.
So a training that was interrupted goes on at step s as if nothing had happened, and N workers of B images see in
each step what one of N · B sees.
"""

import hashlib
import pickle
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayError

from segjobs.config import AugmentConfig
from segjobs.jobs.engine.ray_data import read_ahead
from segjobs.jobs.engine.ray_errors import own_error
from segjobs.jobs.engine.ray_private import ExecutionCallback
from segjobs.manifest.rle import VOID, decode, paint
from segjobs.manifest.schema import Task
from segjobs.storage import Storage
from segjobs.training.examples import Example, ExampleReader, ExampleSource

if TYPE_CHECKING:
    from segjobs.models.base import Instances, Target

_PREFETCHED = 2  # steps that wait, decoded and augmented, in the worker
_READ_AHEAD_BYTES = 256 * 2**20  # of further steps in the object store; Ray Data alone would fill half of it
_MOST_BLOCKS = 10_000  # a block is a step, until there are that many
_REST_S = 0.01


class Rest(ExecutionCallback):
    """A pause between the rounds of Ray Data's scheduler, which runs in a thread of the worker that trains.

    While the read-ahead is full it goes round without one and keeps the GIL: on two cores the training then had half
    of its speed.
    """

    def on_execution_step(self, executor: object) -> None:
        time.sleep(_REST_S)


@dataclass(frozen=True)
class Order:
    """The endless sequence. ``sizes`` and ``weights``: images of each source, and how often an epoch shows each.

    A weight of 2.25 shows each image twice, and a quarter of them, others in each epoch, once more.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int

    @cached_property
    def epoch_size(self) -> int:
        return sum(round(size * weight) for size, weight in zip(self.sizes, self.weights, strict=True))

    def take(self, positions: np.ndarray) -> np.ndarray:
        """int64 positions (N,) → rows of the index, the sources' behind each other."""
        epochs, places = np.divmod(positions, self.epoch_size)
        taken = np.empty(positions.size, np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            taken[here] = _epoch(self, epoch)[places[here]]
        return taken


@lru_cache(maxsize=2)
def _epoch(order: Order, epoch: int) -> np.ndarray:
    rows, first = [], 0
    for number, (size, weight) in enumerate(zip(order.sizes, order.weights, strict=True)):
        if not size:  # nothing is left of this source
            continue
        whole, rest = divmod(round(size * weight), size)
        extra = np.random.default_rng([order.seed, epoch, number + 1]).permutation(size)[:rest]
        rows.append(first + np.concatenate([np.tile(np.arange(size), whole), extra]))
        first += size
    return np.random.default_rng([order.seed, epoch, 0]).permutation(np.concatenate(rows))


@dataclass(frozen=True)
class Feed:
    """All that a reading task needs. ``rows``: an Index's, in the object store. ``step_size``: images of one step.

    ``resize``: the rule of a semantic model's card, which images pass before they are augmented.
    """

    order: Order
    rows: "ray.ObjectRef"
    sources: Sequence[ExampleSource]
    storage: Storage
    task: Task
    resize: str
    augment: AugmentConfig
    step_size: int
    steps: int
    max_pixels: int
    part_px: int | None = None

    def positions(self, step: int, rank: int, world: int) -> np.ndarray:
        """Positions in the sequence of what a rank sees in a step (from 0), int64 (step_size / world,)."""
        each = self.step_size // world
        return step * self.step_size + rank * each + np.arange(each)

    def batches(self, rank: int, world: int, *, first_step: int) -> Iterator[tuple[int, list["Augmented"]]]:
        """Every step from ``first_step`` on with what this rank sees in it; tasks read ahead."""
        left = self.steps - first_step
        if left <= 0:
            return
        steps = ray.data.range(left, override_num_blocks=min(left, _MOST_BLOCKS))
        read = ReadSteps(self, rank, world, first_step)
        # Of one CPU, as the range's own tasks are: Ray Data then makes one task of both.
        data = steps.map_batches(read, batch_size=1, batch_format="pyarrow")
        read_ahead(data, _READ_AHEAD_BYTES, Rest)
        blocks = iter(data.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=_PREFETCHED))
        for step in range(first_step, self.steps):
            try:
                table = cast(pa.Table, next(blocks))
            except RayError as error:
                raise own_error(error) or error from error
            found = table["step"][0].as_py()
            assert found == step, f"step {found} came where {step} was due"  # noqa: S101
            yield step, pickle.loads(table["examples"][0].as_buffer())  # noqa: S301  # written by the task below


@dataclass(frozen=True)
class Augmented:
    """An example as the model learns it: ``image`` uint8 (h, w, 3) RGB and its ``target``."""

    image_id: str
    image: np.ndarray
    target: "Target"


@dataclass
class ReadSteps:
    """The task: blocks of step numbers (column ``id``, from 0) → their examples, pickled."""

    feed: Feed
    rank: int
    world: int
    first_step: int

    def __call__(self, block: pa.Table) -> pa.Table:
        steps = [self.first_step + number for number in block["id"].to_pylist()]
        examples = [pickle.dumps(self.read(step), protocol=5) for step in steps]
        return pa.table({"step": pa.array(steps, pa.int64()), "examples": pa.array(examples, pa.large_binary())})

    def read(self, step: int) -> list[Augmented]:
        """What the rank sees in a step."""
        from segjobs.models.augment import augment
        from segjobs.models.batching import compute_single_threaded

        compute_single_threaded()
        feed = self.feed
        reader, rows = _reader(feed), ray.get(feed.rows)
        made = []
        positions = feed.positions(step, self.rank, self.world)
        for position, row in zip(positions.tolist(), feed.order.take(positions).tolist(), strict=True):
            seed = _seed(feed.order.seed, position)
            example = reader.read(rows[row], seed=seed)
            image, target = fitted(example, feed.task, feed.resize)
            image, target = augment(image, target, feed.augment, seed=seed)
            made.append(Augmented(example.image_id, image, target))
        return made


_readers: dict[str, ExampleReader] = {}


def _reader(feed: Feed) -> ExampleReader:
    """This process's, which keeps the parts that it has read."""
    key = "\n".join(source.run.uri for source in feed.sources)
    if key not in _readers:
        _readers.clear()
        _readers[key] = ExampleReader(feed.sources, feed.storage, max_pixels=feed.max_pixels, part_px=feed.part_px)
    return _readers[key]


def _seed(seed: int, position: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {position}".encode()).digest()[:6], "big")


def fitted(example: Example, task: Task, rule: str) -> "tuple[np.ndarray, Target]":
    """An example as image and target, at the size that the model sees in use: after its card's ``resize``."""
    from segjobs.models.base import LabelMap
    from segjobs.models.resize import detection_size, resize_ids, resize_image, target_size, to_tensor

    image, height, width = example.image, *example.image.shape[:2]
    size_hw = (detection_size if task == "instance" else target_size)(rule, (height, width))
    if size_hw != (height, width):
        image = resize_image(to_tensor(image), size_hw).permute(1, 2, 0).contiguous().numpy()
    if task == "instance":
        return image, objects(example, size_hw)
    ids = paint([(index, segment.counts) for index, segment in example.segments], (height, width), VOID)
    return image, LabelMap(resize_ids(ids, size_hw))


def objects(example: Example, size_hw: tuple[int, int]) -> "Instances":
    """The objects of an example that can be told apart (crowds are none), in the frame of its image at ``size_hw``."""
    from segjobs.models.base import Instances
    from segjobs.models.resize import resize_ids

    classes, crops, boxes = [], [], []
    for index, segment in example.segments:
        if segment.iscrowd:
            continue
        mask = resize_ids(decode(segment.counts, example.image.shape[:2]), size_hw)
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        if rows.size:  # a small one may vanish
            top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
            classes.append(index)
            crops.append(mask[top:bottom, left:right].astype(np.float32))
            boxes.append((left, top, right, bottom))
    return Instances(
        size_hw=size_hw,
        classes=np.array(classes, np.int64),
        scores=np.ones(len(classes), np.float32),
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        crops=crops,
        corners_xy=np.array(boxes, np.int32).reshape(-1, 4)[:, :2],
    )
