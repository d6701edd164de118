"""Models and formats that other installed packages bring, by name: entry points in, what they stand for out.

    [project.entry-points."segjobs.models"]     name = "package.module:SPEC"      a ModelSpec (models/table.py)
    [project.entry-points."segjobs.labels"]     name = "package.module:adapter"   LabelRequest → Labels (labels/base.py)
    [project.entry-points."segjobs.exporters"]  name = "package.module:EXPORTER"  an Exporter (exporters/base.py)

They are looked for only where a name is none of this project's, which nobody can replace. Whatever package brings one
has to be installed on every node.
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Literal, TypeVar

from segjobs.errors import ConfigError

Group = Literal["segjobs.models", "segjobs.labels", "segjobs.exporters"]
Kind = TypeVar("Kind")


def installed(group: Group) -> list[str]:
    """The names that installed packages bring."""
    return sorted({entry.name for entry in entry_points(group=group)})


def load(group: Group, name: str, fits: Callable[[object], Kind | None], expected: str) -> Kind | None:
    """What ``name`` stands for, imported; None where no package brings it.

    ``fits`` gives it back where it is of the kind that ``expected`` tells, else None. Raises ConfigError where two
    packages bring the name, or it cannot be imported or is something else.
    """
    found = {entry.value: entry for entry in entry_points(group=group, name=name)}
    if not found:
        return None
    if len(found) > 1:
        raise ConfigError(f"{name!r} stands for several things in {group}: {', '.join(sorted(found))}; uninstall one")
    (where, entry) = found.popitem()
    try:
        thing = entry.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{name!r} in {group} is {where}, which cannot be imported: {error}") from error
    known = fits(thing)
    if known is None:
        raise ConfigError(f"{name!r} in {group} is {where}, a {type(thing).__name__}; expected {expected}")
    return known
