"""What an evaluation opens: its entries and where their scores are, and every problem of the config at once."""

import json
from pathlib import Path
from typing import Any

import pytest

from segjobs.config import EvaluateConfig
from segjobs.errors import ConfigError, ManifestError
from segjobs.evaluation.entries import Evaluation, open_evaluation
from segjobs.evaluation.scored_parts import inputs_uri
from segjobs.storage import Storage
from tests.made import manifest, scored


@pytest.fixture
def sides(tmp_path: Path) -> tuple[str, str]:
    return manifest(tmp_path / "truth", {"a": ["sr"]}), manifest(tmp_path / "predicted", {"a": ["ss"]})


def opened(folder: Path, truth: str | None, predicted: str, **settings: Any) -> Evaluation:
    config = {"predictions": {"uri": predicted}, "output": {"uri": str(folder / "out")}, **settings}
    if truth:
        config["truth"] = {"uri": truth}
    return open_evaluation(EvaluateConfig.model_validate(config), Storage())


def test_a_baseline_is_an_entry_of_its_own(tmp_path: Path, sides: tuple[str, str]) -> None:
    truth, predicted = sides
    evaluation = opened(tmp_path, truth, predicted, baseline={"uri": truth}, gate=["miou drop <= 0"])
    assert [entry.uri for entry in evaluation.entries] == [f"{tmp_path}/out", f"{tmp_path}/out/baseline"]
    assert [rule.drop for rule in evaluation.rules] == [True]
    assert [one.predictions for one in evaluation.identity.scored] == [
        entry.inputs.predictions.parts_digest for entry in evaluation.entries
    ]
    assert inputs_uri(evaluation.entries[1].uri) == f"{tmp_path}/out/baseline/scores.json"


def test_an_earlier_evaluation_is_a_baseline_as_it_is(tmp_path: Path, sides: tuple[str, str]) -> None:
    truth, predicted = sides
    scored(tmp_path, truth, predicted, "earlier")
    evaluation = opened(tmp_path, truth, truth, baseline={"uri": str(tmp_path / "earlier")})
    assert evaluation.entries[1].uri == str(tmp_path / "earlier")
    assert evaluation.entries[1].inputs.predictions.uri == predicted
    path = tmp_path / "earlier" / "scores.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "part": 1}))
    with pytest.raises(ManifestError, match=r"earlier/scores\.json: part: unknown field"):
        opened(tmp_path, truth, truth, baseline={"uri": str(tmp_path / "earlier")})


def test_an_earlier_evaluation_has_to_be_of_the_same_and_finished(tmp_path: Path, sides: tuple[str, str]) -> None:
    truth, predicted = sides
    scored(tmp_path, truth, predicted, "earlier")
    baseline = {"uri": str(tmp_path / "earlier")}
    with pytest.raises(ConfigError, match=r"scored another truth .* or with other boundary or dispute settings"):
        opened(tmp_path, truth, predicted, baseline=baseline, disputes={"min_px": 7})
    (tmp_path / "earlier" / "report.json").unlink()
    with pytest.raises(ConfigError, match="the evaluation is not finished; run its command again"):
        opened(tmp_path, truth, predicted, baseline=baseline)


def test_without_truth_the_baseline_takes_its_place(tmp_path: Path, sides: tuple[str, str]) -> None:
    (entry,) = opened(tmp_path, None, sides[1], baseline={"uri": sides[0]}).entries
    assert entry.inputs.truth.uri == sides[0]


def test_every_problem_is_told_at_once(tmp_path: Path, sides: tuple[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path, *sides, ignore_classes=["rode"], gate=["miou drop <= 0.1", "mio >= 1"])
    ignored, rule = caught.value.problems
    assert ignored == "ignore_classes: 'rode' is no class of the truth; did you mean 'road'?"
    assert rule.startswith("gate: 'mio >= 1': 'mio' is no figure of the set; did you mean 'miou'")
