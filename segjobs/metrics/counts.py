"""What adds up: integers by image and class, sparse; many blocks of images in, one table of bounded size out.

    confusion rows (or boundary rows, panoptic rows) of a block of images → ClassCounts
    ClassCounts × blocks → gather → one ClassCounts → total → the figures of the set
                                                   └→ bootstrap.resample → their intervals

Everything is int64 and added exactly, so nothing depends on how the images were cut into blocks.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from segjobs.manifest.rle import VOID

MOST_UNITS = 16384
"""Above so many images ``gather`` deals them into groups; an interval's ends move by far less than its width."""


@dataclass(frozen=True)
class ClassCounts:
    """Row k holds the counts ``values[k]`` of class ``category[k]`` in unit ``unit[k]``; absent rows are zeros.

    A unit is an image, or a group of images (``gather``). ``unit`` and ``category`` are int64 (K,),
    sorted by unit, then class, each pair once; ``values`` is int64 (K, F), its F fields the maker's choice.
    """

    unit: np.ndarray
    category: np.ndarray
    values: np.ndarray
    units: int
    classes: int

    def total(self) -> np.ndarray:
        """Sum over all units, int64 (classes, F)."""
        total = np.zeros((self.classes, self.values.shape[1]), np.int64)
        np.add.at(total, self.category, self.values)
        return total

    def select(self, kept: np.ndarray) -> "ClassCounts":
        """The units where ``kept``, bool (units,), is True, numbered anew in their order."""
        rows, number = kept[self.unit], np.cumsum(kept) - 1
        return ClassCounts(
            number[self.unit[rows]], self.category[rows], self.values[rows], int(kept.sum()), self.classes
        )


def from_rows(unit: np.ndarray, category: np.ndarray, values: np.ndarray, *, units: int, classes: int) -> ClassCounts:
    """Rows of counts (unit, class index, F values) in any order → ClassCounts; rows of one pair are added.

    Raises ValueError where a unit or a class is outside its range, or the values are no integers.
    """
    unit, category = np.asarray(unit, np.int64), np.asarray(category, np.int64)
    if values.dtype.kind not in "iu" or values.shape[:1] != unit.shape or unit.shape != category.shape:
        raise ValueError(f"expected integer counts of {unit.size} rows, got {values.dtype} {values.shape}")
    for name, index, limit in (("unit", unit, units), ("class", category, classes)):
        if index.size and not (index.min() >= 0 and index.max() < limit):
            raise ValueError(f"{name} {index.min()} to {index.max()}: expected 0 to {limit - 1}")
    key = unit * classes + category
    order = np.argsort(key, kind="stable")
    key, values = key[order], values[order].astype(np.int64, copy=False)
    first = np.flatnonzero(np.diff(key, prepend=-1))
    sums = np.add.reduceat(values, first, axis=0) if first.size else values
    unit, category = np.divmod(key[first], max(1, classes))
    return ClassCounts(unit, category, sums, units, classes)


def from_confusion(confusion: np.ndarray, image: np.ndarray, *, images: int, classes: int) -> ClassCounts:
    """Confusion rows of many images → per image and class (correct, truth, predicted) pixels, F = 3.

    ``confusion``: int64 (K, 3) rows of (truth, predicted, pixels) as ``confusion.image_confusion``
    gives them; ``image``: int64 (K,), the image of each. Unlabelled pixels are dropped; labelled
    pixels without a prediction are in the truth's count only.
    """
    labelled = confusion[:, 0] != VOID
    (truth, predicted, pixels), image = confusion[labelled].T, image[labelled]
    some, right = predicted != VOID, predicted == truth
    category = np.concatenate([truth, predicted[some]])
    values = np.zeros((category.size, 3), np.int64)
    values[: truth.size, 0] = np.where(right, pixels, 0)
    values[: truth.size, 1] = pixels
    values[truth.size :, 2] = pixels[some]
    return from_rows(np.concatenate([image, image[some]]), category, values, units=images, classes=classes)


def units_of(images: int, groups: np.ndarray | None) -> tuple[np.ndarray, int]:
    """The unit of each image, int64 (images,), and how many units there are, as ``gather`` deals them."""
    places = np.arange(images) if groups is None else groups
    return places % MOST_UNITS, min(int(places.max(initial=-1)) + 1, MOST_UNITS)


def gather(
    blocks: Iterable[ClassCounts], *, groups: np.ndarray | None = None, most_units: int = MOST_UNITS
) -> ClassCounts:
    """Blocks of images, in the order of the images → one table of at most ``most_units`` units.

    Image i becomes a part of unit ``i % most_units``: with fewer images than that each stays its own;
    more are dealt round robin into groups of equal size (to one), which are as independent of each
    other as the images were. The total is the same; memory and the bootstrap's time stay bounded.
    ``groups``, int64 (images,): of images that belong together, numbered from 0; they are dealt in the images' place.
    Raises ValueError where there is no block, or where their classes or fields differ.
    """
    whole: ClassCounts | None = None
    pending: list[ClassCounts] = []
    waiting = images = 0
    known = None if groups is None else int(groups.max(initial=-1)) + 1
    for block in blocks:
        image = block.unit + images
        unit = (image if groups is None else groups[image]) % most_units
        pending.append(ClassCounts(unit, block.category, block.values, block.units, block.classes))
        images, waiting = images + block.units, waiting + block.unit.size
        if waiting > _FOLD_ROWS:
            units = min(images if known is None else known, most_units)
            whole, waiting = _fold([*([whole] if whole else []), *pending], units), 0
            pending = []
    if pending or whole is None:
        units = min(images if known is None else known, most_units)
        whole = _fold([*([whole] if whole else []), *pending], units)
    return whole


_FOLD_ROWS = 1 << 20


def _fold(tables: list[ClassCounts], units: int) -> ClassCounts:
    shapes = {(table.classes, table.values.shape[1]) for table in tables}
    if len(shapes) != 1:
        raise ValueError(f"expected blocks of one number of classes and fields, got {sorted(shapes)}")
    unit, category, values = (
        np.concatenate([getattr(table, name) for table in tables]) for name in ("unit", "category", "values")
    )
    return from_rows(unit, category, values, units=units, classes=tables[0].classes)
