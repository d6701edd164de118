"""The bare model and the single stages, timed without a pipeline: image files in, images per second out.

A ``BareModel`` runs as a Ray actor, so that it sits where the pipeline's actors sit (the node with the
GPU, the same priority) and leaves no threads or memory behind in the driver.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayError

from segjobs.config import BenchConfig
from segjobs.errors import ItemError
from segjobs.jobs.engine.layout import Layout
from segjobs.jobs.engine.ray_calls import Answer, Asked, end_actor
from segjobs.jobs.engine.ray_errors import own_error
from segjobs.manifest.parts import part_bytes
from segjobs.manifest.rows import Author, ok_row
from segjobs.manifest.schema import MANIFEST_SCHEMA, Footer
from segjobs.sources.bands import Bands, pixels_of
from segjobs.sources.read import read_item
from segjobs.sources.windows import read_image
from segjobs.storage import FileInfo, Storage, join

if TYPE_CHECKING:
    from segjobs.models.base import LabelRuns, RawOutput

_WARM_UP_BATCHES = 2
# libgomp's default, which a user's own process has: threads spin for a while before they sleep. (The pipeline's
# processes, whose threads wait beside many others, set OMP_WAIT_POLICY=PASSIVE; see segjobs/jobs/__init__.py.)
_ENVIRONMENT = {"GOMP_SPINCOUNT": "300000"}

Result = TypeVar("Result")
Step = Literal["predict", "forward"]


@dataclass(frozen=True)
class Bare:
    """Images per second of the bare model on all the devices or CPUs that the pipeline's actors take.

    ``predict``: a user's own loop in one process: decoded images in memory → preprocess, forward, postprocess
    to their size, batch by batch. ``forward``: the network alone on prepared tensors, in one process.
    ``forward_split``: the same in as many processes, of as many threads, as the pipeline has actors; on
    a CPU the hardest to reach, since there nothing but the network computes on any core. ``torch_forward``: ``forward``
    of the same network by torch, where ``model.runtime`` is another.
    """

    predict: float
    forward: float
    forward_split: float
    torch_forward: float | None = None


@dataclass(frozen=True)
class StageTime:
    """Milliseconds an image of one stage: on the clock, and of this process's CPUs, whatever it waits for."""

    ms: float
    cpu_ms: float


class BareModelHandle(Protocol):
    """A ``BareModel`` as an actor."""

    ready: Asked[[], None]
    rate: Asked[[Step], float]
    stage_times: Asked[[str], dict[str, StageTime]]


def measure_bare(config: BenchConfig, files: Sequence[FileInfo], lay: Layout) -> Bare:
    """Measure on the connected cluster. Raises a SegjobsError where the model cannot be built."""
    cpus = lay.max_actors * lay.threads
    threads = min(cpus, int(_node_cpus()))
    # One process reaches one GPU, or the CPUs of one node; the pipeline has so many times as much.
    times = lay.max_actors if lay.gpus_per_actor else cpus / threads
    whole = _start(config, files, lay, processes=1, threads=threads)
    predict = times * sum(_rates(whole, "predict"))
    forward = forward_split = times * sum(_rates(whole, "forward"))
    end_actor(whole.pop())  # here, and below: threads that spin for a while would disturb the next one
    if not lay.gpus_per_actor and lay.max_actors > 1:
        split = _start(config, files, lay, processes=lay.max_actors, threads=lay.threads)
        forward_split = sum(_rates(split, "forward"))
        for actor in split:
            end_actor(actor)
    if config.model.runtime == "torch":
        return Bare(predict, forward, forward_split)
    by_torch = config.model_copy(
        update={"model": config.model.model_copy(update={"runtime": "torch", "precision": "fp32"})}
    )
    plain = _start(by_torch, files, lay, processes=1, threads=threads)
    torch_forward = times * sum(_rates(plain, "forward"))
    end_actor(plain.pop())
    return Bare(predict, forward, forward_split, torch_forward)


