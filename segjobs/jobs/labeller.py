"""The stages of a label job: a shard's planned items → its manifest rows.

    [decode tasks] ─→ actors: read, decode, prepare │ forward │ restore, RLE

Inside an actor three kinds of threads overlap, over two shards at a time: some decode ahead, one owns
the device and does nothing but forward passes, some turn raw outputs into rows behind it. No dense
mask leaves the actor. Batches are formed in the order of the plan within one shard, so a shard gives
the same masks whenever and wherever it runs.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from segjobs.config import ModelConfig, PostprocessConfig
from segjobs.errors import ItemError, SegjobsError
from segjobs.jobs.apart import Report, work_apart
from segjobs.jobs.attempts import Attempts, Work
from segjobs.jobs.blocks import map_blocks
from segjobs.jobs.cluster import DECODE_CPUS, Layout
from segjobs.jobs.decoding import Decoding, Loaded, decode_shard, load, tell_hung, unpack
from segjobs.jobs.shards import TIMES_SCHEMA
from segjobs.jobs.watchdog import Watchdog
from segjobs.manifest.rows import Author, failed_row, ok_row, planned_items, rows_table
from segjobs.manifest.schema import ModelCard

if TYPE_CHECKING:
    import torch

    from segjobs.models.base import Segmenter

_CHILD_IMPORTS = (__name__, "segjobs.models.registry", "segjobs.models.batching", "segjobs.models.postprocess")
_SHARDS_PER_ACTOR = 2  # one decodes while the other is on the device
SHARDS_IN_FLIGHT = _SHARDS_PER_ACTOR + 1
"""So many shards of a run are an actor's at a time: two at work, one ready."""


@dataclass(frozen=True)
class Settings:
    """All that a decoding task or an actor needs to know; pickles small."""

    decoding: Decoding
    author: Author
    model: ModelConfig
    card: ModelCard
    postprocess: PostprocessConfig
    batch_size: int
    precision: str
    device: str
    threads: int


def label_stages(
    items: "ray.data.Dataset", attempts: Attempts, *, settings: Settings, lay: Layout
) -> "ray.data.Dataset":
    """Blocks of planned items → blocks of manifest rows."""
    if lay.decode == "task":
        decode = partial(decode_shard, decoding=settings.decoding, attempts=attempts)
        # One CPU against the actors' share: unequal resources keep Ray Data from fusing the two stages.
        items = map_blocks(items, decode, num_cpus=DECODE_CPUS)
    pool = ActorPoolStrategy(
        min_size=lay.min_actors,
        max_size=lay.max_actors,
        max_tasks_in_flight_per_actor=SHARDS_IN_FLIGHT,
        max_concurrent_calls_per_actor=_SHARDS_PER_ACTOR,
        enable_true_multi_threading=True,
    )
    return items.map_batches(
        Labeller,
        fn_constructor_args=(settings, attempts),
        compute=pool,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=lay.cpus_per_actor,
        num_gpus=lay.gpus_per_actor or None,
    )


def _build(settings: Settings) -> "Segmenter":
    from segjobs.models.registry import build

    return build(
        settings.model,
        settings.decoding.storage,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
    )


@dataclass
class _Prepared:
    """An image at the network's size; the original's pixels are let go, its size is kept."""

    loaded: Loaded
    size_hw: tuple[int, int] = (0, 0)
    tensor: "torch.Tensor | None" = None


