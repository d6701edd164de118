"""``flows/evaluate.py``."""

import re
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from segjobs.config.contradictions import check_effect, contradiction
from segjobs.config.sections import ClusterConfig, JobConfig, OutputConfig, Overwrite, Section, StorageConfig
from segjobs.config.uris import Uri

_FORMATS = {"ids": ("png",), "void_ids": ("png",), "suffix": ("png",), "images": ("coco_results",)}
"""Keys of predictions that mean something to these values of ``format`` only."""

COLUMN = "column:"
"""What precedes the name of a column in ``bootstrap.group``."""


class ManifestRef(Section):
    uri: Uri = Field(
        description="a run's folder (the one that holds run.json), or a collection, out/street or out/street@7"
    )


class PredictionsConfig(Section):
    """Masks to score: a manifest of this project, or what other tools wrote."""

    uri: Uri = Field(
        description="a run's folder (manifest), a folder of label PNGs (png), or a COCO results JSON (coco_results)",
    )
    format: Literal["manifest", "png", "coco_results"] = Field(
        default="manifest", description="manifest; or other tools' masks: png (id maps, matched by stem), coco_results"
    )
    ids: list[int] | None = Field(
        default=None, description="png: the pixel values of the truth's classes, in their order; null takes their ids"
    )
    void_ids: list[int] = Field(default_factory=list, description="png: pixel values that mean not predicted")
    suffix: str = Field(default="", description="png: what a mask's stem has behind the image's stem")
    images: Uri | None = Field(
        default=None,
        validate_default=True,
        description="coco_results: COCO JSON whose images and categories the results' numbers refer to",
    )

    @field_validator(*_FORMATS)
    @classmethod
    def _check_effect(cls, value: object, info: ValidationInfo) -> object:
        check_effect(cls, value, info, _FORMATS, of="predictions.format")
        return value

    @field_validator("images")
    @classmethod
    def _check_images(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("format") == "coco_results":
            raise contradiction(
                "missing; COCO results hold numbers only: name the COCO JSON whose images and categories they refer to"
            )
        return value


class SlicesConfig(Section):
    """Scores of parts of the images, a row each in the report."""

    uri: Uri | None = Field(
        default=None, description="table (.csv or .parquet) with a column image_id; its other columns slice the images"
    )
    columns: list[str] | None = Field(default=None, description="columns to slice by; null takes all of the table")
    size: bool = Field(default=True, description="slice by the image's size: small, medium and large by its pixels")
    groups: dict[str, list[str]] = Field(
        default_factory=dict, description="groups of classes, such as {vehicles: [car, bus]}: mean over the group"
    )


class BootstrapConfig(Section):
    """Intervals by resampling images."""

    resamples: int = Field(default=2000, ge=0, le=100_000, description="resamples of the images; 0 gives no intervals")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="confidence of the intervals")
    seed: int = Field(default=0, ge=0, description="seed of the resamples")
    group: str | None = Field(
        default=None,
        description="draw images together that belong together (frames of a video): 'folder', 'column:NAME' of slices.uri, or a regex on image_id whose first group (or match) is the key",
    )

    @field_validator("group")
    @classmethod
    def _check_group(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(COLUMN):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"no regular expression ({error}); expected one, 'folder' or 'column:NAME'") from None
        return value


class BoundaryConfig(Section):
    """Boundary IoU and boundary F, semantic: another pass over dense masks, so off by default."""

    enabled: bool = Field(default=False, description="compute boundary IoU and boundary F")
    dilation_ratio: float = Field(
        default=0.02, gt=0, le=1, description="boundary IoU: width of the band as a share of the image's diagonal"
    )
    tolerance_px: int = Field(default=3, ge=0, description="boundary F: pixels that two boundaries may be apart")


class DisputesConfig(Section):
    """Truth masks that a confident model disputes: candidates for errors in the labels."""

    limit: int = Field(default=50, ge=0, description="most candidates in the report; 0 looks for none")
    min_score: float = Field(default=0.8, ge=0, le=1, description="least score of the prediction that disputes")
    min_px: int = Field(default=100, ge=1, description="least number of disputed pixels")


class EvaluateConfig(JobConfig):
    """Score predictions against a manifest of truth, compare two models, and gate a release."""

    predictions: PredictionsConfig
    truth: ManifestRef | None = Field(
        default=None, description="manifest of truth; null compares predictions with baseline, without truth"
    )
    baseline: ManifestRef | None = Field(
        default=None,
        validate_default=True,
        description="an earlier evaluation, or another model's manifest, to compare with image by image",
    )
    output: OutputConfig
    overwrite: Overwrite = False
    missing: Literal["worst", "skip", "error"] = Field(
        default="worst",
        description="a missing or failed prediction: wrong on every labelled pixel, left out (and counted), or an error",
    )
    rename: dict[str, str | None] = Field(
        default_factory=dict,
        description="class names of the predictions → the truth's, such as {person: pedestrian}; null: counts as not predicted; '*' stands for all that the truth does not have",
    )
    ignore_classes: list[str] = Field(
        default_factory=list,
        description="classes of the truth that are not scored: their pixels count as unlabelled, and a prediction of one as none",
    )
    gate: list[str] = Field(
        default_factory=list,
        description="rules that must hold, else exit code 4: 'miou >= 0.6', 'iou[person] >= 0.5', 'miou drop <= 0.01 with 95% confidence'",
    )
    slices: SlicesConfig = Field(default_factory=SlicesConfig)
    bootstrap: BootstrapConfig = Field(default_factory=BootstrapConfig, validate_default=True)
    boundary: BoundaryConfig = Field(default_factory=BoundaryConfig)
    disputes: DisputesConfig = Field(default_factory=DisputesConfig)
    max_failed_fraction: float = Field(
        default=1.0, ge=0, le=1, description="more failed predictions than this share of the images: exit code 3"
    )
    max_pixels: int = Field(default=100_000_000, ge=1, description="png predictions: larger masks are refused")
    compute: ClusterConfig = Field(default_factory=ClusterConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)

    @field_validator("bootstrap")
    @classmethod
    def _check_column(cls, value: BootstrapConfig, info: ValidationInfo) -> BootstrapConfig:
        of_table = value.group is not None and value.group.startswith(COLUMN)
        if of_table and "slices" in info.data and info.data["slices"].uri is None:
            raise contradiction("names a column of slices.uri, which is not given", key="bootstrap.group")
        return value

    @field_validator("baseline")
    @classmethod
    def _check_reference(cls, value: ManifestRef | None, info: ValidationInfo) -> ManifestRef | None:
        if value is None and "truth" in info.data and info.data["truth"] is None:
            raise contradiction(
                "missing; name a manifest of truth, or baseline.uri to compare two models without", key="truth.uri"
            )
        return value
