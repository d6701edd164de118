"""What a model's licence means for whoever uses its masks: a card, or a licence's name, in; lines for people out."""

import re

from segjobs.config import ENSEMBLE
from segjobs.manifest.schema import ModelCard

_NON_COMMERCIAL = re.compile(r"(?i)\bnc\b|non-?\s?commercial|research[ -]only|academic")
_OF_ITS_OWN = re.compile(r"(?i)\b(other|unknown)\b")


def licence_lines(card: ModelCard) -> list[str]:
    """A line for each model, of an ensemble's members too, whose licence is to be heeded."""
    members = (
        [(one["label"], one["licence"]) for one in card.options.get("models", ())] if card.name == ENSEMBLE else []
    )
    lines = ((label, licence_line(licence)) for label, licence in members or [(card.label, card.licence)])
    return [f"{label}: {line}" for label, line in lines if line]


def licence_line(licence: str | None) -> str | None:
    """What is to be heeded of a licence such as ``cc-by-nc-4.0`` or ``other (its name, its link)``; None of others."""
    if licence is None:
        return None
    if _NON_COMMERCIAL.search(licence):
        return f"its licence, {licence}, forbids commercial use"
    if _OF_ITS_OWN.search(licence):
        return f"its licence, {licence}, is one of its own: read it before commercial use"
    return None
