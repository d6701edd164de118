"""``flows/nightly.py``."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from segjobs.config.collection import CollectionPlace
from segjobs.config.contradictions import contradiction
from segjobs.config.label import TilesConfig
from segjobs.config.sections import (
    ComputeConfig,
    DecodeConfig,
    FailedFraction,
    InputConfig,
    JobConfig,
    LabellingModelConfig,
    PostprocessConfig,
    Section,
    ShardConfig,
    StorageConfig,
)
from segjobs.errors import ItemCode


class RetryConfig(Section):
    """Images that failed in an earlier night, tried again."""

    codes: list[ItemCode] = Field(
        default_factory=lambda: ["NOT_FOUND", "CHANGED", "TIMEOUT", "GPU_OOM", "CRASHED"],
        description="failure codes that are tried again; [] tries none",
    )
    times: int = Field(default=3, ge=1, description="how often at most, a night each; a changed file begins anew")


class NightlyConfig(JobConfig):
    """Bring a collection of masks up to date with images that come, change and go; run it every night."""

    collection: CollectionPlace
    input: InputConfig
    model: LabellingModelConfig
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    tiles: TilesConfig = Field(default_factory=TilesConfig)
    postprocess: PostprocessConfig = Field(default_factory=PostprocessConfig)
    retry: RetryConfig = Field(default_factory=RetryConfig)
    stale: Literal["keep", "relabel"] = Field(
        default="keep", description="masks of another model or other settings: keep them, or label these images anew"
    )
    budget_images: int | None = Field(
        default=None, ge=1, description="with stale=relabel: so many a night at most, the oldest masks first; null: all"
    )
    gone: Literal["mark", "keep"] = Field(
        default="mark",
        description="images that are no longer listed: mark their rows as gone, or keep them as they are",
    )
    gate: list[str] = Field(
        default_factory=list,
        description="rules that a night must meet, else exit code 4: 'failed <= 2%', 'drift[car] <= 0.2', 'confidence drop <= 0.05'",
    )
    on_gate: Literal["hold", "publish"] = Field(
        default="hold",
        description="a night that misses its gate: hold it until `segjobs collection publish RUN`, or publish it all the same",
    )
    price_per_hour: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="of the machines, for what --dry-run says a night would cost",
    )
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    shard: ShardConfig = Field(default_factory=ShardConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    max_failed_fraction: FailedFraction = 0.01
    fail_on_empty: bool = Field(
        default=True, description="an input without any image is an error; false marks every image as gone"
    )

    @field_validator("budget_images")
    @classmethod
    def _check_budget(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("stale") == "keep":
            raise contradiction("has no effect with stale=keep, which labels none of them anew; drop it")
        return value
