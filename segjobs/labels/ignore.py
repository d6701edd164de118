"""Masks of what is not to be scored: a label's masks in, the same without the pixels of ``labels.ignore_uri`` out.

    labels of classes + the folder of ignore masks → without_ignored → labels whose ignored pixels are unlabelled

A mask belongs to the image whose path it shares or goes on from: ``21_training_mask.gif`` to ``21_training.tif``, or
with ``labels.pattern`` to the image of the same key. It is black and white, of its image's size. ``labels.ignore``: its
white pixels are ignored (nonzero), or its black ones (zero: a mask of the field of view).
"""

import json
from dataclasses import replace
from functools import partial

from segjobs.config import digest
from segjobs.errors import ConfigError, ItemError
from segjobs.labels.base import (
    LabelReader,
    LabelRequest,
    Labels,
    Masks,
    SizeReader,
    check_size,
    list_files,
    prints_of,
    read_label,
)
from segjobs.labels.binary import SUFFIXES, binary_mask, match_objects
from segjobs.labels.match_files import match_labels
from segjobs.manifest.rle import encode_crop
from segjobs.storage import Storage


def without_ignored(labels: Labels, request: LabelRequest) -> Labels:
    """The labels without what ``labels.ignore_uri`` ignores. Raises ConfigError where they are objects."""
    config = request.config
    if config.ignore_uri is None:
        return labels
    if labels.task == "instance":
        raise ConfigError("labels.ignore_uri: objects have no unlabelled pixels; it is for classes (task=semantic)")
    files = list_files(request, SUFFIXES, folder=config.ignore_uri, key="labels.ignore_uri")
    if config.pattern is not None:
        matches = match_labels(request.image_ids, sorted(files), pattern=config.pattern)
        owners = {image_id: [path] for image_id, path in matches.label_of.items()}
    else:
        owners = match_objects(request.image_ids, sorted(files), "")
    several = next((image_id for image_id, paths in owners.items() if len(paths) > 1), None)
    if several is not None:
        raise ConfigError(f"labels.ignore_uri: {several!r} has {len(owners[several])} masks: {owners[several][0]!r}, …")
    texts = [
        None if text is None else json.dumps([text, *(files[path].uri for path in owners.get(image_id, ()))])
        for image_id, text in zip(request.image_ids, labels.texts, strict=True)
    ]
    read = partial(
        _read,
        read=labels.read,
        storage=request.storage,
        ignored=config.ignore == "nonzero",
        max_pixels=request.max_pixels,
    )
    prints = digest(labels.digest, prints_of(files.values()))
    size_of = partial(_size, size_of=labels.size_of) if labels.size_of else None
    return replace(labels, texts=texts, read=read, digest=prints, size_of=size_of)


def _size(text: str, *, size_of: SizeReader) -> tuple[int, int]:
    label, *_ = json.loads(text)
    return size_of(label)


def _read(
    text: str, size_hw: tuple[int, int], *, read: LabelReader, storage: Storage, ignored: bool, max_pixels: int
) -> Masks:
    label, *uris = json.loads(text)
    if not uris:
        raise ItemError("NOT_FOUND", "no mask of labels.ignore_uri belongs to this image")
    masks = read(label, size_hw)
    white = binary_mask(read_label(storage, uris[0]), threshold=None, max_pixels=max_pixels)
    check_size(white.shape, size_hw)
    kept = white != ignored
    segments = []
    for segment in masks.segments:
        code = encode_crop(segment.mask() & kept, (0, 0), size_hw)
        if code.area:
            segments.append(segment.with_mask(code, size_hw))
    return replace(masks, segments=segments)
