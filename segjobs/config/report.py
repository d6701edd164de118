"""``flows/report.py``."""

from pydantic import Field, ValidationInfo, field_validator

from segjobs.config.contradictions import contradiction
from segjobs.config.sections import (
    ClusterConfig,
    DecodeConfig,
    JobConfig,
    OutputConfig,
    Overwrite,
    Section,
    StorageConfig,
)
from segjobs.config.uris import Uri


class ReportEvaluationConfig(Section):
    uri: Uri | None = Field(
        default=None, description="folder that evaluate wrote (the one that holds report.json); null shows a run alone"
    )


class ReportPredictionsConfig(Section):
    uri: Uri | None = Field(
        default=None,
        description="a run's folder, to show without truth; with evaluation.uri: where its predictions lie, if they moved",
    )


class ReportTruthConfig(Section):
    uri: Uri | None = Field(
        default=None,
        description="with evaluation.uri: where its truth lies, if it moved; null takes the report's place",
    )


class ReportImagesConfig(Section):
    """Which images the page shows."""

    worst: int = Field(default=8, ge=0, le=200, description="images of lowest mIoU; without scores: lowest confidence")
    best: int = Field(default=4, ge=0, le=200, description="images of highest mIoU; without scores: highest confidence")
    random: int = Field(default=8, ge=0, le=200, description="images drawn by the seed")
    disputes: int = Field(default=4, ge=0, le=200, description="images whose labels the model disputes most")
    seed: int = Field(default=0, ge=0, description="seed of the random images")


class ReportConfig(JobConfig):
    """Make one self-contained HTML page of an evaluation, or of a manifest alone."""

    evaluation: ReportEvaluationConfig = Field(default_factory=ReportEvaluationConfig)
    predictions: ReportPredictionsConfig = Field(default_factory=ReportPredictionsConfig, validate_default=True)
    truth: ReportTruthConfig = Field(default_factory=ReportTruthConfig)
    output: OutputConfig
    overwrite: Overwrite = False
    title: str | None = Field(default=None, description="heading of the page; null names the model or the manifest")
    images: ReportImagesConfig = Field(default_factory=ReportImagesConfig)
    thumb_px: int = Field(default=360, ge=32, le=2000, description="longest side of a picture on the page")
    max_bytes: int = Field(
        default=9_500_000, ge=1, description="largest page; where its pictures take more, the last ones are left out"
    )
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    compute: ClusterConfig = Field(default_factory=ClusterConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)

    @field_validator("predictions")
    @classmethod
    def _check_subject(cls, value: ReportPredictionsConfig, info: ValidationInfo) -> ReportPredictionsConfig:
        if value.uri is None and _without_evaluation(info):
            raise contradiction("give one: what evaluate wrote, or a run", key="evaluation.uri, predictions.uri")
        return value

    @field_validator("truth")
    @classmethod
    def _check_truth(cls, value: ReportTruthConfig, info: ValidationInfo) -> ReportTruthConfig:
        if value.uri is not None and _without_evaluation(info):
            raise contradiction("a page shows truth of an evaluation: give evaluation.uri", key="truth.uri")
        return value


def _without_evaluation(info: ValidationInfo) -> bool:
    return "evaluation" in info.data and info.data["evaluation"].uri is None
