"""Which label belongs to which image: two lists of relative paths in, the pairs and the leftovers out."""

import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from segjobs.errors import ConfigError
from segjobs.text import first_few

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
    """Match images and labels whose keys (relative paths) are equal; if none are, by the keys' file names.

    ``named``: for messages, the config's key and what a label is called.

    Raises ConfigError where nothing matches, or where an image has two labels or a label two images.
    """
    keyed_images = [(image_key(image_id), image_id) for image_id in image_ids]
    keyed_labels = [(label_key(label_id), label_id) for label_id in label_ids]
    if not {key for key, _ in keyed_images} & {key for key, _ in keyed_labels}:
        keyed_images = [(posixpath.basename(key), image_id) for key, image_id in keyed_images]
        keyed_labels = [(posixpath.basename(key), label_id) for key, label_id in keyed_labels]
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


def match_labels(
    image_ids: Sequence[str],
    label_ids: Sequence[str],
    *,
    suffix: str = "",
    named: tuple[str, str] = ("labels.uri", "label"),
) -> FileMatches:
    """Match images to label files by their path without extension, ``train/0001.jpg`` to ``train/0001.png``.

    Both are paths relative to their own root. Where not one path agrees, bare file names decide. A
    label's stem has ``suffix`` behind the image's; files without it are no labels and are not
    counted as unused. Cityscapes' ``_leftImg8bit`` is dropped from an image's stem.
    Raises ConfigError where nothing matches, or where an image has two labels or a label two images.
    """
    labels = [label_id for label_id in label_ids if stem(label_id).endswith(suffix)]
    if label_ids and not labels:
        raise ConfigError(
            f"{named[0].partition('.')[0]}.suffix: none of {len(label_ids)} files, such as {label_ids[0]!r}, "
            f"ends with {suffix!r}"
        )
    return match_paths(
        image_ids,
        labels,
        image_key=image_stem,
        label_key=lambda label_id: stem(label_id).removesuffix(suffix).removesuffix(_CITYSCAPES_IMAGE),
        named=named,
    )


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
