"""Strangers' weights files: a path in, tensors by name out. Nothing in a file is run, and no byte of it is trusted.

    .safetensors ─┐
    torch's zip ──┼→ read_tensors → state dict, found among what a training script put around it
    torch's old ──┘

Whatever the bytes are, only WeightsError comes out: one line with the file and the mend.
"""

import argparse
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeGuard

import safetensors.torch
import torch
from safetensors import SafetensorError

from segjobs.errors import WeightsError
from segjobs.models.weights import RUNS_CODE, first_line
from segjobs.text import first_few

_WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params"),
    *("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "params_ema"),
)
"""Keys that training scripts put a state dict under; of several, the first of these is taken."""
_LEVELS = 3  # of such keys
_HARMLESS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [argparse.Namespace]
"""Beside tensors in the checkpoints of torchvision's reference training."""
_LEFT_OUT = re.compile(
    r"(lightning|lightning_fabric|pytorch_lightning|mmengine|omegaconf|numpy|pathlib|torch|torchvision|torchmetrics|timm"
    r"|segmentation_models_pytorch|typing|enum)\..+|collections\.defaultdict|functools\.partial"
    r"|builtins\.(list|dict|tuple|set|int|float|str|bool|object)|_codecs\.encode"
)
"""What trainers keep beside the tensors (settings, paths, histories, losses). Nothing of it is built, nor imported: a
``LeftOut`` stands in its place. What other names a file holds are a reason to refuse it."""
_UNPACKED_FACTOR, _UNPACKED_BYTES = 4, 64 << 20  # torch stores tensors as they are; others have zipped them
_GARBLED = (
    *(SafetensorError, zipfile.BadZipFile, pickle.UnpicklingError, EOFError, OSError, struct.error),
    *(RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, MemoryError),
)
"""What readers raise of bytes that are no weights; torch's unpickler, in Python, does not look before it pops."""
_REFUSED = re.compile(r"(?:GLOBAL|global) (?:`)?([\w.]+)|Trying to (?:load|call|instantiate) .*?([\w.]+\.\w+)")
_TERMINAL = re.compile(r"\x1b\[[\d;]*m")
_POINTERS = {
    b"version https://git-lfs": "a pointer of git LFS instead of the file: run git lfs pull",
    b"<": "a page of the web instead of the file: fetch it by its direct address",
}


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """State dict of a .safetensors file, or of a torch file read with ``weights_only=True``, on the CPU."""
    try:
        content = _content(path)
    except pickle.UnpicklingError as error:
        if found := _REFUSED.search(str(error)):
            raise _more_than_tensors(path, found[1] or found[2]) from error
        raise _garbled(path, error) from error
    except _GARBLED as error:
        raise _garbled(path, error) from error
    state = _state_dict_in(content, _LEVELS)
    if state is None:
        values = [content, *(content.values() if isinstance(content, Mapping) else ())]
        if left_out := next((type(one) for one in values if isinstance(one, LeftOut)), None):
            raise _more_than_tensors(path, f"{left_out.__module__}.{left_out.__name__}")
        raise WeightsError(
            f"{path}: expected a state dict (names and tensors), found {_described(content)}; "
            "save the model's state_dict() alone, best as .safetensors"
        )
    return dict(state)


def _content(path: Path) -> object:
    with path.open("rb") as file:
        start = file.read(64)
    for mark, what in _POINTERS.items():
        if start.lstrip().startswith(mark):
            raise ValueError(what)
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    if start.startswith(b"PK"):
        _check_zip(path)
    others = _stand_ins(path) if start.startswith(b"PK") else []
    with torch.serialization.safe_globals([*_HARMLESS, *others]):
        return torch.load(path, map_location="cpu", weights_only=True)


class LeftOut:
    """In the place of what a checkpoint holds besides tensors: takes what the pickle gives it, and keeps nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> "LeftOut":
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _stand_ins(path: Path) -> list[Callable[..., object] | tuple[Callable[..., object], str]]:
    """For each name of ``_LEFT_OUT`` in the file, what stands in its place while it is read."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except _GARBLED:  # which reading it says better
        return []
    return [(_stand_in(name), name) for name in names if _LEFT_OUT.fullmatch(name)]


def _stand_in(full_name: str) -> Callable[..., object]:
    """A class of that name. Torch's unpickler fills dicts alone."""
    module, _, name = full_name.rpartition(".")
    if name == "AttributeDict":
        return dict
    return _filled if name == "defaultdict" else type(name, (LeftOut,), {"__module__": module})


def _filled(*args: object) -> dict[object, object]:
    return {}


def _check_zip(path: Path) -> None:
    """Raise WeightsError of an exported network, ValueError, before anything is inflated, of a zip that holds far more
    than its file."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        names = {entry.filename.partition("/")[2] for entry in archive.infolist()}
        unpacked = sum(entry.file_size for entry in archive.infolist())
    for kind, mark in (("torchscript", "constants.pkl"), ("pt2", "archive_format")):
        if mark in names:
            raise WeightsError(f"{path}: {RUNS_CODE[kind]}")
    if unpacked > max(_UNPACKED_BYTES, _UNPACKED_FACTOR * size):
        raise ValueError(f"{size} bytes that unpack to {unpacked}, where torch stores tensors as they are")


def _more_than_tensors(path: Path, name: str) -> WeightsError:
    return WeightsError(
        f"{path}: holds more than tensors ({name}), which is not run; save its state_dict() alone, best as .safetensors"
    )


def _garbled(path: Path, error: Exception) -> WeightsError:
    """Of torch's words the first sentence: the others are advice to run what is in the file."""
    text = _TERMINAL.sub("", first_line(error)).split(". ")[0].rstrip(".")
    if isinstance(error, LookupError | TypeError | AttributeError | AssertionError | pickle.UnpicklingError):
        text = f"no file of torch.save, or a damaged one ({text})"
    return WeightsError(f"{path}: not readable as weights: {text}; fetch or save the file again")


def _is_state_dict(content: object) -> TypeGuard[Mapping[str, torch.Tensor]]:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items())
    )


def _state_dict_in(content: object, levels: int) -> Mapping[str, torch.Tensor] | None:
    """The content itself, else what lies under the first of ``_WRAPPERS``, else the only one under any key."""
    if _is_state_dict(content):
        return content
    if levels == 0 or not isinstance(content, Mapping):
        return None
    for key in _WRAPPERS:
        if key in content and (found := _state_dict_in(content[key], levels - 1)) is not None:
            return found
    others = [value for key, value in content.items() if key not in _WRAPPERS and _is_state_dict(value)]
    return others[0] if len(others) == 1 else None


def _described(content: object) -> str:
    if not isinstance(content, Mapping):
        return type(content).__name__
    odd = {key: value for key, value in content.items() if not _is_state_dict({key: value})} or content
    kinds = [f"{key!r} ({type(value).__name__})" for key, value in odd.items()]
    return f"the keys {', '.join(first_few(kinds))}" if kinds else "nothing"
