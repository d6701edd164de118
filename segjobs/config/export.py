"""``flows/export.py``."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from segjobs.config.contradictions import check_effect
from segjobs.config.evaluate import ManifestRef
from segjobs.config.sections import (
    ClusterConfig,
    FailedFraction,
    JobConfig,
    OutputConfig,
    Overwrite,
    Section,
    StorageConfig,
    one_of,
)
from segjobs.config.uris import Uri

EXPORT_FORMATS = (
    *("coco_instances", "coco_results", "coco_panoptic", "cvat", "geojson", "kaggle", "label_studio", "labelme"),
    *("png", "yolo"),
)
SegmentationKind = Literal["rle", "counts", "polygons"]

_FORMATS = {
    "coco": ("coco_instances", "cvat"),
    "png": ("png",),
    "yolo": ("yolo",),
    "label_studio": ("label_studio",),
    "ids_from": ("coco_instances", "coco_results", "coco_panoptic"),
}
"""Keys that mean something to these values of ``format`` only."""


class CocoExportConfig(Section):
    """Formats coco_instances and cvat."""

    segmentation: SegmentationKind = Field(
        default="rle",
        description="how a mask is written: rle (compressed), counts (plain run lengths), or polygons along the edges of its pixels",
    )


class PngExportConfig(Section):
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


class YoloExportConfig(Section):
    """Format yolo."""

    tolerance_px: float = Field(
        default=0.0,
        ge=0,
        description="leave out corners of outlines that are this near to the line; 0 keeps the mask exact",
    )


class LabelStudioExportConfig(Section):
    """Format label_studio."""

    image_prefix: str | None = Field(
        default=None,
        description="what precedes an image_id in its URL, such as /data/local-files/?d=photos/; null takes the manifest's uri",
    )


class ExportConfig(JobConfig):
    """Write a manifest in another tool's format."""

    manifest: ManifestRef
    format: Annotated[str, one_of(EXPORT_FORMATS, "segjobs.exporters")] = Field(
        examples=list(EXPORT_FORMATS),
        description="coco_instances, coco_results, coco_panoptic, cvat (COCO as it reads it), geojson (QuPath), kaggle (run-length CSV), label_studio, labelme, png (label maps), yolo (segmentation), or one that an installed package brings",
    )
    output: OutputConfig
    overwrite: Overwrite = False
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
    coco: CocoExportConfig = Field(default_factory=CocoExportConfig)
    png: PngExportConfig = Field(default_factory=PngExportConfig)
    yolo: YoloExportConfig = Field(default_factory=YoloExportConfig)
    label_studio: LabelStudioExportConfig = Field(default_factory=LabelStudioExportConfig)
    compute: ClusterConfig = Field(default_factory=ClusterConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    max_failed_fraction: FailedFraction = 0.01

    @field_validator(*_FORMATS)
    @classmethod
    def _check_effect(cls, value: object, info: ValidationInfo) -> object:
        if info.data.get("format") in EXPORT_FORMATS:
            check_effect(cls, value, info, _FORMATS, of="format")
        return value
