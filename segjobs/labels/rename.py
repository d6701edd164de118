"""Classes by other names: the table ``classes`` in, categories and segments as the manifest shall have them out.

    categories of the labels + classes {car: vehicle, truck: vehicle, tree: null, "*": …} → class_map → ClassMap
    segments of one image + ClassMap → remap → its segments, classes merged, dropped ones left out

Merged regions of one class (semantic, and panoptic stuff) become one segment; objects stay apart.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from segjobs.config import nearest
from segjobs.errors import ConfigError
from segjobs.labels.base import Finding, Masks
from segjobs.manifest import coco_api
from segjobs.manifest.schema import Category, Task
from segjobs.manifest.segments import Segment
from segjobs.text import first_few

_OTHERS = "*"


@dataclass(frozen=True)
class ClassMap:
    """``target``: category id of the labels → the manifest's category, None where it is dropped.

    ``regions``: ids of the manifest's categories of which an image has one segment at most.
    """

    categories: tuple[Category, ...]
    target: dict[int, Category | None]
    regions: frozenset[int]


def class_map(categories: Sequence[Category], classes: Mapping[str, str | None], task: Task) -> ClassMap | None:
    """What ``classes`` makes of the categories; None where it is empty.

    A class that keeps its name, or takes that of one which gives it up, keeps its place; a merged class
    has id, colour and kind of its namesake among those merged, else of the first of them. Raises
    ConfigError where a name is no class, or nothing is left.
    """
    if not classes:
        return None
    names = [category.name for category in categories]
    problems = [
        f"classes: {name!r} is no class of the labels; {nearest(name, names)}"
        for name in classes
        if name not in (*names, _OTHERS)
    ]
    problems += [
        f"classes.{name}: the new name is empty; null drops a class" for name, new in classes.items() if new == ""
    ]
    if problems:
        raise ConfigError(*problems)
    new_name = {name: classes.get(name, classes.get(_OTHERS, name)) for name in names}
    merged: dict[str, list[Category]] = defaultdict(list)
    for category in categories:
        new = new_name[category.name]
        if new is not None:
            merged[new].append(category)
    if not merged:
        raise ConfigError("classes: every class is dropped; keep one at least")
    chosen = {
        new: replace(next((one for one in members if one.name == new), members[0]), name=new)
        for new, members in merged.items()
    }
    target = {category.id: None if (new := new_name[category.name]) is None else chosen[new] for category in categories}
    kept = tuple(chosen.values())
    regions = frozenset(
        category.id for category in kept if task == "semantic" or (task == "panoptic" and category.isthing is False)
    )
    return ClassMap(kept, target, regions)


def remap(masks: Masks, table: ClassMap) -> Masks:
    """An image's masks with the manifest's classes; the segments of dropped classes are counted."""
    dropped: Counter[str] = Counter()
    kept: list[Segment] = []
    regions: dict[int, list[Segment]] = defaultdict(list)
    for segment in masks.segments:
        category = table.target[segment.category_id]
        if category is None:
            dropped[segment.category] += 1
            continue
        renamed = replace(segment, category_id=category.id, category=category.name)
        if category.id in table.regions and not segment.iscrowd:
            regions[category.id].append(renamed)
        else:
            kept.append(renamed)
    findings = masks.findings
    if dropped:
        detail = ", ".join(first_few([f"{name} ({count})" for name, count in sorted(dropped.items())]))
        findings += (Finding("dropped_classes", dropped.total(), detail),)
    united = [_united(parts, category) for category in table.categories if (parts := regions.get(category.id))]
    return replace(masks, segments=[*kept, *united], findings=findings)


def _united(parts: Sequence[Segment], category: Category) -> Segment:
    """One segment for several of one class."""
    if len(parts) == 1:
        return parts[0]
    counts = coco_api.union([part.segmentation for part in parts])["counts"]
    whole = Segment.from_counts(category, counts, parts[0].size_hw)
    assert whole is not None, "a union of masks that cover pixels covers some"  # noqa: S101
    return whole
