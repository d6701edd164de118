"""Every model by name, and the two ways to one: ``resolve`` its card (driver), ``build`` its Segmenter (actor).

    ModelConfig → spec (table.py) + weights (weights.py) → ModelCard → network → Segmenter

Both make the card by the same function, so that its digest, which the run key holds, can be compared. Whoever builds
no network of the table does without torch, or without torchvision: their imports take seconds in every process.
"""

import importlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segjobs.config import (
    LabellingModelConfig,
    MemberConfig,
    ModelConfig,
    NetworkConfig,
    PostprocessConfig,
    TilesConfig,
    TrainModelConfig,
    digest,
    nearest,
)
from segjobs.errors import ConfigError, WeightsError
from segjobs.manifest.schema import (
    VOC_NAMES,
    Category,
    ModelCard,
    Options,
    Task,
    make_categories,
    palette_color,
)
from segjobs.models.base import GivesLogits, Segmenter
from segjobs.models.description import Description
from segjobs.models.encoders import check_encoder, normalisation
from segjobs.models.ensemble import ensemble_card, together, with_views
from segjobs.models.factories import call_factory
from segjobs.models.options import MOST_UNITS, check_options
from segjobs.models.runtimes import Exporting, check_runtime
from segjobs.models.table import FROM_WEIGHTS, ModelSpec, get_spec
from segjobs.models.weights import Weights, locate, published_entry
from segjobs.storage import Storage

if TYPE_CHECKING:
    from torch import nn

    from segjobs.models.transfer import Transfer

BACKGROUND, NO_CLASS = "__background__", "N/A"  # torchvision's names of channels that are no class of things
_STAGES = 5  # of a U-Net's decoder
_TORCHVISION_LICENCE = "BSD-3-Clause"


def resolve(config: ModelConfig, storage: Storage) -> ModelCard:
    """The card of the model that ``config`` names, without building its network.

    Fetches the weights to this node's cache, for their digest. (A factory of the user's has to build its model.)
    Raises ConfigError or WeightsError.
    """
    check_runtime(config)
    if members := members_of(config):
        return ensemble_card([resolve(one, storage) for one in members])
    if ":" in config.name and config.views:
        segmenter = call_factory(config, storage)
        return together([(segmenter, config.views)], with_views(segmenter.card, config.views)).card
    return with_views(_resolve_one(config, storage), config.views)


def _resolve_one(config: ModelConfig, storage: Storage) -> ModelCard:
    if ":" in config.name:
        return call_factory(config, storage).card
    if config.name in FROM_WEIGHTS:
        return _from_weights(config.name).describe(config, storage)
    return _describe(config, storage)[0]


def build(
    config: ModelConfig,
    storage: Storage,
    *,
    device: str,
    precision: str = "fp32",
    threads: int | None = None,
    card: ModelCard | None = None,
) -> Segmenter:
    """The Segmenter that ``config`` names, with its weights, in eval mode on ``device``.

    ``threads``: the network's threads in this process. Ray gives an actor one OpenMP thread per whole CPU that it asked
    for, so the caller says it. ``card``: what ``resolve`` gave; with it an exported network does without its weights,
    and without torch. Raises ConfigError or WeightsError.
    """
    check_runtime(config)
    if config.runtime != "torch":
        return build_by_runtime(config, storage, device=device, precision=precision, threads=threads, card=card)
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    members = members_of(config)
    if not members and not config.views:
        return _build_one(config, storage, device=device, precision=precision)
    built = [(_build_one(one, storage, device=device, precision=precision), one.views) for one in members or (config,)]
    cards = [with_views(segmenter.card, views) for segmenter, views in built]
    return together(built, ensemble_card(cards) if members else cards[0])


def _build_one(config: ModelConfig, storage: Storage, *, device: str, precision: str) -> Segmenter:
    import torch

    if ":" in config.name:
        segmenter = call_factory(config, storage, device=device, precision=precision)
        segmenter.module.eval().to(device)
        return segmenter
    if config.name in FROM_WEIGHTS:
        return _from_weights(config.name).build(config, storage, device=device, precision=precision)
    card, weights = _describe(config, storage)
    spec = get_spec(config.name)
    # Random numbers are drawn even where weights follow: the caller's generator must not notice.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        module = spec.network(card.options, _channel_count(card))
    if weights.path is not None:
        from segjobs.models.tensors import load_into

        load_into(module, weights.path, weights.uri)
    return _segmenter(module, card, device=device, precision=precision)