def measure_stages(config: BenchConfig, files: Sequence[FileInfo], lay: Layout, uri: str) -> dict[str, StageTime]:
    """What an image takes of each stage alone, on one thread or GPU; its one part is written below ``uri``."""
    (actor,) = _start(config, files, lay, processes=1, threads=1)
    return _get([actor.stage_times.remote(uri)])[0]


def _node_cpus() -> float:
    return max(node["Resources"].get("CPU", 1.0) for node in ray.nodes())


def _start(
    config: BenchConfig, files: Sequence[FileInfo], lay: Layout, *, processes: int, threads: int
) -> list[BareModelHandle]:
    cpus = min(_node_cpus(), lay.cpus_per_actor * lay.max_actors / processes)
    actor = ray.remote(BareModel).options(
        num_cpus=cpus, num_gpus=lay.gpus_per_actor or None, runtime_env={"env_vars": _ENVIRONMENT}
    )
    actors = [cast("BareModelHandle", actor.remote(config, list(files), lay.device, threads)) for _ in range(processes)]
    _get([actor.ready.remote() for actor in actors])
    return actors


def _rates(actors: Sequence[BareModelHandle], step: Step) -> list[float]:
    """Images per second of each process, all measured at the same time."""
    return _get([actor.rate.remote(step) for actor in actors])


def _get(answers: list["ray.ObjectRef[Answer]"]) -> list[Answer]:
    """Wait for actors. Raises the SegjobsError that one of them met as itself."""
    try:
        return ray.get(answers)
    except RayError as error:
        raise own_error(error) or error from error


def _all_good(found: "Sequence[LabelRuns | ItemError]") -> "list[LabelRuns]":
    """Raises the first ItemError."""
    for one in found:
        if isinstance(one, ItemError):
            raise one
    return [one for one in found if not isinstance(one, ItemError)]


