"""The configuration of every job: YAML file + ``key=value`` overrides in, one checked value out.

Each job has one model below; a field's description is its help text, so ``--help``, the error
messages and the YAML files cannot drift apart. All problems are reported at once, each with file,
key, value and what would fit.
"""

import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from yaml import YAMLError

from segjobs.contradictions import contradictions
from segjobs.errors import ConfigError
from segjobs.interpolation import resolved
from segjobs.redact import secrets_in

_SHOWN = 200  # characters of a value in an error message
IMAGE_GLOBS = ["*.jpg", "*.jpeg", "*.png", "*.tif", "*.tiff", "*.bmp", "*.webp", "*.gif"]
_RESIZE = re.compile(r"native|(short|long):[1-9]\d*|[1-9]\d*x[1-9]\d*")
_POOL = re.compile(r"auto|[1-9]\d*|[1-9]\d*-[1-9]\d*")


def _check_resize(text: str | None) -> str | None:
    if text is not None and not _RESIZE.fullmatch(text):
        raise ValueError("expected 'native', 'short:520', 'long:1024' or '256x256' (height x width)")
    return text


def _check_pool(value: Any) -> str:
    text = str(value)
    if not _POOL.fullmatch(text):
        raise ValueError("expected 'auto', a number such as 4, or a range such as '1-8'")
    low, _, high = text.partition("-")
    if high and int(low) > int(high):
        raise ValueError("a range runs from the smaller to the larger number, such as '1-8'")
    return text


_ENDPOINT = re.compile(r"https?://[^/\s?#@]+(/[^\s?#@]*)?")
EXTRA_SCHEMES = {"gs": "gs", "az": "az", "http": "http", "https": "http"}
"""URI schemes that ``storage.schemes`` can allow → the extra of the package that opens them."""


def check_uri(text: str) -> str:
    """A URI of a scheme that can be opened: a local path, ``file:///path``, ``s3://bucket/key`` or one of
    ``EXTRA_SCHEMES``; ValueError for others."""
    scheme, separator, rest = text.partition("://")
    if "\0" in text:
        raise ValueError("cannot open a name with a NUL character")
    if not separator:
        return text
    if "::" in scheme:
        raise ValueError("cannot open chains of file systems ('::'); expected a local path or s3://bucket/key")
    if scheme not in ("file", "s3", *EXTRA_SCHEMES):
        raise ValueError(f"cannot open {scheme}:// URIs; expected a local path or s3://bucket/key")
    if scheme == "file" and not rest.startswith("/"):
        raise ValueError("cannot open a file:// URI of another host; expected file:///path")
    if scheme != "file" and not rest.partition("/")[0]:
        what, path = ("host", "path") if scheme.startswith("http") else ("bucket", "prefix")
        raise ValueError(f"no {what}; expected {scheme}://{what}/{path}")
    return text


def _check_allowed(text: str, info: ValidationInfo) -> str:
    """``check_uri``, and that ``storage.schemes`` of the same config allows the scheme."""
    scheme, separator, _ = check_uri(text).partition("://")
    if info.context and separator and scheme in EXTRA_SCHEMES and scheme not in info.context["schemes"]:
        raise ValueError(
            f"cannot open {scheme}:// URIs; expected a local path or s3://bucket/key, or allow them: "
            f"storage.schemes=[{scheme}], with segjobs[{EXTRA_SCHEMES[scheme]}] installed"
        )
    return text


def _check_output(text: str, info: ValidationInfo) -> str:
    if text.startswith(("http://", "https://")):
        raise ValueError("cannot write there; expected a folder or s3://bucket/prefix")
    return _check_allowed(text, info)


def _check_weights(text: str, info: ValidationInfo) -> str:
    return text if text.startswith(("torchvision:", "hf://")) else _check_allowed(text, info)


def _check_endpoint(text: str | None) -> str | None:
    if text is not None and not _ENDPOINT.fullmatch(text):
        raise ValueError("expected http://host:port or https://host, without user, query or spaces")
    return text


Uri = Annotated[str, Field(min_length=1), AfterValidator(_check_allowed)]
OutputUri = Annotated[str, Field(min_length=1), AfterValidator(_check_output)]


