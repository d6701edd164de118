"""Label a collection: images in, a manifest of predicted masks out.

    plan ─→ [decode tasks] ─→ actors: read, decode, prepare │ forward │ restore, RLE ─→ writer ─→ run.json

A shard stays one block all the way. Inside an actor three kinds of threads overlap, over two shards
at a time: some decode ahead, one owns the device and does nothing but forward passes, some turn raw
outputs into rows behind it. No dense mask leaves the actor. Batches are formed in the order of the
plan within one shard, so a shard gives the same masks whenever and wherever it runs.
"""

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from segjobs.config import DecodeConfig, LabelConfig, ModelConfig, PostprocessConfig, digest
from segjobs.errors import ConfigError, ExitCode, ItemError, SegjobsError
from segjobs.jobs.apart import Report, work_apart
from segjobs.jobs.attempts import Attempts, Work
from segjobs.jobs.cluster import DECODE_CPUS, Layout, connect, layout
from segjobs.jobs.progress import Progress
from segjobs.jobs.sharded import TIMES_SCHEMA, Job, adopt_run, run_job, summary_of_finished
from segjobs.jobs.summary import print_dry_run, print_summary
from segjobs.jobs.watchdog import Watchdog
from segjobs.manifest.plan import Plan, make_plan
from segjobs.manifest.rows import Author, failed_row, ok_row, planned_items, rows_table
from segjobs.manifest.schema import Footer, ModelCard
from segjobs.sources.decode import decode_image
from segjobs.sources.images import list_images, read_item
from segjobs.storage import FileInfo, Storage

if TYPE_CHECKING:
    import torch

    from segjobs.models.base import Segmenter

_SHARDS_PER_ACTOR = 2  # one decodes while the other is on the device


def label(config: LabelConfig, *, dry_run: bool = False) -> ExitCode:
    """Run or continue the job that ``config`` describes; prints the summary.

    Raises a SegjobsError for what stops the whole job. ``dry_run`` only reports what would be done.
    """
    progress = Progress("label")
    storage = Storage(config.storage)
    with ThreadPoolExecutor(1) as background:
        resolving = background.submit(_resolve, config, storage)  # imports torch while Ray starts
        plan = plan_input(config, storage)
        if dry_run or not storage.exists(f"{config.output.uri.rstrip('/')}/run.json"):
            progress.note(f"label: {plan.items.num_rows} images planned; starting Ray and loading {config.model.name}")
            lay = layout(config.compute, connect(config.compute))
        else:
            lay = None
        card = resolving.result()
    job, run, done = adopt_run(storage, _job(config, plan, card))
    if dry_run:
        assert lay is not None  # noqa: S101
        print_dry_run(job, card.label, str(lay), done)
        return ExitCode.DONE
    if run is not None:
        summary = summary_of_finished(job, run)
    else:
        lay = lay or layout(config.compute, connect(config.compute))
        progress.note(f"label: {card.label} on {lay}")
        settings = _settings(config, storage, job, card, lay)
        summary = run_job(storage, job, partial(label_stages, settings=settings, lay=lay), progress)
    return print_summary(summary, config.max_failed_fraction)


def plan_input(config: LabelConfig, storage: Storage) -> Plan:
    """List and plan ``config.input``. Raises ConfigError where nothing matches and that is an error."""
    plan = make_plan(list_images(storage, config.input), config.shard, limit=config.input.limit)
    if not plan.items.num_rows and config.fail_on_empty:
        raise ConfigError(f"input.uri: {config.input.uri}: no image matches input.include (fail_on_empty is set)")
    return plan


def _resolve(config: LabelConfig, storage: Storage) -> ModelCard:
    from segjobs.models.registry import check_postprocess, resolve  # imports torch

    card = resolve(config.model, storage)
    check_postprocess(card, config.postprocess)
    return card


def _job(config: LabelConfig, plan: Plan, card: ModelCard) -> Job:
    identity = {
        "model": card.label,
        "decode": config.decode.model_dump(),
        "postprocess": config.postprocess.model_dump(),
        "precision": config.compute.precision,
    }
    about = {"label": card.label, "digest": card.digest, "weights": card.weights, "options": card.options}
    footer = Footer(
        task=card.task,
        categories=card.categories,
        config_digest=digest(identity),
        model={**about, "preprocessing": card.preprocessing, "licence": card.licence},
    )
    return Job(
        "label",
        config.output.uri,
        plan,
        identity,
        footer,
        config.model_dump(mode="json"),
        grace_s=config.compute.grace_s,
    )


