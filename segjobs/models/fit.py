"""A stranger's state dict against a module's: names met, and what cannot go where it should.

given, wanted → under_own_names → given, by the module's names → unfit, of each; nearest, of those that lack
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import torch

State = Mapping[str, torch.Tensor]
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def prefix_of(given: State, wanted: State) -> str:
    """What stands before most of the wanted names in ``given``; of several the shortest."""
    prefixes = Counter(prefix for key in given for prefix, rest in _cuts(key) if rest in wanted)
    return min(prefixes, key=lambda one: (-prefixes[one], len(one)), default="")


def under_own_names(given: State, wanted: State) -> dict[str, torch.Tensor]:
    """``given`` without the prefix that a wrapper puts before all of a module's names: ``module.``, ``model.net.``.

    It is the prefix under which most of the wanted names are found. Keys that would meet others keep theirs.
    """
    prefix = prefix_of(given, wanted)
    return {(key if (rest := key.removeprefix(prefix)) in given else rest): value for key, value in given.items()}


def unfit(value: torch.Tensor, wanted: torch.Tensor) -> str | None:
    """Why a tensor of the wanted shape can still not take its place; None where it can."""
    if value.layout is not torch.strided or value.is_meta or value.is_quantized:
        return "sparse, quantised or without data"
    if value.is_complex() or wanted.is_floating_point() != value.is_floating_point():
        return f"{value.dtype} instead of {wanted.dtype}".replace("torch.", "")
    if value.is_floating_point() and value.dtype not in _FLOATS:
        return f"{value.dtype}, which is scaled".replace("torch.", "")
    if value.is_floating_point() and bool(value.isnan().any()):
        return "NaN: take a checkpoint from before the training diverged"
    return None


def nearest(missing: Iterable[str], unused: Iterable[str], given: State, wanted: State) -> Iterator[str]:
    """For each missing name the unused one of its shape whose name is nearest: ``theirs (64, 3, 7, 7) → ours``."""
    free = list(unused)
    for key in missing:
        same = [name for name in free if given[name].shape == wanted[key].shape]
        for name in difflib.get_close_matches(key, same, n=1, cutoff=0.0):
            yield f"{name} {tuple(given[name].shape)} → {key}"


def _cuts(key: str) -> Iterator[tuple[str, str]]:
    """``a.b.c`` → ("", "a.b.c"), ("a.", "b.c"), ("a.b.", "c")."""
    parts = key.split(".")
    for number in range(len(parts)):
        prefix = "".join(f"{part}." for part in parts[:number])
        yield prefix, key[len(prefix) :]