def _check_crop(value: Any) -> Any:
    if value is None:
        return None
    sides = str(value).split("x") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    if not all(str(side).isdecimal() and int(side) > 0 for side in sides) or len(sides) not in (1, 2):
        raise ValueError("expected pixels: 512, 360x480 or [360, 480] (height x width), or null")
    return int(sides[0]), int(sides[-1])


def _check_class_weights(value: Any) -> Any:
    if value is None or value == "balanced":
        return value
    numbers = list(value.values()) if isinstance(value, dict) else [None]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n < math.inf for n in numbers):
        raise ValueError("expected 'balanced', weights by class name such as {car: 2.0} (0 or more), or null")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), strict=False)


class _Job(_Section):
    env: list[str] = Field(
        default_factory=list,
        description="environment variables that ${oc.env:NAME} may read in this config; names of secrets never",
    )


class S3Config(_Section):
    endpoint_url: Annotated[str | None, AfterValidator(_check_endpoint)] = Field(
        default=None, description="S3 endpoint, for stores other than AWS"
    )
    region: str | None = Field(default=None, description="region; null takes the environment's")
    profile: str | None = Field(default=None, description="profile of ~/.aws/credentials; null takes the environment's")
    anonymous: bool = Field(default=False, description="send no credentials (public buckets)")


class StorageConfig(_Section):
    s3: S3Config = Field(default_factory=S3Config)
    schemes: list[Literal["gs", "az", "http", "https"]] = Field(
        default_factory=list,
        description="further URIs to open: gs (Google), az (Azure), http and https (to read); each needs its extra, segjobs[gs], [az] or [http]",
    )
    attempts: int = Field(
        default=10,
        ge=1,
        le=100,
        description="remote stores: how often a request is tried where the store is busy or cut it off",
    )
    deadline_s: float = Field(
        default=300.0,
        gt=0,
        allow_inf_nan=False,
        description="remote stores: seconds that one file may take with all attempts (more above 1 MiB/s); an image that takes longer fails as TIMEOUT",
    )
    max_item_bytes: int = Field(
        default=2**30, ge=1, description="a larger image or label file fails as TOO_LARGE, unread"
    )
    connect_timeout_s: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="S3: seconds in which a connection must stand"
    )
    read_timeout_s: float = Field(
        default=60.0, gt=0, allow_inf_nan=False, description="S3: seconds without a byte that end an attempt"
    )


class InputConfig(_Section):
    uri: Uri = Field(
        description="folder, glob, file, or list of URIs (.txt, .csv, .parquet); local or s3://bucket/prefix",
    )
    include: list[str] = Field(
        default_factory=lambda: list(IMAGE_GLOBS),
        description="file name or path patterns to take (case-insensitive)",
    )
    exclude: list[str] = Field(default_factory=list, description="file name or path patterns to leave out")
    limit: int | None = Field(default=None, ge=1, description="take the first N by image_id; null takes all")
    column: str = Field(default="uri", description="column of a CSV or Parquet list that holds the URIs")


class OutputConfig(_Section):
    uri: OutputUri = Field(description="where the run is written: a folder or s3://bucket/prefix of its own")


class DecodeConfig(_Section):
    max_pixels: int = Field(
        default=100_000_000, ge=1, description="larger images (by their header) fail as TOO_LARGE, undecoded"
    )


class ModelConfig(_Section):
    name: str = Field(description="a model of the table in README.md, or package.module:factory")
    weights: Annotated[str, AfterValidator(_check_weights)] = Field(
        default="default",
        description="'default' (the published ones), torchvision:ENUM, a model directory or file, hf://org/repo@rev, or 'none' (random, by seed)",
    )
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="expected SHA-256 of the weights file"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="architecture options, such as {encoder: resnet34}"
    )
    categories: list[str] | None = Field(
        default=None, description="class names in channel order; null takes the weights' own"
    )
    resize: Annotated[str | None, AfterValidator(_check_resize)] = Field(
        default=None,
        description="size that the network sees: native, short:520, long:1024 or 256x256 (h x w); null takes the model's own",
    )
    seed: int = Field(default=0, ge=0, description="seed of the random weights of 'none'")


