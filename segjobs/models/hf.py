"""``model.name=hf``: networks of transformers by their repository; a ModelConfig in, a card or a Segmenter out.

    config.json + preprocessor_config.json + weights (hf_files.py) → ModelCard (driver) → network, Segmenter (actor)

Classes, preprocessing and licence are the repository's own; transformers is imported only where a network is built.
"""

import importlib.util
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from segjobs.config import NetworkConfig, TrainModelConfig, digest, nearest
from segjobs.errors import ConfigError, WeightsError
from segjobs.manifest.schema import Category, ModelCard, Task, make_categories
from segjobs.models.base import Segmenter
from segjobs.models.hf_files import CONFIG, OWN_RESIZE, PROCESSOR, Repository, as_json, open_repository
from segjobs.models.label_sets import things_of
from segjobs.models.options import check_options
from segjobs.models.weights import Weights, first_line
from segjobs.narrow import is_list, is_object
from segjobs.storage import Storage
from segjobs.text import shorten

if TYPE_CHECKING:
    import torch

    from segjobs.models.transfer import Transfer

_MOST_CLASSES = 65_535  # a label map's ids are uint16, of which the last is no class
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Architecture:
    """``network``: transformers' class of it. ``processor``: its usual image processor.

    ``threshold``: of a universal network, the score from which its post-processing keeps a query; None of one that
    gives semantic masks alone.
    """

    network: str
    processor: str
    threshold: float | None = None


ARCHITECTURES = {
    "beit": Architecture("BeitForSemanticSegmentation", "BeitImageProcessor"),
    "dpt": Architecture("DPTForSemanticSegmentation", "DPTImageProcessor"),
    "eomt": Architecture("EomtForUniversalSegmentation", "EomtImageProcessor", 0.8),
    "mask2former": Architecture("Mask2FormerForUniversalSegmentation", "Mask2FormerImageProcessor", 0.5),
    "maskformer": Architecture("MaskFormerForInstanceSegmentation", "MaskFormerImageProcessor", 0.5),
    "oneformer": Architecture("OneFormerForUniversalSegmentation", "OneFormerImageProcessor", 0.5),
    "segformer": Architecture("SegformerForSemanticSegmentation", "SegformerImageProcessor"),
    "upernet": Architecture("UperNetForSemanticSegmentation", "SegformerImageProcessor"),
}
"""By the ``model_type`` of config.json."""
_ONE_SIZE = ("eomt",)
TASKS: tuple[Task, ...] = ("semantic", "instance", "panoptic")


def describe(config: NetworkConfig, storage: Storage) -> ModelCard:
    """The card of the repository that ``config.weights`` names. Raises ConfigError or WeightsError."""
    return _opened(config, storage)[0]


def build(config: NetworkConfig, storage: Storage, *, device: str, precision: str) -> Segmenter:
    """The Segmenter of ``describe``, with the repository's weights, in eval mode. Raises ConfigError, WeightsError."""
    card, repository = _opened(config, storage)
    from segjobs.models.hf_network import Resizing, SemanticLogits, load_network
    from segjobs.models.hf_universal import UniversalSegmenter
    from segjobs.models.semantic import SemanticSegmenter

    architecture = ARCHITECTURES[str(repository.config["model_type"])]
    network = load_network(repository, architecture.network)
    resizing = Resizing(repository, architecture.processor, card.preprocessing["resize"])
    if architecture.threshold is not None:
        return UniversalSegmenter(network, card, repository, resizing, device=device, precision=precision)
    return SemanticSegmenter(SemanticLogits(network), card, resizing=resizing, device=device, precision=precision)


def describe_start(
    config: TrainModelConfig, categories: Sequence[Category], storage: Storage
) -> tuple[ModelCard, Weights]:
    """The card of the repository's network that is to learn ``categories``. Raises ConfigError or WeightsError."""
    card, repository = _opened(config.model_copy(update={"categories": None}), storage, learns=True)
    licence = config.licence or card.licence
    return replace(card, categories=tuple(categories), licence=licence), Weights(config.weights, repository.sha256)


def start(
    config: TrainModelConfig, card: ModelCard, storage: Storage, *, device: str, precision: str
) -> "tuple[Segmenter, Transfer]":
    """The Segmenter of ``describe_start``, and what became of the repository's tensors. Raises as that."""
    from segjobs.models.hf_network import Resizing, SemanticLogits, fresh_network
    from segjobs.models.semantic import SemanticSegmenter

    repository = _opened(config.model_copy(update={"categories": None}), storage, learns=True)[1]
    architecture = ARCHITECTURES[str(repository.config["model_type"])]
    names = [category.name for category in card.categories]
    network, transfer = fresh_network(repository, architecture.network, names, config.seed)
    resizing = Resizing(repository, architecture.processor, card.preprocessing["resize"])
    made = SemanticSegmenter(SemanticLogits(network), card, resizing=resizing, device=device, precision=precision)
    return made, transfer


def pretrained(
    segmenter: Segmenter, config: NetworkConfig, storage: Storage
) -> "tuple[dict[str, torch.Tensor], dict[str, bytes]]":
    """What transformers' ``from_pretrained`` reads: tensors by name, and the repository's files for these classes."""
    from segjobs.models.hf_network import labels_of, saved_tensors

    repository = _opened(config.model_copy(update={"categories": None}), storage)[1]
    described = {key: value for key, value in repository.config.items() if key != "num_labels"}
    labels = labels_of([category.name for category in segmenter.card.categories])
    files = {CONFIG: as_json({**described, **labels}), PROCESSOR: as_json(repository.processor)}
    return saved_tensors(segmenter.module), files


