"""Which keys of a job can change what it gives: every key that no table here lists.

    config + verb ─→ effective → the keys that two results must share to be the same, by dotted name
    config + keys ─→ later     → those of them that are not at their default

What stands at ``output.uri`` is compared by them (a run's identity, a report's, a page's). A key that is listed in
neither table counts, so a new one cannot be forgotten: ``tests/config/test_effects.py`` goes through all of them.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from segjobs.config.keys import iter_fields

WITHOUT_EFFECT = {
    "env": "the values that it lets in stand in the keys themselves",
    "notify": "who is told of the end",
    "output.uri": "where the result is, not what",
    "compute": "who computes, and how many at once; batches change a model's last digits at most",
    "shard": "how the work is cut",
    "storage.s3": "how a store is reached; what lies there is compared by its fingerprints",
    "storage.schemes": "which stores may be reached",
    "storage.attempts": "patience",
    "storage.deadline_s": "patience",
    "storage.connect_timeout_s": "patience",
    "storage.read_timeout_s": "patience",
    "verify": "a check",
    "max_failed_fraction": "the exit status",
    "fail_on_empty": "whether there is a result",
    "contact_sheet": "a picture beside the masks",
    "validation.contact_sheet": "a picture beside the model",
    "validation.batch_size": "how many at once",
    "checkpoint_s": "when a checkpoint is saved",
    "model.sha256": "a check",
    "overwrite": "whether what stands is replaced",
}
"""Keys, and whole sections, that cannot change a result of any job, and why."""
DESPITE = {
    "compute.precision": ("label", "train"),
    "input.bands": ("label", "prepare"),
    "input.range": ("label", "prepare"),
    "model.runtime": ("label",),
    "model.precision": ("label",),
}
"""Keys of those sections that can, and in which jobs."""

BY_CONTENT: dict[str, dict[str, str]] = {
    "label": {
        "input": "the plan's digest",
        "model": "the model card's digest",
        "redo": "the finished run's parts and the codes",
    },
    "prepare": {
        "input": "the plan's digest",
        "labels.uri": "the labels' digest",
        "labels.masks": "the labels' digest",
        "labels.class_file": "the names in it become labels.categories",
        "labels.ignore_uri": "the labels' digest",
        "splits": "each split's plan",
        "group": "each split's plan",
    },
    "train": {
        "data.uri": "the manifest's parts",
        "data.mix": "the manifests' parts, weights and thresholds",
        "validation.uri": "the manifest's parts",
        **dict.fromkeys(("model.name", "model.options", "model.resize"), "the model card"),
        "model.weights": "the weights' digest",
        "model.categories": "the classes that are learnt",
        **dict.fromkeys(("batch_size", "accumulate", "compute.workers"), "the images of a step"),
    },
    "evaluate": {
        "predictions.uri": "the parts, or the fingerprints of the files",
        "predictions.images": "the classes and numbers in it",
        "truth.uri": "the manifest's parts",
        "baseline.uri": "the manifest's parts",
        "slices": "the digest of table and groups",
    },
    "report": {
        "evaluation.uri": "the digest of report.json",
        "predictions.uri": "the manifest's parts",
        "truth.uri": "the manifest's parts",
    },
    "export": {
        "manifest.uri": "the manifest's parts",
        "ids_from": "the numbers in it",
        "storage.max_item_bytes": "a manifest's larger file stops the job",
    },
}
"""Keys that name something, by verb, and what of it is compared in their place."""


def listed(verb: str, key: str) -> bool:
    """Whether a table here has the key, or a section around it."""
    known = {*WITHOUT_EFFECT, *BY_CONTENT[verb]}
    return verb not in DESPITE.get(key, ()) and any(key == one or key.startswith(f"{one}.") for one in known)


def effective(verb: str, config: BaseModel) -> dict[str, Any]:
    """Dotted name → JSON value of every key that can change the verb's result."""
    return {key: value for key, value in _values(config) if not listed(verb, key)}


def later(config: BaseModel, *keys: str) -> dict[str, Any]:
    """Those of ``keys`` that are not at their default: they joined an identity of which runs were made without them."""
    fields = dict(iter_fields(type(config)))
    values = dict(_values(config))
    return {key: values[key] for key in keys if values[key] != fields[key].get_default(call_default_factory=True)}


def _values(config: BaseModel) -> Iterator[tuple[str, Any]]:
    dumped = config.model_dump(mode="json")
    for key, _ in iter_fields(type(config)):
        value: Any = dumped
        for name in key.split("."):
            value = None if value is None else value[name]
        yield key, value
