"""``flows/train.py``."""

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from segjobs.config.contradictions import contradiction
from segjobs.config.sections import (
    MAX_SIDE,
    ClusterConfig,
    DecodeConfig,
    JobConfig,
    NetworkConfig,
    OutputConfig,
    Precision,
    Section,
    StorageConfig,
    _check_weights,
    check_precision,
)
from segjobs.config.uris import Uri


def _check_crop(value: object) -> object:
    if value is None:
        return None
    given = value.split("x") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    sides = [str(side) for side in given]
    if not all(side.isdecimal() and int(side) > 0 for side in sides) or len(sides) not in (1, 2):
        raise ValueError("expected pixels: 512, 360x480 or [360, 480] (height x width), or null")
    return int(sides[0]), int(sides[-1])


def _check_class_weights(value: object) -> object:
    if value is None or value == "balanced":
        return value
    numbers = list(value.values()) if isinstance(value, dict) else [None]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n < math.inf for n in numbers):
        raise ValueError("expected 'balanced', weights by class name such as {car: 2.0} (0 or more), or null")
    return value


class AugmentConfig(Section):
    """How each image is changed at random before the model learns from it; its masks follow."""

    enabled: bool = Field(default=True, description="false shows the images as they are, uncropped")
    crop_px: Annotated[tuple[int, int] | None, BeforeValidator(_check_crop)] = Field(
        default=(512, 512),
        description="largest part of the scaled image that is shown: 512, or 360x480 (h x w); null does not cut",
    )
    scale: tuple[float, float] = Field(
        default=(0.5, 2.0), description="range of the random enlargement, such as [0.5, 2.0]; [1, 1] keeps the size"
    )
    aspect: float = Field(
        default=1.0,
        ge=1,
        le=4,
        description="widest change of the ratio of the sides: 1.33 as RandomResizedCrop; 1 none",
    )
    horizontal_flip: float = Field(default=0.5, ge=0, le=1, description="share of the images mirrored left to right")
    vertical_flip: float = Field(default=0.0, ge=0, le=1, description="share of the images mirrored top to bottom")
    brightness: float = Field(default=0.2, ge=0, le=1, description="strength of the random change of brightness")
    contrast: float = Field(default=0.2, ge=0, le=1, description="strength of the random change of contrast")
    saturation: float = Field(default=0.2, ge=0, le=1, description="strength of the random change of saturation")
    hue: float = Field(default=0.0, ge=0, le=0.5, description="largest turn of the colours, 0.5 being all (slow)")

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 100:
            raise ValueError("expected a range from the smaller to the larger factor, above 0, such as [0.5, 2.0]")
        return value


class LossConfig(Section):
    """What a semantic model is to lower: a weighted sum. (Mask R-CNN has losses of its own.)"""

    cross_entropy: float = Field(default=1.0, ge=0, description="weight of cross-entropy")
    dice: float = Field(default=0.0, ge=0, description="weight of Dice loss, the classes of a batch alike")
    focal: float = Field(default=0.0, ge=0, description="weight of focal loss (of softmax)")
    focal_gamma: float = Field(default=2.0, ge=1, le=10, description="focal: how much sure pixels count less")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="cross-entropy: share of all classes alike")
    class_weights: Annotated[Literal["balanced"] | dict[str, float] | None, BeforeValidator(_check_class_weights)] = (
        Field(
            default=None,
            description="cross-entropy and focal: 'balanced' (each class of the data alike), or weights such as {car: 2}, 1 for the others",
        )
    )
    auxiliary: float = Field(
        default=0.5, ge=0, description="share of the auxiliary head's loss (model.options.aux_loss=true)"
    )

    @model_validator(mode="after")
    def _check_sum(self) -> "LossConfig":
        if not self.cross_entropy + self.dice + self.focal > 0:
            raise ValueError("cross_entropy, dice and focal are all 0: nothing would be learnt")
        return self


Origin = Literal["any", "human", "model"]


class SourceConfig(Section):
    """A manifest to learn from."""

    uri: Uri = Field(description="manifest of truth, or of pseudo-labels: a run's folder")
    weight: float = Field(
        default=1.0, gt=0, le=1000, description="how often an epoch shows each image: 0.5 every other one, 2 each twice"
    )
    min_confidence: float = Field(
        default=0.0, ge=0, le=1, description="leave out images of lower confidence (pseudo-labels)"
    )
    origin: Origin = Field(
        default="any",
        description="take images with a person's masks (human), with a model's, or any; of a collection row by row",
    )
    human_weight: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        validate_default=True,
        description="how many times as often an epoch shows an image with a person's masks: 5, beside one with a model's",
    )
    min_score: float = Field(
        default=0.0, ge=0, le=1, description="leave out segments of lower score; semantic: their pixels are unlabelled"
    )

    @field_validator("human_weight")
    @classmethod
    def _check_human_weight(cls, value: float, info: ValidationInfo) -> float:
        if value != 1 and info.data.get("origin") == "model":
            raise contradiction("has no effect with origin=model, which takes no person's masks; drop it")
        return value


class TrainDataConfig(SourceConfig):
    mix: list[SourceConfig] = Field(
        default_factory=list,
        description="further manifests, such as [{uri: out/pseudo, weight: 0.5, min_confidence: 0.8}]",
    )


