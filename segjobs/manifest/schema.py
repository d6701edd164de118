"""The mask manifest: columns, categories, model card and the Parquet footer that carries them.

Everything that segjobs reads or writes about masks has this one shape: one row per image.
Standard Parquet types only, so DuckDB, Polars, pandas and pycocotools read it as it is.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypedDict

import pyarrow as pa

from segjobs import __version__
from segjobs.errors import ManifestError

SCHEMA_VERSION = 1
FOOTER_KEY = b"segjobs"
Task = Literal["semantic", "instance", "panoptic"]
"""semantic: one segment per class, never overlapping. instance: one per object, which may overlap; uncovered
pixels are background. panoptic: one per object or stuff region, never overlapping. Where no segment of a
semantic or panoptic row lies, the pixel is unlabelled; ``iscrowd`` marks regions of uncounted objects."""

Options = Mapping[str, Any]
"""A network's options by name: keyword arguments of its builder, which ``registry`` compares with ``ModelSpec``'s."""

SOURCE_TYPE = pa.struct(
    [
        ("size", pa.int64()),
        ("mtime", pa.timestamp("us", tz="UTC")),
        ("etag", pa.string()),
        ("sha256", pa.string()),
    ]
)
SEGMENT_TYPE = pa.struct(
    [
        ("category_id", pa.int32()),
        ("category", pa.string()),
        ("score", pa.float32()),
        ("bbox", pa.list_(pa.float32())),  # x, y, w, h in pixels, as COCO
        ("area", pa.int64()),
        ("iscrowd", pa.bool_()),
        (
            "segmentation",
            pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())]),  # size is h, w
        ),
        # What COCO's JSON or a model's box head says of the object, where it does: it need not be the mask's.
        ("stated_bbox", pa.list_(pa.field("element", pa.float64()))),  # x, y, w, h in pixels
        ("stated_area", pa.float64()),
    ]
)
LATER_COLUMNS = pa.schema(
    [
        ("margin", pa.float32()),  # see models/uncertainty.py
        ("margin_worst", pa.float32()),
        ("entropy", pa.float32()),
        ("entropy_worst", pa.float32()),
        ("annotated_by", pa.string()),  # of human labels: who, and when, where their file says it
        ("annotated_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""Columns that files of earlier releases lack: null there, and wherever nobody has asked for them."""
_COLUMNS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("source", SOURCE_TYPE),
        pa.field("status", pa.string(), nullable=False),
        ("error", pa.struct([("code", pa.string()), ("message", pa.string())])),
        ("segments", pa.list_(SEGMENT_TYPE)),
        ("confidence", pa.float32()),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("model", pa.string()),
    ]
)
MANIFEST_SCHEMA = pa.schema([*_COLUMNS, *LATER_COLUMNS])
COLLECTION_SCHEMA = pa.schema(
    [
        *_COLUMNS,
        pa.field("origin", pa.string(), nullable=False),  # model or human
        ("processing", pa.string()),  # digest of all that makes masks from bytes besides the model
        pa.field("labelled_at", pa.timestamp("us", tz="UTC"), nullable=False),
        ("gone_at", pa.timestamp("us", tz="UTC")),  # since when the image is no longer listed
        *LATER_COLUMNS,
    ]
)
"""The table of a collection: the current row of every image."""


def with_later_columns(table: pa.Table, wanted: Collection[str] | None = None) -> pa.Table:
    """The table with null for each of ``LATER_COLUMNS`` that it lacks; ``wanted``: of these alone."""
    for column in LATER_COLUMNS:
        if column.name not in table.column_names and (wanted is None or column.name in wanted):
            table = table.append_column(column, pa.nulls(table.num_rows, column.type))
    return table


@dataclass(frozen=True)
class Category:
    """One class: the id that masks carry, its name, and the colour it is drawn in (r, g, b, 0–255).

    ``isthing``, of panoptic labels: countable objects (True) or stuff, one region an image (False).
    """

    id: int
    name: str
    color: tuple[int, int, int]
    isthing: bool | None = None


