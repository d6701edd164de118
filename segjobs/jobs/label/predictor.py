"""A model on one device: planned items of a shard in, its manifest rows out. No Ray.

    read, decode, preprocess │ forward │ postprocess, RLE

Three kinds of threads overlap, over two shards at a time: some decode ahead, one owns
the device and does nothing but forward passes (a GPU's next batch is queued while it computes), some
turn raw outputs into rows behind it. No dense mask leaves it. Batches are formed in the order of
the plan within one shard, so a shard gives the same masks whenever and wherever it runs.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from segjobs.config import ModelConfig, PostprocessConfig, TilesConfig
from segjobs.errors import ItemError, SegjobsError
from segjobs.jobs.engine.executor import OnRow
from segjobs.jobs.engine.shards import TIMES_SCHEMA
from segjobs.jobs.engine.watchdog import OnStuck, Watchdog
from segjobs.jobs.label.decode import Decoding, Loaded, load, reading, unpack
from segjobs.jobs.label.model_blame import ModelBlame
from segjobs.manifest.rows import Author, failed_row, ok_row, planned_items, rows_table
from segjobs.manifest.schema import ModelCard
from segjobs.sources.blame import Blame

if TYPE_CHECKING:
    from segjobs.jobs.label.redo import Redo
    from segjobs.manifest.rows import Uncertainty
    from segjobs.manifest.segments import Segment
    from segjobs.models.base import Prepared, RawOutput, Segmenter
    from segjobs.models.batching import Computed

_ENCODERS = 2


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
    redo: "Redo | None" = None
    tiles: TilesConfig = field(default_factory=TilesConfig)
    uncertainty: bool = False


def _build(settings: Settings) -> "Segmenter":
    from segjobs.models.preparing import check_preparing
    from segjobs.models.registry import build, check_blend

    segmenter = build(
        settings.model,
        settings.decoding.storage,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        card=settings.card,
    )
    check_blend(segmenter, settings.tiles)
    check_preparing(segmenter, settings.decoding.preparing)
    return segmenter


Row = dict[str, object]
"""A row of the manifest with the times of its stages, before it is one of a table."""


@dataclass
class _Prepared:
    """An image at the network's size; the original's pixels are let go, its size is kept."""

    loaded: Loaded
    size_hw: tuple[int, int] = (0, 0)
    tensor: "Prepared | None" = None


@dataclass
class _Flight:
    """A batch on the device; ``start_s`` by ``time.perf_counter``."""

    batch: list[_Prepared]
    computed: "Computed"
    start_s: float


@dataclass
class _Shard:
    """A shard at work: ``rows`` by image_id, in the order of the plan; batches on the device; outputs being encoded.

    ``on_row``: is shown each row.
    """

    on_row: OnRow
    rows: dict[str, Row] = field(default_factory=dict)
    flights: deque[Future[_Flight]] = field(default_factory=deque)
    encoding: deque[Future[None]] = field(default_factory=deque)

    def add(self, row: Row) -> None:
        """The row of an image that has its place in ``rows``."""
        self.rows[str(row["image_id"])] = row
        self.on_row(row)


class Predictor:
    """One model on one device; called with shards, by several threads at a time."""

    def __init__(self, settings: Settings, report: OnStuck) -> None:
        from segjobs.models.batching import beside_the_network, compute_single_threaded
        from segjobs.models.by_runs import by_runs
        from segjobs.models.check_prediction import checked, of_the_model, prepared
        from segjobs.models.postprocess import to_segments
        from segjobs.models.uncertainty import measured

        self._settings = settings
        self._to_segments = to_segments
        self._measured = measured
        self._checked = checked
        self._prepared = prepared
        self._of_the_model = of_the_model
        self._beside_the_network = beside_the_network
        self._decoders = ThreadPoolExecutor(settings.decoding.threads, "decode", initializer=compute_single_threaded)
        self._encoders = ThreadPoolExecutor(_ENCODERS, "encode", initializer=compute_single_threaded)
        self._device = ThreadPoolExecutor(1, "device")
        self._turn = Lock()
        self._blame = ModelBlame(settings.card.label)
        self._landed_s = 0.0
        # An actor that dies in its constructor is started again and again: say why at the first shard instead.
        self._broken: SegjobsError | None = None
        try:
            self._segmenter = self._device.submit(_build, settings).result()
        except SegjobsError as error:
            self._broken = error
        else:
            self._by_runs = by_runs(self._segmenter, settings.postprocess)
        self._watchdog = Watchdog(settings.decoding.deadline_s, report)

    def predict(self, items: pa.Table, on_row: OnRow = lambda row: None) -> pa.Table:
        """A shard's planned items (with pixels, where tasks decoded them) → its manifest rows, each shown at once."""
        if self._broken:
            raise self._broken
        shard = _Shard(on_row)
        prepared = self._prepare_ahead(items)
        # One shard after the other: two that shared the device would end together and leave it idle.
        with self._turn:
            for batch in self._batches(prepared, shard):
                shard.flights.append(self._device.submit(self._launch, batch))
                if len(shard.flights) > 1:  # one batch on the device, one ready behind it
                    self._land(shard)
        while shard.flights:
            self._land(shard)
        while shard.encoding:
            shard.encoding.popleft().result()
        done = list(shard.rows.values())
        if self._settings.redo is None:  # there, the images that it failed at are all that it is shown
            self._blame.judge(done)
        return rows_table(done, TIMES_SCHEMA, items)

    def _prepare_ahead(self, items: pa.Table) -> Iterator[_Prepared]:
        """Every item in order, prepared by the decoding threads a bounded number ahead, from this call on."""
        planned = planned_items(items)
        packed = "pixels" in items.column_names
        decoding = self._settings.decoding
        ahead = 2 * self._settings.batch_size + decoding.threads
        reads = reading(planned, decoding, self._watchdog)

        def prepare(number: int) -> _Prepared:
            item = planned[number]
            loaded = unpack(items, number, item) if packed else load(item, decoding, self._watchdog, reads)
            one = _Prepared(loaded)
            with self._watchdog.holding([item.path]):
                self._prepare(one)
            return one

        futures = (self._decoders.submit(prepare, number) for number in range(len(planned)))
        window = deque(islice(futures, ahead))

        def results() -> Iterator[_Prepared]:
            while window:
                yield window.popleft().result()
                window.extend(islice(futures, 1))

        return results()

    def _prepare(self, prepared: _Prepared) -> None:
        """Of an image that was decoded, the tensor; its pixels are let go."""
        loaded, preparing = prepared.loaded, self._settings.decoding.preparing
        if loaded.prepared is not None and preparing is not None:  # by a decoding task
            prepared.size_hw, prepared.tensor = loaded.size_hw, preparing.given(loaded.prepared)
            loaded.prepared = None
        if loaded.image is not None:
            start = time.perf_counter()
            prepared.size_hw = (loaded.image.shape[0], loaded.image.shape[1])
            try:
                with self._of_the_model():
                    prepared.tensor = self._prepared(self._segmenter, loaded.image)
            except ItemError as error:
                loaded.error = error
            loaded.image = None
            loaded.decode_ms += 1000 * (time.perf_counter() - start)

    def _batches(self, prepared: Iterable[_Prepared], shard: _Shard) -> Iterator[list[_Prepared]]:
        """Batches as the model takes them; failed items become rows on the way.

        ``shard.rows`` gets its keys here, in the order of the plan.
        """
        waiting: dict[tuple[Any, ...] | None, list[_Prepared]] = {}
        for one in prepared:
            item = one.loaded.item
            shard.rows[item.path] = {}
            if one.loaded.huge and (row := self._tiled(one)) is not None:
                shard.add(row)
                continue
            if one.tensor is None:
                shard.add(self._failed(one.loaded))
                continue
            group = tuple(one.tensor.shape) if self._segmenter.same_size_batches else None
            batch = waiting.setdefault(group, [])
            batch.append(one)
            if len(batch) == self._settings.batch_size:
                yield waiting.pop(group)
        yield from waiting.values()

    def _tiled(self, one: _Prepared) -> Row | None:
        """The row of a huge image; None where it is a small one in a large file, which is ``prepared`` now."""
        from segjobs.jobs.label.tiled import Tiler

        settings, loaded = self._settings, one.loaded
        tiler = Tiler(
            self._segmenter,
            settings.decoding,
            settings.tiles,
            settings.postprocess,
            settings.batch_size,
            self._device,
            settings.device != "cpu",
            self._watchdog,
            settings.uncertainty,
        )
        try:
            tiled = tiler.label(loaded.item)
        except ItemError as error:
            loaded.error = error
            return self._failed(loaded)
        if tiled is None:
            decoding = replace(settings.decoding, most_whole_pixels=None)
            one.loaded = load(loaded.item, decoding, self._watchdog, Blame(decoding.storage))
            self._prepare(one)
            return None
        row = ok_row(
            loaded.item,
            settings.author,
            sha256=tiled.sha256,
            size_hw=tiled.size_hw,
            segments=tiled.segments,
            confidence=tiled.confidence,
            uncertainty=tiled.uncertainty,
        )
        return {**row, **tiled.times}

    def _launch(self, batch: list[_Prepared]) -> _Flight:
        """On the device's thread: one batch to the network."""
        from segjobs.models.batching import launch

        start_s = time.perf_counter()
        with self._watchdog.holding([one.loaded.item.path for one in batch]):
            tensors = [one.tensor for one in batch if one.tensor is not None]
            return _Flight(batch, launch(self._segmenter, tensors), start_s)

    def _land(self, shard: _Shard) -> None:
        """Wait for the shard's first batch on the device, hand its outputs on to the encoders, a bounded number."""
        flight = shard.flights.popleft().result()
        with self._watchdog.holding([one.loaded.item.path for one in flight.batch]):
            flight.computed.wait()
        landed_s = time.perf_counter()
        spent_s = landed_s - max(flight.start_s, self._landed_s)  # a GPU's next batch is launched while it computes
        self._landed_s = landed_s
        outputs = flight.computed.outputs
        forward_ms = 1000 * spent_s / len(flight.batch)
        for number, one in enumerate(flight.batch):
            output = outputs[number]
            if isinstance(output, ItemError) and output.code == "GPU_OOM":
                outputs[number] = self._again_alone(one, shard)
            one.tensor = None
        # By runs a batch at once, on a GPU with one copy to the host; a label map is an image's work for itself.
        at_once, encode = (len(flight.batch), self._encode_runs) if self._by_runs else (1, self._encode_each)
        for first in range(0, len(flight.batch), at_once):
            some = slice(first, first + at_once)
            shard.encoding.append(self._encoders.submit(encode, shard, flight.batch[some], outputs[some], forward_ms))
        while len(shard.encoding) * at_once > 2 * self._settings.batch_size + _ENCODERS:
            shard.encoding.popleft().result()

    def _again_alone(self, one: _Prepared, shard: _Shard) -> "RawOutput | ItemError":
        """The output of an image that did not fit on the device, with nothing of its shard beside it."""
        for flight in shard.flights:
            flight.result().computed.wait()
        while shard.encoding:
            shard.encoding.popleft().result()
        computed = self._device.submit(self._launch, [one]).result().computed
        with self._watchdog.holding([one.loaded.item.path]):
            computed.wait()
        return computed.outputs[0]

    def _encode_runs(
        self, shard: _Shard, batch: list[_Prepared], outputs: "list[RawOutput | ItemError]", forward_ms: float
    ) -> None:
        """Raw outputs of a batch → its rows, by the runs of its masks. Where the model fails at that, one by one."""
        assert self._by_runs is not None, "asked for only then"  # noqa: S101
        start = time.perf_counter()
        good = [n for n, output in enumerate(outputs) if not isinstance(output, ItemError)]
        try:
            with (
                self._watchdog.holding([batch[n].loaded.item.path for n in good]),
                self._beside_the_network(self._segmenter),
            ):
                found = self._by_runs([outputs[n] for n in good], [batch[n].size_hw for n in good])
        except ItemError:
            self._encode_each(shard, batch, outputs, forward_ms)
            return
        made = iter(found)
        answers = [output if isinstance(output, ItemError) else next(made) for output in outputs]
        encode_ms = 1000 * (time.perf_counter() - start) / len(batch)
        for one, output, answer in zip(batch, outputs, answers, strict=True):
            try:
                if isinstance(answer, ItemError):
                    raise answer
                masks, confidence = answer
                with self._watchdog.holding([one.loaded.item.path]), self._beside_the_network(self._segmenter):
                    unsure = self._uncertainty(one, output, masks)
            except ItemError as error:
                one.loaded.error = error
                shard.add(self._failed(one.loaded, forward_ms=forward_ms))
            else:
                shard.add(self._ok(one, masks, confidence, unsure, forward_ms=forward_ms, encode_ms=encode_ms))

    def _encode_each(
        self, shard: _Shard, batch: list[_Prepared], outputs: "list[RawOutput | ItemError]", forward_ms: float
    ) -> None:
        for one, output in zip(batch, outputs, strict=True):
            shard.add(self._encode(one, output, forward_ms))

    def _encode(self, one: _Prepared, output: "RawOutput | ItemError", forward_ms: float) -> Row:
        """Raw output of one image → its row: back to the original size, post-processed, as RLE."""
        start = time.perf_counter()
        loaded = one.loaded
        try:
            if isinstance(output, ItemError):
                raise output
            with self._watchdog.holding([loaded.item.path]), self._beside_the_network(self._segmenter):
                with self._of_the_model():
                    given = self._segmenter.postprocess(output, one.size_hw)
                prediction = self._checked(given, self._settings.card, one.size_hw)
                segments, confidence = self._to_segments(
                    prediction, self._settings.card.categories, self._settings.postprocess
                )
                uncertainty = self._uncertainty(one, output, segments)
        except ItemError as error:
            loaded.error = error
            return self._failed(loaded, forward_ms=forward_ms)
        encode_ms = 1000 * (time.perf_counter() - start)
        return self._ok(one, segments, confidence, uncertainty, forward_ms=forward_ms, encode_ms=encode_ms)

    def _uncertainty(self, one: _Prepared, output: "RawOutput", segments: "list[Segment]") -> "Uncertainty | None":
        """How unsure the model is of an image, where that is asked for. Raises ItemError."""
        if not self._settings.uncertainty:
            return None
        with self._of_the_model():
            return self._measured(self._segmenter, output, one.size_hw, segments)

    def _ok(
        self,
        one: _Prepared,
        segments: "list[Segment]",
        confidence: float | None,
        uncertainty: "Uncertainty | None",
        *,
        forward_ms: float,
        encode_ms: float,
    ) -> Row:
        row = ok_row(
            one.loaded.item,
            self._settings.author,
            sha256=one.loaded.sha256 or "",
            size_hw=one.size_hw,
            segments=segments,
            confidence=confidence,
            uncertainty=uncertainty,
        )
        return {**row, **_times(one.loaded), "forward_ms": forward_ms, "encode_ms": encode_ms}

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Off the device, between two shards, for those who need its memory meanwhile."""
        from segjobs.models.batching import set_aside

        if self._broken:
            raise self._broken
        with self._turn, set_aside(self._segmenter, self._device):
            yield

    def failed(self, item: pa.Table, error: ItemError) -> pa.Table:
        """The row of one planned item (a table of one) that nothing else is known of."""
        return rows_table([self._failed(Loaded(planned_items(item)[0], error=error))], TIMES_SCHEMA, item)

    def _failed(self, loaded: Loaded, *, forward_ms: float = 0.0) -> Row:
        assert loaded.error is not None  # noqa: S101
        row = failed_row(loaded.item, self._settings.author, loaded.error, sha256=loaded.sha256)
        return {**row, **_times(loaded), "forward_ms": forward_ms, "encode_ms": 0.0}


def _times(loaded: Loaded) -> dict[str, float]:
    return {"read_ms": loaded.read_ms, "decode_ms": loaded.decode_ms}
