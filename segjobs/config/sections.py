"""The sections that several jobs share."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from segjobs.config.contradictions import contradiction
from segjobs.config.uris import OutputUri, Uri, absolute, check_allowed
from segjobs.config.views import View, check_views, parse_view
from segjobs.narrow import is_list
from segjobs.plugins import Group, installed
from segjobs.text import nearest

IMAGE_GLOBS = [
    *("*.jpg", "*.jpeg", "*.jpe", "*.jfif", "*.pjpeg", "*.pjp", "*.mpo", "*.png", "*.apng", "*.tif", "*.tiff"),
    *("*.bmp", "*.dib", "*.webp", "*.gif", "*.ppm", "*.pgm", "*.pbm", "*.pnm"),
]
"""Names of what ``segjobs/sources/decode.py`` reads."""
Place = TypeVar("Place")
_RESIZE = re.compile(r"native|(short|long):[1-9]\d*|[1-9]\d*x[1-9]\d*")
_NUMBER = re.compile(r"\d+")
ENSEMBLE = "ensemble"
"""``model.name`` of several models at once."""
MAX_SIDE = 16_384
"""Pixels of a side that a network can be given: a square of them is 3 GB as numbers, without what it computes."""
_WEBHOOK = re.compile(r"https?://[^/\s@]+(/\S*)?|env:[A-Za-z_]\w*")
_ENDPOINT = re.compile(r"https?://[^/\s?#@]+(/[^\s?#@]*)?")
_POOL = re.compile(r"auto|[1-9]\d*|[1-9]\d*-[1-9]\d*")


def check_resize(value: object) -> object:
    """A rule of ``model.resize``, or None; ValueError for what is none, or asks for more than any memory holds."""
    if value is None:
        return value
    if not isinstance(value, str) or not _RESIZE.fullmatch(value):
        side = str(value) if str(value).isdecimal() and int(str(value)) else ""
        meant = f"; did you mean 'short:{side}' (the shorter side) or '{side}x{side}'?" if side else ""
        raise ValueError(f"expected 'native', 'short:520', 'long:1024' or '256x256' (height x width){meant}")
    if any(len(number) > len(str(MAX_SIDE)) or int(number) > MAX_SIDE for number in _NUMBER.findall(value)):
        raise ValueError(f"sides are at most {MAX_SIDE} pixels")
    return value


def _check_pool(value: object) -> str:
    text = str(value)
    if not _POOL.fullmatch(text):
        raise ValueError("expected 'auto', a number such as 4, or a range such as '1-8'")
    low, _, high = text.partition("-")
    if high and int(low) > int(high):
        raise ValueError("a range runs from the smaller to the larger number, such as '1-8'")
    return text


def _check_weights(text: str, info: ValidationInfo) -> str:
    if text in ("default", "none") or text.startswith(("torchvision:", "hf://")):
        return text
    return absolute(check_allowed(text, info))


def _check_bands(value: object) -> object:
    numbers = value if isinstance(value, list) else [None]
    if value is not None and not (len(numbers) in (1, 3) and all(type(n) is int and 1 <= n <= 65_535 for n in numbers)):
        raise ValueError(
            "expected the numbers of three bands (red, green, blue) such as [4, 3, 2], or of one; from 1 on"
        )
    return value


def _is_range(value: object) -> bool:
    if not is_list(value) or len(value) != 2:
        return False
    low, high = value
    if isinstance(low, bool) or isinstance(high, bool):
        return False
    return isinstance(low, int | float) and isinstance(high, int | float) and -1e30 < low < high < 1e30


def _check_range(value: object) -> object:
    given = value if is_list(value) else [None]
    pairs = given if any(is_list(one) for one in given) else [given]
    if value is not None and not (len(pairs) in (1, 3) and all(_is_range(pair) for pair in pairs)):
        raise ValueError("expected [low, high], such as [0, 10000], or three such pairs (of red, green and blue)")
    return value


def _check_endpoint(text: str | None) -> str | None:
    if text is not None and not _ENDPOINT.fullmatch(text):
        raise ValueError("expected http://host:port or https://host, without user, query or spaces")
    return text


def one_of(names: Sequence[str], group: Group) -> AfterValidator:
    """A check that a text is one of ``names``, or one that an installed package brings."""

    def check(text: str) -> str:
        if text not in names and text not in (more := installed(group)):
            raise PydanticCustomError("unknown_name", "{end}", {"end": nearest(text, [*names, *more])})
        return text

    return AfterValidator(check)


FailedFraction = Annotated[float, Field(ge=0, le=1, description="more failed images than this share: exit code 3")]


Verify = Annotated[
    Literal["receipts", "full"],
    Field(
        description="parts that an earlier attempt published: receipts reads those again that have another size, time or etag than their receipt; full reads all, of a finished run too"
    ),
]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        strict=False,
        defer_build=True,  # a class is built when it first checks something: `--help` lists keys only
    )


def _check_webhook(text: str | None) -> str | None:
    if text is not None and not _WEBHOOK.fullmatch(text):
        raise ValueError("expected https://host/path, or env:NAME for a URL that is a secret")
    return text


class NotifyConfig(Section):
    """Who is told how a job ended, whatever the end: by the JSON line of its result."""

    command: list[str] = Field(
        default_factory=list,
        description="a command and its words, no shell: it gets the line on its standard input, SEGJOBS_EXIT_CODE and SEGJOBS_VERB in its environment",
    )
    webhook: Annotated[str | None, AfterValidator(_check_webhook)] = Field(
        default=None,
        description="a URL that gets the line by POST; env:NAME takes it from that environment variable, where it is a secret",
    )
    when: Literal["always", "failure"] = Field(
        default="always", description="failure: only where the exit code is not 0, a held night's 4 too"
    )
    timeout_s: float = Field(
        default=10.0, gt=0, allow_inf_nan=False, description="of the command, and of each of a webhook's three tries"
    )


class JobConfig(Section):
    env: list[str] = Field(
        default_factory=list,
        description="environment variables that ${oc.env:NAME} may read in this config; names of secrets never",
    )
    notify: NotifyConfig = Field(default_factory=NotifyConfig)


class S3Config(Section):
    endpoint_url: Annotated[str | None, AfterValidator(_check_endpoint)] = Field(
        default=None, description="S3 endpoint, for stores other than AWS"
    )
    region: str | None = Field(default=None, description="region; null takes the environment's")
    profile: str | None = Field(default=None, description="profile of ~/.aws/credentials; null takes the environment's")
    anonymous: bool = Field(default=False, description="send no credentials (public buckets)")

    @field_validator("anonymous")
    @classmethod
    def _check_profile(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("profile") is not None:
            raise contradiction("storage.s3.anonymous=true sends no credentials; drop one", key="profile")
        return value


class StorageConfig(Section):
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


class _InputConfig(Section, Generic[Place]):
    uri: Place = Field(
        description="folder, glob, file, list of URIs (.txt, .csv, .parquet), or a collection, whose images are taken; local or s3://bucket/prefix (prepare, coco: null takes names and sizes from the JSON, without the photographs)",
    )
    include: list[str] = Field(
        default_factory=lambda: list(IMAGE_GLOBS),
        description="file name or path patterns to take (case-insensitive)",
    )
    exclude: list[str] = Field(default_factory=list, description="file name or path patterns to leave out")
    skip_unreadable: bool = Field(
        default=False,
        description="leave out files and folders that cannot be looked at (no right, a disk that fails), and count them; else they stop the job",
    )
    limit: int | None = Field(default=None, ge=1, description="take the first N by image_id; null takes all")
    column: str = Field(default="uri", description="column of a CSV or Parquet list that holds the URIs")
    bands: Annotated[list[int] | None, BeforeValidator(_check_bands)] = Field(
        default=None,
        description="bands that are red, green and blue, counted from 1 as GDAL does, such as [4, 3, 2] of Sentinel-2; of one, [8], all three; null takes an image's own colours",
    )
    range: Annotated[list[Any] | None, BeforeValidator(_check_range)] = Field(
        default=None,
        description="values that are black and white, such as [0, 10000], or such a pair for each of red, green and blue; those beyond are cut; null: 0 and 255, of 16 bits 0 and 65535",
    )


class InputConfig(_InputConfig[Uri]):
    """The images of a job that looks at them."""


class PhotographsConfig(_InputConfig[Uri | None]):
    """The images of labels, or none: their label file says which they are, and of what size."""

    @field_validator("include", "exclude", "skip_unreadable", "column", "bands", "range")
    @classmethod
    def _check_listing(cls, value: object, info: ValidationInfo) -> object:
        assert info.field_name is not None, "a validator of a field"  # noqa: S101
        default = cls.model_fields[info.field_name].get_default(call_default_factory=True)
        if info.data.get("uri", "") is None and value != default:
            raise contradiction("has no effect with input.uri=null, which looks at no photograph; drop it")
        return value


class OutputConfig(Section):
    uri: OutputUri = Field(description="where the run is written: a folder or s3://bucket/prefix of its own")


Overwrite = Annotated[
    bool,
    Field(description="true replaces what an earlier command wrote there with other settings; false refuses it"),
]


class DecodeConfig(Section):
    max_pixels: int = Field(
        default=100_000_000, ge=1, description="larger images (by their header) fail as TOO_LARGE, undecoded"
    )


class NetworkConfig(Section):
    name: str = Field(description="a model of the table in flows/README.md, or package.module:factory")
    weights: Annotated[str, AfterValidator(_check_weights)] = Field(
        default="default",
        description="'default' (the published ones), torchvision:ENUM, a model directory or file, hf://org/repo@rev, or 'none' (random, by seed); of model.name=hf a transformers repository",
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
    resize: Annotated[str | None, BeforeValidator(check_resize)] = Field(
        default=None,
        description="size that the network sees: native, short:520, long:1024 or 256x256 (h x w); null takes the model's own",
    )
    seed: int = Field(default=0, ge=0, description="seed of the random weights of 'none'")

    @property
    def views(self) -> tuple[View, ...]:
        """The views of an image that the model is shown besides the image itself."""
        return ()


class ModelConfig(NetworkConfig):
    """A network, and what computes it."""

    runtime: Literal["torch", "onnxruntime", "openvino", "compile"] = Field(
        default="torch",
        description="what computes the network: torch, onnxruntime or openvino (on CPUs; extras segjobs[onnx] and segjobs[openvino]), or compile (torch.compile); semantic models of the table",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="numbers that model.runtime=openvino computes in on a CPU (of a GPU: compute.precision)",
    )

    @field_validator("precision")
    @classmethod
    def _check_model_precision(cls, value: str, info: ValidationInfo) -> str:
        runtime = info.data.get("runtime", "openvino")
        if value != "fp32" and runtime != "openvino":
            raise contradiction(
                f"{value} is for model.runtime=openvino, not {runtime}; on a GPU take compute.precision"
            )
        return value

    @property
    def is_exported(self) -> bool:
        """Whether another library than torch computes the network."""
        return self.runtime in ("onnxruntime", "openvino")


class MemberConfig(ModelConfig):
    """A model that labels, alone or in an ensemble."""

    tta: Annotated[list[str], AfterValidator(check_views)] = Field(
        default_factory=list,
        description="test-time augmentation: views that the model is shown besides the image, such as [hflip, scale:0.75, scale:1.25, hflip+scale:1.25]; probabilities are averaged, instances matched and fused",
    )

    @property
    def views(self) -> tuple[View, ...]:
        return tuple(parse_view(text) for text in self.tta)


class LabellingModelConfig(MemberConfig):
    """One model, or with ``name: ensemble`` several."""

    models: list[MemberConfig] = Field(
        default_factory=list,
        validate_default=True,
        description="with model.name=ensemble: its models, each with the keys of model; classes are matched by name, probabilities averaged. `models: [...]` at the top of a file, or models='[...]', is short for both",
    )

    @field_validator("models")
    @classmethod
    def _check_members(cls, value: list[MemberConfig], info: ValidationInfo) -> list[MemberConfig]:
        name = info.data.get("name")
        if (name == ENSEMBLE) != bool(value):
            raise contradiction(
                f"an ensemble needs its models: [{{name: …, weights: …}}, …]; {name!r} is one model"
                if value
                else f"model.name={ENSEMBLE} needs them: models='[{{name: unet, weights: out/unet1}}, …]'"
            )
        if not value:
            return value
        if len(value) < 2 or any(one.name == ENSEMBLE for one in value):
            raise contradiction("an ensemble has two models or more, each of them one model")
        for key in ("weights", "sha256", "options", "categories", "resize", "seed"):
            default = cls.model_fields[key].get_default(call_default_factory=True)
            if info.data.get(key, default) != default:
                raise contradiction("has no effect on an ensemble; give it to each of its models", key=key)
        return value

    @property
    def members(self) -> tuple[MemberConfig, ...]:
        """The models of an ensemble, of which those without ``tta`` have the ensemble's; else nothing."""
        return tuple(one if one.tta else one.model_copy(update={"tta": self.tta}) for one in self.models)


