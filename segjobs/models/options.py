"""``model.options`` against what a model knows: options by name in; ConfigError with every problem out."""

from collections.abc import Mapping

from segjobs.errors import ConfigError
from segjobs.manifest.schema import Options

MOST_UNITS = 1 << 16
"""Of a layer, and of what else an option counts."""


def check_options(name: str, known: Mapping[str, object], options: Options) -> None:
    """Raise ConfigError unless each option is one of ``known``, the model's with their defaults, and of its type."""
    problems = []
    for key, value in options.items():
        if key not in known:
            problems.append(f"model.options.{key}: no option of {name}; known: {', '.join(known) or 'none'}")
            continue
        default = known[key]
        fits = type(value) is type(default) or (isinstance(default, float) and type(value) is int)
        if not fits:
            problems.append(f"model.options.{key}: {value!r}: expected a {type(default).__name__}, such as {default!r}")
        elif type(value) is int and not 0 < value <= MOST_UNITS and type(default) is int:
            problems.append(f"model.options.{key}: {value}: expected 1 to {MOST_UNITS}, such as {default!r}")
    if problems:
        raise ConfigError(*problems)
