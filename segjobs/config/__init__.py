"""The configuration of every job: YAML file + ``key=value`` overrides in, one checked value out.

A file for each job's keys; a field's description is its help text, so ``--help``, the error messages and the YAML
files cannot drift apart.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from segjobs.config.bench import BenchCompareConfig, BenchConfig, compared
from segjobs.config.check import CheckConfig
from segjobs.config.collection import CollectionConfig, placed
from segjobs.config.demo import DemoConfig
from segjobs.config.edits import EditsConfig
from segjobs.config.effects import effective, later
from segjobs.config.evaluate import (
    BootstrapConfig,
    BoundaryConfig,
    DisputesConfig,
    EvaluateConfig,
    PredictionsConfig,
    SlicesConfig,
)
from segjobs.config.export import ExportConfig
from segjobs.config.keys import dashed, describe_keys, iter_fields, shared_fields
from segjobs.config.label import LabelConfig, RedoConfig, TilesConfig
from segjobs.config.nightly import IcebergConfig, NightlyConfig
from segjobs.config.prepare import LabelsConfig, PrepareConfig
from segjobs.config.report import (
    ReportConfig,
)
from segjobs.config.review import ReviewConfig
from segjobs.config.sections import (
    ENSEMBLE,
    IMAGE_GLOBS,
    ClusterConfig,
    ComputeConfig,
    DecodeConfig,
    InputConfig,
    LabellingModelConfig,
    MemberConfig,
    ModelConfig,
    NetworkConfig,
    NotifyConfig,
    OutputConfig,
    PhotographsConfig,
    PostprocessConfig,
    S3Config,
    ShardConfig,
    StorageConfig,
    check_resize,
)
from segjobs.config.train import (
    AugmentConfig,
    LossConfig,
    OptimiserConfig,
    ScheduleConfig,
    SourceConfig,
    TrainComputeConfig,
    TrainConfig,
    TrainModelConfig,
)
from segjobs.config.uris import EXTRA_SCHEMES, check_uri
from segjobs.config.views import View
from segjobs.text import digest, nearest

if TYPE_CHECKING:
    from segjobs.config.load import load_config, make_config, to_yaml

__all__ = [
    "ENSEMBLE",
    "EXTRA_SCHEMES",
    "IMAGE_GLOBS",
    "AugmentConfig",
    "BenchCompareConfig",
    "BenchConfig",
    "BootstrapConfig",
    "BoundaryConfig",
    "CheckConfig",
    "ClusterConfig",
    "CollectionConfig",
    "ComputeConfig",
    "DecodeConfig",
    "DemoConfig",
    "DisputesConfig",
    "EditsConfig",
    "EvaluateConfig",
    "ExportConfig",
    "IcebergConfig",
    "InputConfig",
    "LabelConfig",
    "LabellingModelConfig",
    "LabelsConfig",
    "LossConfig",
    "MemberConfig",
    "ModelConfig",
    "NetworkConfig",
    "NightlyConfig",
    "NotifyConfig",
    "OptimiserConfig",
    "OutputConfig",
    "PhotographsConfig",
    "PostprocessConfig",
    "PredictionsConfig",
    "PrepareConfig",
    "RedoConfig",
    "ReportConfig",
    "ReviewConfig",
    "S3Config",
    "ScheduleConfig",
    "ShardConfig",
    "SlicesConfig",
    "SourceConfig",
    "StorageConfig",
    "TilesConfig",
    "TrainComputeConfig",
    "TrainConfig",
    "TrainModelConfig",
    "View",
    "check_resize",
    "check_uri",
    "compared",
    "dashed",
    "describe_keys",
    "digest",
    "effective",
    "iter_fields",
    "later",
    "load_config",
    "make_config",
    "nearest",
    "placed",
    "shared_fields",
    "to_yaml",
]

_OF_LOAD = ("load_config", "make_config", "to_yaml")


def __getattr__(name: str) -> object:
    """What reads and writes YAML, when it is asked for: OmegaConf takes a third of the time of ``segjobs --help``."""
    if name not in _OF_LOAD:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("segjobs.config.load"), name)