class Labeller:
    """One model on one device; called with shards, by several threads at a time."""

    def __init__(self, settings: Settings, attempts: Attempts | None = None, report: Report | None = None) -> None:
        from segjobs.models.batching import compute_single_threaded
        from segjobs.models.postprocess import to_segments

        self._settings = settings
        self._attempts = attempts
        self._to_segments = to_segments
        self._decoders = ThreadPoolExecutor(settings.decoding.threads, "decode", initializer=compute_single_threaded)
        self._encoders = ThreadPoolExecutor(2, "encode", initializer=compute_single_threaded)
        self._device = ThreadPoolExecutor(1, "device")
        self._turn = Lock()
        # An actor that dies in its constructor is started again and again: say why at the first shard instead.
        self._broken: SegjobsError | None = None
        try:
            self._segmenter = self._device.submit(_build, settings).result()
        except SegjobsError as error:
            self._broken = error
        self._watchdog = Watchdog(settings.decoding.deadline_s, report or partial(tell_hung, attempts))

    def __call__(self, items: pa.Table) -> pa.Table:
        """A shard's planned items (with pixels, where tasks decoded them) → its manifest rows."""
        if self._broken:
            raise self._broken
        assert self._attempts is not None  # noqa: S101
        return self._attempts.at("labelling", items, self.label, self._label_apart)

    def _label_apart(self, items: pa.Table) -> pa.Table:
        """``label`` in child processes; the device is theirs meanwhile."""
        from segjobs.models.batching import set_aside

        def fail(item: pa.Table, error: ItemError) -> pa.Table:
            loaded = Loaded(planned_items(item)[0], error=error)
            return rows_table([self._failed(loaded)], TIMES_SCHEMA, item)

        with self._turn, set_aside(self._segmenter, self._device):
            return work_apart(items, partial(_child_of, self._settings), fail, imports=_CHILD_IMPORTS)

    def label(self, items: pa.Table) -> pa.Table:
        """``__call__`` without a record of the attempt."""
        if self._broken:
            raise self._broken
        rows: dict[str, dict[str, Any] | Future[dict[str, Any]]] = {}
        running: deque[Future[None]] = deque()
        prepared = self._prepare_ahead(items)
        # One shard after the other: two that shared the device would end together and leave it idle.
        with self._turn:
            for batch in self._batches(prepared, rows):
                running.append(self._device.submit(self._forward, batch, rows))
                if len(running) > 1:  # one batch on the device, one ready behind it
                    running.popleft().result()
        for future in running:
            future.result()
        done = (row.result() if isinstance(row, Future) else row for row in rows.values())
        return rows_table(done, TIMES_SCHEMA, items)

    def _prepare_ahead(self, items: pa.Table) -> Iterator[_Prepared]:
        """Every item in order, prepared by the decoding threads a bounded number ahead, from this call on."""
        planned = planned_items(items)
        packed = "pixels" in items.column_names
        ahead = 2 * self._settings.batch_size + self._settings.decoding.threads

        def prepare(number: int) -> _Prepared:
            item = planned[number]
            loaded = unpack(items, number, item) if packed else load(item, self._settings.decoding, self._watchdog)
            with self._watchdog.holding([item.path]):
                return self._prepare(loaded)

        futures = (self._decoders.submit(prepare, number) for number in range(len(planned)))
        window = deque(islice(futures, ahead))

        def results() -> Iterator[_Prepared]:
            while window:
                yield window.popleft().result()
                window.extend(islice(futures, 1))

        return results()

    def _prepare(self, loaded: Loaded) -> _Prepared:
        prepared = _Prepared(loaded)
        if loaded.image is not None:
            start = time.perf_counter()
            prepared.size_hw = (loaded.image.shape[0], loaded.image.shape[1])
            try:
                prepared.tensor = self._segmenter.prepare(loaded.image)
            except ItemError as error:
                loaded.error = error
            loaded.image = None
            loaded.decode_ms += 1000 * (time.perf_counter() - start)
        return prepared

    def _batches(self, prepared: Iterable[_Prepared], rows: dict[str, Any]) -> Iterator[list[_Prepared]]:
        """Batches as the model takes them; failed items become rows on the way.

        ``rows`` gets its keys here, in the order of the plan.
        """
        waiting: dict[Any, list[_Prepared]] = {}
        for one in prepared:
            item = one.loaded.item
            rows[item.path] = {}
            if one.tensor is None:
                rows[item.path] = self._failed(one.loaded)
                continue
            group = tuple(one.tensor.shape) if self._segmenter.same_size_batches else None
            batch = waiting.setdefault(group, [])
            batch.append(one)
            if len(batch) == self._settings.batch_size:
                yield waiting.pop(group)
        yield from waiting.values()

    def _forward(self, batch: list[_Prepared], rows: dict[str, Any]) -> None:
        """On the device's thread: one batch through the network, its outputs on to the encoders."""
        from segjobs.models.batching import forward_in_halves

        start = time.perf_counter()
        with self._watchdog.holding([one.loaded.item.path for one in batch]):
            outputs = forward_in_halves(self._segmenter, [one.tensor for one in batch if one.tensor is not None])
        forward_ms = 1000 * (time.perf_counter() - start) / len(batch)
        for one, output in zip(batch, outputs, strict=True):
            one.tensor = None
            rows[one.loaded.item.path] = self._encoders.submit(self._encode, one, output, forward_ms)

    def _encode(self, one: _Prepared, output: Any, forward_ms: float) -> dict[str, Any]:
        """Raw output of one image → its row: back to the original size, post-processed, as RLE."""
        start = time.perf_counter()
        loaded = one.loaded
        try:
            if isinstance(output, ItemError):
                raise output
            with self._watchdog.holding([loaded.item.path]):
                prediction = self._segmenter.restore(output, one.size_hw)
                segments, confidence = self._to_segments(
                    prediction, self._settings.card.categories, self._settings.postprocess
                )
        except ItemError as error:
            loaded.error = error
            return self._failed(loaded, forward_ms=forward_ms)
        row = ok_row(
            loaded.item,
            self._settings.author,
            sha256=loaded.sha256 or "",
            size_hw=one.size_hw,
            segments=segments,
            confidence=confidence,
        )
        encode_ms = 1000 * (time.perf_counter() - start)
        return {**row, **_times(loaded), "forward_ms": forward_ms, "encode_ms": encode_ms}

    def _failed(self, loaded: Loaded, *, forward_ms: float = 0.0) -> dict[str, Any]:
        assert loaded.error is not None  # noqa: S101
        row = failed_row(loaded.item, self._settings.author, loaded.error, sha256=loaded.sha256)
        return {**row, **_times(loaded), "forward_ms": forward_ms, "encode_ms": 0.0}


def _child_of(settings: Settings, report: Report) -> Work:
    """In a child process: a labeller of its own."""
    return Labeller(settings, report=report).label


def _times(loaded: Loaded) -> dict[str, float]:
    return {"read_ms": loaded.read_ms, "decode_ms": loaded.decode_ms}
