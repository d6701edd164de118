"""Label a collection: images in, a manifest of predicted masks out.

    plan ─→ [decode tasks] ─→ actors: read, decode, prepare │ forward │ restore, RLE ─→ writer ─→ run.json

A shard stays one block all the way. ``labeller.py`` is what happens to it in tasks and actors.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from segjobs.config import LabelConfig, digest
from segjobs.errors import ConfigError, ExitCode
from segjobs.jobs.cluster import Layout, connect, layout
from segjobs.jobs.decoding import Decoding
from segjobs.jobs.labeller import Settings, label_stages
from segjobs.jobs.progress import Progress
from segjobs.jobs.sharded import adopt_run, run_job, summary_of_finished
from segjobs.jobs.shards import Job
from segjobs.jobs.summary import print_dry_run, print_summary
from segjobs.manifest.plan import Plan, make_plan
from segjobs.manifest.rows import Author
from segjobs.manifest.schema import Footer, ModelCard
from segjobs.sources.images import list_images
from segjobs.storage import Storage


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
