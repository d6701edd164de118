"""Tensors between files and modules: weights into a module, and a model's way to disk.

    Weights.path → read_tensors (weights_file.py) → load_into(module)
    Segmenter → save_model → model.safetensors + model.json, which ``model.weights`` takes again

``model.json`` holds what the tensors do not: name, task, options, categories, preprocessing, licence.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import safetensors.torch
from torch import nn

from segjobs.errors import ConflictError, WeightsError
from segjobs.manifest.seal import sealed_json
from segjobs.models.base import Segmenter
from segjobs.models.fit import State, nearest, prefix_of, under_own_names, unfit
from segjobs.models.hf_files import OWN_RESIZE
from segjobs.models.weights import DESCRIPTION, TENSORS
from segjobs.models.weights_file import read_tensors
from segjobs.storage import Storage, join

_TRAINING_HEADS = ("aux_classifier.", "classification_head.")
_SHOWN = 4


def load_into(module: nn.Module, path: Path, uri: str) -> None:
    """Copy the tensors of the file at ``path``, known to the user as ``uri``, into ``module``.

    Raises WeightsError naming those that do not fit.
    Left out without complaint: an auxiliary head (torchvision's, smp's) that the module was built without, the
    batch counters that frozen batch norms lack, and what a trainer keeps beside a model that is there as a whole.
    """
    wanted = module.state_dict()
    tensors = read_tensors(path)
    prefix, given = prefix_of(tensors, wanted), under_own_names(tensors, wanted)
    given = {key: value for key, value in given.items() if key in wanted or not _needless(key, wanted)}
    missing = [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in wanted]
    if not missing:  # what lies beside a whole model is its trainer's: the weights of a loss, a second model
        unexpected = [key for key in unexpected if key not in tensors or key.startswith(prefix)]
    both = {key: value for key, value in given.items() if key in wanted}
    mismatched = [
        f"{key} {tuple(value.shape)} instead of {tuple(wanted[key].shape)}"
        for key, value in both.items()
        if value.shape != wanted[key].shape
    ]
    unusable = [
        f"{key} ({why})"
        for key, value in both.items()
        if value.shape == wanted[key].shape and (why := unfit(value, wanted[key]))
    ]
    near = list(islice(nearest(missing, unexpected, given, wanted), _SHOWN)) if unexpected else []
    if missing or unexpected or mismatched or unusable:
        findings = [
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", mismatched),
            ("not to be used", unusable),
            ("perhaps under another name", near),
        ]
        found = "; ".join(f"{len(keys)} {what}: {_first(keys)}" for what, keys in findings if keys)
        raise WeightsError(
            f"{uri}: the weights do not fit the model: {found}. "
            "Check model.name, model.options and the number of model.categories"
        )
    module.load_state_dict(both, strict=False)


def save_model(
    segmenter: Segmenter,
    uri: str,
    storage: Storage,
    *,
    extra: Mapping[str, object] | None = None,
    tensors: State | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> str:
    """Write a model directory at ``uri`` that ``model.weights`` takes; returns the SHA-256 of its tensors.

    ``extra`` (JSON values: training settings, scores) is laid beside the description in model.json, which is
    written last: with it the directory is complete. ``tensors``: by the names that they are to have, by default those
    of the module; ``beside``: further files, by name. Raises ConflictError where ``uri`` holds another model.
    """
    card = segmenter.card
    given = segmenter.module.state_dict() if tensors is None else tensors
    data = safetensors.torch.save(
        {key: value.contiguous().cpu() for key, value in given.items()}, metadata={"format": "pt"}
    )
    sha256 = hashlib.sha256(data).hexdigest()
    description = {
        **(extra or {}),
        "name": card.name,
        "task": card.task,
        "options": card.options,
        "categories": [asdict(category) for category in card.categories],
        "preprocessing": {key: value for key, value in card.preprocessing.items() if value != OWN_RESIZE},
        "licence": card.licence,
        "sha256": sha256,
    }
    files = {TENSORS: data, **(beside or {}), DESCRIPTION: sealed_json(description, indent=2)}
    for name, content in files.items():
        target = join(uri, name)
        if not storage.put_if_absent(target, content) and storage.read(target) != content:
            raise ConflictError(f"{target}: another model is there already; give another place to save this one")
    return sha256


def _needless(key: str, wanted: State) -> bool:
    if key.endswith("num_batches_tracked"):
        return True
    head = next((head for head in _TRAINING_HEADS if key.startswith(head)), None)
    return head is not None and not any(name.startswith(head) for name in wanted)


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", …" if len(keys) > _SHOWN else "")
