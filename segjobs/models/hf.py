"""``model.name=hf``: networks of transformers by their repository; a ModelConfig in, a card or a Segmenter out.

    config.json + preprocessor_config.json + weights (hf_files.py) → ModelCard (driver) → network, Segmenter (actor)

Classes, preprocessing and licence are the repository's own; transformers is imported only where a network is built.
"""

import importlib.util
from collections import Counter
from dataclasses import dataclass
from typing import Any

from segjobs.config import ModelConfig, digest
from segjobs.errors import ConfigError, WeightsError
from segjobs.manifest.schema import Category, ModelCard, make_categories
from segjobs.models.base import Segmenter
from segjobs.models.hf_files import CONFIG, OWN_RESIZE, Repository, open_repository
from segjobs.models.options import check_options
from segjobs.narrow import is_list, is_object
from segjobs.storage import Storage
from segjobs.text import shorten

_MOST_CLASSES = 65_535  # a label map's ids are uint16, of which the last is no class
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Architecture:
    """``network``: transformers' class of it. ``processor``: its usual image processor."""

    network: str
    processor: str


ARCHITECTURES = {
    "beit": Architecture("BeitForSemanticSegmentation", "BeitImageProcessor"),
    "dpt": Architecture("DPTForSemanticSegmentation", "DPTImageProcessor"),
    "segformer": Architecture("SegformerForSemanticSegmentation", "SegformerImageProcessor"),
    "upernet": Architecture("UperNetForSemanticSegmentation", "SegformerImageProcessor"),
}
"""By the ``model_type`` of config.json."""
_OPTIONS: dict[str, object] = {}


def describe(config: ModelConfig, storage: Storage) -> ModelCard:
    """The card of the repository that ``config.weights`` names. Raises ConfigError or WeightsError."""
    return _opened(config, storage)[0]


def build(config: ModelConfig, storage: Storage, *, device: str, precision: str) -> Segmenter:
    """The Segmenter of ``describe``, with the repository's weights, in eval mode. Raises ConfigError, WeightsError."""
    card, repository = _opened(config, storage)
    from segjobs.models.hf_network import Resizing, SemanticLogits, load_network
    from segjobs.models.semantic import SemanticSegmenter

    architecture = ARCHITECTURES[str(repository.config["model_type"])]
    network = load_network(repository, architecture.network)
    resizing = Resizing(repository, architecture.processor, card.preprocessing["resize"])
    return SemanticSegmenter(SemanticLogits(network), card, resizing=resizing, device=device, precision=precision)


def _opened(config: ModelConfig, storage: Storage) -> tuple[ModelCard, Repository]:
    check_options(config.name, _OPTIONS, config.options)
    if importlib.util.find_spec("transformers") is None:
        raise ConfigError(f"model.name={config.name} needs transformers: pip install 'segjobs[hf]'")
    repository = open_repository(config, storage)
    kind = repository.config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"model.weights={config.weights}: {CONFIG} says model_type {kind!r}; model.name={config.name} takes "
            f"{', '.join(ARCHITECTURES)}"
        )
    categories = _categories(config, repository)
    preprocessing = _preprocessing(config, repository)
    options = {**_OPTIONS, **config.options}
    return ModelCard(
        name=config.name,
        task="semantic",
        categories=categories,
        digest=digest(
            *(repository.sha256, config.name, options, [vars(one) for one in categories], preprocessing),
            repository.config,
        ),
        weights=config.weights,
        options=options,
        preprocessing=preprocessing,
        licence=repository.licence,
    ), repository


def _categories(config: ModelConfig, repository: Repository) -> tuple[Category, ...]:
    """The classes of ``id2label``, by channel, in the palette's colours; under the names that the config gives them.

    Of several of one name each but the first gets its number behind it: ``screen (130)``. Without ``id2label`` they are
    called as transformers calls them. Raises ConfigError or WeightsError.
    """
    names = _label_names(repository)
    if config.categories is not None:
        if len(config.categories) != len(names):
            raise ConfigError(
                f"model.categories names {len(config.categories)} classes, {config.weights} has {len(names)}"
            )
        twice = [name for name, count in Counter(config.categories).items() if count > 1]
        if twice:
            raise ConfigError(f"model.categories: {', '.join(twice)}: named twice")
        names = config.categories
    return make_categories(names)


def _label_names(repository: Repository) -> list[str]:
    given = repository.config.get("id2label")
    if given is None:
        count = repository.config.get("num_labels", 2)
        given = {str(number): f"LABEL_{number}" for number in range(count)} if type(count) is int else {}
    labels = given if is_object(given) else {}
    channels = [str(number) for number in range(len(labels))]
    if not 2 <= len(labels) < _MOST_CLASSES or set(labels) != set(channels):
        raise WeightsError(
            f"{repository.uri}: id2label of {CONFIG} numbers {len(labels)} classes; expected two or more, from 0 on "
            "without a gap"
        )
    names: list[str] = []
    for channel in channels:
        name = shorten(str(labels[channel]).strip() or f"LABEL_{channel}", _LONGEST_NAME)
        names.append(f"{name} ({channel})" if name in names else name)
    return names


def _preprocessing(config: ModelConfig, repository: Repository) -> dict[str, Any]:
    """``resize``, ``mean`` and ``std``, ``scale`` (a pixel's value times it is what these refer to), ``processor``.

    Raises ConfigError or WeightsError for what is no image processor, or one that leaves a part of the image out.
    """
    given = repository.processor
    mean, std = [0.0] * 3, [1.0] * 3
    if given.get("do_normalize", True):
        mean, std = (_three_numbers(repository, key) for key in ("image_mean", "image_std"))
    scale = given.get("rescale_factor", 1 / 255) if given.get("do_rescale", True) else 1.0
    if not isinstance(scale, int | float) or not 1e-6 <= scale <= 1e6 or min(std) <= 0:
        raise WeightsError(
            f"{repository.uri}: the image processor's rescale_factor is {scale!r} and its image_std {std}; expected "
            "numbers above 0, such as 0.00392 and 0.229"
        )
    if config.resize is not None:
        return {"resize": config.resize, "mean": mean, "std": std, "scale": scale}
    for key in ("do_center_crop", "do_pad", "pad_size"):
        if given.get(key):
            raise ConfigError(
                f"model.weights={config.weights}: its image processor has {key}={given[key]}, which shows the network "
                "another part than the image; give model.resize, such as 512x512"
            )
    others = {key: value for key, value in given.items() if key not in ("image_mean", "image_std", "rescale_factor")}
    return {"resize": OWN_RESIZE, "mean": mean, "std": std, "scale": scale, "processor": others}


def _three_numbers(repository: Repository, key: str) -> list[float]:
    value = repository.processor.get(key)
    values = value if is_list(value) else [value] * 3
    numbers = [float(one) for one in values if isinstance(one, int | float) and abs(one) <= 1e6]
    if len(numbers) != 3 or len(values) != 3:
        raise WeightsError(
            f"{repository.uri}: {key} of the image processor is {value!r}, expected three numbers (R, G, B)"
        )
    return numbers
