"""What the page prints: names from anywhere as harmless text, numbers as people read them.

Escaping is Jinja2's (autoescape). Here is what escaping does not cover: characters that cannot be
seen or that turn the reading direction, texts without end, and which URIs may be links.
"""

import math
import unicodedata
from urllib.parse import urlsplit

from segjobs.evaluation.report_types import Figure

NONE = "–"
"""Stands for a figure that is undefined or not known."""
MINUS = "−"
_JOINERS = "\u200c\u200d"  # part of words in many scripts, and of emoji
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats (RTL overrides), lone surrogates, separators
_LINK_CHARS = 2000


def visible(text: object) -> str:
    """The text of ``text`` with every character that would not show, or would reorder the line, as a sign for it.

    Control characters become their pictures (``\\n`` is ␊), others their code (U+202E is ‹U+202E›), so
    that two names that differ look different, and the text can be written as UTF-8.
    """
    return "".join(_sign(c) if unicodedata.category(c) in _UNSEEN and c not in _JOINERS else c for c in str(text))


def _sign(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"‹U+{code:04X}›"


def shorten(text: object, most: int = 80) -> str:
    """``visible`` text of at most ``most`` characters: its beginning and its end, which names differ in."""
    whole = str(text)
    shown = visible(whole[:most] + whole[-most:] if len(whole) > 2 * most else whole)
    if len(shown) <= most:
        return shown
    tail = (most - 1) // 2
    return f"{shown[: most - 1 - tail]}…{shown[len(shown) - tail :]}"


def link(uri: object) -> str | None:
    """``uri`` where a page may link to it: http and https with a host, nothing unseen in it; else None."""
    if not isinstance(uri, str) or len(uri) > _LINK_CHARS or visible(uri) != uri or " " in uri:
        return None
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    return uri if parts.scheme in ("http", "https") and parts.hostname else None


def number(value: object) -> float | None:
    """``value`` where it is a finite number, else None: what a report holds is not always what it should be."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None  # type: ignore[return-value]


def percent(value: object, digits: int = 1) -> str:
    """A share in [0, 1] as percent without its sign: 0.6342 → 63.4."""
    share = number(value)
    return NONE if share is None else f"{100 * share:.{digits}f}"


def points(value: object, digits: int = 2) -> str:
    """A difference of two shares in percentage points, always with its sign: +1.25, −0.40, 0.00."""
    share = number(value)
    if share is None:
        return NONE
    text = f"{100 * abs(share):.{digits}f}"
    return text if not float(text) else ("+" if share > 0 else MINUS) + text


def count(value: object) -> str:
    """A whole number with thousands apart: 1,234,567."""
    whole = number(value)
    return NONE if whole is None else f"{int(whole):,}"


def brief(value: object) -> str:
    """A large count in three figures: 999, 12.3 k, 4.56 M, 1.20 G."""
    rest = number(value)
    if rest is None:
        return NONE
    unit = ""
    for unit in ("", " k", " M", " G", " T"):
        if rest < 999.5 or unit == " T":
            break
        rest /= 1000
    digits = 0 if not unit or rest >= 99.95 else 1 if rest >= 9.995 else 2
    return f"{rest:.{digits}f}{unit}"


def p_value(value: object) -> str:
    """A probability in three places; smaller ones as < 0.001."""
    chance = number(value)
    if chance is None:
        return NONE
    return "< 0.001" if chance < 0.001 else f"{chance:.3f}"


def value_of(figure: Figure | float | None) -> float | None:
    """The number of a figure, or the number itself."""
    return figure.value if isinstance(figure, Figure) else figure


def span_of(figure: Figure | float | None, digits: int = 1) -> str:
    """The interval of a figure in percent: 61.0–65.9; empty where it has none."""
    if not isinstance(figure, Figure) or figure.low is None or figure.high is None:
        return ""
    return f"{percent(figure.low, digits)}–{percent(figure.high, digits)}"


def scaled(share: object) -> str:
    """A share as a coordinate of 0 to 100; beyond it is drawn at the end."""
    return f"{100 * min(1.0, max(0.0, number(share) or 0.0)):.2f}"
