"""The card of several models and views: its classes, its digest, and what does not go together."""

from dataclasses import replace

import pytest

from segjobs.config import LabellingModelConfig, View
from segjobs.errors import ConfigError
from segjobs.manifest.schema import ModelCard, make_categories
from segjobs.models.ensemble import classes_of, ensemble_card, with_views
from segjobs.models.licence import licence_lines
from segjobs.models.registry import resolve
from segjobs.storage import Storage

ONE = ModelCard("unet", "semantic", make_categories(["sky", "road", "car"]), "1" * 64, "a", licence="MIT")
TWO = ModelCard("fpn", "semantic", make_categories(["Car", "sky", "road"]), "2" * 64, "b", licence="cc-by-nc-4.0")


def test_the_card_is_the_firsts_classes_and_every_models_digest() -> None:
    card = ensemble_card([ONE, TWO])
    assert (card.name, card.task, card.categories) == ("ensemble", "semantic", ONE.categories)
    assert card.label.startswith("ensemble@") and card.weights == "a, b"
    assert [one["label"] for one in card.options["models"]] == ["unet@111111111111", "fpn@222222222222"]
    others = [[TWO, ONE], [ONE, replace(TWO, digest="3" * 64)], [ONE, TWO, ONE], [ONE, with_views(TWO, [View(2.0)])]]
    assert len({card.digest, *(ensemble_card(cards).digest for cards in others)}) == 5
    assert classes_of(ONE, TWO, 1).tolist() == [1, 2, 0]


def test_each_models_licence_is_heeded() -> None:
    assert ensemble_card([ONE, TWO]).licence == "MIT and cc-by-nc-4.0"
    line = "fpn@222222222222: its licence, cc-by-nc-4.0, forbids commercial use"
    assert licence_lines(ensemble_card([ONE, TWO])) == [line]
    assert licence_lines(TWO) == [line] and licence_lines(ONE) == []


def test_views_are_another_model_and_none_are_the_same() -> None:
    assert with_views(ONE, []) is ONE
    seen = with_views(ONE, [View(hflip=True)])
    assert seen.digest != ONE.digest and seen.preprocessing["tta"] == ["hflip"]
    assert with_views(ONE, [View(vflip=True)]).digest != seen.digest
    config = {"name": "unet", "weights": "none", "tta": ["scale:2", "hflip"]}
    one, other = (
        resolve(LabellingModelConfig.model_validate({**config, "tta": tta}), Storage())
        for tta in (["scale:2", "hflip"], ["hflip", "scale:2.0"])
    )
    assert one == other


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            replace(TWO, categories=make_categories(["sky", "street", "car", "tree"])),
            "model.models.1: fpn@222222222222 has other classes than unet@111111111111: it lacks road; it alone has "
            "street, tree. Classes are matched by name: where the names alone differ, give its categories",
        ),
        (replace(TWO, task="instance"), "model.models.1: fpn@222222222222 gives instance masks"),
    ],
)
def test_what_does_not_go_together(other: ModelCard, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ensemble_card([ONE, other])
    assert said in str(caught.value)


def test_panoptic_maps_are_not_averaged() -> None:
    panoptic = replace(ONE, task="panoptic")
    for refuse in (lambda: ensemble_card([panoptic, panoptic]), lambda: with_views(panoptic, [View(hflip=True)])):
        with pytest.raises(ConfigError, match="gives panoptic maps, whose segments have no probabilities to average"):
            refuse()