# --- the actors --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """All that a decoding task or an actor needs to know; pickles small."""

    storage: Storage
    author: Author
    model: ModelConfig
    card: ModelCard
    decode: DecodeConfig
    postprocess: PostprocessConfig
    batch_size: int
    precision: str
    device: str
    threads: int
    decode_threads: int
    deadline_s: float


def label_stages(
    items: "ray.data.Dataset", attempts: Attempts, *, settings: Settings, lay: Layout
) -> "ray.data.Dataset":
    """Blocks of planned items → blocks of manifest rows."""
    if lay.decode == "task":
        decode = partial(decode_shard, settings=settings, attempts=attempts)
        # One CPU against the actors' share: unequal resources keep Ray Data from fusing the two stages.
        items = items.map_batches(decode, batch_size=None, batch_format="pyarrow", num_cpus=DECODE_CPUS)
    pool = ActorPoolStrategy(
        min_size=lay.min_actors,
        max_size=lay.max_actors,
        max_tasks_in_flight_per_actor=2 * _SHARDS_PER_ACTOR,
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


@dataclass
class _Loaded:
    """A planned item on its way: its image, or why there is none, and what it took."""

    item: FileInfo
    sha256: str | None = None
    image: np.ndarray | None = None
    error: ItemError | None = None
    read_ms: float = 0.0
    decode_ms: float = 0.0


def _load(item: FileInfo, settings: Settings, watchdog: Watchdog) -> _Loaded:
    loaded = _Loaded(item)
    start = time.perf_counter()
    try:
        data = read_item(settings.storage, item)
        loaded.sha256 = hashlib.sha256(data).hexdigest()
        middle = time.perf_counter()
        loaded.read_ms = 1000 * (middle - start)
        with watchdog.holding([item.path]):
            loaded.image = decode_image(data, max_pixels=settings.decode.max_pixels)
        loaded.decode_ms = 1000 * (time.perf_counter() - middle)
    except ItemError as error:
        loaded.error = error
    return loaded


_PIXELS_SCHEMA = pa.schema(
    [
        ("sha256", pa.string()),
        ("pixels", pa.large_binary()),  # uint8 (height, width, 3) RGB
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("code", pa.string()),
        ("message", pa.string()),
        ("read_ms", pa.float32()),
        ("decode_ms", pa.float32()),
    ]
)


def decode_shard(items: pa.Table, *, settings: Settings, attempts: Attempts) -> pa.Table:
    """Decoding task: planned items → the same with their pixels, or the error that each met."""
    return attempts.at(
        "decoding",
        items,
        _decoder(settings, partial(_tell_hung, attempts)),
        partial(work_apart, make=partial(_decoder, settings), fail=_undecoded),
    )


def _decoder(settings: Settings, report: Report) -> Work:
    def decode(items: pa.Table) -> pa.Table:
        with Watchdog(settings.deadline_s, report) as watchdog, ThreadPoolExecutor(settings.decode_threads) as threads:
            load = partial(_load, settings=settings, watchdog=watchdog)
            return _packed(items, threads.map(load, planned_items(items)))

    return decode


def _undecoded(item: pa.Table, error: ItemError) -> pa.Table:
    return _packed(item, [_Loaded(planned_items(item)[0], error=error)])


def _packed(items: pa.Table, loaded: Iterable[_Loaded]) -> pa.Table:
    rows = [_pack(one) for one in loaded]
    for field in _PIXELS_SCHEMA:
        items = items.append_column(field, pa.array([row[field.name] for row in rows], field.type))
    return items


def _pack(loaded: _Loaded) -> dict[str, Any]:
    height, width = loaded.image.shape[:2] if loaded.image is not None else (None, None)
    return {
        "sha256": loaded.sha256,
        "pixels": loaded.image.tobytes() if loaded.image is not None else None,
        "height": height,
        "width": width,
        "code": loaded.error.code if loaded.error else None,
        "message": loaded.error.message if loaded.error else None,
        "read_ms": loaded.read_ms,
        "decode_ms": loaded.decode_ms,
    }


def _unpack(items: pa.Table, number: int, item: FileInfo) -> _Loaded:
    """The inverse of ``_pack``; the image is a view into the block."""
    row = {name: items[name][number] for name in _PIXELS_SCHEMA.names}
    loaded = _Loaded(item, row["sha256"].as_py(), read_ms=row["read_ms"].as_py(), decode_ms=row["decode_ms"].as_py())
    if row["pixels"].is_valid:
        shape = (row["height"].as_py(), row["width"].as_py(), 3)
        loaded.image = np.frombuffer(row["pixels"].as_buffer(), np.uint8).reshape(shape)
    else:
        loaded.error = ItemError(row["code"].as_py(), row["message"].as_py())
    return loaded


def _build(settings: Settings) -> "Segmenter":
    from segjobs.models.registry import build

    return build(
        settings.model,
        settings.storage,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
    )


@dataclass
class _Prepared:
    """An image at the network's size; the original's pixels are let go, its size is kept."""

    loaded: _Loaded
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
        self._decoders = ThreadPoolExecutor(settings.decode_threads, "decode", initializer=compute_single_threaded)
        self._encoders = ThreadPoolExecutor(2, "encode", initializer=compute_single_threaded)
        self._device = ThreadPoolExecutor(1, "device")
        self._turn = Lock()
        # An actor that dies in its constructor is started again and again: say why at the first shard instead.
        self._broken: SegjobsError | None = None
        try:
            self._segmenter = self._device.submit(_build, settings).result()
        except SegjobsError as error:
            self._broken = error
        self._watchdog = Watchdog(settings.deadline_s, report or partial(_tell_hung, attempts))

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
            loaded = _Loaded(planned_items(item)[0], error=error)
            return rows_table([self._failed(loaded)], TIMES_SCHEMA, item)

        with self._turn, set_aside(self._segmenter, self._device):
            return work_apart(items, partial(_child_of, self._settings), fail)

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
        ahead = 2 * self._settings.batch_size + self._settings.decode_threads

        def prepare(number: int) -> _Prepared:
            item = planned[number]
            loaded = _unpack(items, number, item) if packed else _load(item, self._settings, self._watchdog)
            with self._watchdog.holding([item.path]):
                return self._prepare(loaded)

        futures = (self._decoders.submit(prepare, number) for number in range(len(planned)))
        window = deque(islice(futures, ahead))

        def results() -> Iterator[_Prepared]:
            while window:
                yield window.popleft().result()
                window.extend(islice(futures, 1))

        return results()

    def _prepare(self, loaded: _Loaded) -> _Prepared:
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

    def _failed(self, loaded: _Loaded, *, forward_ms: float = 0.0) -> dict[str, Any]:
        assert loaded.error is not None  # noqa: S101
        row = failed_row(loaded.item, self._settings.author, loaded.error, sha256=loaded.sha256)
        return {**row, **_times(loaded), "forward_ms": forward_ms, "encode_ms": 0.0}


def _child_of(settings: Settings, report: Report) -> Work:
    """In a child process: a labeller of its own."""
    return Labeller(settings, report=report).label


def _tell_hung(attempts: Attempts | None, names: list[str]) -> None:
    assert attempts is not None  # noqa: S101
    node = ray.util.get_node_ip_address()
    attempts.tell(f"a worker on {node} hung for longer than compute.batch_deadline_s on {names!r}: it is ended")


def _times(loaded: _Loaded) -> dict[str, float]:
    return {"read_ms": loaded.read_ms, "decode_ms": loaded.decode_ms}


def _settings(config: LabelConfig, storage: Storage, job: Job, card: ModelCard, lay: Layout) -> Settings:
    return Settings(
        storage=storage,
        author=Author(job.run_id, card.label),
        model=config.model,
        card=card,
        decode=config.decode,
        postprocess=config.postprocess,
        batch_size=config.compute.batch_size,
        precision=config.compute.precision,
        device=lay.device,
        threads=lay.threads,
        decode_threads=config.compute.decode_threads,
        deadline_s=config.compute.batch_deadline_s,
    )
