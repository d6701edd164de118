"""What ``save_pretrained`` wrote: its URI in; its files on this node, what they say and their digest out. No torch.

    a folder, local or s3://, or hf://org/repo@revision → Repository: config, processor, weights, tokenizer, licence

Only names that a network needs are looked for; code that a repository brings is neither fetched nor run.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import yaml

from segjobs.config import NetworkConfig
from segjobs.errors import WeightsError
from segjobs.models.description import Description, parse_description
from segjobs.models.weights import (
    DESCRIPTION,
    check_digest,
    digest_of,
    digest_of_files,
    first_line,
    hub_file,
    hub_place,
    local_copy,
)
from segjobs.narrow import is_list, is_object
from segjobs.storage import Storage, join

CONFIG = "config.json"
OWN_RESIZE = "processor"
"""``preprocessing["resize"]`` of a card whose size is for its image processor to compute."""
PROCESSOR = "preprocessor_config.json"
_PROCESSORS = ((PROCESSOR, None), ("processor_config.json", "image_processor"))
"""Where an image processor is described, and under which key."""
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""In the order in which transformers looks for them; an index names the files that share the tensors."""
_TOKENIZERS = ("tokenizer.json", "vocab.json", "merges.txt")
_CARD = "README.md"

Fetch = Callable[[str], Path]
"""A file of the repository by its name, on this node; raises FileNotFoundError where there is none."""


@dataclass(frozen=True)
class Repository:
    """What a directory of ``save_pretrained`` holds. ``weights``: files of tensors, one or several.

    ``sha256``: of the one weights file, or of the lines ``name digest`` of several. ``config``, ``processor``: the
    JSON of config.json and of the image processor. ``named``: other files by name, those that are there. ``licence``:
    as the README's head has it. ``described``: model.json, of a directory that a training of segjobs wrote.
    """

    uri: str
    weights: tuple[Path, ...]
    sha256: str
    config: Mapping[str, object]
    processor: Mapping[str, object]
    named: Mapping[str, Path]
    licence: str | None
    described: Description | None = None


def open_repository(
    config: NetworkConfig, storage: Storage, *, by: str = "transformers", tokenizer_of: str = ""
) -> Repository:
    """Find or fetch the repository that ``config.weights`` names.

    ``by``: whose ``save_pretrained`` it is; transformers' describes an image processor. ``tokenizer_of``: the model
    type that reads texts too. Raises WeightsError where something is missing, damaged,
    unreachable or not of ``config.sha256``.
    """
    uri = config.weights
    if uri in ("none", "default") or uri.startswith("torchvision:"):
        raise WeightsError(
            f"model.weights={uri}: model.name={config.name} takes a directory that save_pretrained of {by} wrote, "
            f"or hf://org/repo@revision: it has the network's {CONFIG} beside the weights"
        )
    fetch = _fetch(uri, storage)
    described = _json(fetch, CONFIG, uri)
    weights, sha256 = _weights(fetch, uri)
    check_digest(uri, sha256, config.sha256)
    wanted: list[str] = list(_TOKENIZERS) if described.get("model_type") == tokenizer_of else []
    processor = _processor(fetch, uri) if by == "transformers" else {}
    classes = processor.get("class_info_file")
    if isinstance(classes, str) and PurePosixPath(classes).name == classes:
        wanted.append(classes)
    named = {name: path for name in wanted if (path := _there(fetch, name)) is not None}
    own = None if uri.startswith("hf://") else _there(fetch, DESCRIPTION)
    about = None if own is None else _described(own.read_bytes(), join(uri, DESCRIPTION))
    licence = about.licence if about else _licence(fetch)
    return Repository(uri, weights, sha256, described, processor, named, licence, about)


def _described(data: bytes, where: str) -> Description | None:
    """A model.json that a training of segjobs wrote; None of another's file of that name. Raises WeightsError."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return parse_description(data, where) if is_object(content) and "training" in content else None


def as_json(content: Mapping[str, object]) -> bytes:
    """A file of a repository, as ``save_pretrained`` writes it."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _fetch(uri: str, storage: Storage) -> Fetch:
    if uri.startswith("hf://"):
        if hub_place(uri)[2]:
            raise WeightsError(f"model.weights={uri}: expected hf://org/repo@revision, the repository as a whole")
        return partial(hub_file, uri)

    def stored(name: str) -> Path:
        place = join(uri, name)
        try:
            known = storage.info(place)
        except OSError as error:
            raise WeightsError(f"{place}: cannot be read: {error}") from error
        if known is None:
            raise FileNotFoundError(place)
        return local_copy(place, storage)

    return stored


def _there(fetch: Fetch, name: str) -> Path | None:
    try:
        return fetch(name)
    except FileNotFoundError:
        return None


def _json(fetch: Fetch, name: str, uri: str) -> dict[str, object]:
    """A file of the repository that holds a JSON object. Raises WeightsError."""
    try:
        content = json.loads(fetch(name).read_bytes())
    except FileNotFoundError as error:
        raise WeightsError(
            f"{uri}: no {name} there ({first_line(error)}); expected a directory that save_pretrained wrote: "
            "config.json and the weights, of transformers preprocessor_config.json too"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{uri}: {name} cannot be read as JSON: {first_line(error)}; fetch it again") from error
    if not is_object(content):
        raise WeightsError(f"{uri}: {name} holds a {type(content).__name__}, expected a JSON object")
    return content


def _processor(fetch: Fetch, uri: str) -> dict[str, object]:
    for name, key in _PROCESSORS:
        if _there(fetch, name) is None:
            continue
        content = _json(fetch, name, uri)
        if key is None:
            return content
        if is_object(inner := content.get(key)):
            return inner
    return _json(fetch, _PROCESSORS[0][0], uri)  # which says that it is missing


def _weights(fetch: Fetch, uri: str) -> tuple[tuple[Path, ...], str]:
    """The files of the tensors, and their digest. Raises WeightsError."""
    name, found = next(((name, path) for name in _WEIGHTS if (path := _there(fetch, name)) is not None), ("", None))
    if found is None:
        raise WeightsError(f"{uri}: no weights there; expected one of {', '.join(_WEIGHTS)}")
    if not name.endswith(".json"):
        return (found,), digest_of(found)
    parts = _json(fetch, name, uri).get("weight_map")
    names = sorted({str(part) for part in parts.values()}) if is_object(parts) else []
    if not names or any(PurePosixPath(part).name != part for part in names):
        raise WeightsError(f"{uri}: {name} names no files beside it under weight_map; fetch it again")
    try:
        paths = tuple(fetch(part) for part in names)
    except FileNotFoundError as error:
        raise WeightsError(f"{uri}: {name} names a file that is not there: {first_line(error)}") from error
    return paths, digest_of_files(dict(zip(names, paths, strict=True)))


def _licence(fetch: Fetch) -> str | None:
    """``license`` of the YAML at the README's head, with its name and link where it is ``other``; None without."""
    path = _there(fetch, _CARD)
    if path is None:
        return None
    try:
        _, head, _ = path.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
        found = yaml.safe_load(head)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    if not is_object(found) or not found.get("license"):
        return None
    licence = found["license"]
    names = [str(one) for one in licence] if is_list(licence) else [str(licence)]
    more = [str(found[key]) for key in ("license_name", "license_link") if found.get(key)]
    return " ".join([*names, *([f"({', '.join(more)})"] if more else [])])