class PostprocessConfig(Section):
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


Uncertainty = Annotated[
    bool,
    Field(
        description="also write the columns margin and entropy: how unsure the model is, for segjobs review; less than 1 ms of a core an image"
    ),
]

Precision = Annotated[Literal["fp32", "bf16", "fp16"], Field(description="autocast on GPU; the CPU computes in fp32")]


def check_precision(value: str, gpus: object) -> str:
    """Raise where autocast is asked for of workers that shall have no GPU."""
    if value != "fp32" and gpus == 0:
        raise contradiction(f"{value} is for GPUs, and these have none; drop it, or the 0 of the GPUs")
    return value


class ClusterConfig(Section):
    address: str | None = Field(
        default=None,
        description="Ray address; null takes RAY_ADDRESS or the submitted job's cluster, else starts a local Ray",
    )
    allow_unauthenticated: bool = Field(
        default=False, description="join another machine's cluster that asks for no token (RAY_AUTH_MODE)"
    )


GraceSeconds = Annotated[
    float, Field(ge=0, description="seconds in which a stopped job may finish the shards that it has begun")
]


class TaskComputeConfig(ClusterConfig):
    """Of a job that works in tasks on any CPU, shard by shard."""

    grace_s: GraceSeconds = 20.0


class ComputeConfig(ClusterConfig):
    actors: Annotated[str, BeforeValidator(_check_pool)] = Field(
        default="auto",
        description="model actors: a number, a range '1-8' that scales with the load, or 'auto' (one per GPU, else by CPUs)",
    )
    cpus_per_actor: float | None = Field(
        default=None, gt=0, description="CPUs of one actor; null divides the cluster's"
    )
    gpus_per_actor: float | None = Field(
        default=None,
        ge=0,
        description="GPUs of one actor, such as 0.25 for four on each; null takes 1 where the cluster has any, else 0",
    )
    threads: int | None = Field(
        default=None, ge=1, description="torch threads of one actor on CPU; null takes its CPUs, at least 1"
    )
    batch_size: int = Field(default=8, ge=1, description="images per forward pass (halved on GPU out-of-memory)")
    precision: Precision = "fp32"
    decode: Literal["auto", "task", "actor"] = Field(
        default="auto",
        description="where images are decoded: tasks on any CPU, threads of the actor, or auto (task with GPUs, else actor)",
    )
    decode_threads: int = Field(default=2, ge=1, description="decoding threads of one actor or task")
    batch_deadline_s: float = Field(
        default=600.0,
        gt=0,
        description="label: longest that reading or decoding an image, or computing a batch, may take before its worker is ended",
    )
    grace_s: GraceSeconds = 20.0

    @field_validator("precision")
    @classmethod
    def _check_precision(cls, value: str, info: ValidationInfo) -> str:
        return check_precision(value, info.data.get("gpus_per_actor"))


class ShardConfig(Section):
    images: int = Field(
        default=64, ge=1, le=100_000, description="most images of a shard: the unit of retry, commit and progress"
    )
    bytes: int = Field(default=256 * 2**20, ge=1, description="most file bytes of a shard")
