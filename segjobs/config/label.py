"""``flows/label.py``."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from segjobs.config.contradictions import contradiction
from segjobs.config.sections import (
    MAX_SIDE,
    ComputeConfig,
    DecodeConfig,
    FailedFraction,
    InputConfig,
    JobConfig,
    LabellingModelConfig,
    OutputConfig,
    PostprocessConfig,
    Section,
    ShardConfig,
    StorageConfig,
    Uncertainty,
    Verify,
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


class TilesConfig(Section):
    """Images that are too large to be labelled whole, in overlapping tiles."""

    size: int | None = Field(
        default=None,
        ge=16,
        le=MAX_SIDE,
        description="side of a square tile in pixels, such as 1024: larger images are read and labelled in tiles, in the memory of one row of them; null labels every image whole. model.resize applies to a tile",
    )
    overlap: float = Field(
        default=0.25, ge=0, le=0.5, description="least share of a tile that its neighbour covers as well"
    )
    blend: Literal["gaussian", "linear", "none"] = Field(
        default="gaussian",
        description="how a semantic model's logits cross over between neighbours; none takes each pixel from the tile whose edge is farther",
    )
    merge: Literal["smaller", "union"] = Field(
        default="smaller",
        description="instances: when two tiles' masks are one object, by their intersection over the smaller or over the union, on the pixels that both tiles see",
    )
    merge_at: float = Field(default=0.5, gt=0, le=1, description="share from which two tiles' masks are one object")
    above_pixels: int | None = Field(
        default=None,
        ge=0,
        description="images of at most so many pixels are labelled whole; null takes those that one tile covers",
    )

    @field_validator("overlap", "blend", "merge", "merge_at", "above_pixels")
    @classmethod
    def _check_effect(cls, value: object, info: ValidationInfo) -> object:
        assert info.field_name is not None, "a validator of a field"  # noqa: S101
        if info.data.get("size", 0) is None and value != cls.model_fields[info.field_name].default:
            raise contradiction("has no effect without tiles; give tiles.size too, such as tiles.size=1024")
        return value

    @property
    def most_whole_pixels(self) -> int | None:
        """Pixels up to which an image is labelled whole; None: there are no tiles."""
        if self.size is None:
            return None
        return self.size**2 if self.above_pixels is None else self.above_pixels


class LabelConfig(JobConfig):
    """Segment every image of a collection into a mask manifest."""

    input: InputConfig
    output: OutputConfig
    model: LabellingModelConfig
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    tiles: TilesConfig = Field(default_factory=TilesConfig)
    postprocess: PostprocessConfig = Field(default_factory=PostprocessConfig)
    uncertainty: Uncertainty = False
    redo: RedoConfig = Field(default_factory=RedoConfig)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    shard: ShardConfig = Field(default_factory=ShardConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    verify: Verify = "receipts"
    max_failed_fraction: FailedFraction = 0.01
    fail_on_empty: bool = Field(
        default=True, description="an input without any image is an error; false makes an empty manifest of it"
    )
