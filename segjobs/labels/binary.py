"""Binary masks, 0 and 255 (or 0 and 1): one a picture, or one an object; files in, manifest segments out.

``labels.task=semantic`` (the default): two classes, background and foreground, from one mask an image.
``labels.task=instance``: each mask file of an image is one object; uncovered pixels are background.

A mask belongs to the image whose path it shares, or, where each file is an object, to the image whose
name its path begins with: ``cells/7.png`` to ``cells/7_0.png``, ``cells/7/a.png``, ``cells/7/masks/a.png``.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import numpy as np

from segjobs.config import LabelsConfig, digest
from segjobs.errors import ConfigError, ItemError
from segjobs.labels.base import (
    Finding,
    LabelRequest,
    Labels,
    Masks,
    check_size,
    leftover,
    list_files,
    match_files,
    prints_of,
    read_label,
)
from segjobs.labels.class_tables import named_categories
from segjobs.labels.match_files import image_stem, stem
from segjobs.manifest.rle import encode_label_map
from segjobs.manifest.schema import Category
from segjobs.manifest.segments import Segment
from segjobs.sources.label_map import decode_mask
from segjobs.storage import Storage
from segjobs.text import first_few

SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif", ".jpg", ".jpeg")
_BORDERS = re.compile(r"[/_.\- ]")


def binary_labels(request: LabelRequest) -> Labels:
    """Adapter of ``binary``: the text of an image is its mask's URI, or the JSON of its masks' URIs."""
    config = request.config
    if config.task == "instance":
        return _object_labels(request, _categories(config, ["object"], 1))
    categories = _categories(config, ["background", "foreground"], 0)
    files = match_files(request, SUFFIXES)
    read = partial(
        _read_classes,
        storage=request.storage,
        categories=categories,
        threshold=config.threshold,
        max_pixels=request.max_pixels,
    )
    return Labels("semantic", categories, files.uris, read, files.digest, files.leftovers)


def _categories(config: LabelsConfig, names: list[str], first_color: int) -> tuple[Category, ...]:
    given = config.categories or names
    if len(given) != len(names):
        raise ConfigError(
            f"labels.categories: {len(given)} names; binary {config.task or 'semantic'} masks need {names}"
        )
    return named_categories(config.model_copy(update={"categories": given}), first_color=first_color)


def _object_labels(request: LabelRequest, categories: tuple[Category, ...]) -> Labels:
    suffix = request.config.suffix
    files = list_files(request, SUFFIXES)
    own = [path for path in sorted(files) if stem(path).endswith(suffix)]
    owners = match_objects(request.image_ids, own, suffix)
    uris = [[files[path].uri for path in owners.get(image_id, ())] for image_id in request.image_ids]
    used = {path for paths in owners.values() for path in paths}
    if request.image_ids and not used:
        raise ConfigError(f"labels.uri: {request.config.uri}: no mask's path begins with an image's, such as "
                          f"{request.image_ids[0]!r}")  # fmt: skip
    read = partial(
        _read_objects,
        storage=request.storage,
        category=categories[0],
        threshold=request.config.threshold,
        max_pixels=request.max_pixels,
    )
    unused = [path for path in own if path not in used]
    return Labels(
        "instance",
        categories,
        [json.dumps(texts) if texts else None for texts in uris],
        read,
        digest(prints_of(files[path] for path in sorted(used))),
        leftover("labels_without_image", unused),
    )


def match_objects(image_ids: Sequence[str], label_ids: Sequence[str], suffix: str) -> dict[str, list[str]]:
    """image_id → its mask files: those whose path is the image's, or goes on behind it after one of ``/ _ . -``.

    The longest image that fits owns a mask. Paths are relative to their roots; where no whole path fits,
    an image's bare name does.
    """
    for key in (image_stem, lambda image_id: image_stem(image_id).rpartition("/")[2]):
        images = {key(image_id): image_id for image_id in image_ids}
        owners: dict[str, list[str]] = defaultdict(list)
        for label_id in label_ids:
            label = stem(label_id).removesuffix(suffix)
            cuts = [len(label), *(found.start() for found in reversed(list(_BORDERS.finditer(label))))]
            owner = next((images[label[:cut]] for cut in cuts if label[:cut] in images), None)
            if owner is not None:
                owners[owner].append(label_id)
        if owners:
            return dict(owners)
    return {}


def _read_classes(
    uri: str,
    size_hw: tuple[int, int],
    *,
    storage: Storage,
    categories: tuple[Category, ...],
    threshold: int | None,
    max_pixels: int,
) -> Masks:
    mask = binary_mask(read_label(storage, uri), threshold=threshold, max_pixels=max_pixels)
    check_size(mask.shape, size_hw)
    regions = encode_label_map(mask.astype(np.uint8))
    return Masks([Segment.from_region(categories[region.index], region, size_hw) for region in regions])


def _read_objects(
    text: str,
    size_hw: tuple[int, int],
    *,
    storage: Storage,
    category: Category,
    threshold: int | None,
    max_pixels: int,
) -> Masks:
    segments, empty = [], []
    for uri in json.loads(text):
        mask = binary_mask(read_label(storage, uri), threshold=threshold, max_pixels=max_pixels)
        check_size(mask.shape, size_hw)
        segment = Segment.from_mask(category, mask)
        if segment is None:
            empty.append(uri.rpartition("/")[2])
        else:
            segments.append(segment)
    findings = (Finding("empty_masks", len(empty), ", ".join(first_few(empty))),) if empty else ()
    return Masks(segments, findings)


def binary_mask(data: bytes, *, threshold: int | None, max_pixels: int) -> np.ndarray:
    """File bytes → bool (H, W), of what ``decode_mask`` finds.

    Without ``threshold`` every value must be 0 or one other, 1, 255 or 65535: ItemError LABEL_VALUE.
    Raises as ``decode_mask`` besides.
    """
    values = decode_mask(data, max_pixels=max_pixels, indices=threshold is None)
    if threshold is not None:
        return values >= threshold
    found = np.unique(values)
    if found.size > 2 or not set(found.tolist()) <= {0, 1, 255, 65535} or (found.size == 2 and found[0] != 0):
        shown = ", ".join(first_few([str(value) for value in found.tolist()]))
        raise ItemError(
            "LABEL_VALUE", f"a binary mask with the values {shown}; expected 0 and 255; see labels.threshold"
        )
    return values > 0