class PostprocessConfig(_Section):
    score_threshold: float = Field(default=0.0, ge=0, le=1, description="drop segments whose score is lower")
    mask_threshold: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="probability from which a pixel is mask (instances; foreground of two-class semantic models)",
    )
    min_area_px: int = Field(
        default=0, ge=0, description="drop smaller instances; semantic: smaller connected regions become unlabelled"
    )
    fill_holes: bool = Field(default=False, description="fill holes of each mask (semantic: only unlabelled ones)")
    top_k: int | None = Field(default=None, ge=1, description="keep the k segments of highest score per image")
    classes: list[str] | None = Field(default=None, description="keep only these classes; null keeps all")
    min_confidence: float = Field(default=0.0, ge=0, le=1, description="semantic: pixels below it stay unlabelled")


class ClusterConfig(_Section):
    address: str | None = Field(
        default=None,
        description="Ray address; null takes RAY_ADDRESS or the submitted job's cluster, else starts a local Ray",
    )
    allow_unauthenticated: bool = Field(
        default=False, description="join another machine's cluster that asks for no token (RAY_AUTH_MODE)"
    )


class ComputeConfig(ClusterConfig):
    actors: Annotated[str, BeforeValidator(_check_pool)] = Field(
        default="auto",
        description="model actors: a number, a range '1-8' that scales with the load, or 'auto' (one per GPU, else by CPUs)",
    )
    cpus_per_actor: float | None = Field(
        default=None, gt=0, description="CPUs of one actor; null divides the cluster's"
    )
    gpus_per_actor: float | None = Field(
        default=None, ge=0, description="GPUs of one actor; null takes 1 where the cluster has any, else 0"
    )
    threads: int | None = Field(
        default=None, ge=1, description="torch threads of one actor on CPU; null takes its CPUs, at least 1"
    )
    batch_size: int = Field(default=8, ge=1, description="images per forward pass (halved on GPU out-of-memory)")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="autocast on GPU; the CPU computes in fp32"
    )
    decode: Literal["auto", "task", "actor"] = Field(
        default="auto",
        description="where images are decoded: tasks on any CPU, threads of the actor, or auto (task with GPUs, else actor)",
    )
    decode_threads: int = Field(default=2, ge=1, description="decoding threads of one actor or task")
    batch_deadline_s: float = Field(
        default=600.0,
        gt=0,
        description="label: longest that decoding an image or computing a batch may take before its worker is ended",
    )
    grace_s: float = Field(
        default=20.0, ge=0, description="seconds in which a stopped job may finish the shards that it has begun"
    )


class ShardConfig(_Section):
    images: int = Field(
        default=64, ge=1, le=100_000, description="most images of a shard: the unit of retry, commit and progress"
    )
    bytes: int = Field(default=256 * 2**20, ge=1, description="most file bytes of a shard")


