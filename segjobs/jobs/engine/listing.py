"""The input of a job: its config in, the plan of its images out, with a line for each kind of file that is left out."""

from segjobs.config import LabelConfig, NightlyConfig, PrepareConfig
from segjobs.errors import ConfigError
from segjobs.jobs.engine.progress import Progress
from segjobs.manifest.plan import Plan, make_plan
from segjobs.manifest.table_files import has_table, split_version
from segjobs.sources.images import list_images
from segjobs.sources.left_out import LeftOut
from segjobs.storage import Storage
from segjobs.storage.uris import scheme_of


def pinned(config: LabelConfig, storage: Storage) -> LabelConfig:
    """The config with the version in ``input.uri`` that its collection has now; as it is where it names none."""
    images = config.input
    if scheme_of(images.uri) not in ("file", "s3") or split_version(images.uri)[1] is not None:
        return config
    if not has_table(storage, images.uri):
        return config
    from segjobs.manifest.collection import open_collection  # imports deltalake

    uri = open_collection(storage, images.uri).pinned
    return config.model_copy(update={"input": images.model_copy(update={"uri": uri})})


def plan_input(config: LabelConfig | NightlyConfig | PrepareConfig, storage: Storage, progress: Progress) -> Plan:
    """List and plan ``config.input``. Raises ConfigError where there is no image and that is an error."""
    left_out, images = LeftOut(), config.input
    with progress.phase("listing", f"listing and planning {images.uri}") as listing:
        files = listing.counting(list_images(storage, images, left_out), "images")
        plan = make_plan(files, config.shard, limit=images.limit)
        listing.outcome = f"{plan.items.num_rows} images in {plan.num_shards} shards"
    if not plan.items.num_rows and config.fail_on_empty:
        found = "; ".join(left_out.lines()) or "no file is there"
        raise ConfigError(
            f"input.uri: {images.uri}: no image is found ({found}); correct it or input.include, or set "
            "fail_on_empty=false for an empty manifest"
        )
    for line in left_out.lines():
        progress.note(line)
    return plan