class ValidationConfig(Section):
    """What the model is scored on while it learns, at the images' own size."""

    uri: Uri | None = Field(
        default=None, description="manifest of truth to score on; null holds back a share of data.uri"
    )
    share: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="share of data.uri that is held back, by hash of image_id; 0: no validation",
    )
    origin: Origin = Field(
        default="any", description="score on images with a person's masks alone (human), with a model's, or on any"
    )
    images: int | None = Field(default=None, ge=1, description="score on the first N by image_id only; null takes all")
    every_epochs: float = Field(default=1.0, gt=0, description="epochs between two validations; the end is always one")
    batch_size: int = Field(default=8, ge=1, description="images per forward pass of one worker")
    contact_sheet: int = Field(default=8, ge=0, le=200, description="images on the contact sheet; 0 draws none")


class TrainModelConfig(NetworkConfig):
    weights: Annotated[str, AfterValidator(_check_weights)] = Field(
        default="none",
        description="what to start from: 'none' (random, by seed), 'default' (the published ones), torchvision:ENUM, a model directory or file, hf://org/repo@rev; tensors that do not fit, such as the head of other classes, stay random",
    )
    categories: list[str] | None = Field(
        default=None, description="classes to learn, in channel order; null takes those of data.uri"
    )
    licence: str | None = Field(
        default=None,
        description="licence of the trained weights, for model.json; null takes that of the weights it starts from",
    )


class OptimiserConfig(Section):
    """How each step changes the weights."""

    name: Literal["adamw", "sgd"] = Field(default="adamw", description="adamw or sgd")
    learning_rate: float = Field(default=1e-3, gt=0, description="highest learning rate")
    weight_decay: float = Field(default=1e-4, ge=0, description="weight decay; biases and norms have none")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="sgd: momentum")
    clip_norm: float | None = Field(default=None, gt=0, description="largest norm of the gradient; null does not clip")
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="score and save a running mean of the weights, such as 0.999; null takes the weights themselves",
    )
    freeze: list[Literal["backbone", "norm"]] = Field(
        default_factory=list,
        description="what stays as it is: backbone (encoder), norm (batch norms: weights and statistics)",
    )


class ScheduleConfig(Section):
    """How long, and the learning rate along the way."""

    epochs: float = Field(default=20.0, gt=0, description="passes over the data")
    steps: int | None = Field(default=None, ge=1, description="steps instead of epochs")
    warmup_steps: int = Field(default=50, ge=0, description="steps over which the learning rate rises from zero")
    decay: Literal["cosine", "poly", "constant"] = Field(
        default="cosine", description="how it falls to zero until the end, or that it stays"
    )
    power: float = Field(default=0.9, gt=0, description="poly: (1 - progress) to this power")
    early_stopping: int | None = Field(
        default=None, ge=1, description="stop after so many validations without a better score; null never"
    )


class TrainTilesConfig(Section):
    """Images that are too large to be learnt whole, as ``label`` labels them in tiles."""

    size: int | None = Field(
        default=None,
        ge=16,
        le=MAX_SIDE,
        description="side in pixels of the part that is read of a larger image, at a random place each time (to score on, always the same); model.resize and augment apply to it; null reads every image whole",
    )


class TrainComputeConfig(ClusterConfig):
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="training workers, each with a share of every step; auto: one per GPU, else one"
    )
    gpus_per_worker: float | None = Field(
        default=None, ge=0, description="GPUs of one worker; null takes 1 where the cluster has any, else 0"
    )
    cpus_per_worker: float | None = Field(
        default=None, gt=0, description="CPUs of one worker; null leaves what reading needs"
    )
    threads: int | None = Field(
        default=None, ge=1, description="torch threads of one worker on CPU; null divides the CPUs"
    )
    precision: Precision = "fp32"
    grace_s: float = Field(
        default=20.0, ge=0, description="seconds in which a stopped training may end its step and save a checkpoint"
    )

    @field_validator("precision")
    @classmethod
    def _check_precision(cls, value: str, info: ValidationInfo) -> str:
        return check_precision(value, info.data.get("gpus_per_worker"))


class TrainConfig(JobConfig):
    """Learn a model from masks: a manifest in, a model directory out."""

    data: TrainDataConfig
    validation: ValidationConfig = Field(default_factory=ValidationConfig)
    classes: dict[str, str | None] = Field(
        default_factory=dict,
        description="class names of the data → the model's, such as {truck: car}; null: not learnt, pixels unlabelled",
    )
    model: TrainModelConfig
    output: OutputConfig
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    loss: LossConfig = Field(default_factory=LossConfig)
    optimiser: OptimiserConfig = Field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    batch_size: int = Field(default=8, ge=1, description="images of one worker per forward and backward pass")
    accumulate: int = Field(default=1, ge=1, description="such passes per step; a step is batch_size x this x workers")
    seed: int = Field(default=0, ge=0, description="seed of order, augmentation and dropout")
    checkpoint_s: float = Field(
        default=300.0, ge=0, description="seconds between checkpoints, besides one at every validation"
    )
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    tiles: TrainTilesConfig = Field(default_factory=TrainTilesConfig)
    compute: TrainComputeConfig = Field(default_factory=TrainComputeConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