def _opened(config: NetworkConfig, storage: Storage, *, learns: bool = False) -> tuple[ModelCard, Repository]:
    if importlib.util.find_spec("transformers") is None:
        raise ConfigError(f"model.name={config.name} needs transformers: pip install 'segjobs[hf]'")
    repository = open_repository(config, storage, tokenizer_of="oneformer")
    kind = repository.config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ConfigError(
            f"model.weights={config.weights}: {CONFIG} says model_type {kind!r}; model.name={config.name} takes "
            f"{', '.join(ARCHITECTURES)}"
        )
    if learns and ARCHITECTURES[str(kind)].threshold is not None:
        learning = [name for name, one in ARCHITECTURES.items() if one.threshold is None]
        raise ConfigError(
            f"model.weights={config.weights}: a {kind} is a network of queries, whose training is not built here; "
            f"train takes repositories of {', '.join(learning)}, smp's directories, the models of the table, and "
            "package.module:factory"
        )
    if config.resize is None and repository.described is not None:
        config = config.model_copy(update={"resize": repository.described.preprocessing.get("resize")})
    if kind in _ONE_SIZE and any(view.scale != 1 for view in config.views):
        raise ConfigError(f"model.tta: a network of {kind} sees images of one size alone: keep to hflip and vflip")
    options, task = _options(config, ARCHITECTURES[str(kind)])
    categories = _categories(config, repository)
    if task == "panoptic":
        categories = _with_stuff(categories, options["stuff"])
        known = things_of(_label_names(repository))
        if "stuff" not in config.options and known and all(one.isthing is None for one in categories):
            categories = tuple(replace(one, isthing=thing) for one, thing in zip(categories, known, strict=True))
    preprocessing = _preprocessing(config, repository)
    return ModelCard(
        name=config.name,
        task=task,
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


def _options(config: NetworkConfig, architecture: Architecture) -> tuple[dict[str, Any], Task]:
    """Every option with its value, and the task. Raises ConfigError.

    A universal network does what it was trained for, which its repository's name may say and its config.json does not.
    """
    if architecture.threshold is None:
        check_options(config.name, {}, config.options)
        return {}, "semantic"
    task = config.options.get("task")
    if task not in TASKS:
        given = "" if task is None else f"{task!r} is none; "
        raise ConfigError(
            f"model.options.task: {given}{architecture.network} gives {', '.join(TASKS)} masks; say for which of these "
            f"{config.weights} was trained (its name or README tells)"
        )
    known: dict[str, object] = {"task": task}
    if task != "semantic":
        known["threshold"] = architecture.threshold
    if task == "panoptic" or (task == "instance" and architecture.processor == "OneFormerImageProcessor"):
        known |= {"mask_threshold": 0.5, "overlap_mask_area_threshold": 0.8}
    if task == "panoptic":
        known["stuff"] = list[str]()
    check_options(f"{config.name} with task={task}", known, config.options)
    options = {**known, **config.options}
    wrong = [key for key, value in options.items() if isinstance(value, int | float) and not 0 <= value <= 1]
    if wrong:
        raise ConfigError(*(f"model.options.{key}: {options[key]!r}: expected 0 to 1" for key in wrong))
    return options, task


def _with_stuff(categories: Sequence[Category], stuff: Sequence[object]) -> tuple[Category, ...]:
    """The classes named ``stuff`` are one region an image each, the others things; unknown where none is named."""
    names = [one.name for one in categories]
    strange = [str(name) for name in stuff if name not in names]
    if strange:
        raise ConfigError(*(f"model.options.stuff: {name!r} is no class; {nearest(name, names)}" for name in strange))
    return tuple(replace(one, isthing=one.name not in stuff) if stuff else one for one in categories)


def _categories(config: NetworkConfig, repository: Repository) -> tuple[Category, ...]:
    """The classes of ``id2label``, by channel, in the palette's colours; under the names that the config gives them.

    Of several of one name each but the first gets its number behind it: ``screen (130)``. Without ``id2label`` they are
    called as transformers calls them. Raises ConfigError or WeightsError.
    """
    names, about = _label_names(repository), repository.described
    if config.categories is None and about is not None and [one.name for one in about.categories] == names:
        return about.categories
    if config.categories is not None:
        if len(config.categories) != len(names):
            raise ConfigError(
                f"model.categories names {len(config.categories)} classes, {config.weights} has {len(names)}"
            )
        twice = [name for name, count in Counter(config.categories).items() if count > 1]
        if twice:
            raise ConfigError(f"model.categories: {', '.join(twice)}: named twice")
        names = config.categories
    return _as_described(make_categories(names), repository)


def _as_described(categories: tuple[Category, ...], repository: Repository) -> tuple[Category, ...]:
    """With the colours, and what is a thing, of OneFormer's class file, where the repository has it."""
    path = repository.named.get(str(repository.processor.get("class_info_file")))
    if path is None:
        return categories
    try:
        content = json.loads(path.read_bytes())
        known = [content[str(one.id)] for one in categories]
        return tuple(
            replace(one, color=_color(about["color"]), isthing=bool(about["isthing"]))
            for one, about in zip(categories, known, strict=True)
        )
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise WeightsError(
            f"{path}: expected name, color and isthing of each class by its number: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error


def _color(value: Sequence[int]) -> tuple[int, int, int]:
    red, green, blue = value
    if not all(type(one) is int and 0 <= one <= 255 for one in (red, green, blue)):
        raise ValueError(f"colour {value}")
    return red, green, blue


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


def _preprocessing(config: NetworkConfig, repository: Repository) -> dict[str, Any]:
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
    # Universal networks' padding is EoMT's, which is cropped off again, or that of a batch of several sizes.
    universal = ARCHITECTURES[str(repository.config["model_type"])].threshold is not None
    for key in ("do_center_crop", "pad_size", *(() if universal else ("do_pad",))):
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
