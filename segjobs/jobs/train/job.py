"""Train: manifests of truth in, a model directory out that ``label``, ``evaluate`` and ``train`` take as weights.

    open manifests → classes → index of rows → Ray Train: workers, fed by Ray Data ─→ checkpoints ─→ model directory
                                                    └─ messages ─→ progress

``output.uri/train.json`` is written first and names the training; with ``model.json`` it is finished. The same command
in between goes on from the last checkpoint; other inputs or settings are refused.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from segjobs import __version__
from segjobs.config import SourceConfig, TrainConfig, digest, later
from segjobs.errors import ConfigError, ConflictError
from segjobs.jobs.engine.cluster import connect
from segjobs.jobs.engine.layout import Share
from segjobs.jobs.engine.progress import Progress, clock
from segjobs.jobs.engine.ray_errors import own_error
from segjobs.jobs.engine.ray_private import lean_training
from segjobs.jobs.engine.shared_disk import check_shared
from segjobs.jobs.engine.standing import check_writable, differences, read_standing_json, unlike
from segjobs.jobs.engine.terminal import Terminal
from segjobs.jobs.engine.waits import TASK, Need, Waits
from segjobs.jobs.train.division import Division, divide
from segjobs.jobs.train.feed import Feed, Order
from segjobs.jobs.train.follow import MailboxHandle, follow, open_mailbox
from segjobs.jobs.train.index import Index, Shown, by_origin, class_index, class_list, make_index, open_source
from segjobs.manifest.parts import Run, footer_of, open_run
from segjobs.manifest.schema import Category, ModelCard
from segjobs.manifest.seal import damaged, open_json, sealed_json
from segjobs.models.weights import Weights
from segjobs.narrow import is_object
from segjobs.results import TrainResult
from segjobs.storage import Storage, join
from segjobs.training.examples import ExampleSource

if TYPE_CHECKING:
    from segjobs.jobs.train.task import TrainTask

PLAN, DESCRIPTION = "train.json", "model.json"


def train(config: TrainConfig) -> TrainResult:
    """Train as ``config`` says, go on, or tell that it is done; prints the scores on standard error.

    Raises a SegjobsError for what stops the training.
    """
    progress = Progress("train")
    storage = Storage(config.storage)
    # A name, a file or a setting that does not fit is said before a Ray is started for it.
    with progress.phase("weights", f"loading {config.model.name}"):
        start = open_start(config, storage)
    finished = storage.exists(join(config.output.uri, DESCRIPTION))
    if finished or storage.exists(join(config.output.uri, PLAN)):
        _check_identity(storage, config, _identity(config, start, None))
    if finished:
        progress.note(f"nothing to do: {join(config.output.uri, DESCRIPTION)} is there")
    else:
        check_writable(config.output.uri)
        have = connect(config.compute, progress)
        check_shared(storage, config.output.uri, {source.key: source.run.uri for source in start.sources})
        _run(config, storage, start, divide(config.compute, have), progress)
    return _print(storage, config.output.uri)


# --- before the start ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """What the config names: the first of ``sources`` is ``data.uri``."""

    categories: list[Category]
    sources: list[ExampleSource]
    validation: ExampleSource | None
    card: ModelCard
    weights: Weights


def open_start(config: TrainConfig, storage: Storage) -> Start:
    """Open the manifests, settle the classes, find the weights. Raises a SegjobsError where they do not suit."""
    from segjobs.models.learning import resolve_start, task_to_learn
    from segjobs.training.batch_norms import check_batch

    given = open_run(storage, config.data.uri)
    task = task_to_learn(config.model, footer_of(given).task)
    keyed = {"data.uri": config.data, **{f"data.mix.{n}.uri": one for n, one in enumerate(config.data.mix)}}
    held_out = config.validation
    validation = SourceConfig(uri=held_out.uri, origin=held_out.origin) if held_out.uri else None
    runs: dict[str, tuple[SourceConfig, Run]] = {}
    for key, source in {**keyed, **({"validation.uri": validation} if validation else {})}.items():
        runs[key] = (source, open_source(key, source, storage, task))
    categories = class_list(runs["data.uri"][1], config.classes, config.model.categories, task)
    names = [category.name for category in categories]
    sources = {
        key: ExampleSource(key, source, run, class_index(key, run, config.classes, names, task))
        for key, (source, run) in runs.items()
    }
    held = sources.pop("validation.uri", None)
    card, weights = resolve_start(config.model, categories, storage)
    if card.task != task:
        raise ConfigError(
            f"model.name {config.model.name!r} gives {card.task} masks, and {config.data.uri} is a manifest of "
            f"{footer_of(given).task} ones"
        )
    check_batch(config, card)
    return Start(categories, list(sources.values()), held, card, weights)


def _identity(config: TrainConfig, start: Start, step_size: int | None) -> dict[str, object]:
    """What makes two trainings the same, as JSON. The number of workers does not, the images of a step do."""
    dumped = config.model_dump(mode="json")
    identity: dict[str, object] = {
        "data": [
            {
                **source.config.model_dump(include={"weight", "min_confidence", "min_score"}),
                **later(source.config, "origin", "human_weight"),
                **_origin(source.run),
            }
            for source in start.sources
        ],
        "validation": {
            **{key: dumped["validation"][key] for key in ("share", "images", "every_epochs")},
            **later(config.validation, "origin"),
            **(_origin(start.validation.run) if start.validation else {}),
        },
        "categories": [category.name for category in start.categories],
        "model": {
            "name": start.card.name,
            "options": dict(start.card.options),
            "preprocessing": dict(start.card.preprocessing),
            "weights": start.weights.sha256,
            "seed": config.model.seed,
        },
        **{key: dumped[key] for key in ("classes", "augment", "loss", "optimiser", "schedule", "seed")},
        "precision": config.compute.precision,
        **later(config, "decode.max_pixels", "storage.max_item_bytes", "model.licence", "tiles.size"),
    }
    if step_size is not None:
        identity["step_size"] = step_size
    return identity


def _origin(run: Run) -> dict[str, str]:
    """A manifest by its content."""
    return {"run_id": run.info.run_id, "parts": digest([part.sha256 for part in run.parts])[:16]}


def _check_identity(storage: Storage, config: TrainConfig, identity: Mapping[str, object]) -> None:
    """Raise ConflictError where another training stands at the output, with what differs."""
    plan = read_standing_json(storage, join(config.output.uri, PLAN))
    if plan is None:
        raise ConflictError(
            f"{config.output.uri} holds a model that no training of this project made there; choose a new output.uri"
        )
    standing = plan.get("identity")
    if not is_object(standing):
        raise damaged(join(config.output.uri, PLAN), "it has no identity", mend="choose a new output.uri")
    if lines := differences(standing, {**standing, **identity}, deep=True):
        finished = storage.exists(join(config.output.uri, DESCRIPTION))
        raise unlike(f"{config.output.uri} holds another training", lines, "one", finished=finished)


# --- the training -------------------------------------------------------------------------------


def _run(config: TrainConfig, storage: Storage, start: Start, division: Division, progress: Progress) -> None:
    from segjobs.jobs.train.worker import train_loop

    mailbox = open_mailbox()
    task = make_task(config, storage, start, division, (mailbox, progress))
    plan = {"identity": task.identity, "version": __version__}
    if not storage.put_if_absent(join(config.output.uri, PLAN), sealed_json(plan)):
        _check_identity(storage, config, task.identity)
    gpus = {"GPU": division.gpus} if division.gpus else {}
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"task": task},
        torch_config=TorchConfig(backend="nccl" if division.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=division.workers,
            use_gpu=division.gpus > 0,
            resources_per_worker={"CPU": division.cpus, **gpus},
        ),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=0)),
    )
    need = Need("a training worker", Share(division.cpus, division.gpus))
    try:
        with lean_training(), Waits(progress, [need]):
            follow(trainer.fit, mailbox, progress, steps=task.feed.steps, grace_s=config.compute.grace_s)
    except (TrainingFailedError, RayError) as error:
        raise _cause(error) or error from error


def _cause(error: BaseException) -> BaseException | None:
    """The error of this project in what a worker raised."""
    for failure in getattr(error, "worker_failures", {}).values():
        found = own_error(failure)
        if found:
            return found
    return own_error(error)


def make_task(
    config: TrainConfig, storage: Storage, start: Start, division: Division, tell: tuple[MailboxHandle, Progress]
) -> "TrainTask":
    """Index the images and lay out the steps: all that a worker needs. ``tell``: whom workers and driver tell.

    Raises ConfigError where there is nothing to learn or to score.
    """
    from segjobs.jobs.train.task import TrainTask
    from segjobs.models.learning import shown_by

    mailbox, progress = tell
    step_size = config.batch_size * config.accumulate * division.workers
    sources = by_origin(start.sources)
    learnt, held = _indexes(config, replace(start, sources=sources), storage, progress)
    order = Order(
        tuple(int((learnt.rows[:, 0] == number).sum()) for number in range(len(sources))),
        tuple(source.config.weight for source in sources),
        config.seed,
    )
    for source, size in zip(sources, order.sizes, strict=True):
        if source.half:
            whose = f"{source.config.origin} masks, each {source.config.weight:g} times an epoch"
            progress.note(f"train: {source.key}: {size} image(s) with {whose}")
    if not order.epoch_size:
        raise ConfigError(f"data.weight: {config.data.weight:g} shows none of {len(learnt.rows)} images in an epoch")
    feed = Feed(
        order=order,
        rows=ray.put(learnt.rows),
        sources=sources,
        storage=storage,
        task=start.card.task,
        resize=shown_by(start.card),
        augment=config.augment,
        step_size=step_size,
        steps=config.schedule.steps or max(1, math.ceil(config.schedule.epochs * order.epoch_size / step_size)),
        max_pixels=config.decode.max_pixels,
        part_px=config.tiles.size,
    )
    identity = _identity(config, start, step_size)
    progress.note(
        f"train: {start.card.name} on {len(learnt.rows)} images, {len(held.rows)} to score on; {feed.steps} steps of "
        f"{step_size}; {division.workers} worker(s) of "
        + (f"{division.gpus:g} GPU" if division.gpus else f"{division.threads} CPU thread(s)")
    )
    return TrainTask(
        config=config,
        identity=identity,
        digest=digest(identity),
        card=start.card,
        weights=start.weights,
        storage=storage,
        feed=feed,
        validation=(start.validation or start.sources[0]) if len(held.rows) else None,
        places=ray.put(_places(held)) if len(held.rows) else None,
        validation_steps=max(1, round(config.validation.every_epochs * order.epoch_size / step_size)),
        amounts=tuple(learnt.amounts.tolist()),
        threads=division.threads,
        mailbox=mailbox,
        facts={"images": len(learnt.rows), "validation_images": len(held.rows)},
    )


def _places(held: Index) -> np.ndarray:
    """The validation has one source, number 0."""
    places = held.rows.copy()
    places[:, 0] = 0
    return places


def _indexes(config: TrainConfig, start: Start, storage: Storage, progress: Progress) -> tuple[Index, Index]:
    """What is learnt, and what is scored. Raises ConfigError where there is nothing to learn or to score."""
    from segjobs.models.learning import shown_by

    classes, shown = len(start.categories), Shown(start.card.task, shown_by(start.card))
    share = 0.0 if start.validation else config.validation.share
    with progress.phase("index", "looking through the manifests"), Waits(progress, [TASK]):
        scored = config.validation.origin
        learnt, held = make_index(start.sources, storage, shown, classes=classes, share=share, scored=scored)
        if start.validation:
            held, _ = make_index([start.validation], storage, shown, classes=classes, share=0.0)
    for what, index in (("", learnt), (" to score on", held)):
        for reason, (count, example) in index.left_out.items():
            progress.note(f"train: {count} image(s){what} left out: {reason}, such as {example!r}")
    if not len(learnt.rows) or not learnt.amounts.any():
        raise ConfigError(f"data.uri: {config.data.uri}: nothing to learn from: {_why(learnt)}")
    if (start.validation or share) and not len(held.rows):
        where = f"validation.uri: {config.validation.uri}" if start.validation else f"validation.share={share:g}"
        raise ConfigError(
            f"{where}: no image to score on: {_why(held)}; give another validation.uri, a larger validation.share, "
            "or validation.share=0 to train without"
        )
    absent = [c.name for c, amount in zip(start.categories, learnt.amounts.tolist(), strict=True) if not amount]
    if absent:
        progress.note(f"train: no image shows {', '.join(absent)}: the model cannot learn it")
    limit = config.validation.images
    return learnt, Index(held.rows[:limit], held.amounts, held.left_out)


def _why(index: Index) -> str:
    found = [f"{count} {reason} (such as {example!r})" for reason, (count, example) in index.left_out.items()]
    return ", ".join(found) or f"{len(index.rows)} images without an object of the classes"


# --- the end ------------------------------------------------------------------------------------


def _print(storage: Storage, uri: str) -> TrainResult:
    """The scores, on standard error."""
    where, mend = join(uri, DESCRIPTION), "move it away and run the command again"
    description = open_json(storage.read(where), where, mend=mend)
    try:
        training, figures = description["training"], description["validation"]
    except KeyError as error:
        raise damaged(where, f"no key {error}", mend=mend) from error
    console = Terminal()
    lines = [
        f"{training['steps']} steps, {training['epochs']:g} epochs, {clock(training['seconds'])}; "
        f"the weights are those of step {training['step_of_the_weights']}"
    ]
    if figures:
        numbers = [(name, value) for name, value in figures.items() if isinstance(value, float)]
        shown = ", ".join(f"{name} {value:.4f}" for name, value in numbers if name not in ("score", "seconds"))
        lines.append(f"validation: {shown}")
        for name, value in figures.get("iou", {}).items():
            lines.append(f"  {name}: IoU {'–' if value is None else f'{value:.4f}'}")
    lines.append(f"model: {uri} (model.weights={uri})")
    for line in lines:
        console.print(line)
    score = figures["score"] if figures else None
    return TrainResult(uri, training["steps"], training["seconds"], score)
