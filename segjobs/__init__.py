"""segjobs: label, score and look at very large image collections with segmentation models on Ray.

    import segjobs

    run = segjobs.label(input="photos/", model="deeplabv3_resnet50", output="out/run1")
    manifest = segjobs.open_manifest(run.uri)
    row = next(iter(manifest))
    row.mask("car")                                # bool (H, W)
    segjobs.draw_row(row, manifest.categories)     # the photo with its masks, a PIL image

What stands in ``__all__`` is the public surface. A name's module is imported when the name is used, so that
``import segjobs`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segjobs.api import (
        edits,
        evaluate,
        export,
        label,
        nightly,
        open_manifest,
        prepare,
        read_rows,
        report,
        review,
        train,
    )
    from segjobs.errors import (
        ClusterError,
        ConfigError,
        ConflictError,
        ExitCode,
        ItemError,
        ManifestError,
        SegjobsError,
        StorageError,
        TrainingError,
        WeightsError,
    )
    from segjobs.manifest.manifest import Manifest, Row
    from segjobs.manifest.schema import Category, ModelCard
    from segjobs.models.base import Instances, LabelMap, Segmenter
    from segjobs.page.pictures import draw_row
    from segjobs.results import (
        EditsResult,
        EvaluateResult,
        ExportResult,
        NightlyResult,
        PrepareResult,
        ReportResult,
        ReviewResult,
        RunResult,
        TrainResult,
    )

__version__ = "0.1.0"

__all__ = [
    "Category",
    "ClusterError",
    "ConfigError",
    "ConflictError",
    "EditsResult",
    "EvaluateResult",
    "ExitCode",
    "ExportResult",
    "Instances",
    "ItemError",
    "LabelMap",
    "Manifest",
    "ManifestError",
    "ModelCard",
    "NightlyResult",
    "PrepareResult",
    "ReportResult",
    "ReviewResult",
    "Row",
    "RunResult",
    "SegjobsError",
    "Segmenter",
    "StorageError",
    "TrainResult",
    "TrainingError",
    "WeightsError",
    "__version__",
    "draw_row",
    "edits",
    "evaluate",
    "export",
    "label",
    "nightly",
    "open_manifest",
    "prepare",
    "read_rows",
    "report",
    "review",
    "train",
]

_API = (
    "edits",
    "evaluate",
    "export",
    "label",
    "nightly",
    "open_manifest",
    "prepare",
    "read_rows",
    "report",
    "review",
    "train",
)
_RESULTS = (
    "EditsResult",
    "EvaluateResult",
    "ExportResult",
    "NightlyResult",
    "PrepareResult",
    "ReportResult",
    "ReviewResult",
    "RunResult",
    "TrainResult",
)
_HOMES = {
    **dict.fromkeys(_API, "segjobs.api"),
    **dict.fromkeys(_RESULTS, "segjobs.results"),
    **dict.fromkeys(("Manifest", "Row"), "segjobs.manifest.manifest"),
    **dict.fromkeys(("Category", "ModelCard"), "segjobs.manifest.schema"),
    **dict.fromkeys(("Instances", "LabelMap", "Segmenter"), "segjobs.models.base"),
    "draw_row": "segjobs.page.pictures",
    **{name: "segjobs.errors" for name in __all__ if name.endswith("Error") or name == "ExitCode"},
}
"""Public name → the module that has it."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segjobs' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
