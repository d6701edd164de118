"""Which class of the truth a predicted one is: names and ``rename`` in, by category id the classes that it may be out.

Scores and pages ask here, so that both mean the same classes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from segjobs.manifest.schema import Category
from segjobs.text import spelling

OTHERS = "*"
"""In ``rename``: all classes that are neither named there nor in the truth."""


def candidates(
    predicted: Sequence[Category], truth: Sequence[Category], rename: Mapping[str, str | None]
) -> dict[int, tuple[str | None, list[int]]]:
    """Category id → its name after ``rename``, None for a class that counts as not predicted, and what that names.

    That is the index of the truth's class with just this name, else of every one that differs by case, spaces, hyphens
    and underscores alone.
    """
    exact = {category.name: number for number, category in enumerate(truth)}
    loose: dict[str, list[int]] = defaultdict(list)
    for name, number in exact.items():
        loose[spelling(name)].append(number)

    def named(name: str | None) -> list[int]:
        return [] if name is None else [exact[name]] if name in exact else loose[spelling(name)]

    found: dict[int, tuple[str | None, list[int]]] = {}
    for category in predicted:
        name = rename.get(category.name, category.name)
        if not named(name) and category.name not in rename and OTHERS in rename:
            name = rename[OTHERS]
        found[category.id] = name, named(name)
    return found
