"""``model.tta`` and ``models: [...]``: what may be written, and what is said of the rest."""

import pytest

from segjobs.config import CheckConfig, LabelConfig, NightlyConfig, View, load_config, to_yaml
from segjobs.config.views import check_views, parse_view
from segjobs.errors import ConfigError

LABEL = ["input=photos", "output=out"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hflip", View(1, True, False)),
        ("vflip", View(1, False, True)),
        ("scale:0.75", View(0.75)),
        ("vflip + scale:1.5+hflip", View(1.5, True, True)),
    ],
)
def test_a_view(text: str, expected: View) -> None:
    assert parse_view(text) == expected
    assert parse_view(str(expected)) == expected


@pytest.mark.parametrize("text", ["rot90", "", "hflip+hflip", "scale:", "scale:-1", "scale:1e3", "scale:2+scale:3"])
def test_what_is_no_view(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected hflip, vflip, scale:0\.75"):
        parse_view(text)


def test_other_words_for_the_same_views_are_the_same_model() -> None:
    assert check_views(["scale:1.250", "vflip+hflip", "scale:0.75"]) == ["scale:0.75", "hflip+vflip", "scale:1.25"]
    for wrong, said in (
        (["scale:1.0"], "'scale:1.0' is the image as it is"),
        (["hflip", "hflip+scale:1"], "hflip stands there twice"),
        (["scale:0.01"], "a factor from 0.1 to 8"),
    ):
        with pytest.raises(ValueError, match=said):
            check_views(wrong)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=unet", "model.tta=[rot90]"], "model.tta: ['rot90']: 'rot90': expected hflip"),
        (["models=[unet]"], "model.models: an ensemble has two models or more"),
        (["models=[unet, fpn]", "model=unet"], "model.models: an ensemble needs its models"),
        (["model=ensemble"], "model.models: model.name=ensemble needs them: models="),
        (["models=[unet, fpn]", "model.resize=native"], "model.resize: has no effect on an ensemble"),
        (["models=[unet, {name: fpn, wieghts: none}]"], "model.models.1.wieghts: unknown key; did you mean 'weights'?"),
        (["models=[unet, {weights: none}]"], "model.models.1.name: missing"),
        (["models=[unet, {name: ensemble, weights: none}]"], "each of them one model"),
    ],
)
def test_what_does_not_fit_is_said(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(LabelConfig, None, [*LABEL, *words])
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1


def test_models_at_the_top_are_an_ensemble_of_every_verb_that_labels(tmp_path) -> None:  # type: ignore[no-untyped-def]
    words = ["models=[{name: unet, weights: none, tta: [vflip]}, fpn]", "model.tta=[hflip]"]
    for kind, others in ((LabelConfig, LABEL), (NightlyConfig, ["input=i", "collection=c"]), (CheckConfig, [])):
        config = load_config(kind, None, [*others, *words])
        assert config.model.name == "ensemble"
        assert [(one.name, one.tta) for one in config.model.members] == [("unet", ["vflip"]), ("fpn", ["hflip"])]
    path = tmp_path / "again.yaml"
    path.write_text(to_yaml(config))
    assert load_config(CheckConfig, str(path), []) == config
