"""report.json: what evaluate writes, and the page, the terminal and the next evaluation read.

    evaluation/report.py → Report → to_json → report.json → from_json → Report → page/view.py, …

Every score is in [0, 1] and null where it is undefined. A file with a field too many, too few or of another
type is no report: a ManifestError that names the file and the field. ``Inputs`` is scores.json, which stands
beside it from the start and says what the counts are of.
"""

import json
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from segjobs.config import BootstrapConfig, BoundaryConfig, DisputesConfig
from segjobs.errors import ManifestError
from segjobs.manifest.schema import Category, Task
from segjobs.manifest.seal import damaged, open_text
from segjobs.metrics.names import (
    AVERAGE_PRECISION,
    BOUNDARY,
    CONVENTION_WORDS,
    HEADLINE,
    OF_PIXELS,
    OF_SET,
    QUALITY,
    MatchKind,
)

SCHEMA_VERSION = 2
Status = Literal["ok", "missing", "failed", "no_truth", "extra"]
"""An image's: scored, without a prediction, with a failed one, with failed truth, without truth."""
STATUSES: tuple[Status, ...] = get_args(Status)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class _Sparse(_Part):
    """A part whose fields with a default are absent from the file where they were not measured."""

    @model_serializer(mode="wrap")
    def _measured(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


class _OfClass(_Part):
    category_id: int
    category: str


def _named(always: Collection[str], sometimes: Collection[str] = ()) -> AfterValidator:
    """Figures by name: all of ``always`` have to be there, and besides only those of ``sometimes``."""

    def checked(figures: dict[str, object]) -> dict[str, object]:
        missing = [name for name in always if name not in figures]
        unknown = [name for name in figures if name not in always and name not in sometimes]
        if missing:
            raise PydanticCustomError("missing_name", "lacks {name}", {"name": missing[0]})
        if unknown:
            raise PydanticCustomError("unknown_name", "unknown field {name}", {"name": unknown[0]})
        return figures

    return AfterValidator(checked)


class Figure(_Part):
    """A score with the ends of its interval, which are null without a bootstrap."""

    value: float | None
    low: float | None
    high: float | None


class Difference(_Part):
    """A score here and in the baseline; the interval and the two-sided p-value are of their difference."""

    value: float | None
    baseline: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None


# --- what was scored ---------------------------------------------------------------------------


class ScoredRun(_Part):
    """One side: a run, or what another tool wrote (without ``run_id``). ``parts_digest``: of its very bytes."""

    uri: str
    run_id: str | None
    model: str | None
    parts_digest: str


class CountSettings(_Part):
    """What changes the counts themselves. ``disputes``: least score and least pixels; ``rules``: by which images are
    counted, which a release may change."""

    boundary: BoundaryConfig
    rename: dict[str, str | None]
    disputes: tuple[float, int]
    rules: int = 1


class Inputs(_Part):
    """What an evaluation's counts are of, and in how many ``parts`` they lie: equal inputs, equal counts."""

    truth: ScoredRun
    predictions: ScoredRun
    counts: CountSettings
    parts: int

    def to_json(self) -> bytes:
        return json.dumps(self.model_dump(), sort_keys=True, ensure_ascii=False).encode()

    @staticmethod
    def from_json(data: bytes, *, where: str) -> "Inputs":
        """Raises ManifestError with ``where``."""
        return _read(Inputs, data, where)


class ScoredDigests(_Part):
    truth: str
    predictions: str


class Identity(_Part):
    """What a report is of: equal values, equal report. ``slices``: digest of the joined table; ``agreement``: without
    truth; ``settings``: every other key that can change a figure (``config/effects.py``), by dotted name."""

    version: int
    scored: tuple[ScoredDigests, ...]
    counts: CountSettings
    slices: str
    missing: Literal["worst", "skip", "error"]
    rename: dict[str, str | None]
    ignore_classes: tuple[str, ...]
    gate: tuple[str, ...]
    bootstrap: BootstrapConfig
    disputes: DisputesConfig
    agreement: bool = False
    settings: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])

    def by_key(self) -> dict[str, Any]:
        """Every value by a name for people: that of its key where it has one."""
        named = self.model_dump()
        return {**named.pop("settings"), **named}


# --- scores ------------------------------------------------------------------------------------

_PLAIN = [name for name in HEADLINE if name not in (*OF_PIXELS, *BOUNDARY)]
Headline = Annotated[dict[str, Figure], _named(_PLAIN, HEADLINE)]
AveragePrecision = Annotated[dict[str, Figure], _named(AVERAGE_PRECISION)]
Quality = Annotated[dict[str, Figure], _named(QUALITY)]


class ClassScores(_Sparse, _OfClass):
    """One class's pixels. ``images`` have it in the truth."""

    iou: Figure
    dice: Figure
    precision: Figure
    recall: Figure
    boundary_iou: Figure | None = None
    boundary_f: Figure | None = None
    correct_px: int
    truth_px: int
    predicted_px: int
    images: int


class Convention(_Sparse):
    """The same masks as another tool scores them: what it does not report is null or absent."""

    iou: tuple[float | None, ...] = ()
    mean_iou: float | None
    pixel_accuracy: float | None = None
    mean_accuracy: float | None = None
    frequency_weighted_iou: float | None = None
    mean_dice: float | None = None


