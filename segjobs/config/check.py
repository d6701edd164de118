"""``flows/check.py``."""

from typing import Literal

from pydantic import Field

from segjobs.config.sections import JobConfig, LabellingModelConfig, Precision, StorageConfig


class CheckConfig(JobConfig):
    """Try a model, your own above all, on drawn images: sizes, batches, determinism, threads, NaN."""

    model: LabellingModelConfig
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="where the model computes")
    precision: Precision = "fp32"
    storage: StorageConfig = Field(default_factory=StorageConfig)
