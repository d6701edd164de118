"""Splits: image_ids and ``splits`` in, which images each split takes out.

By shares ({train: 0.8, val: 0.2}) the SHA-256 of an image's key decides, alone: an image stays where it
is whatever is added, and images of one group (their folder, or what a regex finds) stay together. By
lists ({train: train.txt}) the names in the files decide.
"""

import hashlib
import math
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segjobs.errors import ConfigError
from segjobs.labels.base import Leftover, leftover
from segjobs.labels.match_files import image_stem, names_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_OWN_NAMES = ("parts", "scores")  # folders of a run


@dataclass(frozen=True)
class Splits:
    """``members``: split → bool (N,), the images that it takes, in their order. ``leftovers``: the rest."""

    members: dict[str, np.ndarray]
    leftovers: tuple[Leftover, ...] = ()


def check_splits(splits: Mapping[str, float | str], group: str | None) -> None:
    """Raise ConfigError, with every problem, where the splits make no sense."""
    problems = [
        f"splits.{name}: not a name for a folder of a run; expected letters, digits, '-' and '_', and not {_OWN_NAMES}"
        for name in splits
        if not _NAME.fullmatch(name) or name in _OWN_NAMES
    ]
    shares = [value for value in splits.values() if not isinstance(value, str)]
    if shares and len(shares) < len(splits):
        problems.append("splits: shares and lists are mixed; give one kind")
    elif shares and not (min(shares) > 0 and math.isclose(math.fsum(shares), 1, abs_tol=1e-6)):
        problems.append(f"splits: shares {shares}: expected numbers over 0 that add up to 1")
    if group is not None and not shares:
        problems.append("group: only splits by shares keep groups together; give splits such as {train: 0.8, val: 0.2}")
    elif group is not None and group != "folder":
        try:
            re.compile(group)
        except re.error as error:
            problems.append(f"group: {group!r} is no regular expression: {error}; expected one, or 'folder'")
    if problems:
        raise ConfigError(*problems)


def split_by_shares(image_ids: Sequence[str], shares: Mapping[str, float], group: str | None) -> Splits:
    """Each image to the split in whose share the hash of its key falls."""
    names = list(shares)
    bounds = np.cumsum([shares[name] for name in names])[:-1]
    points = [_point(group_key(image_id, group)) for image_id in image_ids]
    taken = np.searchsorted(bounds, np.array(points, np.float64), side="right")
    return Splits({name: taken == number for number, name in enumerate(names)})


def group_key(image_id: str, group: str | None) -> str:
    """What decides an image's split: its id, its folder, or what the regex finds in its id (else its id)."""
    if group is None:
        return image_id
    if group == "folder":
        return posixpath.dirname(image_id)
    found = re.search(group, image_id)
    return (found.group(1 if found.re.groups else 0) or "") if found else image_id


def _point(key: str) -> float:
    """A key's place in [0, 1): the first 53 bits of its SHA-256."""
    return (int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 11) / 2**53


def split_by_lists(image_ids: Sequence[str], lists: Mapping[str, str], read: Callable[[str, str], str]) -> Splits:
    """Each image to the splits whose lists name it. ``read``: (split, its list) → the list's text.

    A line names an image by its image_id or its file name, with or without extension; empty lines and
    lines that begin with # say nothing.
    """
    keys = [image_stem(image_id) for image_id in image_ids]
    members, lost = {}, []
    for split, where in lists.items():
        names = names_of(read(split, where))
        taken = [key if key in names else posixpath.basename(key) for key in keys]
        members[split] = np.array([key in names for key in taken], bool)
        lost += [f"{split}: {name}" for name in sorted(names.difference(taken))]
        if not members[split].any():
            raise ConfigError(f"splits.{split}: {where}: none of its {len(names)} names is an image of the input")
    count = np.sum(list(members.values()), axis=0)
    outside = [image_ids[place] for place in np.flatnonzero(count == 0).tolist()]
    twice = [image_ids[place] for place in np.flatnonzero(count > 1).tolist()]
    return Splits(
        members,
        (
            *leftover("listed_without_image", lost),
            *leftover("in_no_split", outside),
            *leftover("in_two_splits", twice),
        ),
    )
