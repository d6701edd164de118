"""Which class of the truth a predicted one is: names and ``rename`` in, by category id the classes that it may be out.

Scores and pages ask here, so that both mean the same classes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from segjobs.config import nearest
from segjobs.errors import ConfigError
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


def match_categories(
    predicted: Sequence[Category], truth: Sequence[Category], rename: Mapping[str, str | None]
) -> dict[int, int | None]:
    """Ids of the predictions → class indices of the truth, by name: as written, else whatever its spelling.

    Case, spaces, hyphens and underscores make no difference where the exact name is not there.
    ``rename`` says it otherwise; a class renamed to nothing counts as not predicted (None). ``*`` in it stands for
    all classes that are neither named there nor in the truth.
    Raises ConfigError with every class that does not match, and the nearest names.
    """
    problems = [
        f"rename: {name!r} is no class of the predictions; {nearest(name, [c.name for c in predicted])}"
        for name in rename
        if name not in {OTHERS, *(category.name for category in predicted)}
    ]
    index: dict[int, int | None] = {}
    known = [category.name for category in truth]
    for category, (name, found) in zip(predicted, candidates(predicted, truth, rename).values(), strict=True):
        if name is not None and len(found) != 1:
            problems.append(
                f"predictions: class {name!r} is not in the truth; {nearest(name, known)} "
                f"(rename.{category.name}=NAME says which it is, =null that it is none; rename.*=null: all such)"
            )
        index[category.id] = found[0] if found else None
    if problems:
        raise ConfigError(*problems)
    return index
