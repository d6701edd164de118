"""What a model's licence means for whoever uses its masks: a licence's name in; a line for people, or none, out."""

import re

_NON_COMMERCIAL = re.compile(r"(?i)\bnc\b|non-?\s?commercial|research[ -]only|academic")
_OF_ITS_OWN = re.compile(r"(?i)\b(other|unknown)\b")


def licence_line(licence: str | None) -> str | None:
    """What is to be heeded of a licence such as ``cc-by-nc-4.0`` or ``other (its name, its link)``; None of others."""
    if licence is None:
        return None
    if _NON_COMMERCIAL.search(licence):
        return f"its licence, {licence}, forbids commercial use"
    if _OF_ITS_OWN.search(licence):
        return f"its licence, {licence}, is one of its own: read it before commercial use"
    return None
