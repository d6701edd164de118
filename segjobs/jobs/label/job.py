"""Label a collection: images in, a manifest of predicted masks out.

    plan ─→ [decode tasks] ─→ actors: read, decode, prepare │ forward │ restore, RLE ─→ writer ─→ run.json

A shard stays one block all the way. ``decode.py`` is what happens to it in tasks, ``predictor.py`` in actors.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from segjobs.config import LabelConfig, digest
from segjobs.errors import ConfigError
from segjobs.jobs.engine.cluster import DECODE_CPUS, Layout, connect, layout
from segjobs.jobs.engine.executor import Actors, Stage, Tasks
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.ray_executor import RayExecutor, storage_workers
from segjobs.jobs.engine.run import adopt_run, run_job, summary_of_finished
from segjobs.jobs.engine.shards import Job
from segjobs.jobs.engine.summary import dry_run_of, print_summary
from segjobs.jobs.label.actor import labelling
from segjobs.jobs.label.decode import Decoding, decoding_tasks
from segjobs.jobs.label.predictor import Settings
from segjobs.manifest.plan import Plan, make_plan
from segjobs.manifest.rows import Author
from segjobs.manifest.schema import Footer, ModelCard, ModelFacts
from segjobs.results import DryRun, RunResult
from segjobs.sources.images import list_images
from segjobs.storage import Storage

_SHARDS_PER_ACTOR = 2  # one decodes while the other is on the device
_SHARDS_IN_FLIGHT = _SHARDS_PER_ACTOR + 1  # and one ready
_WAITING = 1.0  # masks are dear: few shards shall be lost with a driver whose store is slow


def label(config: LabelConfig, *, dry_run: bool = False) -> RunResult | DryRun:
    """Run or continue the job that ``config`` describes; prints the summary on standard error.

    Raises a SegjobsError for what stops the whole job. ``dry_run`` only reports what would be done.
    """
    progress = Progress("label")
    storage = Storage(config.storage)
    with ThreadPoolExecutor(1) as background:
        resolving = background.submit(_resolve, config, storage)  # imports torch while Ray starts
        plan = plan_input(config, storage, progress)
        if dry_run or not storage.exists(f"{config.output.uri.rstrip('/')}/run.json"):
            lay = layout(config.compute, connect(config.compute, progress))
        else:
            lay = None
        with progress.phase("weights", f"loading {config.model.name}"):  # what of it Ray's start has not covered
            card = resolving.result()
    job, run, done = adopt_run(storage, _job(config, plan, card))
    if dry_run:
        assert lay is not None  # noqa: S101
        return dry_run_of(job, card.label, str(lay), done)
    if run is not None:
        summary = summary_of_finished(job, run)
    else:
        lay = lay or layout(config.compute, connect(config.compute, progress))
        progress.note(f"label: {card.label} on {lay}")
        settings = _settings(config, storage, job, card, lay)
        summary = run_job(storage, job, stages_of(settings, lay), progress, executor=RayExecutor())
    return print_summary(summary, config.max_failed_fraction)


def plan_input(config: LabelConfig, storage: Storage, progress: Progress) -> Plan:
    """List and plan ``config.input``. Raises ConfigError where nothing matches and that is an error."""
    with progress.phase("listing", f"listing and planning {config.input.uri}") as listing:
        files = listing.counting(list_images(storage, config.input), "images")
        plan = make_plan(files, config.shard, limit=config.input.limit)
        listing.outcome = f"{plan.items.num_rows} images in {plan.num_shards} shards"
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
    )
    return Job(
        "label",
        config.output.uri,
        plan,
        identity,
        footer,
        config.model_dump(mode="json"),
        grace_s=config.compute.grace_s,
        waiting=_WAITING,
    )


def _settings(config: LabelConfig, storage: Storage, job: Job, card: ModelCard, lay: Layout) -> Settings:
    return Settings(
        decoding=Decoding(
            storage, config.decode.max_pixels, config.compute.decode_threads, config.compute.batch_deadline_s
        ),
        author=Author(job.run_id, card.label),
        model=config.model,
        card=card,
        postprocess=config.postprocess,
        batch_size=config.compute.batch_size,
        precision=config.compute.precision,
        device=lay.device,
        threads=lay.threads,
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
    label_stage = Stage("labelling", partial(labelling, settings), labelling_actors)
    if lay.decode == "actor":
        return [label_stage]
    # One CPU against the actors' share: unequal resources keep Ray Data from fusing the two stages.
    return [Stage("decoding", partial(decoding_tasks, settings.decoding), Tasks(DECODE_CPUS)), label_stage]
