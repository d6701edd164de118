"""``model.tta`` and ``model.name=ensemble``: models in; one card, and one Segmenter of all their passes, out.

    cards of the members ─→ classes matched by name ─→ ModelCard (driver)
    Segmenters of the members ─→ passes ─→ averaging.py (semantic) or fusion.py (instances) ─→ Segmenter (actor)

Each other view of an image, and each other member, is another model: another digest, and so another run. No torch on
the way to the card.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segjobs.config import ENSEMBLE, View, digest
from segjobs.errors import ConfigError
from segjobs.manifest.schema import ModelCard
from segjobs.models.base import Segmenter
from segjobs.text import first_few


def with_views(card: ModelCard, views: Sequence[View]) -> ModelCard:
    """The card of a model that is shown ``views`` besides the image. Raises ConfigError where it cannot be."""
    if not views:
        return card
    if card.task == "panoptic":
        raise _no_panoptic(card)
    texts = [str(view) for view in views]
    return replace(card, digest=digest(card.digest, "tta", texts), preprocessing={**card.preprocessing, "tta": texts})


def ensemble_card(cards: Sequence[ModelCard]) -> ModelCard:
    """The card of several models, its classes those of the first. Raises ConfigError where they do not go together.

    ``options["models"]``: what there is to say of each.
    """
    first = cards[0]
    problems = [
        f"model.models.{number}: {card.label} gives {card.task} masks, {first.label} {first.task} ones"
        for number, card in enumerate(cards)
        if card.task != first.task
    ]
    if problems:
        raise ConfigError(*problems)
    if first.task == "panoptic":
        raise _no_panoptic(first)
    for number, card in enumerate(cards):
        classes_of(first, card, number)
    members = [
        {
            "label": card.label,
            "digest": card.digest,
            "weights": card.weights,
            "options": dict(card.options),
            "preprocessing": card.preprocessing,
            "licence": card.licence,
        }
        for card in cards
    ]
    licences = dict.fromkeys(card.licence for card in cards if card.licence)
    return ModelCard(
        name=ENSEMBLE,
        task=first.task,
        categories=first.categories,
        digest=digest(ENSEMBLE, [card.digest for card in cards], [vars(one) for one in first.categories]),
        weights=", ".join(card.weights for card in cards),
        options={"models": members},
        licence=" and ".join(licences) or None,
    )


def classes_of(first: ModelCard, card: ModelCard, number: int) -> np.ndarray:
    """For each class of the first model its index among those of model ``number``, int64 (C,).

    By name, in any case; ids and colours do not count. Raises ConfigError with the names that the two do not share.
    """
    wanted, given = ([one.name for one in of.categories] for of in (first, card))
    places = {name.casefold(): place for place, name in enumerate(given)}
    lacking = [name for name in wanted if name.casefold() not in places]
    known = {name.casefold() for name in wanted}
    others = [name for name in given if name.casefold() not in known]
    if lacking or others:
        words = [
            f"{what} {', '.join(first_few(names))}"
            for what, names in (("it lacks", lacking), ("it alone has", others))
            if names
        ]
        raise ConfigError(
            f"model.models.{number}: {card.label} has other classes than {first.label}: {'; '.join(words)}. Classes "
            "are matched by name: where the names alone differ, give its categories, in the order of its channels"
        )
    return np.array([places[name.casefold()] for name in wanted], np.int64)


def together(members: Sequence[tuple[Segmenter, Sequence[View]]], card: ModelCard) -> Segmenter:
    """All passes of the members, each with its views, as one Segmenter. Raises ConfigError where one cannot take part.

    Each member counts alike, and so does each of its passes.
    """
    from segjobs.models.averaging import AveragingSegmenter
    from segjobs.models.fusion import FusingSegmenter
    from segjobs.models.passes import passes_of

    passes = [
        one
        for number, (segmenter, views) in enumerate(members)
        for one in passes_of(segmenter, views, share=1 / len(members), classes=classes_of(card, segmenter.card, number))
    ]
    kind = AveragingSegmenter if card.task == "semantic" else FusingSegmenter
    return kind(passes, card)


def _no_panoptic(card: ModelCard) -> ConfigError:
    return ConfigError(
        f"{card.label} gives panoptic maps, whose segments have no probabilities to average: neither model.tta nor an "
        "ensemble takes them; take model.options.task=semantic or =instance"
    )
