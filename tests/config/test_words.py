"""What people write on a command line instead of key=value, and what they are told."""

import pytest

from segjobs.cli import run_verb
from segjobs.config import EvaluateConfig, LabelConfig, TrainConfig, dashed, load_config
from segjobs.config.words import layers_of
from segjobs.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("input.uri = photos/", "'input.uri = photos/': write it as one word: input.uri=photos/"),
        ("input.uri= photos/ a=1", "'input.uri= photos/': write it as one word: input.uri=photos/"),
        ("input.uri =photos/", "'input.uri =photos/': write it as one word: input.uri=photos/"),
        ("input.uri: photos/", "'input.uri: photos/': write it as one word: input.uri=photos/"),
        ("input.uri", "'input.uri' is no override; expected key=value, such as output.uri=out/run1"),
        ("photos/ a=1", "'photos/' is no override; expected key=value, such as output.uri=out/run1"),
        ("a=x: y: z", "'a=x: y: z': not readable as YAML (mapping values are not allowed in this context); quote it: "),
        ("a={train:0.8}", "'a={train:0.8}': 'train:0.8' is one name to YAML; write a space after its colon"),
        ("a={b", "quote it: a='\"{b\"'"),
    ],
)
def test_what_is_no_override(words: str, problem: str) -> None:
    given = [words] if ": " in words and "=" in words else words.split()
    (found,) = layers_of(given)[1]
    assert found.startswith("command line: ")
    assert problem in found


def test_a_bare_file_is_told_alone() -> None:
    with pytest.raises(
        ConfigError, match=r"^command line: 'conf/label\.yaml' is no override; a config file is given as "
    ):
        load_config(LabelConfig, None, ["conf/label.yaml"])
    layers, problems = layers_of(["input.uri=list.yaml", "a=1=2", "b="])
    assert (len(layers), problems) == (3, [])


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--input.uri=photos/"], "input.uri=photos/"),
        (["--input.uri", "photos/"], "input.uri=photos/"),
        (["--model", "output=x"], "model=…"),
        (["-shard.images=3"], "shard.images=3"),
    ],
)
def test_keys_with_dashes(words: list[str], meant: str) -> None:
    assert dashed(LabelConfig, words) == [f"command line: {words[0]!r}: keys have no dashes before them: {meant}"]
    options = ["--config", "label.yaml", "--dry-run", "--print-config", "-h", "input.uri=x"]
    assert dashed(LabelConfig, options) == dashed(LabelConfig, []) == []


def test_a_second_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("label", ["--config", "a.yaml", "--config", "b.yaml"]) == 2
    assert capsys.readouterr().err == "error: command line: --config is given 2 times; keep one\n"


def test_a_section_is_given_by_its_uri_or_name(tmp_path) -> None:
    config = load_config(LabelConfig, None, ["input=/a", "output=/b", "model=unet", "model.resize=64x64"])
    assert (config.input.uri, config.output.uri) == ("/a", "/b")
    assert (config.model.name, config.model.resize) == ("unet", "64x64")
    (tmp_path / "c.yaml").write_text("predictions: /a\ntruth: /b\noutput: ${truth.uri}/scores\n")
    scored = load_config(EvaluateConfig, str(tmp_path / "c.yaml"), [])
    assert scored.truth is not None
    assert (scored.predictions.uri, scored.truth.uri, scored.output.uri) == ("/a", "/b", "/b/scores")
    learnt = load_config(TrainConfig, None, ["data=/a", "model=unet", "output=/b", "optimiser=sgd", "validation=/v"])
    assert (learnt.data.uri, learnt.optimiser.name, learnt.validation.uri) == ("/a", "sgd", "/v")
    with pytest.raises(
        ConfigError, match=r"^command line: shard: '64 images': expected a section with the keys bytes, images"
    ):
        load_config(LabelConfig, None, ["input=/a", "output=/b", "model=unet", "shard=64 images"])
