"""A start from weights that do not fit wholly: tensors by name in, those that fit loaded, and the account of all.

Of weights for other classes the head does not fit: its tensors keep their random start. ``tensors.load_into`` is for
use, where everything has to fit.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

import torch
from torch import nn

from segjobs.errors import WeightsError
from segjobs.models.fit import nearest, under_own_names, unfit

_LEAST_SHARE = 0.25  # of the module's tensors; unrelated architectures share next to no names and shapes
_SHOWN = 6


@dataclass(frozen=True)
class Transfer:
    """What became of each tensor; ``str`` of it is a line for people.

    ``loaded``: keys of the module. ``skipped``: the module's others, which stay as they were, each with the reason.
    ``unused``: keys of the weights that the module lacks. Counters of batch norms are in none of them.
    ``near``: names of the weights that may be those of skipped tensors. ``note``: what else there is to say.
    """

    loaded: tuple[str, ...]
    skipped: Mapping[str, str]
    unused: tuple[str, ...]
    note: str = ""
    near: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"loaded {len(self.loaded)} of {len(self.loaded) + len(self.skipped)} tensors"
        if self.skipped:
            text += f"; new: {_first([f'{key} ({why})' for key, why in self.skipped.items()])}"
        if self.unused:
            text += f"; not used: {_first(self.unused)}"
        if self.near:
            text += f"; perhaps under another name: {_first(self.near)}"
        return f"{text}; {self.note}" if self.note else text


def load_matching(
    module: nn.Module, tensors: Mapping[str, torch.Tensor], *, left_out: Mapping[str, str] | None = None
) -> Transfer:
    """Copy into ``module`` the tensors whose names and shapes it has, but for the keys that are ``left_out``.

    Those, each with the reason, are a head's whose shape fits by chance: as many classes, but others.
    Raises WeightsError, and loads nothing, where less than a quarter of the module's tensors would be:
    weights of another architecture.
    """
    state = module.state_dict()
    wanted = {key: value for key, value in state.items() if not _counter(key)}
    tensors = under_own_names(tensors, state)
    skipped = {}
    for key, value in wanted.items():
        if key not in tensors:
            skipped[key] = "not among the weights"
        elif tensors[key].shape != value.shape:
            skipped[key] = _change(tensors[key].shape, value.shape)
        elif left_out and key in left_out:
            skipped[key] = left_out[key]
        elif why := unfit(tensors[key], value):
            skipped[key] = why
    loaded = tuple(key for key in wanted if key not in skipped)
    unused = tuple(key for key in tensors if key not in wanted and not _counter(key))
    lacking = [key for key in skipped if key not in tensors]
    near = tuple(islice(nearest(lacking, unused, tensors, wanted), _SHOWN)) if unused else ()
    found = Transfer(loaded, skipped, unused, near=near)
    if len(loaded) < _LEAST_SHARE * len(wanted):
        raise WeightsError(
            f"the weights are of another architecture: {found}. Check model.name and model.options, "
            "or start from model.weights=none"
        )
    counters = {key: value for key, value in tensors.items() if _counter(key) and _fits(value, state.get(key))}
    module.load_state_dict({**counters, **{key: tensors[key] for key in loaded}}, strict=False)
    return found


def why_no_head(known: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Why a head of ``known`` classes says nothing of the ``wanted`` ones; None where they are the same."""
    old, new = ([name.casefold() for name in names] for names in (known, wanted))
    if old == new:
        return None
    if sorted(old) == sorted(new):
        return "the same classes in another order"
    other = next(
        pair for pair in zip_longest(known, wanted) if (pair[0] or "").casefold() != (pair[1] or "").casefold()
    )
    return "other classes: {!r} there, {!r} here".format(*other)


def _counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")


def _fits(value: torch.Tensor, wanted: torch.Tensor | None) -> bool:
    return wanted is not None and value.shape == wanted.shape and unfit(value, wanted) is None


def _change(given: torch.Size, wanted: torch.Size) -> str:
    """``21 → 11 channels`` where only the first side differs, as of a head; else both shapes."""
    if len(given) == len(wanted) and given[1:] == wanted[1:]:
        return f"{given[0]} → {wanted[0]} channels"
    return f"{tuple(given)} → {tuple(wanted)}"


def _first(items: Collection[str]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(list(items)[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
