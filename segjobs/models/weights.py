"""Weights by URI, found or fetched once per node and checked; what is in them is read in ``weights_file.py``.

    model.weights → locate (cache, lock, SHA-256) → Weights

The driver asks for them too, for their digest, and needs torch only where torchvision publishes them. Remote files
lie in ``$SEGJOBS_CACHE`` (``~/.cache/segjobs``) under a key made of URI, size and etag, so that a file replaced at
its URI is fetched anew; local files are used where they are.
"""

import difflib
import hashlib
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from segjobs.config import NetworkConfig
from segjobs.errors import StorageError, WeightsError
from segjobs.models.description import Description, parse_description
from segjobs.storage import Storage, is_remote, join, local_path

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

TENSORS, DESCRIPTION = "model.safetensors", "model.json"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".pth.tar", ".bin")
_EXPORTED = ".onnx"

_MEND = "export the network to ONNX (torch.onnx.export) for model.name=onnx, or save its state_dict()"
RUNS_CODE = {
    "pt2": "an archive of torch.export (.pt2), whose loading by torch.export.load runs pickled code and expressions "
    f"that it may hold: {_MEND}",
    "torchscript": "an archive of TorchScript, a program that may write any file of this machine (aten::save) as "
    f"soon as it is called: {_MEND}",
}
"""Exported networks that are not taken, and why."""
_OF_ENDING = {".pt2": "pt2", ".torchscript": "torchscript", ".ptl": "torchscript"}

WeightsFile = tuple[Path, Description | None]
"""A weights file on this node and, for a model directory, the content of its model.json."""


@dataclass(frozen=True)
class Weights:
    """Weights on this node. ``sha256`` of the file's bytes, or ``seed:N``; ``path`` None for random ones.

    ``uri`` with aliases resolved (``torchvision:COCO_V1`` for ``default``); ``description`` is model.json's content.
    """

    uri: str
    sha256: str
    path: Path | None = None
    description: Description | None = None


def locate(config: NetworkConfig, published: str | None, storage: Storage) -> Weights:
    """Find or fetch what ``config.weights`` names. ``published``: the torchvision model whose weights fit, if any.

    Raises WeightsError where they are missing, unreachable or not of ``config.sha256``.
    """
    uri = config.weights
    check_no_program(uri)
    if uri == "none":
        return Weights(uri, f"seed:{config.seed}")
    if uri == "default" or uri.startswith("torchvision:"):
        entry = published_entry(config.name, published, uri)
        return _checked(f"torchvision:{entry.name}", (_fetch_published(entry.url), None), config.sha256)
    if uri.startswith("hf://"):
        return _checked(uri, _fetch_hub(uri), config.sha256)
    return _checked(uri, _fetch_stored(uri, storage), config.sha256)


def check_no_program(uri: str) -> None:
    """Raise WeightsError, with the reason, for an exported network that only its own code could run."""
    kind = next((kind for ending, kind in _OF_ENDING.items() if uri.endswith(ending)), None)
    if kind is not None:
        raise WeightsError(f"model.weights={uri}: {RUNS_CODE[kind]}")


def beside(uri: str, name: str, storage: Storage) -> bytes:
    """The file ``name`` in the folder, or repository, of the weights file at ``uri``. Raises WeightsError."""
    place = f"{uri.rpartition('/')[0]}/{name}"
    try:
        if uri.startswith("hf://"):
            folder = hub_place(uri)[2].rpartition("/")[0]
            return hub_file(uri, f"{folder}/{name}" if folder else name).read_bytes()
        return storage.read(place)
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsError(f"{place}: no such file; expected it beside {uri.rpartition('/')[2]}") from None
    except OSError as error:
        raise WeightsError(f"{place}: cannot be read: {error}") from error