class LabelConfig(_Job):
    """Segment every image of a collection into a mask manifest."""

    input: InputConfig
    output: OutputConfig
    model: ModelConfig
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    postprocess: PostprocessConfig = Field(default_factory=PostprocessConfig)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    shard: ShardConfig = Field(default_factory=ShardConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    max_failed_fraction: float = Field(
        default=0.01, ge=0, le=1, description="more failed images than this share: exit code 3"
    )
    fail_on_empty: bool = Field(
        default=False, description="an input without any image is an error, not an empty manifest"
    )


class LabelsConfig(_Section):
    """Where the labels are and how to read them."""

    format: Literal["png", "rgb", "binary", "instance_ids", "voc", "coco", "coco_panoptic", "yolo", "labelme"] = Field(
        description="png (id maps), rgb (maps of class colours), binary (masks 0/255), instance_ids (an id an object), voc (folder with SegmentationClass), coco, coco_panoptic (JSON), yolo (txt), labelme (JSON an image)"
    )
    uri: Uri = Field(description="folder of the labels, or the JSON file of coco and coco_panoptic")
    masks: Uri | None = Field(
        default=None, description="coco_panoptic: folder of the PNGs; null takes the JSON's name without .json"
    )
    task: Literal["semantic", "instance"] | None = Field(
        default=None,
        description="binary, voc, labelme: read classes or objects; null takes semantic for binary and voc, instance for labelme",
    )
    table: Literal["voc", "cityscapes_ids", "cityscapes_train_ids"] | None = Field(
        default=None,
        description="png, rgb: a built-in class table (names, ids, colours, void) instead of the next keys",
    )
    categories: list[str] | None = Field(
        default=None, description="class names (not coco, coco_panoptic); their order gives the ids"
    )
    class_file: Uri | None = Field(
        default=None, description="file of class names instead: one a line (.txt), or YOLO's data.yaml"
    )
    ids: list[int] | None = Field(default=None, description="png: the ids of the class names; null counts from 0")
    void_ids: list[int] | None = Field(
        default=None,
        description="png, voc, instance_ids: ids that mean unlabelled; null: 255 for png and voc, else none",
    )
    colors: list[list[int]] | None = Field(
        default=None, description="rgb: colours (r, g, b) of the class names, in their order"
    )
    void_colors: list[list[int]] = Field(default_factory=list, description="rgb: colours that mean unlabelled")
    void_names: list[str] = Field(
        default_factory=lambda: ["__ignore__"], description="labelme: names of shapes whose pixels are unlabelled"
    )
    background: str | None = Field(
        default=None, description="labelme, semantic: class of pixels that no shape covers; null leaves them unlabelled"
    )
    line_width_px: int | None = Field(
        default=None, ge=1, description="labelme: width of lines; null leaves them out, since they have no area"
    )
    threshold: int | None = Field(
        default=None,
        ge=1,
        le=255,
        description="binary: grey from which a pixel is mask; null takes 0 and 255 (or 1) only",
    )
    suffix: str = Field(
        default="", description="what a label's stem has behind the image's stem, such as _gtFine_labelIds"
    )
    unknown: Literal["fail", "ignore", "void", "map"] = Field(
        default="fail",
        description="an id or name that is neither class nor void: fails the image, is left out (ignore or void; pixels unlabelled), or is unknown_class (map)",
    )
    unknown_class: str | None = Field(default=None, description="unknown=map: the class that takes them")
    missing: Literal["fail", "empty"] = Field(
        default="fail",
        description="an image without label: fails (NOT_FOUND), or holds no object (instance labels only)",
    )


class PrepareConfig(_Job):
    """Read somebody's labels into a truth manifest."""

    input: InputConfig
    labels: LabelsConfig
    classes: dict[str, str | None] = Field(
        default_factory=dict,
        description="new name by class name: rename, merge (one name for several), or drop (null); '*' stands for all others",
    )
    splits: dict[str, float | str] = Field(
        default_factory=dict,
        description="a manifest each, at output.uri/NAME: shares such as {train: 0.8, val: 0.2}, or lists of names (.txt; voc: its own, such as {train: train})",
    )
    group: str | None = Field(
        default=None,
        description="keep images together in one split: 'folder', or a regex on image_id whose first group (or match) is the key",
    )
    output: OutputConfig
    contact_sheet: int = Field(default=8, ge=0, le=200, description="images on the contact sheet; 0 draws none")
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    shard: ShardConfig = Field(default_factory=ShardConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    max_failed_fraction: float = Field(
        default=0.01, ge=0, le=1, description="more failed images than this share: exit code 3"
    )
    fail_on_empty: bool = Field(
        default=False, description="an input without any image is an error, not an empty manifest"
    )


class ManifestRef(_Section):
    uri: Uri = Field(description="a run's folder (the one that holds run.json)")


class PredictionsConfig(_Section):
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
        description="coco_results: COCO JSON whose images and categories the results' numbers refer to",
    )


class SlicesConfig(_Section):
    """Scores of parts of the images, a row each in the report."""

    uri: Uri | None = Field(
        default=None, description="table (.csv or .parquet) with a column image_id; its other columns slice the images"
    )
    columns: list[str] | None = Field(default=None, description="columns to slice by; null takes all of the table")
    size: bool = Field(default=True, description="slice by the image's size: small, medium and large by its pixels")
    groups: dict[str, list[str]] = Field(
        default_factory=dict, description="groups of classes, such as {vehicles: [car, bus]}: mean over the group"
    )


class BootstrapConfig(_Section):
    """Intervals by resampling images."""

    resamples: int = Field(default=2000, ge=0, le=100_000, description="resamples of the images; 0 gives no intervals")
    confidence: float = Field(default=0.95, gt=0, lt=1, description="confidence of the intervals")
    seed: int = Field(default=0, ge=0, description="seed of the resamples")


class BoundaryConfig(_Section):
    """Boundary IoU and boundary F, semantic: another pass over dense masks, so off by default."""

    enabled: bool = Field(default=False, description="compute boundary IoU and boundary F")
    dilation_ratio: float = Field(
        default=0.02, gt=0, le=1, description="boundary IoU: width of the band as a share of the image's diagonal"
    )
    tolerance_px: int = Field(default=3, ge=0, description="boundary F: pixels that two boundaries may be apart")


class DisputesConfig(_Section):
    """Truth masks that a confident model disputes: candidates for errors in the labels."""

    limit: int = Field(default=50, ge=0, description="most candidates in the report; 0 looks for none")
    min_score: float = Field(default=0.8, ge=0, le=1, description="least score of the prediction that disputes")
    min_px: int = Field(default=100, ge=1, description="least number of disputed pixels")


class EvaluateConfig(_Job):
    """Score predictions against a manifest of truth, compare two models, and gate a release."""

    predictions: PredictionsConfig
    truth: ManifestRef | None = Field(
        default=None, description="manifest of truth; null compares predictions with baseline, without truth"
    )
    baseline: ManifestRef | None = Field(
        default=None, description="an earlier evaluation, or another model's manifest, to compare with image by image"
    )
    output: OutputConfig
    missing: Literal["worst", "skip", "error"] = Field(
        default="worst",
        description="a missing or failed prediction: wrong on every labelled pixel, left out (and counted), or an error",
    )
    rename: dict[str, str | None] = Field(
        default_factory=dict,
        description="class names of the predictions → the truth's, such as {person: pedestrian}; null: counts as not predicted",
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
    bootstrap: BootstrapConfig = Field(default_factory=BootstrapConfig)
    boundary: BoundaryConfig = Field(default_factory=BoundaryConfig)
    disputes: DisputesConfig = Field(default_factory=DisputesConfig)
    max_pixels: int = Field(default=100_000_000, ge=1, description="png predictions: larger masks are refused")
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)


class ReportEvaluationConfig(_Section):
    uri: Uri | None = Field(
        default=None, description="folder that evaluate wrote (the one that holds report.json); null shows a run alone"
    )


class ReportPredictionsConfig(_Section):
    uri: Uri | None = Field(
        default=None,
        description="a run's folder, to show without truth; with evaluation.uri: where its predictions lie, if they moved",
    )


class ReportTruthConfig(_Section):
    uri: Uri | None = Field(
        default=None,
        description="with evaluation.uri: where its truth lies, if it moved; null takes the report's place",
    )


class ReportImagesConfig(_Section):
    """Which images the page shows."""

    worst: int = Field(default=8, ge=0, le=200, description="images of lowest mIoU; without scores: lowest confidence")
    best: int = Field(default=4, ge=0, le=200, description="images of highest mIoU; without scores: highest confidence")
    random: int = Field(default=8, ge=0, le=200, description="images drawn by the seed")
    disputes: int = Field(default=4, ge=0, le=200, description="images whose labels the model disputes most")
    seed: int = Field(default=0, ge=0, description="seed of the random images")


class ReportConfig(_Job):
    """Make one self-contained HTML page of an evaluation, or of a manifest alone."""

    evaluation: ReportEvaluationConfig = Field(default_factory=ReportEvaluationConfig)
    predictions: ReportPredictionsConfig = Field(default_factory=ReportPredictionsConfig)
    truth: ReportTruthConfig = Field(default_factory=ReportTruthConfig)
    output: OutputConfig
    title: str | None = Field(default=None, description="heading of the page; null names the model or the manifest")
    images: ReportImagesConfig = Field(default_factory=ReportImagesConfig)
    thumb_px: int = Field(default=360, ge=32, le=2000, description="longest side of a picture on the page")
    max_bytes: int = Field(
        default=9_500_000, ge=1, description="largest page; where its pictures take more, the last ones are left out"
    )
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)


