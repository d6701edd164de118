"""Names that are nearly right, and digests of what a config says."""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the nearest known ones, else all."""
    names = list(known)
    by_folded = {one.casefold(): one for one in reversed(names)}
    near = [by_folded[one] for one in difflib.get_close_matches(name.casefold(), by_folded, n=3)]
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    return f"known: {', '.join(names)}"


_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """A line as a terminal may show it, and JSON hold it.

    What would move the cursor, set a colour, end the line or turn its direction is spelt out: ``\\u001b``.
    """
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def digest(*parts: object) -> str:
    """SHA-256 (hex) of JSON-able values, independent of the order of dict keys."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


_SHOWN = 5  # of a long list of findings
_LONGEST = 60  # characters of a name


def first_few(findings: list[str]) -> list[str]:
    """The first findings of a list, and how many more there are."""
    more = len(findings) - _SHOWN
    return [*findings[:_SHOWN], f"and {more} more"] if more > 0 else findings


def quoted(names: Iterable[str]) -> str:
    """Names out of a stranger's file, in a line of ours: the first few, quoted, whatever they are made of."""
    return ", ".join(first_few([repr(shorten(name, _LONGEST)) for name in names]))


def shorten(text: str, most: int) -> str:
    """The text, cut off at ``most`` characters, of which the last says so."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def size_text(shape: tuple[int, ...]) -> str:
    """(height, width) as people write it: ``640x480``."""
    return f"{shape[1]}x{shape[0]}"


def spelling(name: str) -> str:
    """A class name without what people spell differently: case, spaces, hyphens and underscores."""
    return " ".join(name.replace("_", " ").replace("-", " ").split()).casefold()
