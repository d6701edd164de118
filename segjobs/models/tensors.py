"""Tensors between files and modules: weights read without running code, and a model's way to disk.

    Weights.path → read_tensors → load_into(module)
    Segmenter → save_model → model.safetensors + model.json, which ``model.weights`` takes again

``model.json`` holds what the tensors do not: name, task, options, categories, preprocessing, licence.
"""

import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from segjobs.errors import ConflictError, WeightsError
from segjobs.models.base import Segmenter
from segjobs.models.weights import DESCRIPTION, TENSORS, first_line
from segjobs.storage import Storage, join

_WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys that training scripts put around a state dict
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
_SHOWN = 4


def load_into(module: nn.Module, path: Path, uri: str) -> None:
    """Copy the tensors of the file at ``path``, known to the user as ``uri``, into ``module``.

    Raises WeightsError naming those that do not fit.
    Left out without complaint: an auxiliary head that the module was built without, and the batch counters that
    frozen batch norms lack.
    """
    given = read_tensors(path)
    wanted = module.state_dict()
    given = {key: value for key, value in given.items() if key in wanted or not _needless(key, wanted)}
    missing = [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in wanted]
    mismatched = [
        f"{key} {tuple(value.shape)} instead of {tuple(wanted[key].shape)}"
        for key, value in given.items()
        if key in wanted and value.shape != wanted[key].shape
    ]
    if missing or unexpected or mismatched:
        findings = [("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched)]
        found = "; ".join(f"{len(keys)} {what}: {_first(keys)}" for what, keys in findings if keys)
        raise WeightsError(
            f"{uri}: the weights do not fit the model: {found}. "
            "Check model.name, model.options and the number of model.categories"
        )
    module.load_state_dict(given, strict=False)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """State dict of a .safetensors file, or of a .pth/.pt file read with ``weights_only=True``, on the CPU."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: holds more than tensors, or is damaged, and is not run "
            f"({first_line(error)}); save its state_dict() alone, best as .safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: not readable as weights: {first_line(error)}") from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"{path}: expected a state dict (names and tensors), found {type(content).__name__}")
    for prefix in _PREFIXES:
        if content and all(key.startswith(prefix) for key in content):
            content = {key.removeprefix(prefix): value for key, value in content.items()}
    return dict(content)


def save_model(segmenter: Segmenter, uri: str, storage: Storage, *, extra: Mapping[str, object] | None = None) -> str:
    """Write a model directory at ``uri`` that ``model.weights`` takes; returns the SHA-256 of its tensors.

    ``extra`` (JSON values: training settings, scores) is laid beside the description in model.json, which is
    written last: with it the directory is complete. Raises ConflictError where ``uri`` holds another model.
    """
    card = segmenter.card
    tensors = {key: value.contiguous().cpu() for key, value in segmenter.module.state_dict().items()}
    data = safetensors.torch.save(tensors, metadata={"format": "pt"})
    sha256 = hashlib.sha256(data).hexdigest()
    description = {
        **(extra or {}),
        "name": card.name,
        "task": card.task,
        "options": card.options,
        "categories": [asdict(category) for category in card.categories],
        "preprocessing": card.preprocessing,
        "licence": card.licence,
        "sha256": sha256,
    }
    text = json.dumps(description, indent=2, ensure_ascii=False).encode()
    for name, content in ((TENSORS, data), (DESCRIPTION, text)):
        target = join(uri, name)
        if not storage.put_if_absent(target, content) and storage.read(target) != content:
            raise ConflictError(f"{target}: another model is there already; give another place to save this one")
    return sha256


def _needless(key: str, wanted: Mapping[str, torch.Tensor]) -> bool:
    if key.endswith("num_batches_tracked"):
        return True
    return key.startswith("aux_classifier.") and not any(name.startswith("aux_classifier.") for name in wanted)


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", …" if len(keys) > _SHOWN else "")