class BenchConfig(_Job):
    """Measure the bare model, the label pipeline and each of its stages in one run."""

    model: ModelConfig
    input: InputConfig | None = Field(
        default=None, description="images to measure with; null draws synthetic JPEGs of mixed sizes"
    )
    images: int = Field(
        default=1000,
        ge=1,
        description="images of each measured run; local ones are repeated (by links) to make as many",
    )
    memory_images: int | None = Field(
        default=None, ge=1, description="also run this many images and compare peak memory; null skips it"
    )
    repeats: int = Field(default=3, ge=1, description="rounds of bare model, pipeline and plain script, by turns")
    bare_s: float = Field(default=8.0, gt=0, description="seconds that each measurement of the bare model lasts")
    plain_script: bool = Field(
        default=True,
        description="also time the plain 30-line Ray Data script (local images, a torchvision semantic model, resize HxW)",
    )
    output: OutputConfig | None = Field(
        default=None,
        description="where bench.json and the measured manifests go; null prints only and works in a temporary folder of this machine",
    )
    decode: DecodeConfig = Field(default_factory=DecodeConfig)
    postprocess: PostprocessConfig = Field(default_factory=PostprocessConfig)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    shard: ShardConfig = Field(default_factory=ShardConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)


class AugmentConfig(_Section):
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


