"""Strangers' JSON: bytes in; its value out, or one of the two errors that a caller turns into its own.

Whatever the bytes are, only ValueError comes out of ``parse_json``, and only TypeError out of the others.
"""

import json
import re
from typing import Any

_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(data: bytes) -> Any:
    """The value. Half characters (lone surrogates, of file names that are no UTF-8) become U+FFFD, as viewers do it.

    Raises ValueError where it is not JSON, is no Unicode text, or is nested too deeply.
    """
    try:
        value = json.loads(data)
        if _HALF.search(data):
            whole = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
            value = json.loads(whole.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def words_of(error: Exception) -> str:
    """What an error of reading a document says, in one line."""
    return f"no key {error}" if isinstance(error, KeyError) else " ".join(str(error).split())


def flag(value: Any) -> bool:
    """0, 1, true, false, or null for false. Raises TypeError for any other, such as the text "0"."""
    if value is None or value is False or value is True or (type(value) is int and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{value!r}, expected 0 or 1")


def whole(value: Any) -> int:
    """A whole number. Raises TypeError for any other, such as the text "7"."""
    if type(value) is not int:
        raise TypeError(f"{value!r}, expected a whole number")
    return value