class CalibrationBin(_Part):
    """Images by their confidence, above ``low`` up to ``high``: their mean confidence and pixel accuracy."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


class Calibration(_Part):
    bins: tuple[CalibrationBin, ...]
    ece: float


class Histogram(_Part):
    """``counts`` of images between each two ``edges``."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class Semantic(_Part):
    """Scores of pixels. ``confusion``: (C + 1, C + 1), last the unlabelled truth and what is not predicted;
    null, as ``calibration``, where objects may overlap."""

    headline: Headline
    per_class: tuple[ClassScores, ...]
    conventions: Annotated[dict[str, Convention], _named(["per_image"], CONVENTION_WORDS)]
    confusion: tuple[tuple[int, ...], ...] | None
    calibration: Calibration | None
    per_image_histogram: Histogram


class ClassDetections(_OfClass):
    mask_AP: Figure
    mask_AP50: Figure
    box_AP: Figure
    box_AP50: Figure
    objects: int
    detections: int


class Instance(_Part):
    """COCO's twelve numbers, of masks and of boxes."""

    mask: AveragePrecision
    box: AveragePrecision
    per_class: tuple[ClassDetections, ...]

    def of(self, kind: MatchKind) -> dict[str, Figure]:
        return self.mask if kind == "mask" else self.box


class ClassQuality(_OfClass):
    pq: Figure
    sq: Figure
    rq: Figure


class Panoptic(_Part):
    all: Quality
    per_class: tuple[ClassQuality, ...]


class Slice(_Part):
    """Some of the images, or (``images`` null) a group of classes."""

    column: str
    value: str
    images: int | None
    scores: Annotated[dict[str, Figure], _named(["mean_iou"], OF_SET)]


# --- against a baseline ------------------------------------------------------------------------


class ClassDifference(_OfClass):
    """``Difference`` of one class."""

    value: float | None
    baseline: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None


class ChangedImage(_Part):
    """An image's own mean IoU."""

    image_id: str
    value: float
    baseline: float


class Comparison(_Part):
    """Against the baseline on the same images. ``per_class``: of the score named ``figure``."""

    baseline: ScoredRun
    metrics: Annotated[dict[str, Difference], _named(["mean_iou"], OF_SET)]
    figure: str
    per_class: tuple[ClassDifference, ...]
    improved: tuple[ChangedImage, ...]
    worsened: tuple[ChangedImage, ...]


class TwoCounts(_Part):
    value: int
    baseline: int


class ClassDrift(_OfClass):
    """What a class takes up in each of two models' masks: its share of the pixels, objects, images."""

    area_share: Difference
    objects: TwoCounts
    images: TwoCounts


# --- single findings ---------------------------------------------------------------------------


class RuleVerdict(_Part):
    """A rule of the gate, and the value that meets or misses it."""

    rule: str
    passed: bool
    value: float | None
    message: str


class Failure(_Part):
    """Predictions (``failed``) or truth (``no_truth``) of ``images`` that could not be had for one reason."""

    status: Literal["failed", "no_truth"]
    code: str
    images: int
    image_id: str
    message: str


class Segmentation(_Part):
    """COCO RLE; ``size`` is h, w."""

    size: tuple[int, int]
    counts: str


class Dispute(_Part):
    """Pixels that the truth gives ``category`` (null: nothing) and a confident prediction ``other``."""

    image_id: str
    uri: str
    category: str | None
    other: str
    pixels: int
    confidence: float
    segmentation: Segmentation


# --- the whole ---------------------------------------------------------------------------------


class Report(_Part):
    """One evaluation. ``agreement``: without truth, a baseline's masks are in its place. ``notes``: what a reader of
    the scores has to know besides. Where no image was scored, every figure is null."""

    schema_version: Literal[2] = Field(alias="schema")
    version: str
    task: Task
    convention: Literal["dataset"]
    missing: Literal["worst", "skip", "error"]
    ignored: tuple[str, ...]
    truth: ScoredRun
    predictions: ScoredRun
    agreement: bool
    images: Annotated[dict[Status, int], _named(STATUSES)]
    scored_images: int
    examples: dict[Status, tuple[str, ...]]
    categories: tuple[Category, ...]
    bootstrap: BootstrapConfig | None
    semantic: Semantic
    instance: Instance | None
    panoptic: Panoptic | None
    slices: tuple[Slice, ...]
    drift: tuple[ClassDrift, ...] | None
    comparison: Comparison | None
    gate: tuple[RuleVerdict, ...]
    disputes: tuple[Dispute, ...]
    identity: Identity
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        return json.dumps(self.model_dump(by_alias=True), ensure_ascii=False).encode()

    @staticmethod
    def from_json(data: bytes, *, where: str) -> "Report":
        """Raises ManifestError with ``where`` and the field for anything else than what ``to_json`` gives."""
        return _read(Report, data, where)


_Model = TypeVar("_Model", bound=BaseModel)
_MEND = "move it away and evaluate again"
_WORDS = {
    "missing": "missing",
    "extra_forbidden": "unknown field",
    "unexpected_keyword_argument": "unknown field",  # of a dataclass
}


def _read(kind: type[_Model], data: bytes, where: str) -> _Model:
    text = open_text(data, where, mend=_MEND)
    try:
        return kind.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    first = next((one for one in problems if one["loc"] == ("schema",)), problems[0])
    if first["type"] == "json_invalid":
        raise damaged(where, first["msg"], mend=_MEND)
    if first["loc"] == ("schema",) and first["type"] != "missing":
        raise ManifestError(
            f"{where}: the report's schema is {first['input']!r}, this release reads {SCHEMA_VERSION}: evaluate again, "
            "or draw its page with the release that wrote it"
        )
    words = _WORDS.get(first["type"], first["msg"])
    place = ".".join(map(str, first["loc"])) or "the whole"
    raise ManifestError(f"{where}: {place}: {words}; expected what segjobs evaluate of this release writes")