class LossConfig(_Section):
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


class SourceConfig(_Section):
    """A manifest to learn from."""

    uri: Uri = Field(description="manifest of truth, or of pseudo-labels: a run's folder")
    weight: float = Field(
        default=1.0, gt=0, le=1000, description="how often an epoch shows each image: 0.5 every other one, 2 each twice"
    )
    min_confidence: float = Field(
        default=0.0, ge=0, le=1, description="leave out images of lower confidence (pseudo-labels)"
    )
    min_score: float = Field(
        default=0.0, ge=0, le=1, description="leave out segments of lower score; semantic: their pixels are unlabelled"
    )


class TrainDataConfig(SourceConfig):
    mix: list[SourceConfig] = Field(
        default_factory=list,
        description="further manifests, such as [{uri: out/pseudo, weight: 0.5, min_confidence: 0.8}]",
    )


class ValidationConfig(_Section):
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
    images: int | None = Field(default=None, ge=1, description="score on the first N by image_id only; null takes all")
    every_epochs: float = Field(default=1.0, gt=0, description="epochs between two validations; the end is always one")
    batch_size: int = Field(default=8, ge=1, description="images per forward pass of one worker")
    contact_sheet: int = Field(default=8, ge=0, le=200, description="images on the contact sheet; 0 draws none")


class TrainModelConfig(ModelConfig):
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


class OptimiserConfig(_Section):
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


class ScheduleConfig(_Section):
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
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="autocast on GPU; the CPU computes in fp32"
    )


class TrainConfig(_Job):
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
    compute: TrainComputeConfig = Field(default_factory=TrainComputeConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)


class DemoConfig(_Job):
    """Draw scenes, train a small U-Net on them, label and score held-out ones, draw a contact sheet."""

    output: OutputConfig = Field(default=OutputConfig(uri="out/demo"))
    train_images: int = Field(default=160, ge=1, description="scenes to train on")
    test_images: int = Field(default=48, ge=1, description="held-out scenes to label and score")
    steps: int = Field(default=80, ge=10, description="training steps of 8 crops")
    encoder: str = Field(default="resnet18", description="encoder of the U-Net")
    seed: int = Field(default=0, ge=0, description="seed of scenes, weights and crops")


class PngExportConfig(_Section):
    """Format png."""

    void_id: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="value of unlabelled pixels; null takes 255, or 65535 where a class has an id of 255 or more",
    )
    background_id: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="instance manifests: value where no object lies; null takes the void id",
    )


class YoloExportConfig(_Section):
    """Format yolo."""

    tolerance_px: float = Field(
        default=0.0,
        ge=0,
        description="leave out corners of outlines that are this near to the line; 0 keeps the mask exact",
    )


