"""``flows/review.py``."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from segjobs.config.collection import CollectionPlace
from segjobs.config.contradictions import check_effect, contradiction
from segjobs.config.export import CocoExportConfig, LabelStudioExportConfig
from segjobs.config.sections import DecodeConfig, FailedFraction, JobConfig, Section, StorageConfig
from segjobs.config.uris import Uri

Measure = Literal["auto", "entropy", "entropy_worst", "margin", "margin_worst", "confidence"]

_STRATEGIES = {"measure": ("uncertain",), "against": ("disagree",), "nights": ("new",)}
"""Keys that mean something to these values of ``strategy`` only."""
_FORMATS = {"coco": ("cvat",), "label_studio": ("label_studio",)}


class AgainstConfig(Section):
    """What the masks are compared with (disagree)."""

    uri: Uri | None = Field(
        default=None,
        description="another manifest of the images, or a version of the collection: out/street@6; null: the newest version whose masks of some images were others",
    )


class ReviewConfig(JobConfig):
    """Pick images of a collection for people, and write tasks with their masks; nothing is sent twice."""

    collection: CollectionPlace
    count: int = Field(default=200, ge=1, le=100_000, description="images to pick")
    strategy: Literal["uncertain", "disagree", "new", "random", "diverse"] = Field(
        default="uncertain",
        description="uncertain (by measure), disagree (masks unlike against), new (of the last nights, at random), random, or diverse (far from each other and from what was sent, by look and classes)",
    )
    measure: Measure = Field(
        default="auto",
        description="uncertain: by which column; auto takes entropy where rows have it, and confidence for the others",
    )
    against: AgainstConfig = Field(default_factory=AgainstConfig)
    nights: int = Field(default=1, ge=1, description="new: of so many nights that labelled anything, the last ones")
    seed: int = Field(default=0, ge=0, description="of what is drawn at random")
    pool: int | None = Field(
        default=None,
        ge=1,
        description="images that are read at most, to leave out near-duplicates and to measure variety; null takes ten times count",
    )
    near_duplicates: int | None = Field(
        default=4,
        ge=0,
        le=63,
        description="bits of 64 by which perceptual hashes of two pictures of one thing differ at most: of these only the first is picked; null leaves none out",
    )
    format: Literal["label_studio", "cvat"] = Field(
        default="label_studio", description="tasks with predictions for Label Studio, or a COCO JSON as CVAT imports it"
    )
    coco: CocoExportConfig = Field(default_factory=CocoExportConfig)
    label_studio: LabelStudioExportConfig = Field(default_factory=LabelStudioExportConfig)
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    max_failed_fraction: FailedFraction = 0.01

    @field_validator(*_STRATEGIES)
    @classmethod
    def _check_strategy(cls, value: object, info: ValidationInfo) -> object:
        check_effect(cls, value, info, _STRATEGIES, of="strategy")
        return value

    @field_validator(*_FORMATS)
    @classmethod
    def _check_format(cls, value: object, info: ValidationInfo) -> object:
        check_effect(cls, value, info, _FORMATS, of="format")
        return value

    @field_validator("pool")
    @classmethod
    def _check_pool(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value < info.data.get("count", 0):
            raise contradiction("is less than count, and would never fill it; raise it, or drop it")
        return value
