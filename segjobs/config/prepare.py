"""``flows/prepare.py``."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from segjobs.config.contradictions import check_effect, contradiction
from segjobs.config.sections import (
    DecodeConfig,
    FailedFraction,
    JobConfig,
    OutputConfig,
    PhotographsConfig,
    Section,
    ShardConfig,
    StorageConfig,
    TaskComputeConfig,
    Verify,
    one_of,
)
from segjobs.config.uris import Uri, check_allowed

LABEL_FORMATS = (
    "png", "rgb", "binary", "instance_ids", "voc", "coco", "coco_panoptic", "yolo", "labelme", "label_studio", "cvat",
    "via", "kaggle", "qupath", "sa1b", "ade20k",
)  # fmt: skip
_FILES = (
    "png",
    "rgb",
    "binary",
    "instance_ids",
    "voc",
    "yolo",
    "labelme",
    "qupath",
    "sa1b",
    "ade20k",
)  # a file an image
_DOCUMENTS = ("label_studio", "cvat", "via", "kaggle")

_FORMATS = {
    "masks": ("coco_panoptic",),
    "table": ("png", "rgb", "voc", "instance_ids"),
    "ids": ("png", "voc", "instance_ids", "ade20k"),
    "divisor": ("instance_ids",),
    "void_ids": ("png", "voc", "instance_ids", "ade20k"),
    "colors": ("rgb",),
    "void_colors": ("rgb",),
    "void_names": ("labelme",),
    "background": ("labelme", "coco", "qupath", *_DOCUMENTS),
    "line_width_px": ("labelme",),
    "threshold": ("binary",),
    "task": ("binary", "voc", "labelme", "coco", "qupath", "ade20k", *_DOCUMENTS),
    "attribute": ("via",),
    "prefix": _FILES,
    "pattern": _FILES,
    "categories": (*_FILES, *_DOCUMENTS),
    "class_file": (*_FILES, *_DOCUMENTS),
    "crowds": ("coco",),
}
"""Keys that mean something to these values of ``format`` only."""


def reads_as(format_name: str) -> bool:
    """Whether labels of this format can be read as classes or as objects, as ``labels.task`` says."""
    return format_name in _FORMATS["task"]


def _check_pattern(text: str | None) -> str | None:
    try:
        groups = re.compile(text or "()").groups
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    if groups < 1:
        raise ValueError("expected a regular expression with a group, such as (\\d+)_")
    return text


_NAMING = ("coco",)  # formats whose file names its images with their sizes
_SIZED = ("coco", "labelme", "cvat")  # formats whose files say the size of their images


class LabelsConfig(Section):
    """Where the labels are and how to read them."""

    format: Annotated[str, one_of(LABEL_FORMATS, "segjobs.labels")] = Field(
        examples=list(LABEL_FORMATS),
        description="png (id maps), rgb (maps of class colours), binary (masks 0/255), instance_ids (an id an object), voc (folder with SegmentationClass), coco, coco_panoptic (JSON), yolo (txt), labelme (JSON an image), label_studio (JSON), cvat (XML for images), via (JSON), kaggle (CSV of run lengths), qupath (GeoJSON an image), sa1b (JSON an image), ade20k (its full release's _seg.png), or one that an installed package brings",
    )
    uri: Uri = Field(
        description="folder of the labels, or the file of coco, coco_panoptic, label_studio, cvat, via and kaggle"
    )
    masks: Uri | None = Field(
        default=None, description="coco_panoptic: folder of the PNGs; null takes the JSON's name without .json"
    )
    task: Literal["semantic", "instance"] | None = Field(
        default=None,
        description="read classes or objects; null takes semantic for binary, voc and ade20k, instance for the others (coco: objects are painted to classes, larger ones under smaller ones)",
    )
    table: Literal["voc", "cityscapes_ids", "cityscapes_train_ids"] | None = Field(
        default=None,
        description="png, rgb: a built-in class table (names, ids, colours, void) instead of the next keys; instance_ids: cityscapes_ids, for its instanceIds",
    )
    categories: list[str] | None = Field(
        default=None, description="class names (not coco, coco_panoptic); their order gives the ids"
    )
    class_file: Uri | None = Field(
        default=None, description="file of class names instead: one a line (.txt), or YOLO's data.yaml"
    )
    ids: list[int] | None = Field(
        default=None,
        description="png: the ids of the class names; null counts from 0 (ade20k, and instance_ids with a divisor: from 1)",
    )
    divisor: int | None = Field(
        default=None,
        ge=2,
        description="instance_ids: an object's class is its id // divisor, such as 1000; null: all are of one class",
    )
    void_ids: list[int] | None = Field(
        default=None,
        description="png, voc, instance_ids, ade20k: ids that mean unlabelled; null: 255 for png and voc, 0 for ade20k, else none",
    )
    colors: list[list[int]] | None = Field(
        default=None, description="rgb: colours (r, g, b) of the class names, in their order"
    )
    void_colors: list[list[int]] = Field(default_factory=list, description="rgb: colours that mean unlabelled")
    void_names: list[str] = Field(
        default_factory=lambda: ["__ignore__"], description="labelme: names of shapes whose pixels are unlabelled"
    )
    attribute: str | None = Field(
        default=None, description="via: the region attribute that names the class; null takes the only one"
    )
    background: str | None = Field(
        default=None,
        description="semantic classes of shapes (labelme, coco, …): class of pixels that no shape covers; null leaves them unlabelled",
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
    frame: Literal["shown", "stored", "mixed"] = Field(
        default="shown",
        description="images with an EXIF orientation: labels lie as the image is shown, as its pixels are stored, or (mixed, Label Studio's COCO) as shown with sizes as stored (coco, labelme, cvat)",
    )
    prefix: str = Field(default="", description="what a label's name has before the image's, such as mask_")
    pattern: Annotated[str | None, AfterValidator(_check_pattern)] = Field(
        default=None,
        description="where names differ more: a regex on the paths of images and labels, without extension, whose first group is what they share, such as (\\d+)_",
    )
    ignore_uri: Uri | None = Field(
        default=None,
        description="folder of masks, one an image, of pixels that are not scored (semantic and panoptic): they become unlabelled",
    )
    ignore: Literal["nonzero", "zero"] = Field(
        default="nonzero", description="ignore_uri: its white pixels, or (a field of view) its black ones"
    )
    unknown: Literal["fail", "ignore", "void", "map"] = Field(
        default="fail",
        description="an id or name that is neither class nor void: fails the image, is left out (ignore or void; pixels unlabelled), or is unknown_class (map)",
    )
    unknown_class: str | None = Field(
        default=None, validate_default=True, description="unknown=map: the class that takes them"
    )
    missing: Literal["fail", "empty", "skip"] = Field(
        default="fail",
        description="an image without label: fails (NOT_FOUND), holds no object (empty; instance labels only), or is left out of the manifest (skip; counted)",
    )

    crowds: Literal["as_regions", "as_objects"] = Field(
        default="as_regions",
        description="coco: what iscrowd=1 says: as_regions of uncounted objects, never scored, or nothing (as_objects: CVAT's brush marks every object)",
    )

    @field_validator(*_FORMATS)
    @classmethod
    def _check_effect(cls, value: object, info: ValidationInfo) -> object:
        if info.data.get("format") in LABEL_FORMATS:  # any key may mean something to another package's format
            check_effect(cls, value, info, _FORMATS, of="labels.format")
        return value

    @field_validator("categories", "ids", "colors")
    @classmethod
    def _check_table(cls, value: object, info: ValidationInfo) -> object:
        table, given = info.data.get("table"), info.data
        if info.field_name == "ids" and value is not None and given.get("format") == "instance_ids" and not table:
            return value
        if info.field_name == "ids" and given.get("format") == "voc":
            # Without names, voc takes those of its own table.
            own = all(key in given and given[key] is None for key in ("table", "categories", "class_file"))
            table = "voc" if own else table
        if table is not None and value is not None:
            raise contradiction(f"labels.table={table} says it already; drop one")
        return value

    @field_validator("table")
    @classmethod
    def _check_objects(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("format") == "instance_ids" and value not in (None, "cityscapes_ids"):
            raise contradiction("instance_ids reads labels.table=cityscapes_ids only; drop it")
        return value

    @field_validator("frame")
    @classmethod
    def _check_frame(cls, value: str, info: ValidationInfo) -> str:
        if value == "mixed" and info.data.get("format") in LABEL_FORMATS and info.data["format"] not in _SIZED:
            raise contradiction(
                f"mixed has no effect with labels.format={info.data['format']}, whose files say no size"
            )
        return value

    @field_validator("class_file")
    @classmethod
    def _check_class_file(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and (info.data.get("categories") is not None or info.data.get("table") is not None):
            raise contradiction("labels.categories or labels.table names the classes already; drop one")
        return value

    @field_validator("unknown_class")
    @classmethod
    def _check_unknown_class(cls, value: str | None, info: ValidationInfo) -> str | None:
        if "unknown" in info.data and (info.data["unknown"] == "map") != (value is not None):
            raise contradiction("labels.unknown=map needs it, and nothing else takes it")
        return value


class PrepareConfig(JobConfig):
    """Read somebody's labels into a truth manifest."""

    input: PhotographsConfig
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
    compute: TaskComputeConfig = Field(default_factory=TaskComputeConfig)
    shard: ShardConfig = Field(default_factory=ShardConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    verify: Verify = "receipts"
    max_failed_fraction: FailedFraction = 0.01
    fail_on_empty: bool = Field(
        default=True, description="an input without any image is an error; false makes an empty manifest of it"
    )

    @field_validator("labels")
    @classmethod
    def _check_photographs(cls, value: LabelsConfig, info: ValidationInfo) -> LabelsConfig:
        if "input" not in info.data or info.data["input"].uri is not None:
            return value
        if value.format not in _NAMING:
            raise contradiction(
                f"null takes names and sizes of the images from the labels, and {value.format} does not say them, only "
                f"{', '.join(_NAMING)}; name the photographs",
                key="input.uri",
            )
        if value.frame != "shown":
            raise contradiction(
                f"{value.frame} needs the photographs, whose EXIF says how they are turned: name them, input.uri",
                key="labels.frame",
            )
        return value

    @field_validator("splits")
    @classmethod
    def _check_splits(cls, value: dict[str, float | str], info: ValidationInfo) -> dict[str, float | str]:
        return {name: check_allowed(one, info) if isinstance(one, str) else one for name, one in value.items()}