class LabelStudioExportConfig(_Section):
    """Format label_studio."""

    image_prefix: str | None = Field(
        default=None,
        description="what precedes an image_id in its URL, such as /data/local-files/?d=photos/; null takes the manifest's uri",
    )


class ExportConfig(_Job):
    """Write a manifest in another tool's format."""

    manifest: ManifestRef
    format: Literal["coco_instances", "coco_results", "coco_panoptic", "cvat", "label_studio", "png", "yolo"] = Field(
        description="coco_instances, coco_results, coco_panoptic, cvat (COCO as it reads it), label_studio, png (label maps) or yolo (segmentation)"
    )
    output: OutputConfig
    categories: list[str] | None = Field(
        default=None, description="export these classes only, in this order; null takes all"
    )
    components: bool = Field(
        default=False, description="semantic manifests: one object per connected component instead of one per class"
    )
    ids_from: Uri | None = Field(
        default=None,
        description="coco formats: a COCO JSON whose image and category ids to use, by file_name and name; null counts images from 1 and keeps category ids",
    )
    png: PngExportConfig = Field(default_factory=PngExportConfig)
    yolo: YoloExportConfig = Field(default_factory=YoloExportConfig)
    label_studio: LabelStudioExportConfig = Field(default_factory=LabelStudioExportConfig)
    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    max_failed_fraction: float = Field(
        default=0.01, ge=0, le=1, description="more failed images than this share: exit code 3"
    )


Config = TypeVar("Config", bound=BaseModel)


