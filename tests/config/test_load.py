"""A config from Python: a file or a dict, with keywords over it; the same checks and the same sentences."""

from pathlib import Path

import pytest

from segjobs.config import EvaluateConfig, LabelConfig, StorageConfig, load_config, make_config
from segjobs.errors import ConfigError

WORDS = ["input.uri=photos", "output.uri=out", "model.name=unet", "postprocess.fill_holes=true", "input.exclude=[a, b]"]


def test_each_way_to_say_it_gives_the_config_of_the_command_line(tmp_path: Path) -> None:
    expected = load_config(LabelConfig, None, WORDS)
    texts = {"input": {"uri": Path("photos"), "exclude": ("a", "b")}, "output": Path("out"), "model": "unet"}
    dotted = {**texts, "postprocess.fill_holes": True}
    assert make_config(LabelConfig, "label()", None, dotted) == expected
    nested = {"input": {"uri": "photos", "exclude": ["a", "b"]}, "output": {"uri": "out"}, "model": {"name": "unet"}}
    whole = {**nested, "postprocess": {"fill_holes": True}}
    assert make_config(LabelConfig, "label()", whole, {}) == expected
    (tmp_path / "label.yaml").write_text(
        "input: {uri: other, exclude: [a, b]}\noutput: {uri: out}\n"
        "model: {name: unet}\npostprocess: {fill_holes: true}\n"
    )
    over = {"input": "photos", "model": None}
    assert make_config(LabelConfig, "label()", tmp_path / "label.yaml", over) == expected


def test_a_section_that_may_be_absent() -> None:
    settings = {"predictions": "run", "truth": "truth", "output": "scores", "gate": ["miou >= 0.5"]}
    config = make_config(EvaluateConfig, "evaluate()", None, settings)
    assert config.truth is not None
    assert (config.truth.uri, config.baseline, config.gate) == (f"{Path.cwd()}/truth", None, ["miou >= 0.5"])
    assert make_config(StorageConfig, "storage", {"s3": {"anonymous": True}}, {}).s3.anonymous


def test_all_problems_are_told_with_who_gave_them() -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(
            LabelConfig,
            "label()",
            {"input": {"urj": "x"}, "compute": {"precision": "fp31"}},
            {"model": "unet", "shard.images": 0, "postprocess": {"fill_hole": True}},
        )
    assert caught.value.problems == (
        "config: input.uri: missing; give it in the file or as input.uri=…",
        "config: input.urj: unknown key; did you mean 'uri'?",
        "config: output: missing; give it in the file or as output=…",
        "label(): postprocess.fill_hole: unknown key; did you mean 'fill_holes'?",
        "config: compute.precision: 'fp31' does not fit; did you mean 'fp32' or 'fp16'?",
        "label(): shard.images: 0: expected greater than or equal to 1",
    )
    with pytest.raises(ConfigError, match=r"label\(\): input: missing; give it in the file or as input=…"):
        make_config(LabelConfig, "label()", None, {"model": "unet", "output": "out"})
    with pytest.raises(ConfigError, match=r"^label\(\): .*object.* is not a supported"):
        make_config(LabelConfig, "label()", None, {"input": object()})
    with pytest.raises(ConfigError, match=r"none\.yaml: no such config file"):
        make_config(LabelConfig, "label()", "none.yaml", {})
