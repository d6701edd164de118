"""``model.name=smp``: a directory of segmentation_models_pytorch's ``save_pretrained`` in; a card or a Segmenter out.

    config.json (architecture and options) + model.safetensors → ModelCard (driver) → network, Segmenter (actor)

Such a directory names no classes, and of what the network is shown it tells the encoder alone.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from segjobs.config import NetworkConfig, TrainModelConfig, digest
from segjobs.errors import ConfigError, WeightsError
from segjobs.manifest.schema import Category, ModelCard, make_categories
from segjobs.models.base import Segmenter
from segjobs.models.encoders import normalisation
from segjobs.models.hf_files import CONFIG, Repository, as_json, open_repository
from segjobs.models.options import check_options
from segjobs.models.weights import Weights
from segjobs.storage import Storage

if TYPE_CHECKING:
    import torch
    from torch import nn

    from segjobs.models.transfer import Transfer

ARCHITECTURES = ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN")
ARCHITECTURES += ("UPerNet", "Segformer", "DPT")
"""smp's classes, as config.json names them under ``_model_class``."""
_OF_TRAINING = ("encoder_weights", "activation", "aux_params")
"""Parameters that would fetch weights, hide the logits, or add a head that is not asked."""
_OF_OURS = ("encoder_name", "classes", "in_channels")
_LEAST = {"PAN": 128}  # pixels of a side, see table.py
_MOST_CLASSES = 65_535  # a label map's ids are uint16, of which the last is no class


@dataclass(frozen=True)
class Described:
    """What config.json says. ``channels``: of the output; one is the foreground's logit, of two classes."""

    architecture: str
    encoder: str
    channels: int
    options: dict[str, object]

    @property
    def classes(self) -> int:
        return max(self.channels, 2)


def describe(config: NetworkConfig, storage: Storage) -> ModelCard:
    """The card of the directory that ``config.weights`` names. Raises ConfigError or WeightsError."""
    return _opened(config, storage)[0]


def build(config: NetworkConfig, storage: Storage, *, device: str, precision: str) -> Segmenter:
    """The Segmenter of ``describe``, with its weights, in eval mode. Raises ConfigError or WeightsError."""
    card, repository, described = _opened(config, storage)
    from segjobs.models.tensors import load_into

    module = _network(repository, described)
    load_into(module, repository.weights[0], repository.uri)
    return _segmenter(module, card, described, device=device, precision=precision)


def describe_start(
    config: TrainModelConfig, categories: Sequence[Category], storage: Storage
) -> tuple[ModelCard, Weights]:
    """The card of the directory's network that is to learn ``categories``. Raises ConfigError or WeightsError."""
    card, repository, _ = _opened(config.model_copy(update={"categories": None}), storage)
    licence = config.licence or card.licence
    return replace(card, categories=tuple(categories), licence=licence), Weights(config.weights, repository.sha256)


def start(
    config: TrainModelConfig, card: ModelCard, storage: Storage, *, device: str, precision: str
) -> "tuple[Segmenter, Transfer]":
    """The Segmenter of ``describe_start``, and what became of the directory's tensors. Raises as that.

    The head stays random where it has another number of channels, or the directory names other classes.
    """
    import torch

    from segjobs.models.transfer import load_matching, why_no_head
    from segjobs.models.weights_file import read_tensors

    _, repository, described = _opened(config.model_copy(update={"categories": None}), storage)
    names, about = [one.name for one in card.categories], repository.described
    wanted = replace(described, channels=_channels(described, len(names)))
    module = _network(repository, wanted, seed=config.seed)
    left_out: dict[str, str] = {}
    if about is not None and (reason := why_no_head([one.name for one in about.categories], names)):
        with torch.device("meta"):
            other = _network(repository, replace(wanted, channels=wanted.channels + 1)).state_dict()
        left_out = {key: reason for key, value in module.state_dict().items() if other[key].shape != value.shape}
    transfer = load_matching(module, read_tensors(repository.weights[0]), left_out=left_out)
    if about is None:
        transfer = replace(transfer, note="the directory names no classes: where it has as many, they are these")
    return _segmenter(module, card, wanted, device=device, precision=precision), transfer


def pretrained(
    segmenter: Segmenter, config: NetworkConfig, storage: Storage
) -> "tuple[dict[str, torch.Tensor], dict[str, bytes]]":
    """What smp's ``from_pretrained`` reads: tensors by name, and config.json for these classes."""
    _, repository, described = _opened(config.model_copy(update={"categories": None}), storage)
    channels = _channels(described, len(segmenter.card.categories))
    wrapped = "network." if channels == 1 else ""
    tensors = {key.removeprefix(wrapped): value for key, value in segmenter.module.state_dict().items()}
    return tensors, {CONFIG: as_json({**repository.config, "classes": channels, "encoder_weights": None})}