def build_by_runtime(
    config: ModelConfig,
    storage: Storage,
    *,
    device: str,
    precision: str,
    threads: int | None,
    card: ModelCard | None,
) -> Segmenter:
    """``build`` of a network that torch does not compute as it is."""
    if config.runtime == "compile":
        from segjobs.models.compiled import compile_network

        plain = ModelConfig.model_validate(config.model_dump(include=set(NetworkConfig.model_fields)))
        return compile_network(build(plain, storage, device=device, precision=precision, threads=threads))
    if device != "cpu" or precision != "fp32":
        asked = f"compute.precision={precision}" if device == "cpu" else "a GPU"
        raise ConfigError(
            f"model.runtime={config.runtime}: it computes on CPUs, and {asked} is asked for; take model.runtime=torch, "
            "or compute.gpus_per_actor=0 and compute.precision=fp32 (model.precision=bf16 is OpenVINO's)"
        )
    return Exporting(config, card or resolve(config, storage), storage, threads or 1).segmenter()


def members_of(config: ModelConfig) -> Sequence[MemberConfig]:
    """The models of an ensemble; none of one model."""
    return config.members if isinstance(config, LabellingModelConfig) else ()


def resolve_start(
    config: TrainModelConfig, categories: Sequence[Category], storage: Storage
) -> tuple[ModelCard, Weights]:
    """The card of a model of the table that is to learn ``categories``, and the weights that it starts from.

    Architecture and preprocessing come from the weights, where a model directory describes them. Raises ConfigError
    or WeightsError.
    """
    spec = get_spec(config.name)
    _check_options(config.name, spec, config.options)
    weights = _located(config, spec, storage)
    options = {**spec.options, **_saved_options(weights), **config.options}
    if weights.path is None and "frozen_norm" in options and "frozen_norm" not in config.options:
        options["frozen_norm"] = False  # batch norms that stay as they were made by chance teach nothing
    _check_options(config.name, spec, options)
    classes = tuple(categories)
    if spec.task == "instance":  # there, an id is a channel, and 0 the background
        classes = tuple(replace(category, id=number) for number, category in enumerate(categories, 1))
    card = _card(config, options, classes, weights)
    return replace(card, licence=config.licence or card.licence), weights


