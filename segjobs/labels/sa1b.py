"""SA-1B (Segment Anything): a JSON beside each image in, manifest segments out.

Every annotation is an object without class: of the one name of ``labels.categories``, by default ``object``. Its mask
is COCO's run-length code, its box and area are kept as COCO's are. ``predicted_iou`` and ``stability_score`` are not
read. The size that the JSON says must be its image's.
"""

from functools import partial

from segjobs.errors import ConfigError, ItemError, ManifestError
from segjobs.labels.base import LabelRequest, Labels, Masks, check_size, match_files, read_label
from segjobs.labels.class_tables import named_categories
from segjobs.labels.coco import CocoAnnotation, CocoImage, masks_of
from segjobs.labels.json_text import parse_json, whole, words_of
from segjobs.manifest.schema import Category
from segjobs.storage import Storage


def sa1b_labels(request: LabelRequest) -> Labels:
    """Adapter of ``sa1b``: the text of an image is the URI of its JSON."""
    names = request.config.categories or ["object"]
    if len(names) != 1:
        raise ConfigError(f"labels.categories: {len(names)} names; objects of SA-1B have no class: give one")
    categories = named_categories(request.config.model_copy(update={"categories": names}), first_color=1)
    files = match_files(request, (".json",))
    read = partial(_read, storage=request.storage, categories=categories)
    return Labels("instance", categories, files.uris, read, files.digest, files.leftovers)


def _read(uri: str, size_hw: tuple[int, int], *, storage: Storage, categories: tuple[Category, ...]) -> Masks:
    try:
        image = read_sa1b(read_label(storage, uri), categories[0])
    except ManifestError as error:
        raise ItemError("LABEL_VALUE", f"{uri}: {error}") from None
    if image.size_hw is not None:
        check_size(image.size_hw, size_hw)
    return masks_of(image, size_hw, categories)


def read_sa1b(data: bytes, category: Category) -> CocoImage:
    """One image's objects. Raises ManifestError where it is no such file."""
    try:
        raw = parse_json(data)
        size_hw = (whole(raw["image"]["height"]), whole(raw["image"]["width"]))
        annotations = tuple(
            CocoAnnotation(
                one.get("id", place), category.id, False, dict(one["segmentation"]), one.get("bbox"), one.get("area")
            )
            for place, one in enumerate(raw["annotations"])
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ManifestError(f"{words_of(error)}; expected SA-1B's JSON of one image") from None
    return CocoImage(size_hw, annotations)
