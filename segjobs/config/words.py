"""The words of a command line: ``key=value`` … in, a layer of the config for each and what is wrong with them out.

What people write instead of an override is known (``--input.uri=x``, ``input.uri = x``, a bare YAML file), and
answered with what they meant. Of a key that is given twice the last value holds, so that a script can hand on its own.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from segjobs.config.cut_values import cut_from_override
from segjobs.errors import ConfigError

_OVERRIDE = re.compile(r"[^-=:\s][^=:\s]*=")  # how one begins
_KEY = re.compile(r"[A-Za-z_][\w.]*")
_FILE = re.compile(r"(?i).+\.ya?ml")


def layers_of(words: Sequence[str]) -> tuple[list[Any], list[str]]:
    """Each override as OmegaConf's dict, in order; and a problem a line. Raises ConfigError."""
    layers: list[Any] = []
    overrides, problems = _overrides(words)
    for text in overrides:
        key, _, value = text.partition("=")
        try:
            layer = OmegaConf.from_dotlist([text])
            glued = list(_glued(OmegaConf.to_container(layer)))
            problems += [
                f"command line: {text!r}: {name!r} is one name to YAML; write a space after its colon" for name in glued
            ]
            if not glued:
                layers.append(layer)
            if cut := cut_from_override(value):
                whole = f"""{key}='"{value}"'"""
                problems.append(f"command line: {text!r}: to YAML {cut!r} is a comment; quote the value: {whole}")
        except (OmegaConfBaseException, YAMLError, ValueError, TypeError, IndexError, RecursionError) as error:
            why = error.problem if isinstance(error, MarkedYAMLError) else error
            why = " ".join(str(why).split())
            problems.append(f"command line: {text!r}: not readable as YAML ({why}); quote it: {key}={_quoted(value)}")
    return layers, problems


def _glued(value: object) -> Iterator[str]:
    """Keys such as ``train:0.8``, which were meant as a key and its value."""
    if isinstance(value, dict):
        for name, inner in cast("dict[object, object]", value).items():
            if inner is None and ":" in str(name):
                yield str(name)
            yield from _glued(inner)


def _quoted(value: str) -> str:
    """A text, or the texts of a list, as a shell and YAML take it."""
    if not (value.startswith("[") and value.endswith("]")):
        return f"""'"{value}"'"""
    items = ", ".join(f'"{one.strip()}"' for one in value[1:-1].split(","))
    return f"'[{items}]'"


def _overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those words that are ``key=value`` or mean it, and a problem for each of the others.

    Raises ConfigError for a config file, without which nothing can be said of the rest.
    """
    overrides: list[str] = []
    problems: list[str] = []
    rest = list(words)
    while rest:
        spaced = _spaced(rest)
        if spaced:
            problems.append(f"command line: {' '.join(rest[: spaced[0]])!r}: write it as one word: {spaced[1]}")
            overrides.append(spaced[1])
            del rest[: spaced[0]]
            continue
        text = rest.pop(0)
        if _FILE.fullmatch(text) and "=" not in text:
            raise ConfigError(f"command line: {text!r} is no override; a config file is given as --config {text}")
        if "=" not in text or text.startswith(("-", "=")):
            problems.append(f"command line: {text!r} is no override; expected key=value, such as output.uri=out/run1")
        else:
            overrides.append(text)
    return overrides, problems


def _spaced(words: Sequence[str]) -> tuple[int, str] | None:
    """``key = value`` in two or three words, or YAML's ``key: value``: how many they are, and what was meant."""
    key, *others = words
    after = next((n for n, word in enumerate(others) if _OVERRIDE.match(word)), len(others))
    others = others[: min(after, 2)]
    if others[:1] == ["="] and len(others) == 2 and _KEY.fullmatch(key):
        return 3, f"{key}={others[1]}"
    if others and key[-1:] in ("=", ":") and _KEY.fullmatch(key[:-1]) and "=" not in others[0]:
        return 2, f"{key[:-1]}={others[0]}"
    if others and _KEY.fullmatch(key) and len(others[0]) > 1 and others[0].startswith("="):
        return 2, f"{key}{others[0]}"
    return None
