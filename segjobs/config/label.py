"""``flows/label.py``."""

from pydantic import Field

from segjobs.config.sections import (
    ComputeConfig,
    DecodeConfig,
    FailedFraction,
    InputConfig,
    JobConfig,
    ModelConfig,
    OutputConfig,
    PostprocessConfig,
    ShardConfig,
    StorageConfig,
)


class LabelConfig(JobConfig):
    """Segment every image of a collection into a mask manifest."""

    input: InputConfig
    output: OutputConfig
    model: ModelConfig
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    postprocess: PostprocessConfig = Field(default_factory=PostprocessConfig)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    shard: ShardConfig = Field(default_factory=ShardConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    max_failed_fraction: FailedFraction = 0.01
    fail_on_empty: bool = Field(
        default=True, description="an input without any image is an error; false makes an empty manifest of it"
    )