def _channels(described: Described, classes: int) -> int:
    return 1 if described.channels == 1 and classes == 2 else classes


def _segmenter(module: "nn.Module", card: ModelCard, described: Described, *, device: str, precision: str) -> Segmenter:
    from segjobs.models.semantic import ForegroundLogits, SemanticSegmenter

    stride = int(getattr(module.get_submodule("encoder"), "output_stride", 32))
    return SemanticSegmenter(
        ForegroundLogits(module) if described.channels == 1 else module,
        card,
        divisor=2 * stride if described.architecture == "DPT" else stride,  # it halves its tokens once more
        least=_LEAST.get(described.architecture, 1),
        device=device,
        precision=precision,
    )


def _network(repository: Repository, described: Described, seed: int | None = None) -> "nn.Module":
    """With random weights, drawn from nobody's generator. Raises WeightsError."""
    import segmentation_models_pytorch
    import torch

    from segjobs.models.unet import dpt, smp_network

    # Others would reach timm, which fetches and loads files where it is told to.
    known = inspect.signature(getattr(segmentation_models_pytorch, described.architecture)).parameters
    strange = [key for key in described.options if key not in {*known, "dynamic_img_size"} - {"kwargs"}]
    if strange:
        raise WeightsError(f"{repository.uri}: {CONFIG}: {strange[0]!r} is no parameter of {described.architecture}")
    options = {**described.options, "encoder": described.encoder}
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            if described.architecture == "DPT":
                return dpt(options, described.channels)
            return smp_network(described.architecture, options, described.channels)
        except ConfigError as error:
            raise WeightsError(f"{repository.uri}: {CONFIG} gives no {described.architecture}: {error}") from error


def _opened(config: NetworkConfig, storage: Storage) -> tuple[ModelCard, Repository, Described]:
    check_options(config.name, {}, config.options)
    repository = open_repository(config, storage, by="segmentation_models_pytorch")
    if len(repository.weights) > 1:
        raise WeightsError(
            f"{repository.uri}: weights in {len(repository.weights)} files; smp writes one: save it again"
        )
    described = _described(repository)
    categories = _categories(config, described, repository)
    mean, std = normalisation(described.encoder)
    saved = repository.described.preprocessing if repository.described else {}
    preprocessing = {"resize": config.resize or saved.get("resize") or "native", "mean": list(mean), "std": list(std)}
    card = ModelCard(
        name=config.name,
        task="semantic",
        categories=categories,
        digest=digest(
            *(repository.sha256, config.name, [vars(one) for one in categories], preprocessing, repository.config)
        ),
        weights=config.weights,
        options={},
        preprocessing=preprocessing,
        licence=repository.licence,
    )
    return card, repository, described


def _described(repository: Repository) -> Described:
    about = repository.config
    architecture, encoder, channels = (about.get(key) for key in ("_model_class", "encoder_name", "classes"))
    if architecture not in ARCHITECTURES or not isinstance(encoder, str) or ":" in encoder:  # timm's hf-hub:…
        raise WeightsError(
            f"{repository.uri}: {CONFIG} says _model_class {architecture!r} on encoder_name {encoder!r}; "
            f"model.name=smp takes {', '.join(ARCHITECTURES)} (a repository of transformers is model.name=hf)"
        )
    if type(channels) is not int or not 0 < channels < _MOST_CLASSES or about.get("in_channels", 3) != 3:
        raise WeightsError(
            f"{repository.uri}: {CONFIG} says {channels!r} classes and {about.get('in_channels')!r} in_channels; "
            "expected one or more, and 3 (RGB)"
        )
    known = (*_OF_TRAINING, *_OF_OURS)
    options = {key: value for key, value in about.items() if key not in known and not key.startswith("_")}
    return Described(str(architecture), encoder, channels, options)


def _categories(config: NetworkConfig, described: Described, repository: Repository) -> tuple[Category, ...]:
    """The config's names, else model.json's, else numbers; of one channel ``background`` and ``foreground``.

    Raises ConfigError.
    """
    names = config.categories
    about = repository.described
    if names is None and about is not None and len(about.categories) == described.classes:
        return about.categories
    if names is None:
        numbered = [f"class {number}" for number in range(described.classes)]
        return make_categories(["background", "foreground"] if described.channels == 1 else numbered)
    if len(names) != described.classes:
        raise ConfigError(
            f"model.categories names {len(names)} classes, {config.weights} has {described.classes}"
            f"{' (one channel: background and foreground)' if described.channels == 1 else ''}"
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"model.categories: a name stands twice among {', '.join(names)}")
    return make_categories(names)
