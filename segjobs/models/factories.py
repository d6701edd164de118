"""A model of the user's own, ``package.module:factory``: a ModelConfig in, its Segmenter out.

    model.options + what the factory's signature asks for (weights, categories, resize, device, precision) → Segmenter
    the same, of the data's classes, without weights ─→ a Segmenter to train; load_matching: the weights that fit

What goes wrong in somebody's code is one line, with the traceback in a file.
"""

import importlib
import inspect
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segjobs.config import NetworkConfig, TrainModelConfig, digest
from segjobs.errors import ConfigError, SegjobsError, TrainingError
from segjobs.manifest.schema import Category, ModelCard
from segjobs.models.base import Segmenter
from segjobs.models.weights import Weights, locate
from segjobs.redact import redact
from segjobs.storage import Storage
from segjobs.text import first_few, shorten

if TYPE_CHECKING:
    from segjobs.models.transfer import Transfer

_UNSET = {"weights": "default", "sha256": None, "categories": None, "resize": None}
_METHODS = ("preprocess", "forward", "postprocess", "predict", "loss")
_LONGEST_WORDS = 300


def call_factory(config: NetworkConfig, storage: Storage, *, device: str = "cpu", precision: str = "fp32") -> Segmenter:
    """The Segmenter that the factory gives, its options and weights written into its card.

    The factory is called with ``model.options``, and with each of these that its signature names: ``weights``
    (pathlib.Path of the file on this node, fetched and checked; None of ``model.weights=none``), ``categories`` (list
    of names; the weights' own where a model directory has them), ``resize`` (as in the config), each where the config
    gives it; ``device`` and ``precision`` always. Raises ConfigError or WeightsError.
    """
    factory = _import(config.name)
    asked = _parameters(factory)
    _check_asked(config, asked)
    given: dict[str, Any] = {}
    identity: dict[str, object] = {}  # what of it makes another model
    weights = None
    if config.weights != _UNSET["weights"]:
        weights = locate(config, None, storage)
        given["weights"] = weights.path
        identity["weights"] = weights.sha256 if weights.path else None
    if (names := _names(config, weights, asked)) is not None:
        given["categories"] = identity["categories"] = names
    if config.resize is not None:
        given["resize"] = identity["resize"] = config.resize
    given |= {key: value for key, value in (("device", device), ("precision", precision)) if key in asked}
    segmenter = _called(config, factory, {**given, **config.options})
    options = [config.options, identity] if identity else [config.options]
    segmenter.card = replace(
        segmenter.card,
        digest=digest(segmenter.card.digest, config.name, *options),
        options=dict(config.options),
        weights=weights.uri if weights else segmenter.card.weights,
    )
    return segmenter


def describe_start(
    config: TrainModelConfig, categories: Sequence[Category], storage: Storage
) -> tuple[ModelCard, Weights]:
    """The card of a model of the user's that is to learn ``categories``, and the weights that it starts from.

    Raises ConfigError where its classes are others and its factory has no parameter ``categories``, or where it has
    nothing to learn.
    """
    names = [category.name for category in categories]
    segmenter = _untrained(config, names, storage)
    card, own = segmenter.card, [category.name for category in segmenter.card.categories]
    if [name.casefold() for name in own] != [name.casefold() for name in names]:
        raise ConfigError(
            f"model.name {config.name!r}: it has the classes {', '.join(first_few(own))}, and the data "
            f"{', '.join(first_few(names))}: give the factory a parameter categories, or rename the data's (classes)"
        )
    if not any(parameter.requires_grad for parameter in segmenter.module.parameters()):
        raise ConfigError(f"model.name {config.name!r}: its module has no parameter that could learn")
    weights = Weights("none", f"seed:{config.seed}")
    if config.weights not in ("none", _UNSET["weights"]):
        weights = locate(config, None, storage)
    saved = weights.description
    licence = config.licence or (saved.licence if saved else None) or card.licence
    preprocessing = {**card.preprocessing, **({"resize": config.resize} if config.resize else {})}
    learnt = tuple(categories) if card.task == "semantic" else card.categories
    return replace(
        card, name=config.name, categories=learnt, preprocessing=preprocessing, weights=weights.uri, licence=licence
    ), weights


def start(
    config: TrainModelConfig, card: ModelCard, weights: Weights, storage: Storage, *, device: str, precision: str
) -> "tuple[Segmenter, Transfer | None]":
    """The Segmenter of ``describe_start``, and what became of the tensors that it starts from. Raises as that.

    A head of other classes stays random: the tensors whose shape depends on the number of classes.
    """
    names = [category.name for category in card.categories]
    segmenter = _untrained(config, names, storage, device=device, precision=precision)
    segmenter.card = card
    transfer = None
    if weights.path is not None:
        from segjobs.models.transfer import load_matching, why_no_head
        from segjobs.models.weights_file import read_tensors

        left_out: dict[str, str] = {}
        known = weights.description and [one.name for one in weights.description.categories]
        if known and (reason := why_no_head(known, names)) and "categories" in _parameters(_import(config.name)):
            other = _untrained(config, [*names, "one more"], storage).module.state_dict()
            own = segmenter.module.state_dict()
            left_out = {key: reason for key, value in own.items() if other[key].shape != value.shape}
        transfer = load_matching(segmenter.module, read_tensors(weights.path), left_out=left_out)
    segmenter.module.eval().to(device)
    return segmenter, transfer