@dataclass(frozen=True)
class ModelCard:
    """What a model is, as written beside its weights, in every manifest footer and in run.json.

    ``digest`` is the SHA-256 of weights and architecture together; ``preprocessing`` holds
    ``resize`` (see ``models/base.py``), ``mean`` and ``std`` (RGB, of values in [0, 1]).
    """

    name: str
    task: Task
    categories: tuple[Category, ...]
    digest: str
    weights: str
    options: Options = field(default_factory=dict[str, Any])
    preprocessing: dict[str, Any] = field(default_factory=dict[str, Any])
    licence: str | None = None

    @property
    def label(self) -> str:
        """The manifest's ``model`` column: ``name@sha256[:12]``."""
        return f"{self.name}@{self.digest[:12]}"


class ModelFacts(TypedDict):
    """What a footer says of the model that made the masks; ``label``: ``name@sha256[:12]``."""

    label: str
    digest: str
    weights: str
    options: Options
    preprocessing: Mapping[str, object]
    licence: str | None


class PixelsJson(TypedDict):
    """Of which bands, and of which of their values, an image's pixels were made: ``input.bands``, ``input.range``."""

    bands: list[int] | None
    range: list[float] | list[list[float]] | None


class FooterJson(TypedDict, total=False):
    """A footer as JSON holds it."""

    task: str
    categories: list[dict[str, object]]
    config_digest: str
    model: ModelFacts | None
    schema_version: int
    version: str
    boxes_only: bool
    pixels: PixelsJson | None


@dataclass(frozen=True)
class Footer:
    """The JSON under the key ``segjobs`` of every part: all a reader needs to interpret the rows.

    ``boxes_only``: objects that are boxes (``stated_bbox``), whose masks cover nothing. ``pixels``: how the images are
    read; None: in their own colours.
    """

    task: Task
    categories: tuple[Category, ...]
    config_digest: str
    model: ModelFacts | None = None
    schema_version: int = SCHEMA_VERSION
    version: str = __version__
    boxes_only: bool = False
    pixels: PixelsJson | None = None

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self, dict_factory=_without_unknown), sort_keys=True, ensure_ascii=False).encode()

    def to_json(self) -> FooterJson:
        """What ``to_bytes`` writes, as run.json holds it."""
        return json.loads(self.to_bytes())

    @staticmethod
    def from_bytes(data: bytes) -> "Footer":
        return Footer.from_json(json.loads(data))

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> "Footer":
        """Raises ManifestError where the schema is another release's."""
        if raw.get("schema_version") != SCHEMA_VERSION:
            raise ManifestError(
                f"the manifest's schema version is {raw.get('schema_version')!r}, this release reads "
                f"{SCHEMA_VERSION}: read it with segjobs {raw.get('version')}"
            )
        return Footer(**dict(raw, categories=categories_from_json(raw["categories"])))


def _without_unknown(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unsaid = (("isthing", None), ("boxes_only", False), ("pixels", None))
    return {key: value for key, value in pairs if (key, value) not in unsaid}


def categories_from_json(raw: Sequence[Mapping[str, Any]]) -> tuple[Category, ...]:
    """Categories as JSON holds them (``id``, ``name``, ``color`` as a list, ``isthing`` or not) to values."""
    return tuple(Category(int(c["id"]), str(c["name"]), tuple(c["color"]), c.get("isthing")) for c in raw)


# PASCAL VOC 2012 (VOCdevkit, VOCinit.m); the classes of torchvision's semantic weights too.
VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def palette_color(index: int) -> tuple[int, int, int]:
    """Colour of a class by its index, as PASCAL VOC's colour map makes it (r, g, b, 0–255).

    Source: VOCdevkit ``VOClabelcolormap.m``: the bits of the index spread over the three channels.
    """
    rgb = [0, 0, 0]
    value = index
    for bit in range(7, -1, -1):
        for channel in range(3):
            rgb[channel] |= ((value >> channel) & 1) << bit
        value >>= 3
    return rgb[0], rgb[1], rgb[2]


def make_categories(names: Sequence[str], *, first_id: int = 0) -> tuple[Category, ...]:
    """Categories numbered from ``first_id`` with palette colours, in the order of ``names``."""
    return tuple(Category(first_id + index, name, palette_color(index)) for index, name in enumerate(names))