def file_beside(uri: str, name: str, storage: Storage) -> Path:
    """As ``beside``, a large one: its path on this node. Raises WeightsError."""
    try:
        if uri.startswith("hf://"):
            folder = hub_place(uri)[2].rpartition("/")[0]
            return hub_file(uri, f"{folder}/{name}" if folder else name)
    except FileNotFoundError as error:
        raise WeightsError(f"{uri}: {name} is not beside it: {first_line(error)}") from error
    return local_copy(f"{uri.rpartition('/')[0]}/{name}", storage)


def published_entry(name: str, published: str | None, uri: str) -> "WeightsEnum":
    """The member of torchvision's weights enum that ``default`` or ``torchvision:ENUM`` means for a model."""
    if published is None:
        raise WeightsError(
            f"model.weights={uri}: there are no published weights for {name}; "
            "give model.weights=<model directory>, or none for random ones"
        )
    import torchvision  # here: it takes seconds, and other weights do without

    entries = torchvision.models.get_model_weights(published)
    wanted = uri.removeprefix("torchvision:")
    if wanted == "default":
        return entries["DEFAULT"]
    if wanted not in entries.__members__:
        near = difflib.get_close_matches(wanted, entries.__members__, n=3, cutoff=0.3) or list(entries.__members__)
        raise WeightsError(f"model.weights={uri}: torchvision has no such weights for {name}; it has {', '.join(near)}")
    return entries[wanted]


def first_line(error: Exception) -> str:
    """The first line of an error's text; its type where it has none (EOFError)."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def digest_of(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_files(files: Mapping[str, Path]) -> str:
    """SHA-256 (hex) of the lines ``name sha256`` of several files, by name."""
    lines = "".join(f"{name} {digest_of(path)}\n" for name, path in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def check_digest(uri: str, sha256: str, expected: str | None) -> None:
    """Raise WeightsError where the weights' digest is not the one that ``model.sha256`` says."""
    if expected not in (None, sha256):
        raise WeightsError(
            f"{uri}: the SHA-256 of the weights is {sha256}, but model.sha256 says {expected}: damaged or replaced; "
            "fetch or save them again"
        )


def _checked(uri: str, found: WeightsFile, expected: str | None) -> Weights:
    """With the digest of the file's bytes; raises WeightsError if another one was expected."""
    path, description = found
    sha256 = digest_of(path)
    described = description and description.sha256
    for origin, wanted in (("model.sha256", expected), (DESCRIPTION, described)):
        if wanted not in (None, sha256):
            raise WeightsError(
                f"{path}: the SHA-256 of {uri}'s weights is {sha256}, but {origin} says {wanted}: damaged or replaced; "
                "fetch or save them again"
            )
    return Weights(uri, sha256, path, description)


def _fetch_published(url: str) -> Path:
    """torchvision's file: from torch.hub's own cache where it lies there already, else downloaded."""
    import torch

    name = url.rpartition("/")[2]
    known = Path(torch.hub.get_dir()) / "checkpoints" / name
    if known.is_file():
        return known
    hash_prefix = name.rpartition(".")[0].rpartition("-")[2]

    def download(path: Path) -> None:
        torch.hub.download_url_to_file(url, str(path), hash_prefix, progress=False)

    try:
        return cached(url, name, download)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"{url}: cannot be fetched: {error}. Without internet, put the file at {known}, "
            "or give model.weights=<file or model directory>, or none"
        ) from error


def hub_place(uri: str) -> tuple[str, str, str]:
    """``hf://org/repo@revision[/file]`` → ``org/repo``, the revision, and the file or "". Raises WeightsError."""
    owner, _, rest = uri.removeprefix("hf://").partition("/")
    repo, _, version = rest.partition("@")
    revision, _, file = version.partition("/")
    if not (owner and repo and revision) or "/" in repo:
        raise WeightsError(f"model.weights={uri}: expected hf://org/repo@revision, or hf://org/repo@revision/file")
    return f"{owner}/{repo}", revision, file