def start(
    card: ModelCard, weights: Weights, *, seed: int, device: str, precision: str = "fp32"
) -> tuple[Segmenter, "Transfer | None"]:
    """The Segmenter of ``resolve_start``, and what became of the tensors that it starts from (None of random ones).

    A head of other classes, or of the same in another order, stays random. Names are the same in any case.
    Raises WeightsError where no tensor fits.
    """
    import torch

    from segjobs.models.transfer import load_matching, why_no_head
    from segjobs.models.weights_file import read_tensors

    spec = get_spec(card.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = spec.network(card.options, _channel_count(card))
    transfer = None
    if weights.path is not None:
        known = _known_categories(card.name, spec, weights)
        left_out: dict[str, str] = {}
        if known and (reason := why_no_head([one.name for one in known], [one.name for one in card.categories])):
            with torch.device("meta"):
                other = spec.network(card.options, _channel_count(card) + 1).state_dict()
            left_out = {key: reason for key, value in module.state_dict().items() if other[key].shape != value.shape}
        transfer = load_matching(module, read_tensors(weights.path), left_out=left_out)
        if known is None:
            transfer = replace(
                transfer, note="the file names no classes: where it has as many, they are taken for these"
            )
    return _segmenter(module, card, device=device, precision=precision), transfer


def _from_weights(name: str) -> Any:
    return importlib.import_module(f"segjobs.models.{FROM_WEIGHTS[name]}")


def check_postprocess(card: ModelCard, postprocess: PostprocessConfig) -> None:
    """Raise ConfigError, with every problem, where the post-processing does not fit the model."""
    names = [category.name for category in card.categories]
    problems = [
        f"postprocess.classes: {name!r} is no class of {card.label}; {nearest(name, names)}"
        for name in postprocess.classes or ()
        if name not in names
    ]
    if card.task == "panoptic" and postprocess.mask_threshold != 0.5:
        problems.append(f"postprocess.mask_threshold: {card.label} gives panoptic segments; use model.options")
    if card.task == "semantic" and len(names) != 2 and postprocess.mask_threshold != 0.5:
        problems.append(
            f"postprocess.mask_threshold: {card.label} has {len(names)} classes, and the most probable wins; "
            "a threshold fits instance models and those of two classes (see postprocess.min_confidence)"
        )
    if card.task != "semantic" and postprocess.min_confidence > 0:
        given = {"instance": "instances", "panoptic": "panoptic segments"}[card.task]
        problems.append(f"postprocess.min_confidence: {card.label} gives {given}; use postprocess.score_threshold")
    if problems:
        raise ConfigError(*problems)


def check_tiles(card: ModelCard, tiles: TilesConfig, postprocess: PostprocessConfig) -> None:
    """Raise ConfigError, with every problem, where tiles do not fit the model or the post-processing."""
    if tiles.size is None:
        return
    problems = []
    if card.task == "semantic":
        for key, asked in (("min_area_px", postprocess.min_area_px > 1), ("fill_holes", postprocess.fill_holes)):
            if asked:
                problems.append(
                    f"postprocess.{key}: with tiles, a label map is finished row by row, and a region may go on below; "
                    "drop one of the two"
                )
    elif card.task == "panoptic" and postprocess.fill_holes:
        problems.append("postprocess.fill_holes: with tiles, a hole may go on in the next one; drop one of the two")
    if card.task != "semantic" and tiles.overlap == 0:
        problems.append("tiles.overlap: objects are merged by the pixels that two tiles see; 0 leaves them cut")
    if problems:
        raise ConfigError(*problems)


def check_blend(segmenter: Segmenter, tiles: TilesConfig) -> None:
    """Raise ConfigError where the model has no logits to blend tiles by."""
    blends = tiles.size is not None and tiles.blend != "none" and segmenter.card.task == "semantic"
    if blends and not isinstance(segmenter, GivesLogits):
        raise ConfigError(
            f"tiles.blend={tiles.blend}: {segmenter.card.label} has no method logits to blend tiles by (GivesLogits in "
            "segjobs/models/base.py); give it one, or take tiles.blend=none"
        )


def _segmenter(module: "nn.Module", card: ModelCard, *, device: str, precision: str) -> Segmenter:
    spec = get_spec(card.name)
    if spec.task == "instance":
        from segjobs.models.maskrcnn import InstanceSegmenter

        return InstanceSegmenter(module, card, device=device, precision=precision)
    from segjobs.models.semantic import SemanticSegmenter

    return SemanticSegmenter(module, card, divisor=spec.divisor, least=spec.least, device=device, precision=precision)


def _preprocessing(
    config: NetworkConfig, spec: ModelSpec, options: Options, saved: Description | None
) -> dict[str, Any]:
    """The spec's, then what model.json says, then the config's resize."""
    mean, std = normalisation(options.get("encoder", ""))
    preprocessing: dict[str, Any] = {"resize": spec.resize, "mean": list(mean), "std": list(std)}
    preprocessing.update(saved.preprocessing if saved else {})
    if config.resize is not None:
        preprocessing["resize"] = config.resize
    return preprocessing


def _located(config: NetworkConfig, spec: ModelSpec, storage: Storage) -> Weights:
    """The weights, which are of the model that the config names."""
    weights = locate(config, spec.published, storage)
    saved = weights.description
    if saved and saved.name != config.name:
        raise ConfigError(f"model.name is {config.name!r}, but {config.weights} holds a {saved.name!r}; give that name")
    if saved and saved.task not in (None, spec.task):
        raise WeightsError(f"{config.weights}: its task is {saved.task}, but {config.name} is for {spec.task} masks")
    return weights


def _saved_options(weights: Weights) -> Options:
    return weights.description.options if weights.description else {}


def _describe(config: ModelConfig, storage: Storage) -> tuple[ModelCard, Weights]:
    spec = get_spec(config.name)
    # What is wrong with the config is said before anything is fetched.
    _check_options(config.name, spec, config.options)
    if config.categories is not None:
        _check_names(config.categories, spec.task)
    weights = _located(config, spec, storage)
    options = {**spec.options, **_saved_options(weights), **config.options}
    _check_options(config.name, spec, options)
    categories = _categories(config, spec, weights)
    return _card(config, options, categories, weights), weights


def _card(config: NetworkConfig, options: Options, categories: tuple[Category, ...], weights: Weights) -> ModelCard:
    """The card of a model of the table. Its licence is that of the weights."""
    spec, saved = get_spec(config.name), weights.description
    preprocessing = _preprocessing(config, spec, options, saved)
    return ModelCard(
        name=config.name,
        task=spec.task,
        categories=categories,
        digest=digest(weights.sha256, config.name, options, [vars(c) for c in categories], preprocessing),
        weights=weights.uri,
        options=options,
        preprocessing=preprocessing,
        licence=_TORCHVISION_LICENCE if weights.uri.startswith("torchvision:") else saved and saved.licence,
    )


def _check_options(name: str, spec: ModelSpec, options: Options) -> None:
    check_options(name, spec.options, options)
    if "encoder" in options:
        check_encoder(options["encoder"])
    channels = options.get("decoder_channels")
    if channels is not None and not (len(channels) == _STAGES and all(_is_units(n) for n in channels)):
        raise ConfigError(
            f"model.options.decoder_channels: {channels!r}: expected {_STAGES} counts, coarsest first, "
            f"of 1 to {MOST_UNITS} each"
        )


def _is_units(value: object) -> bool:
    return type(value) is int and 0 < value <= MOST_UNITS


def _check_names(names: Sequence[str], task: Task) -> None:
    classes = [name for name in names if name != NO_CLASS]
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        raise ConfigError(f"model.categories: {', '.join(twice)}: named twice")
    if task == "semantic" and len(names) < 2:
        raise ConfigError("model.categories: a semantic model has two classes or more; name the background too")
    if not set(classes) - {BACKGROUND}:
        raise ConfigError("model.categories: no class is named")


def _categories(config: ModelConfig, spec: ModelSpec, weights: Weights) -> tuple[Category, ...]:
    """From the config, else from model.json, else from the published weights, else PASCAL VOC's."""
    known = _known_categories(config.name, spec, weights)
    if weights.description is not None and known is not None:
        if config.categories is None:
            return known
        if len(config.categories) != len(known):
            raise ConfigError(
                f"model.categories names {len(config.categories)} classes, {config.weights} has {len(known)}"
            )
        return tuple(replace(old, name=name) for old, name in zip(known, config.categories, strict=True))
    published = _published_names(config.name, spec)
    if config.categories is None:
        return _from_channels(published, spec.task)
    if weights.uri.startswith("torchvision:") and len(config.categories) != len(published):
        raise ConfigError(
            f"model.categories names {len(config.categories)} classes, {weights.uri} has {len(published)}; "
            "leave model.categories out"
        )
    return _from_channels(config.categories, spec.task)


def _known_categories(name: str, spec: ModelSpec, weights: Weights) -> tuple[Category, ...] | None:
    """The classes of the weights themselves; None of a file without a model.json, and of random ones."""
    if weights.description is not None:
        return weights.description.categories
    if weights.uri.startswith("torchvision:"):
        return _from_channels(_published_names(name, spec), spec.task)
    return None


def _published_names(name: str, spec: ModelSpec) -> Sequence[str]:
    """Of torchvision's weights for a model, by channel."""
    if spec.task == "semantic":
        return VOC_NAMES  # all are for them
    return published_entry(name, spec.published, "default").meta["categories"]


def _from_channels(names: Sequence[str], task: Task) -> tuple[Category, ...]:
    """Categories of a network's channels. Instance: channel 0 is the background, whether named or not."""
    if task == "semantic":
        return make_categories(["background" if name == BACKGROUND else name for name in names])
    channels = list(names) if names[0] == BACKGROUND else [BACKGROUND, *names]
    return tuple(
        Category(channel, name, palette_color(channel))
        for channel, name in enumerate(channels)
        if name not in (BACKGROUND, NO_CLASS)
    )


def _channel_count(card: ModelCard) -> int:
    if card.task == "semantic":
        return len(card.categories)
    return max(category.id for category in card.categories) + 1
