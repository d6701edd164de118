"""Models that learn, of every family: what a training starts from in, the Segmenter to train out, and its way to disk.

    models of the table          registry.start
    hf, smp                      the network of the repository's config.json; a new head where the classes are others
    package.module:factory       the user's own Segmenter, by its method ``loss``

A name is settled on the driver (``resolve_start``), each worker builds for itself (``start``), and what ``save`` writes
``label`` takes as ``model.weights`` under the same name: of transformers and smp also what their ``from_pretrained``
takes.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from segjobs.config import TrainModelConfig, check_resize
from segjobs.errors import ConfigError
from segjobs.manifest.schema import Category, ModelCard, Task
from segjobs.models import factories, registry
from segjobs.models.base import Segmenter
from segjobs.models.hf_files import OWN_RESIZE
from segjobs.models.table import FROM_WEIGHTS, get_spec
from segjobs.models.weights import Weights
from segjobs.narrow import is_object
from segjobs.storage import Storage

if TYPE_CHECKING:
    from segjobs.models.transfer import Transfer


def task_to_learn(config: TrainModelConfig, of_data: Task) -> Task:
    """What the model gives; a factory's is said by its card, so what the data's masks are is expected of it.

    Raises ConfigError where no such model learns, or there is none.
    """
    if ":" in config.name:
        return "semantic" if of_data == "panoptic" else of_data
    if config.name in FROM_WEIGHTS:
        if not hasattr(_of(config.name), "describe_start"):
            raise ConfigError(
                f"model.name {config.name!r}: an exported network does not learn; train takes the models of the table, "
                "hf, smp and package.module:factory"
            )
        return "semantic"
    return get_spec(config.name).task


def resolve_start(
    config: TrainModelConfig, categories: Sequence[Category], storage: Storage
) -> tuple[ModelCard, Weights]:
    """The card of a model that is to learn ``categories``, and its start. Raises ConfigError or WeightsError."""
    if ":" in config.name:
        return factories.describe_start(config, categories, storage)
    if config.name in FROM_WEIGHTS:
        return _of(config.name).describe_start(config, categories, storage)
    return registry.resolve_start(config, categories, storage)


def start(
    config: TrainModelConfig, card: ModelCard, weights: Weights, storage: Storage, *, device: str, precision: str
) -> "tuple[Segmenter, Transfer | None]":
    """The Segmenter of ``resolve_start``, and what became of the tensors that it starts from (None of random ones).

    A head of other classes, or of the same in another order, stays random. Raises ConfigError or WeightsError.
    """
    if ":" in config.name:
        return factories.start(config, card, weights, storage, device=device, precision=precision)
    if config.name in FROM_WEIGHTS:
        return _of(config.name).start(config, card, storage, device=device, precision=precision)
    return registry.start(card, weights, seed=config.seed, device=device, precision=precision)


def save(
    segmenter: Segmenter, config: TrainModelConfig, uri: str, storage: Storage, *, extra: Mapping[str, object]
) -> str:
    """``tensors.save_model`` with the files that the model's own library looks for."""
    from segjobs.models.tensors import save_model

    if config.name not in FROM_WEIGHTS:
        return save_model(segmenter, uri, storage, extra=extra)
    tensors, beside = _of(config.name).pretrained(segmenter, config, storage)
    return save_model(segmenter, uri, storage, extra=extra, tensors=tensors, beside=beside)


def shown_by(card: ModelCard) -> str:
    """The rule of ``model.resize`` by which images are resized before they are learnt, as they will be in use.

    A transformers' image processor's own is taken for the nearest rule; a factory's, if its card names none, native.
    """
    rule = card.preprocessing.get("resize", "native")
    if rule != OWN_RESIZE:
        return str(rule)
    processor = card.preprocessing.get("processor", {})
    size = processor.get("size") if processor.get("do_resize", True) else None
    sides: Mapping[str, object] = size if is_object(size) else {"height": size, "width": size}
    for rule in (f"{sides.get('height')}x{sides.get('width')}", f"short:{sides.get('shortest_edge')}"):
        try:
            return str(check_resize(rule))
        except ValueError:
            continue
    return "native"


def _of(name: str) -> Any:
    return importlib.import_module(f"segjobs.models.{FROM_WEIGHTS[name]}")
