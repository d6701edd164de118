"""What a shell may offer behind a verb: its config's keys, and the values of those that have a few.

the word so far ─→ input.uri=, input.limit=, …    compute.decode=a ─→ compute.decode=auto, compute.decode=actor
"""

from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from pydantic import BaseModel

from segjobs.config import iter_fields

SHELLS = ("bash", "zsh", "fish")


class Completer:
    """argcomplete's: ``key=value`` words of one config."""

    def __init__(self, kind: type[BaseModel]) -> None:
        self._kind = kind

    def __call__(self, prefix: str, **_: object) -> dict[str, str]:
        """The words that start with ``prefix`` → what the key means."""
        words: dict[str, str] = {}
        for name, field in iter_fields(self._kind):
            if not prefix.startswith(f"{name}="):
                words[f"{name}="] = field.description or ""
            else:
                values = field.examples or _values(field.annotation)
                words |= {f"{name}={value}": "" for value in values}
        return {word: meaning for word, meaning in words.items() if word.startswith(prefix)}


def _values(annotation: object) -> Iterator[str]:
    """The values that a key takes, where they are few: of a choice, true and false, and null."""
    if annotation is bool:
        yield from ("true", "false")
    elif annotation is type(None):
        yield "null"
    elif get_origin(annotation) is Literal:
        yield from (str(value) for value in get_args(annotation))
    elif get_origin(annotation) not in (list, dict):
        for one in get_args(annotation):
            yield from _values(one)
