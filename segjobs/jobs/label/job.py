"""Label a collection: images in, a manifest of predicted masks out.

    plan ─→ [decode tasks] ─→ actors: read, decode, prepare │ forward │ restore, RLE ─→ writer ─→ run.json

A shard stays one block all the way. ``decode.py`` is what happens to it in tasks, ``predictor.py`` in actors.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from segjobs.config import LabelConfig, TilesConfig, digest, later
from segjobs.jobs.engine.adopt import Adopted, adopt_run, moved_line
from segjobs.jobs.engine.cluster import connect, expected
from segjobs.jobs.engine.executor import Actors, Executor, Stage, Tasks
from segjobs.jobs.engine.layout import DECODE_CPUS, Layout, layout
from segjobs.jobs.engine.listing import pinned, plan_input
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.ray_executor import RayExecutor, storage_workers
from segjobs.jobs.engine.run import Summary, run_job, summary_of_finished
from segjobs.jobs.engine.shards import Job
from segjobs.jobs.engine.shared_disk import check_shared
from segjobs.jobs.engine.standing import check_writable
from segjobs.jobs.engine.summary import dry_run_of, print_summary
from segjobs.jobs.label.actor import labelling
from segjobs.jobs.label.decode import Decoding, decoding_tasks
from segjobs.jobs.label.predictor import Settings
from segjobs.jobs.label.redo import Redo, open_redo, redoing
from segjobs.manifest.plan import Plan, first_there
from segjobs.manifest.rows import Author
from segjobs.manifest.schema import Footer, ModelCard, ModelFacts
from segjobs.models.licence import licence_lines
from segjobs.results import DryRun, RunResult
from segjobs.sources.bands import Bands, pixels_of
from segjobs.storage import Storage

_SHARDS_PER_ACTOR = 2  # one decodes while the other is on the device
_SHARDS_IN_FLIGHT = _SHARDS_PER_ACTOR + 1  # and one ready
_LATER = (
    "storage.max_item_bytes",
    "input.bands",
    "input.range",
    "uncertainty",
    "model.runtime",
    "model.precision",
)
"""Keys of an identity that joined it when runs had been made without them."""
_WAITING = 1.0  # masks are dear: few shards shall be lost with a driver whose store is slow


def label(config: LabelConfig, *, dry_run: bool = False) -> RunResult | DryRun:
    """Run or continue the job that ``config`` describes; prints the summary on standard error.

    Raises a SegjobsError for what stops the whole job. ``dry_run`` only reports what would be done.
    """
    progress = Progress("label")
    storage = Storage(config.storage)
    # A name, a file or a setting that does not fit is said before a Ray is started for it.
    with progress.phase("weights", f"loading {config.model.name}"):
        card = resolve_model(config, storage)
    given, config = config, pinned(config, storage)
    plan = plan_input(config, storage, progress)
    redo = open_redo(config.redo, storage, _identity(config, card))
    adopted = adopt_run(storage, make_job(config, plan, card, redo))
    if adopted.moved:  # of another version than today's, which its plan does not name
        adopted = replace(adopted, job=replace(adopted.job, config=given.model_dump(mode="json")))
    job = adopted.job
    if adopted.run is not None and not dry_run:
        return print_summary(summary_of_finished(storage, job, adopted.run, progress), config.max_failed_fraction)
    check_writable(config.output.uri)
    lay = layout(config.compute, expected(config.compute, progress))
    if dry_run:
        return dry_run_of(adopted, card.label, str(lay))
    connect(config.compute, progress)
    return print_summary(
        label_images(config, storage, adopted, card, lay, redo=redo, progress=progress, executor=RayExecutor()),
        config.max_failed_fraction,
    )


def label_images(
    config: LabelConfig,
    storage: Storage,
    adopted: Adopted,
    card: ModelCard,
    lay: Layout,
    *,
    redo: Redo | None = None,
    progress: Progress,
    executor: Executor,
) -> Summary:
    """Run or continue the run that is begun or to be, to its run.json. Raises a SegjobsError."""
    job, verb = adopted.job, progress.verb
    if adopted.moved:
        progress.note(f"{verb}: {moved_line(job.uri, adopted.moved)}")
    progress.note(f"{verb}: {card.label} on {lay}")
    for line in licence_lines(card):
        progress.note(f"{verb}: {line}")
    if isinstance(executor, RayExecutor):
        check_shared(storage, config.output.uri, {"input.uri": first_there(job.plan)})
    settings = _settings(config, storage, job, card, lay)
    if redo is not None:
        settings = replace(settings, redo=redo)
        progress.note(f"{verb}: {redo.images} failed images of {redo.uri} are tried again; its other rows are taken")
    return run_job(storage, job, stages_of(settings, lay), progress, executor=executor)


def resolve_model(config: LabelConfig, storage: Storage) -> ModelCard:
    """The card of the model that ``config`` names. Raises a SegjobsError where it does not fit."""
    from segjobs.models.registry import check_postprocess, check_tiles, resolve  # imports torch

    card = resolve(config.model, storage)
    check_postprocess(card, config.postprocess)
    check_tiles(card, config.tiles, config.postprocess)
    return card


def _identity(config: LabelConfig, card: ModelCard) -> dict[str, Any]:
    """What of model and settings makes other rows."""
    return {
        "model": card.label,
        "decode": config.decode.model_dump(),
        "postprocess": config.postprocess.model_dump(),
        "precision": config.compute.precision,
        **later(config, *_LATER, *(f"tiles.{name}" for name in TilesConfig.model_fields)),
    }


def make_job(config: LabelConfig, plan: Plan, card: ModelCard, redo: Redo | None = None) -> Job:
    """The run of these images by this model, with what tells it from others."""
    identity = {**_identity(config, card), **({"redo": redo.identity} if redo else {})}
    facts = ModelFacts(
        label=card.label,
        digest=card.digest,
        weights=card.weights,
        options=card.options,
        preprocessing=card.preprocessing,
        licence=card.licence,
    )
    footer = Footer(
        task=card.task,
        categories=card.categories,
        config_digest=digest(identity),
        model=facts,
        pixels=pixels_of(config.input),
    )
    return Job(
        "label",
        config.output.uri,
        plan,
        identity,
        footer,
        config.model_dump(mode="json", exclude={"notify"}),  # a webhook is nothing to keep
        grace_s=config.compute.grace_s,
        waiting=_WAITING,
        verify=config.verify,
    )


def _settings(config: LabelConfig, storage: Storage, job: Job, card: ModelCard, lay: Layout) -> Settings:
    from segjobs.models.preparing import preparing_of

    return Settings(
        decoding=Decoding(
            storage,
            config.decode.max_pixels,
            config.compute.decode_threads,
            config.compute.batch_deadline_s,
            config.tiles.most_whole_pixels,
            Bands.of(pixels_of(config.input)),
            preparing_of(config.model, card) if lay.decode == "task" else None,
        ),
        author=Author(job.run_id, card.label),
        model=config.model,
        card=card,
        postprocess=config.postprocess,
        batch_size=config.compute.batch_size,
        precision=config.compute.precision,
        device=lay.device,
        threads=lay.threads,
        tiles=config.tiles,
        uncertainty=config.uncertainty,
    )


# --- the stages ----------------------------------------------------------------------------


def most_in_flight(lay: Layout, cpus: float) -> int:
    """So many shards at most are begun and not published: at the actors, with the writers, or waiting for those."""
    return _SHARDS_IN_FLIGHT * lay.max_actors + int((1 + _WAITING) * storage_workers(cpus))


def stages_of(settings: Settings, lay: Layout) -> list[Stage]:
    """Blocks of planned items → blocks of manifest rows."""
    labelling_actors = Actors(
        least=lay.min_actors,
        most=lay.max_actors,
        cpus=lay.cpus_per_actor,
        gpus=lay.gpus_per_actor,
        at_once=_SHARDS_PER_ACTOR,
        in_flight=_SHARDS_IN_FLIGHT,
    )
    make = partial(labelling, settings)
    if settings.redo is not None:
        make = partial(redoing, make, settings.redo)
    label_stage = Stage("labelling", make, labelling_actors)
    if lay.decode == "actor" or settings.redo is not None:  # a task would decode what has its row already
        return [label_stage]
    # One CPU against the actors' share: unequal resources keep Ray Data from fusing the two stages.
    return [Stage("decoding", partial(decoding_tasks, settings.decoding), Tasks(DECODE_CPUS)), label_stage]