def _untrained(
    config: TrainModelConfig,
    names: Sequence[str],
    storage: Storage,
    *,
    device: str = "cpu",
    precision: str = "fp32",
) -> Segmenter:
    """As the factory makes it without weights, for classes of these names if it asks for any."""
    import torch

    asked = _parameters(_import(config.name))
    given = {
        "weights": "none" if "weights" in asked and "weights" not in config.options else _UNSET["weights"],
        "sha256": None,
        "categories": list(names) if "categories" in asked and "categories" not in config.options else None,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return call_factory(config.model_copy(update=given), storage, device=device, precision=precision)


@contextmanager
def words_of_a_training(config: NetworkConfig, what: str) -> Iterator[None]:
    """What a user's own model raises inside is a TrainingError, with its traceback in a file; others' stay theirs."""
    if ":" not in config.name:
        yield
        return
    try:
        with one_line(f"model.name {config.name!r}: {what}"):
            yield
    except ConfigError as error:
        raise TrainingError(str(error)) from error


def write_traceback(error: BaseException) -> str:
    """The path of a new temporary file that holds the error's traceback, without credentials."""
    text = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile(
        "w", prefix="segjobs-", suffix=".traceback.txt", delete=False, encoding="utf-8", errors="replace"
    ) as file:
        file.write(redact(text))
    return file.name


def own_words(error: BaseException) -> str:
    """What an error says, on one line: its type and its text."""
    return shorten(" ".join(f"{type(error).__name__}: {error}".split()), _LONGEST_WORDS)


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """An error of the user's code inside is a ConfigError; that memory or the device ends stays what it is."""
    try:
        yield
    except SegjobsError:
        raise
    except Exception as error:  # somebody's code may raise anything
        import torch

        if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError):
            raise
        raise ConfigError(f"{what}: {own_words(error)} (traceback: {write_traceback(error)})") from error


def _import(name: str) -> Callable[..., Any]:
    _look_in_current_folder()
    module_name, _, attribute = name.partition(":")
    with one_line(f"model.name {name!r} cannot be imported"):
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"model.name {name!r} cannot be imported: {error}; expected package.module:factory, "
                "importable on every node"
            ) from error


def _look_in_current_folder() -> None:
    """As Ray does in workers. Last, so that a file there hides nothing that is installed."""
    folder = os.path.abspath(os.path.curdir)
    if not sys.flags.safe_path and not {"", folder} & {*sys.path}:
        sys.path.append(folder)


def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """By name, those that a keyword can fill."""
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # it has none that Python knows, or cannot be called
        return {}
    return {name: one for name, one in parameters.items() if one.kind in by_keyword}


def _check_asked(config: NetworkConfig, asked: Mapping[str, inspect.Parameter]) -> None:
    """Raise ConfigError for keys that the factory is not handed, for those given twice, and for those it needs."""
    problems = []
    from_weights = config.weights != _UNSET["weights"]
    for key, unset in _UNSET.items():
        parameter = "weights" if key == "sha256" else key
        given = getattr(config, key) != unset
        if given and parameter not in asked:
            problems.append(f"model.{key}: not passed on; {config.name} has no parameter {parameter}")
        elif given and parameter in config.options:
            problems.append(f"model.{key}: given as model.options.{parameter} too; keep one")
        elif given and key == "sha256" and not from_weights:
            problems.append("model.sha256: of which weights? give model.weights too")
        elif not given and key in asked and key not in config.options and _needed(asked[key]):
            if key == "categories" and from_weights:
                continue  # a model directory names them
            problems.append(f"model.{key}: {config.name} needs it; give model.{key}=…")
    if problems:
        raise ConfigError(*problems)


def _needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty


def _names(config: NetworkConfig, weights: Weights | None, asked: Mapping[str, inspect.Parameter]) -> list[str] | None:
    """The categories to hand on; None where neither the config nor a model directory has any, or none are asked for."""
    if config.categories is not None:
        return list(config.categories)
    if "categories" not in asked or "categories" in config.options or weights is None or weights.description is None:
        return None
    return [one.name for one in weights.description.categories]


def _called(config: NetworkConfig, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> Segmenter:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        signature = None
    if signature is not None:
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise ConfigError(f"model.name {config.name!r}: cannot be called with model.options: {error}") from error
    with one_line(f"model.name {config.name!r}: its factory failed"):
        segmenter = factory(**arguments)
    lacking = [name for name in _METHODS if not callable(getattr(segmenter, name, None))]
    lacking += [name for name in ("module", "same_size_batches") if not hasattr(segmenter, name)]
    if lacking or not isinstance(getattr(segmenter, "card", None), ModelCard):
        missing = ", ".join(lacking) or "a card of type ModelCard"
        raise ConfigError(
            f"model.name {config.name!r} gave a {type(segmenter).__name__}, no Segmenter (segjobs/models/base.py): "
            f"it lacks {missing}"
        )
    return segmenter