class BareModel:
    """The model in one process, with some of the images decoded in memory."""

    def __init__(self, config: BenchConfig, files: Sequence[FileInfo], device: str, threads: int) -> None:
        from segjobs.models.registry import build

        self._config = config
        self._files = files
        self._storage = Storage(config.storage)
        self._segmenter = build(
            config.model, self._storage, device=device, precision=config.compute.precision, threads=threads
        )
        self._images = [self._decode(read_item(self._storage, file)) for file in files]
        self._tensors = [self._segmenter.preprocess(image) for image in self._images]

    def ready(self) -> None:
        """Answers once the images are in memory."""

    def rate(self, step: Step) -> float:
        """Images per second over whole rounds of all images, for at least ``bare_s`` seconds."""
        run = self._predict if step == "predict" else self._forward_all
        batches = self._batches()
        run(batches[:_WARM_UP_BATCHES])
        images, start = 0, time.perf_counter()
        while time.perf_counter() - start < self._config.bare_s:
            run(batches)
            images += len(self._images)
        return images / (time.perf_counter() - start)

    def stage_times(self, uri: str) -> dict[str, StageTime]:
        """What an image takes of every stage, one after the other, each over all images on this thread.

        Some images take the same way before, uncounted: the first table of rows imports pandas, for one.
        """
        from segjobs.models.batching import compute_single_threaded

        compute_single_threaded()
        batches = self._batches()
        self._pass(batches[:_WARM_UP_BATCHES], join(uri, "part-00000.parquet"))
        return self._pass(batches, join(uri, "part-00001.parquet"))

    def _pass(self, batches: Sequence[Sequence[int]], part: str) -> dict[str, StageTime]:
        """Once through all stages, as the pipeline goes, from files to one published part."""
        order = [number for batch in batches for number in batch]
        card, spent = self._segmenter.card, dict[str, StageTime]()

        def stage(name: str, work: Callable[[], Result]) -> Result:
            start, cpu = time.perf_counter(), time.process_time()
            result = work()
            took = time.perf_counter() - start, time.process_time() - cpu
            spent[name] = StageTime(*(1000 * seconds / len(order) for seconds in took))
            return result

        files, sizes_hw = [self._files[n] for n in order], [self._size_hw(n) for n in order]
        data = stage("read", lambda: [read_item(self._storage, file) for file in files])
        images = stage("decode", lambda: [self._decode(one) for one in data])
        stage("prepare", lambda: [self._segmenter.preprocess(image) for image in images])
        outputs = stage("forward", lambda: self._forward_all(batches))
        ends = list(itertools.accumulate(map(len, batches), initial=0))
        restore, encode = self._way_back()
        restored = stage("restore", lambda: [restore(outputs[a:b], sizes_hw[a:b]) for a, b in itertools.pairwise(ends)])
        masks = stage("encode", lambda: [one for some in restored for one in encode(some)])
        author, footer = Author("bench", card.label), Footer(card.task, card.categories, "")

        def write() -> None:
            rows = [
                ok_row(file, author, sha256="", size_hw=size_hw, segments=segments, confidence=confidence)
                for file, size_hw, (segments, confidence) in zip(files, sizes_hw, masks, strict=True)
            ]
            self._storage.put_if_absent(part, part_bytes(pa.Table.from_pylist(rows, MANIFEST_SCHEMA), footer))

        stage("write", write)
        return spent

    def _way_back(self) -> tuple[Callable[..., Sequence[Any]], Callable[..., Sequence[Any]]]:
        """What the pipeline does with a batch's raw outputs and their images' sizes, and with what comes of that.

        The runs of label maps and their segments; of models without, and where pixels are looked at, predictions.
        """
        from segjobs.models.base import gives_runs
        from segjobs.models.postprocess import needs_pixels, segments_of_runs, to_segments

        segmenter, given = self._segmenter, self._config.postprocess
        categories = segmenter.card.categories
        if gives_runs(segmenter) and not needs_pixels(categories, given):
            return (
                lambda outputs, sizes_hw: _all_good(segmenter.runs(outputs, sizes_hw)),
                lambda runs: segments_of_runs(runs, categories, given),
            )
        return (
            lambda outputs, sizes_hw: list(map(self._segmenter.postprocess, outputs, sizes_hw)),
            lambda predictions: [to_segments(one, categories, given) for one in predictions],
        )

    def _decode(self, data: bytes) -> np.ndarray:
        given = self._config.input
        bands = Bands.of(pixels_of(given) if given else None)
        return read_image(data, max_pixels=self._config.decode.max_pixels, bands=bands)

    def _size_hw(self, number: int) -> tuple[int, int]:
        return self._images[number].shape[0], self._images[number].shape[1]

    def _batches(self) -> list[list[int]]:
        """Numbers of the images in batches as full as the model takes them: of one size, where it wants that."""
        shapes = [tuple(tensor.shape) if self._segmenter.same_size_batches else () for tensor in self._tensors]
        numbers = sorted(range(len(shapes)), key=shapes.__getitem__)
        groups = [list(group) for _, group in itertools.groupby(numbers, key=shapes.__getitem__)]
        size = self._config.compute.batch_size
        return [group[start : start + size] for group in groups for start in range(0, len(group), size)]

    def _predict(self, batches: Sequence[Sequence[int]]) -> None:
        from segjobs.models.batching import predict

        for batch in batches:
            predict(self._segmenter, [self._images[number] for number in batch], batch_size=len(batch))

    def _forward_all(self, batches: Sequence[Sequence[int]]) -> "list[RawOutput]":
        outputs: list[RawOutput] = []
        for batch in batches:
            outputs += self._segmenter.forward([self._tensors[number] for number in batch])
        # A GPU computes behind the caller's back: this one restored image waits until it is done.
        self._segmenter.postprocess(outputs[-1], self._size_hw(batches[-1][-1]))
        return outputs
