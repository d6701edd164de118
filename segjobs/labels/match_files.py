"""Which label belongs to which image: two lists of relative paths in, the pairs and the leftovers out."""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from segjobs.config import IMAGE_GLOBS
from segjobs.errors import ConfigError
from segjobs.text import first_few

_IMAGE_SUFFIXES = tuple(pattern.removeprefix("*") for pattern in IMAGE_GLOBS)
_CITYSCAPES_IMAGE = "_leftImg8bit"  # Cityscapes' images have a suffix of their own, which its labels lack


@dataclass(frozen=True)
class FileMatches:
    """Which label belongs to which image.

    ``label_of``: image id → label id, in the order of the images. ``unlabelled``: images without a
    label. ``unused``: labels without an image.
    """

    label_of: dict[str, str]
    unlabelled: tuple[str, ...]
    unused: tuple[str, ...]


def match_paths(
    image_ids: Sequence[str],
    label_ids: Sequence[str],
    *,
    image_key: Callable[[str], str],
    label_key: Callable[[str], str],
    named: tuple[str, str] = ("labels.uri", "label"),
) -> FileMatches:
    """Match images and labels whose keys (relative paths) are equal.

    If none are, by the keys with the folder ``images`` called ``labels`` (YOLO's layout); if none are still, by the
    keys' file names. A label whose key leads out of the root is met by its file name alone, if that is one image's.
    ``named``: for messages, the config's key and what a label is called.

    Raises ConfigError where nothing matches, or where an image has two labels or a label two images.
    """
    keyed_images = [(image_key(image_id), image_id) for image_id in image_ids]
    keyed_labels = [(label_key(label_id), label_id) for label_id in label_ids]
    known = {key for key, _ in keyed_labels}
    if known.isdisjoint(key for key, _ in keyed_images):
        moved = [(_labels_folder(key), image_id) for key, image_id in keyed_images]
        if not known.isdisjoint(key for key, _ in moved):
            keyed_images = moved
        else:
            keyed_images = [(posixpath.basename(key), image_id) for key, image_id in keyed_images]
            keyed_labels = [(posixpath.basename(key), label_id) for key, label_id in keyed_labels]
    else:
        keyed_labels = _brought_home(keyed_images, keyed_labels)
    images, labels = _by_key(keyed_images), _by_key(keyed_labels)
    where, what = named
    shared = [key for key in images if key in labels]
    if images and labels and not shared:
        raise ConfigError(
            f"{where}: no {what} matches an image: {len(image_ids)} images such as {image_ids[0]!r}, "
            f"{len(label_ids)} {what}s such as {label_ids[0]!r}; expected equal names without extension"
        )
    problems = [
        f"{where}: image {_list(images[key])} matches {what} {_list(labels[key])}: expected one of each"
        for key in shared
        if len(images[key]) > 1 or len(labels[key]) > 1
    ]
    if problems:
        raise ConfigError(*first_few(problems))
    return FileMatches(
        label_of={images[key][0]: labels[key][0] for key in shared},
        unlabelled=tuple(image_id for key, image_id in keyed_images if key not in labels),
        unused=tuple(label_id for key, label_id in keyed_labels if key not in images),
    )


def _labels_folder(key: str) -> str:
    """``train/images/1`` → ``train/labels/1``: the last folder of that name."""
    before, found, after = f"/{key}".rpartition("/images/")
    return f"{before}/labels/{after}"[1:] if found else key


def _brought_home(images: list[tuple[str, str]], labels: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The labels, those whose key leads out of the root with the key of the one free image of their file name."""
    taken = {key for key, _ in labels}
    free = _by_key((posixpath.basename(key), key) for key, _ in images if key not in taken)
    away = Counter(posixpath.basename(key) for key, _ in labels if _leads_out(key))
    return [
        (free[name][0], label_id)
        if _leads_out(key) and len(free.get(name := posixpath.basename(key), ())) == away[name] == 1
        else (key, label_id)
        for key, label_id in labels
    ]


def _leads_out(key: str) -> bool:
    return key.startswith(("../", "/")) or key[1:3] == ":/"


def match_labels(
    image_ids: Sequence[str],
    label_ids: Sequence[str],
    *,
    prefix: str = "",
    suffix: str = "",
    pattern: str | None = None,
    named: tuple[str, str] = ("labels.uri", "label"),
) -> FileMatches:
    """Match images to label files by their path without extension, ``train/0001.jpg`` to ``train/0001.png``.

    Both are paths relative to their own root. Where not one path agrees, bare file names decide. A label's name has
    ``prefix`` before and ``suffix`` behind the image's; files without them are no labels and are not counted as unused.
    Cityscapes' ``_leftImg8bit`` is dropped from an image's stem. ``pattern``: a regex whose first group, in both paths
    without extension, is what they share instead. Raises ConfigError where nothing matches, or where an image has two
    labels or a label two images.
    """
    labels = [one for one in label_ids if stem(one).endswith(suffix) and posixpath.basename(one).startswith(prefix)]
    if label_ids and not labels:
        key, text, verb = ("suffix", suffix, "ends") if suffix else ("prefix", prefix, "begins")
        raise ConfigError(
            f"{named[0].partition('.')[0]}.{key}: none of {len(label_ids)} files, such as {label_ids[0]!r}, "
            f"{verb} with {text!r}"
        )

    def label_key(label_id: str) -> str:
        folder, slash, name = stem(label_id).removesuffix(suffix).removesuffix(_CITYSCAPES_IMAGE).rpartition("/")
        return f"{folder}{slash}{name.removeprefix(prefix)}"

    if pattern is None:
        return match_paths(image_ids, labels, image_key=image_stem, label_key=label_key, named=named)
    group = re.compile(pattern)

    def shared(key: str) -> str:
        found = group.search(key)
        return (found.group(1) or "") if found else key

    return match_paths(
        image_ids,
        labels,
        image_key=lambda image_id: shared(image_stem(image_id)),
        label_key=lambda label_id: shared(label_key(label_id)),
        named=named,
    )


def names_of(text: str) -> set[str]:
    """The names of a list, one a line, without image suffixes; empty lines and those that begin with # say nothing."""
    lines = (line.strip() for line in text.split("\n"))
    return {_without_suffix(line) for line in lines if line and not line.startswith("#")}


def is_named(key: str, names: Container[str]) -> bool:
    """Whether a list names an image, whose path without suffix is ``key``, by its path or its file name."""
    return key in names or posixpath.basename(key) in names


def _without_suffix(name: str) -> str:
    return image_stem(name) if name.lower().endswith(_IMAGE_SUFFIXES) else name


def stem(path: str) -> str:
    """A path without its extension."""
    return posixpath.splitext(path)[0]


def image_stem(image_id: str) -> str:
    """What an image and its label have in common: the image's path without extension and Cityscapes' suffix."""
    return stem(image_id).removesuffix(_CITYSCAPES_IMAGE)


def _list(values: Sequence[str]) -> str:
    return " and ".join(first_few([repr(value) for value in values]))


def _by_key(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return dict(groups)
