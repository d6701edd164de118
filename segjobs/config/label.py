"""``flows/label.py``."""

from pydantic import Field, ValidationInfo, field_validator

from segjobs.config.contradictions import contradiction
from segjobs.config.sections import (
    ComputeConfig,
    DecodeConfig,
    FailedFraction,
    InputConfig,
    JobConfig,
    ModelConfig,
    OutputConfig,
    PostprocessConfig,
    Section,
    ShardConfig,
    StorageConfig,
)
from segjobs.config.uris import Uri
from segjobs.errors import ItemCode


class RedoConfig(Section):
    """Failed images of a finished run, tried again by a new one."""

    uri: Uri | None = Field(
        default=None,
        description="a finished run of the same model and settings: its good rows are taken as they are, and what failed, changed or came is labelled",
    )
    codes: list[ItemCode] | None = Field(
        default=None, description="failure codes to try again, such as [TIMEOUT, GPU_OOM]; null takes all"
    )

    @field_validator("codes")
    @classmethod
    def _check_effect(cls, value: list[ItemCode] | None, info: ValidationInfo) -> list[ItemCode] | None:
        if value is not None and info.data.get("uri", "") is None:
            raise contradiction("tells which failures of redo.uri to try again; give that too")
        return value


class LabelConfig(JobConfig):
    """Segment every image of a collection into a mask manifest."""

    input: InputConfig
    output: OutputConfig
    model: ModelConfig
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    postprocess: PostprocessConfig = Field(default_factory=PostprocessConfig)
    redo: RedoConfig = Field(default_factory=RedoConfig)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    shard: ShardConfig = Field(default_factory=ShardConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    max_failed_fraction: FailedFraction = 0.01
    fail_on_empty: bool = Field(
        default=True, description="an input without any image is an error; false makes an empty manifest of it"
    )