def load_config(kind: type[Config], path: str | None, overrides: Sequence[str]) -> Config:
    """Read ``path`` (YAML, may be None), lay ``key=value`` overrides over it and check the whole.

    Overrides are YAML values (``model.options.encoder=resnet34``, ``input.exclude=["*.tif"]``).
    Raises ConfigError with one line per problem.
    """
    layers = []
    where = path or "command line"
    if path is not None:
        try:
            layers.append(OmegaConf.load(path))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such config file; see conf/ for complete examples") from None
        except RecursionError:
            raise ConfigError(f"{path}: not readable as YAML: nested too deeply") from None
        except (OSError, YAMLError, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
        if not OmegaConf.is_dict(layers[0]):
            raise ConfigError(f"{path}: expected 'key: value' lines, found {type(layers[0]).__name__}")
    problems = []
    for text in overrides:
        if "=" not in text or text.startswith(("-", "=")):
            problems.append(f"command line: {text!r} is no override; expected key=value, such as output.uri=out/run1")
            continue
        try:
            layers.append(OmegaConf.from_dotlist([text]))
        except (OmegaConfBaseException, YAMLError, ValueError, TypeError, RecursionError) as error:
            detail = " ".join(str(error).split())
            problems.append(
                f"command line: {text!r}: not readable as YAML; quote as input.exclude='[\"*.tif\"]': {detail}"
            )
    given = [text.partition("=")[0] for text in overrides]
    try:
        raw, unresolved = resolved(OmegaConf.merge({}, *layers))
    except (OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
        raise ConfigError(*problems, f"{where}: {' '.join(str(error).split())}") from None
    problems += [f"{_origin(key, where, given)}: {key}: {text}" for key, text in unresolved.items()]
    problems += [
        f"{_origin(key, where, given)}: {key}: holds a credential; they are taken from the environment or "
        "storage.s3.profile, and never from a config, which is printed and kept"
        for key in secrets_in(raw, names_below="model.options")
    ]
    try:
        config = kind.model_validate(raw, context={"schemes": _schemes_in(raw)})
    except ValidationError as error:
        found = [dict(item) for item in error.errors()]
        # What could not be resolved is said already; here it would be missing.
        problems += [_describe(kind, item, where, given) for item in found if _key_of(item) not in unresolved]
        raise ConfigError(*problems) from None
    problems += [f"{_origin(key, where, given)}: {key}: {text}" for key, text in contradictions(config)]
    if problems:
        raise ConfigError(*problems)
    return config


def _schemes_in(raw: dict[str, Any]) -> Sequence[str]:
    """``storage.schemes`` of a config that is not checked yet."""
    storage = raw.get("storage")
    schemes = storage.get("schemes") if isinstance(storage, dict) else None
    return schemes if isinstance(schemes, list) else ()


def _key_of(item: dict[str, Any]) -> str:
    return ".".join(str(part) for part in item["loc"])


def _origin(key: str, where: str, given: Sequence[str]) -> str:
    """The command line, where an override of the key, of a part of it or of the section around it was given."""
    overridden = any(f"{name}.".startswith(f"{key}.") or f"{key}.".startswith(f"{name}.") for name in given)
    return "command line" if overridden else where


def _describe(kind: type[BaseModel], item: dict[str, Any], where: str, given: Sequence[str]) -> str:
    """One finding of pydantic as ``file: key: what is wrong; what would fit``."""
    keys, key = [str(part) for part in item["loc"]], _key_of(item)
    source = _origin(key, where, given)
    if item["type"] == "extra_forbidden":
        return f"{source}: {key}: unknown key; {nearest(keys[-1], _names(kind, keys[:-1]))}"
    if item["type"] == "missing":
        return f"{where}: {key}: missing; give it in the file or as {key}=…"
    value = repr(item["input"])
    value = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
    if item["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(item.get("ctx", {}).get("expected", "")))
        return f"{source}: {key}: {value} does not fit; {nearest(str(item['input'])[:_SHOWN], allowed)}"
    if item["type"] == "model_type":
        return f"{source}: {key}: {value}: expected a section with the keys {', '.join(_names(kind, keys))}"
    message = str(item["msg"]).removeprefix("Value error, ")
    message = message.replace("Input should be", "expected", 1)
    return f"{source}: {key}: {value}: {message[:1].lower()}{message[1:]}"


def _names(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys of the section at ``path``, sections included, sorted. A list's entries have numbers for names."""
    section: type[BaseModel] | None = kind
    for name in path:
        if name.isdecimal():
            continue
        field = section.model_fields.get(name) if section else None
        section = (_section_of(field) or _section_in(field.annotation)) if field else None
    return sorted(section.model_fields) if section else []


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a key holds; None for a value, and for a list of sections."""
    if get_origin(field.annotation) is list:
        return None
    return next(filter(None, map(_as_section, (field.annotation, *get_args(field.annotation)))), None)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section of which a list consists."""
    return next(filter(None, map(_as_section, get_args(annotation))), None)


def _as_section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def iter_fields(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of a config as ``(dotted name, field)``, depth first, in the order of the file."""
    for name, field in kind.model_fields.items():
        section = _section_of(field)
        if section:
            yield from iter_fields(section, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def describe_keys(kind: type[BaseModel]) -> str:
    """The help text: one line per key with type, default and meaning."""
    lines = []
    for name, field in iter_fields(kind):
        default = field.get_default(call_default_factory=True)
        shown = "required" if default is PydanticUndefined else f"default {json.dumps(default)}"
        lines.append(f"  {name} ({_type_name(field.annotation)}; {shown})\n      {field.description}")
    return "\n".join(lines)


def _type_name(annotation: Any) -> str:
    if annotation is None or annotation is type(None):
        return "null"
    origin = get_origin(annotation)
    if origin is Literal:
        return " | ".join(str(value) for value in get_args(annotation))
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if origin in (list, dict):
        return f"{origin.__name__}[{', '.join(_type_name(arg) for arg in get_args(annotation))}]"
    if origin is not None:
        return " | ".join(_type_name(arg) for arg in get_args(annotation))
    return getattr(annotation, "__name__", str(annotation))


def to_yaml(config: BaseModel) -> str:
    """The resolved config as YAML that ``--config`` reads again."""
    return OmegaConf.to_yaml(OmegaConf.create(_escape(config.model_dump())))


def _escape(value: Any) -> Any:
    """Texts that hold ``${`` as OmegaConf reads them literally: a backslash before it, and before each backslash there."""
    if isinstance(value, dict):
        return {key: _escape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_escape(one) for one in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest known ones, else all."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    return f"known: {', '.join(names)}"


def digest(*parts: Any) -> str:
    """SHA-256 (hex) of JSON-able values, independent of the order of dict keys."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
