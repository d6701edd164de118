"""A night's images labelled as an ordinary run of label: the night's config in; its run, and who worked on it, out."""

from dataclasses import dataclass, replace

from segjobs.config import LabelConfig, NightlyConfig, OutputConfig, ShardConfig, shared_fields
from segjobs.jobs.engine.adopt import Adopted
from segjobs.jobs.engine.cluster import connect, expected
from segjobs.jobs.engine.executor import Executor
from segjobs.jobs.engine.layout import Layout, layout
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.ray_executor import RayExecutor
from segjobs.jobs.engine.run import Summary
from segjobs.jobs.engine.shards import Job
from segjobs.jobs.label.job import label_images, make_job
from segjobs.manifest.plan import make_plan
from segjobs.manifest.schema import ModelCard
from segjobs.storage import FileInfo, Storage


@dataclass(frozen=True)
class Machines:
    """What labels: so many GPUs, or where there are none so many CPUs, of the actors."""

    gpus: float
    cpus: float

    @property
    def units(self) -> float:
        return self.gpus or self.cpus

    @property
    def unit(self) -> str:
        return "GPU" if self.gpus else "CPU"


def machines_of(lay: Layout, cpus: float, gpus: float) -> Machines:
    """``cpus``, ``gpus``: of the cluster; of a pool that grows, more actors than it has room for are not counted."""
    taken = lay.max_actors * lay.gpus_per_actor
    return Machines(min(taken, gpus) if gpus else taken, min(lay.max_actors * lay.threads, cpus or lay.threads))


def label_config_of(config: NightlyConfig, output: str) -> LabelConfig:
    return LabelConfig(**{**shared_fields(config, LabelConfig), "output": OutputConfig(uri=output)})


def job_of(
    config: NightlyConfig, card: ModelCard, files: list[FileInfo], output: str = "", *, shard: ShardConfig | None = None
) -> Job:
    """``output``: by default the collection, where nothing of it is written. ``shard``: by default the config's."""
    label_config = label_config_of(config, output or config.collection.uri)
    # The masks are the same with and without it, and a night is known by what makes masks.
    plain = label_config.model_copy(update={"uncertainty": False})
    job = make_job(plain, make_plan(files, shard or config.shard), card)
    return replace(job, config=label_config.model_dump(mode="json"))


def label_run(
    config: LabelConfig,
    storage: Storage,
    adopted: Adopted,
    card: ModelCard,
    progress: Progress,
    executor: Executor | None,
) -> tuple[Summary, Machines]:
    """Run or continue the run; ``executor``: Ray's as a rule. Raises a SegjobsError."""
    have = expected(config.compute, progress)
    lay = layout(config.compute, have)
    if executor is None:
        connect(config.compute, progress)
        executor = RayExecutor()
    summary = label_images(config, storage, adopted, card, lay, progress=progress, executor=executor)
    return summary, machines_of(lay, have.cpus, have.gpus)
