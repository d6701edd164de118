"""Label and prepare jobs without Ray: the same plan, stages, parts and run.json, a shard at a time in this process.

What only asks which masks come out needs no cluster, whose start and whose workers' imports take most of a small job.
"""

from dataclasses import replace

from segjobs.config import LabelConfig, PrepareConfig
from segjobs.jobs.engine.adopt import adopt_run
from segjobs.jobs.engine.executor import InProcess
from segjobs.jobs.engine.layout import Layout
from segjobs.jobs.engine.listing import plan_input
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.run import run_job
from segjobs.jobs.engine.summary import print_summary
from segjobs.jobs.label.job import _identity, _settings, make_job, resolve_model, stages_of
from segjobs.jobs.label.redo import open_redo
from segjobs.jobs.prepare.job import prepare
from segjobs.results import DryRun, PrepareResult, RunResult
from segjobs.storage import Storage

LAYOUT = Layout(min_actors=1, max_actors=1, cpus_per_actor=1, gpus_per_actor=0, threads=2, decode="actor")


def label_in_process(config: LabelConfig) -> RunResult:
    """Run the job that ``config`` describes, from its beginning to run.json and its summary."""
    storage = Storage(config.storage)
    card = resolve_model(config, storage)
    progress = Progress("label")
    redo = open_redo(config.redo, storage, _identity(config, card))
    job = make_job(config, plan_input(config, storage, progress), card, redo)
    job = adopt_run(storage, job).job
    settings = replace(_settings(config, storage, job, card, LAYOUT), redo=redo)
    summary = run_job(storage, job, stages_of(settings, LAYOUT), progress, executor=InProcess())
    return print_summary(summary, config.max_failed_fraction)


def prepare_in_process(config: PrepareConfig, *, dry_run: bool = False) -> PrepareResult | DryRun:
    """Run or continue the job that ``config`` describes."""
    return prepare(config, dry_run=dry_run, executor=InProcess())
