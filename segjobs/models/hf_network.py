"""transformers at work: a repository in; its network with its weights, and its way of resizing images, out.

Nothing of a repository is run as code: the network is a class of transformers, the tensors are read by
``weights_file.read_tensors``.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers.utils import logging

from segjobs.errors import ItemError, WeightsError
from segjobs.models.base import with_attributes
from segjobs.models.hf_files import OWN_RESIZE, Repository
from segjobs.models.resize import MAX_ASPECT, resize_image, scaled_size, target_size
from segjobs.models.transfer import Transfer, load_matching, why_no_head
from segjobs.models.weights import first_line
from segjobs.models.weights_file import read_tensors
from segjobs.narrow import is_object
from segjobs.text import first_few, size_text

_MISFITS = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, AssertionError)
_MISFITS += (ImportError, OSError, MemoryError, NotImplementedError, StrictDataclassError)
"""What transformers raises of a config that gives no network."""
_UNUSED = ("neck.fusion_stage.layers.0.residual_layer1.",)
"""Of DPT's first fusion layer, which has nothing to add: published checkpoints lack them, and no forward asks."""
_RESIZE_OPTIONS = ("size_divisor", "ensure_multiple_of", "keep_aspect_ratio")
_NAMES = ("FeatureExtractor", "ImageProcessorFast", "ImageProcessorPil", "ImageProcessor")
"""The ends of an image processor's name, over the years."""
_MOST_SIDE = 16_384


def load_network(repository: Repository, name: str) -> Any:
    """transformers' network of class ``name`` with the repository's weights, float32, on the CPU.

    Tensors that the network has no place for are left, as transformers leaves them. Raises WeightsError where
    config.json gives no network, or tensors lack or are of another shape.
    """
    kind, tensors = getattr(transformers, name), _tensors_of(repository)
    with _quiet(), _fitting(repository, name):
        network, found = _loaded(kind, kind.config_class.from_dict(_described(repository)), tensors)
    lacking = sorted(
        key for key in found["missing_keys"] if not key.endswith("num_batches_tracked") and not key.startswith(_UNUSED)
    )
    other = sorted(str(key[0] if isinstance(key, tuple) else key) for key in found["mismatched_keys"])
    for what, keys in (("lack", lacking), ("have another shape for", other)):
        if keys:
            raise WeightsError(
                f"{repository.uri}: the weights {what} {len(keys)} of {name}'s tensors: {', '.join(first_few(keys))}; "
                "config.json and weights are of two networks: fetch both again"
            )
    return network


def _tensors_of(repository: Repository) -> dict[str, torch.Tensor]:
    return {key: value for path in repository.weights for key, value in read_tensors(path).items()}


def _described(repository: Repository) -> dict[str, Any]:
    """Its config.json, to be built as it is labelled with.

    A backbone's own weights would be fetched, and then replaced by these; OneFormer in training reads texts, too.
    """
    return {**repository.config, "use_pretrained_backbone": False, "is_training": False}


def _loaded(kind: Any, config: Any, tensors: dict[str, torch.Tensor]) -> tuple[Any, dict[str, Any]]:
    """The network in float32 with what it takes of the tensors, and transformers' report of that."""
    return kind.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )


@contextmanager
def _fitting(repository: Repository, name: str) -> Iterator[None]:
    """Raises WeightsError of what transformers raises where config.json gives no network."""
    try:
        yield
    except _MISFITS as error:
        raise WeightsError(
            f"{repository.uri}: config.json gives no {name} of transformers {transformers.__version__}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error


def fresh_network(repository: Repository, name: str, labels: Sequence[str], seed: int) -> tuple[Any, Transfer]:
    """transformers' network of class ``name`` for other classes, and what became of the repository's tensors.

    The head stays random where ``labels`` are not the repository's. Raises WeightsError.
    """
    kind, tensors, described = getattr(transformers, name), _tensors_of(repository), _described(repository)

    def config_of(names: Sequence[str]) -> Any:
        return kind.config_class.from_dict({**described, **labels_of(names)})

    with _quiet(), torch.random.fork_rng(devices=[]), _fitting(repository, name):
        torch.manual_seed(seed)
        made = kind(config_of(labels)).float()
        with torch.device("meta"):
            other = kind(config_of([*labels, "one more"])).state_dict()
        # It knows by which names earlier releases called a tensor.
        found, report = _loaded(kind, config_of(labels), tensors)
    given = {key: value for key, value in found.state_dict().items() if key not in report["missing_keys"]}
    given |= {key: torch.empty(shape) for key, shape, _ in report["mismatched_keys"]}
    known = repository.config.get("id2label")
    reason = why_no_head([str(label) for label in known.values()] if is_object(known) else [], labels)
    head = [key for key, value in made.state_dict().items() if other[key].shape != value.shape]
    return made, load_matching(made, given, left_out=dict.fromkeys(head, reason) if reason else None)


def saved_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a ``SemanticLogits`` by the names under which transformers writes them."""
    network: Any = module.get_submodule("network")
    with _quiet(), TemporaryDirectory(prefix="segjobs-") as folder:
        network.save_pretrained(folder, max_shard_size="1TB")
        return read_tensors(Path(folder) / "model.safetensors")


def labels_of(names: Sequence[str]) -> dict[str, object]:
    """Classes as config.json has them."""
    numbered = {str(number): name for number, name in enumerate(names)}
    return {"id2label": numbered, "label2id": {name: int(number) for number, name in numbered.items()}}


class SemanticLogits(nn.Module):
    """A network ``…ForSemanticSegmentation`` as ``SemanticSegmenter`` takes it: images in, logits out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """float32 (N, 3, h, w) → logits (N, C, h', w'), for most architectures at a quarter of the input's sides."""
        if not torch.is_inference_mode_enabled():
            return self.network(batch).logits
        # BEiT keeps indices from one call to the next, which no training could use if they were inference tensors.
        with torch.inference_mode(False), torch.no_grad():
            return self.network(batch).logits


class Resizing:
    """How images become as large as the network sees them: as the repository's image processor does, or by a rule."""

    def __init__(self, repository: Repository, usual: str, rule: str) -> None:
        self._rule = rule
        self._factor = 1.0
        self._processor: Any = None if rule != OWN_RESIZE else _image_processor(repository, usual)
        self.patch_side = 0
        """Side of the patches that EoMT cuts an image's longer side into; 0 where it cuts none."""
        self._padded_hw = (0, 0)
        if self._processor is not None and self._processor.do_resize:
            size = self._processor.size
            if getattr(self._processor, "do_split_image", False):
                self.patch_side = size.shortest_edge or 0
            if getattr(self._processor, "do_pad", False):
                self._padded_hw = (size.shortest_edge or 0, size.longest_edge or size.shortest_edge or 0)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 (3, H, W) → uint8 (3, h, w). Raises ItemError TOO_LARGE where that would be of no, or of huge, size."""
        resized_hw = self.size_hw((image.shape[-2], image.shape[-1]))
        if self._processor is None or self._factor != 1:
            return resize_image(image, resized_hw)
        return self._resized(image[None])[0] if self._processor.do_resize else image

    def scaled(self, factor: float) -> "Resizing":
        """The same for images whose sides become ``factor`` times as long: bilinear, as any ``model.resize`` is."""
        return with_attributes(self, _factor=factor)

    def padding(self, resized_hw: tuple[int, int]) -> tuple[int, int]:
        """Rows below and columns at the right of the resized image that the network is shown as well (EoMT)."""
        return max(self._padded_hw[0] - resized_hw[0], 0), max(self._padded_hw[1] - resized_hw[1], 0)

    def size_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """An image's height and width → those that it is resized to. Raises ItemError TOO_LARGE."""
        multiple = 1 if self._processor is None else self._multiple()
        resized_hw = self._size_hw(size_hw)
        return resized_hw if self._factor == 1 else scaled_size(resized_hw, self._factor, multiple=multiple)

    def _multiple(self) -> int:
        """Of which the processor makes the sides (DPT, MaskFormer), where it says so."""
        values = (getattr(self._processor, key, None) for key in ("ensure_multiple_of", "size_divisor"))
        return next((value for value in values if isinstance(value, int) and value > 0), 1)

    def _size_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """At factor 1. The processor is asked with an image that has a size and no pixels."""
        if self._processor is None:
            return target_size(self._rule, size_hw)
        if not self._processor.do_resize:
            return size_hw
        try:
            height, width = self._resized(torch.empty((1, 3, *size_hw), dtype=torch.uint8, device="meta")).shape[-2:]
        except (RuntimeError, ValueError, ArithmeticError):
            height = width = 0
        if min(height, width) < 1 or max(height, width) > max(_MOST_SIDE, MAX_ASPECT * min(height, width)):
            raise ItemError(
                "TOO_LARGE",
                f"{size_text(size_hw)} pixels is too long a strip for the image processor's size "
                f"{dict(self._processor.size)}; give model.resize, such as 512x512",
            )
        return height, width

    def _resized(self, images: torch.Tensor) -> torch.Tensor:
        processor = self._processor
        known = inspect.signature(processor.resize).parameters
        options = {key: getattr(processor, key) for key in _RESIZE_OPTIONS if key in known}
        return processor.resize(image=images, size=processor.size, resample=processor.resample, **options)


def _image_processor(repository: Repository, usual: str) -> Any:
    """transformers' image processor with the repository's settings. Raises WeightsError."""
    given = dict(repository.processor)
    name = str(given.get("image_processor_type") or given.get("feature_extractor_type") or usual)
    end = next((end for end in _NAMES if name.endswith(end)), "")
    kind = getattr(transformers, f"{name.removesuffix(end)}ImageProcessor", None) if end else None
    if kind is None:
        raise WeightsError(
            f"{repository.uri}: image_processor_type {name!r} is none of transformers'; give model.resize"
        )
    given.pop("class_info_file", None)  # OneFormer's would be fetched from elsewhere
    try:
        with _quiet():
            return kind.from_dict(given)
    except _MISFITS as error:
        raise WeightsError(
            f"{repository.uri}: preprocessor_config.json gives no {kind.__name__}: {first_line(error)}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers' bars and reports of loading are left out inside; what matters of them is an error here."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
