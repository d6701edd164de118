"""``model.name=onnx``: a network that somebody exported, and what its model.json says of it; a ModelConfig in, a card
or a Segmenter out.

    net.onnx (+ net.onnx.data) + model.json beside it → ModelCard (driver) → onnx_network.py → Segmenter (actor)

ONNX Runtime computes it (extra ``segjobs[onnx]``), and is imported only there.
"""

import importlib.util
from dataclasses import replace
from pathlib import Path

from segjobs.config import ModelConfig, digest
from segjobs.errors import ConfigError, WeightsError
from segjobs.manifest.schema import Category, ModelCard, make_categories
from segjobs.models.base import Segmenter
from segjobs.models.onnx_description import Exported, parse_exported
from segjobs.models.options import check_options
from segjobs.models.weights import (
    DESCRIPTION,
    Weights,
    beside,
    check_digest,
    check_no_program,
    digest_of_files,
    file_beside,
    locate,
)
from segjobs.storage import Storage

SUFFIX = ".onnx"


def describe(config: ModelConfig, storage: Storage) -> ModelCard:
    """The card of the network that ``config.weights`` names. Raises ConfigError or WeightsError."""
    return _opened(config, storage)[0]


def build(config: ModelConfig, storage: Storage, *, device: str, precision: str) -> Segmenter:
    """The Segmenter of ``describe``. Raises ConfigError or WeightsError."""
    card, weights, exported, external = _opened(config, storage)
    from segjobs.models.onnx_network import OnnxLogits
    from segjobs.models.semantic import SemanticSegmenter

    if precision != "fp32":
        raise ConfigError(f"compute.precision={precision}: an exported network has its own; drop it")
    network = OnnxLogits(weights, exported, card.preprocessing["resize"], external=external, device=device)
    if network.fixed_size and any(view.scale != 1 for view in config.views):
        raise ConfigError(f"model.tta: {weights.uri} takes images of one size alone: keep to hflip and vflip")
    return SemanticSegmenter(network, card, divisor=exported.divisor, device=device)


def _opened(config: ModelConfig, storage: Storage) -> tuple[ModelCard, Weights, Exported, dict[str, Path]]:
    """The card; the network's file and what is said of it; the files beside it that hold its numbers, by name."""
    check_options(config.name, {}, config.options)
    if not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        raise ConfigError(f"model.name={config.name} needs ONNX Runtime: pip install 'segjobs[onnx]'")
    check_no_program(config.weights)
    if not config.weights.endswith(SUFFIX):
        raise WeightsError(
            f"model.weights={config.weights}: model.name={config.name} takes a file ending in {SUFFIX}, with "
            f"{DESCRIPTION} beside it; torch.onnx.export makes one of a network of torch"
        )
    exported = parse_exported(beside(config.weights, DESCRIPTION, storage), f"{DESCRIPTION} beside {config.weights}")
    weights, external = _located(config, storage)
    categories = _categories(config, exported)
    preprocessing = exported.model_dump(include={"resize", "mean", "std", "scale"})
    if config.resize is not None:
        preprocessing["resize"] = config.resize
    about = exported.model_dump(include={"divisor", "layout", "channels", "output"})
    card = ModelCard(
        name=config.name,
        task="semantic",
        categories=categories,
        digest=digest(weights.sha256, config.name, about, [vars(one) for one in categories], preprocessing),
        weights=config.weights,
        options={},
        preprocessing=preprocessing,
        licence=exported.licence,
    )
    return card, weights, exported, external


def _located(config: ModelConfig, storage: Storage) -> tuple[Weights, dict[str, Path]]:
    """The network's file and those beside it, the digest being of all of them. Raises WeightsError."""
    from segjobs.models.onnx_external import check_sizes, external_files

    weights = locate(config.model_copy(update={"sha256": None}), None, storage)
    assert weights.path is not None, "a file"  # noqa: S101
    sizes = external_files(weights.path, weights.uri)
    external = {name: file_beside(weights.uri, name, storage) for name in sizes}
    check_sizes(weights.uri, sizes, external)
    if external:
        files = {weights.uri.rpartition("/")[2]: weights.path, **external}
        weights = replace(weights, sha256=digest_of_files(files))
    check_digest(weights.uri, weights.sha256, config.sha256)
    return weights, external


def _categories(config: ModelConfig, exported: Exported) -> tuple[Category, ...]:
    """Those of model.json, under the names that the config gives them. Raises ConfigError."""
    names = config.categories or exported.categories
    if len(names) != len(exported.categories) or len(set(names)) < len(names):
        raise ConfigError(
            f"model.categories names {len(set(names))} different classes, {config.weights} has "
            f"{len(exported.categories)}"
        )
    return make_categories(names)
