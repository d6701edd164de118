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
    Uncertainty,
    Verify,
)
from segjobs.errors import ItemCode
from segjobs.redact import is_secret_name


class RetryConfig(Section):
    """Images that failed in an earlier night, tried again."""

    codes: list[ItemCode] = Field(
        default_factory=lambda: ["NOT_FOUND", "CHANGED", "TIMEOUT", "GPU_OOM", "CRASHED"],
        description="failure codes that are tried again; [] tries none",
    )
    times: int = Field(default=3, ge=1, description="how often at most, a night each; a changed file begins anew")


class IcebergConfig(Section):
    """Nights appended to a table of an Iceberg catalogue, by reference."""

    table: str | None = Field(
        default=None,
        pattern=r"^[^\s.]+(\.[^\s.]+)+$",
        description="namespace.table that gets each night's parts; made where it is not there; null: none",
    )
    catalog: str = Field(
        default="default",
        description="name of the catalogue in ~/.pyiceberg.yaml or the environment, where its credentials are",
    )
    properties: dict[str, str] = Field(
        default_factory=dict,
        description="properties of the catalogue besides, such as {type: rest, uri: …}; no secrets",
    )

    @field_validator("properties")
    @classmethod
    def _check_properties(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if is_secret_name(name.replace("-", "_")):
                raise ValueError(f"{name} is a secret; put it into ~/.pyiceberg.yaml or PYICEBERG_CATALOG__… instead")
        return value


class PublishConfig(Section):
    """Where nights are published besides the collection."""

    iceberg: IcebergConfig = Field(default_factory=IcebergConfig)


class NightlyConfig(JobConfig):
    """Bring a collection of masks up to date with images that come, change and go; run it every night."""

    collection: CollectionPlace
    input: InputConfig
    model: LabellingModelConfig
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    tiles: TilesConfig = Field(default_factory=TilesConfig)
    postprocess: PostprocessConfig = Field(default_factory=PostprocessConfig)
    uncertainty: Uncertainty = True
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
    publish: PublishConfig = Field(default_factory=PublishConfig)
    price_per_hour: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="of the machines, for what --dry-run says a night would cost",
    )
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    shard: ShardConfig = Field(default_factory=ShardConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    verify: Verify = "receipts"
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
