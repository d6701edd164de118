"""``flows/edits.py``."""

from typing import Literal

from pydantic import Field, field_validator

from segjobs.config.collection import CollectionPlace
from segjobs.config.contradictions import contradiction
from segjobs.config.prepare import LabelsConfig
from segjobs.config.sections import (
    DecodeConfig,
    FailedFraction,
    JobConfig,
    ShardConfig,
    StorageConfig,
    TaskComputeConfig,
)


class EditsConfig(JobConfig):
    """Take people's corrections into a collection of masks; no model takes their place any more."""

    collection: CollectionPlace
    labels: LabelsConfig
    classes: dict[str, str | None] = Field(
        default_factory=dict,
        description="class of the collection by class of the labels, where their names differ; null drops one; '*' stands for all others",
    )
    by: str | None = Field(
        default=None,
        min_length=1,
        description="who corrected, as `segjobs collection history` shows it, and as rows do whose label file does not say it itself; null: the user who runs the command",
    )
    unaltered: Literal["take", "leave"] = Field(
        default="take",
        description="masks that the labels hold exactly as the model made them: take them, as a person's who has looked at them, or leave them the model's (a whole export of CVAT, of which nobody has opened every image)",
    )
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    compute: TaskComputeConfig = Field(default_factory=TaskComputeConfig)
    shard: ShardConfig = Field(default_factory=ShardConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    max_failed_fraction: FailedFraction = 0.01

    @field_validator("labels")
    @classmethod
    def _check_missing(cls, value: LabelsConfig) -> LabelsConfig:
        if "missing" in value.model_fields_set and value.missing != "skip":
            raise contradiction(
                f"{value.missing}: an image without correction keeps its masks (skip); drop the key",
                key="labels.missing",
            )
        return value.model_copy(update={"missing": "skip"})
