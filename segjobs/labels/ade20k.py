"""ADE20K's full release: an RGB PNG ``*_seg.png`` an image in, manifest segments out.

    class = R // 10 * 256 + G, from 1 in the order of its index; object = B
    decoded RGB → ids_of → class * 256 + B → labels.task: segments of classes (png.py), or of objects (instance_ids.py)

``labels.class_file`` names the classes, or ``labels.categories`` and ``labels.ids`` those that are wanted; pixels of
class 0 are unlabelled. SceneParsing's PNGs of 150 classes are id maps, which ``png`` reads.
"""

from functools import partial

import numpy as np

from segjobs.errors import ConfigError
from segjobs.labels.base import LabelRequest, Labels, Masks, check_size, match_files, policy_of, read_label
from segjobs.labels.class_tables import ClassTable, class_table
from segjobs.labels.instance_ids import ObjectClasses, masks_of_classes
from segjobs.labels.png import masks_from_ids
from segjobs.sources.label_map import decode_color_map
from segjobs.storage import Storage

_SUFFIX = "_seg"
_OBJECTS = 256  # of one class and image, as B numbers them


def ade20k_labels(request: LabelRequest) -> Labels:
    """Adapter of ``ade20k``: the text of an image is the URI of its ``_seg.png``."""
    config = request.config
    ids = [*range(1, len(config.categories or ()) + 1)] if config.ids is None else config.ids
    void_ids = [0] if config.void_ids is None else config.void_ids
    if 0 in ids:
        raise ConfigError("labels.ids: 0 is no class of ADE20K: its classes are numbered from 1")
    config = config.model_copy(update={"ids": ids, "void_ids": void_ids, "suffix": config.suffix or _SUFFIX})
    table = class_table(config)
    meaning: ClassTable | ObjectClasses = table
    if config.task == "instance":
        known = {category.id: category for category in table.categories}
        meaning = ObjectClasses(_OBJECTS, known, frozenset({0, *void_ids}), policy_of(config, table.categories))
    files = match_files(LabelRequest(config, request.storage, request.image_ids, request.max_pixels), (".png",))
    read = partial(_read, storage=request.storage, meaning=meaning, max_pixels=request.max_pixels)
    task = config.task or "semantic"
    return Labels(task, table.categories, files.uris, read, files.digest, files.leftovers)


def _read(
    uri: str, size_hw: tuple[int, int], *, storage: Storage, meaning: ClassTable | ObjectClasses, max_pixels: int
) -> Masks:
    ids = ids_of(decode_color_map(read_label(storage, uri), max_pixels=max_pixels))
    check_size(ids.shape, size_hw)
    if isinstance(meaning, ObjectClasses):
        return masks_of_classes(ids, meaning)
    return masks_from_ids(ids // _OBJECTS, size_hw, meaning)


def ids_of(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) RGB → int32 (H, W), class * 256 + object; 0 where there is no class, whatever B is."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    classes = red // 10 * 256 + green
    return np.where(classes > 0, classes * _OBJECTS + blue, 0)