def hub_file(uri: str, name: str) -> Path:
    """A file of the repository at ``uri``, through huggingface_hub and its own cache.

    Raises FileNotFoundError where the repository has none of that name, WeightsError for all else.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    repo, revision, _ = hub_place(uri)
    try:
        return Path(hf_hub_download(repo, name, revision=revision))
    except (OSError, EntryNotFoundError, HFValidationError) as error:
        # Without internet a cache cannot say whether a repository has a file that was not fetched.
        unknown = isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE
        if isinstance(error, EntryNotFoundError) and not unknown:
            raise FileNotFoundError(first_line(error)) from error
        raise _not_fetched(uri, error) from error


def _not_fetched(uri: str, error: Exception) -> WeightsError:
    return WeightsError(f"{uri}: cannot be fetched: {first_line(error)}. Check the name, the revision and HF_TOKEN")


def _fetch_hub(uri: str) -> WeightsFile:
    """``hf://org/repo@revision[/file]``: a model directory, or one file."""
    file = hub_place(uri)[2]
    try:
        path = hub_file(uri, file or TENSORS)
        description = (
            None if file else parse_description(hub_file(uri, DESCRIPTION).read_bytes(), f"{uri}/{DESCRIPTION}")
        )
    except FileNotFoundError as error:
        raise _not_fetched(uri, error) from error
    return path, description


def _fetch_stored(uri: str, storage: Storage) -> WeightsFile:
    """A model directory or one file, local or remote."""
    if uri.endswith((*_SUFFIXES, _EXPORTED)):
        return local_copy(uri, storage), None
    try:
        text = storage.read(join(uri, DESCRIPTION))
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsError(
            f"model.weights={uri}: no {DESCRIPTION} there; expected a model directory ({TENSORS} + {DESCRIPTION}), "
            f"a file ending in {', '.join(_SUFFIXES)}, torchvision:ENUM, hf://org/repo@revision, default or none"
        ) from None
    except OSError as error:
        raise WeightsError(f"{uri}: cannot be read: {error}") from error
    return local_copy(join(uri, TENSORS), storage), parse_description(text, join(uri, DESCRIPTION))


def local_copy(uri: str, storage: Storage) -> Path:
    """The file at ``uri``, on this node. Raises WeightsError where it is missing or cannot be fetched."""
    info = storage.info(uri)
    if info is None:
        raise WeightsError(f"{uri}: no such weights file")
    if not is_remote(uri):
        return local_path(uri)
    try:
        path = cached(
            f"{uri} {info.size} {info.etag}", uri.rpartition("/")[2], lambda path: storage.get_file(uri, path)
        )
    except OSError as error:
        raise WeightsError(f"{uri}: cannot be fetched: {error}") from error
    if info.size and path.stat().st_size != info.size:  # the web may tell no size
        raise WeightsError(
            f"{uri}: {path} has {path.stat().st_size} of its {info.size} bytes: remove it, and try again"
        )
    return path


def cached(
    key: str, name: str, download: Callable[[Path], None], *, whole: Callable[[Path], bool] = Path.exists
) -> Path:
    """The file ``name`` under ``key``, made by the first of this node's processes that asks for it.

    ``download`` writes it to the path that it is given. ``whole``: whether what is there serves, or is made anew. A
    cache that cannot be written serves what is in it. Raises StorageError where something lacks there.
    """
    root = os.environ.get("SEGJOBS_CACHE", "~/.cache/segjobs")
    folder = Path(os.path.expanduser(root)) / "weights" / hashlib.sha256(key.encode()).hexdigest()[:32]
    path = folder / name
    if whole(path):
        return path
    if root.startswith("~") and not folder.is_absolute():
        raise StorageError("no home folder is known to keep weights in; set SEGJOBS_CACHE to a writable folder")
    part = folder / f"{uuid.uuid4().hex}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # the second of disks that cannot lock
        raise StorageError(
            f"{folder}: weights cannot be kept there: {error}; set SEGJOBS_CACHE to a writable folder"
        ) from error
    try:
        if not whole(path):  # else another process has made it meanwhile
            download(part)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        lock.release()
    return path
