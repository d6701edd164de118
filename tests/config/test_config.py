"""Configuration: every problem at once and in words, and values that survive being printed."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from segjobs.config import (
    BenchConfig,
    DemoConfig,
    EvaluateConfig,
    ExportConfig,
    LabelConfig,
    LabellingModelConfig,
    OutputConfig,
    PostprocessConfig,
    PrepareConfig,
    ReportConfig,
    ShardConfig,
    TrainConfig,
    describe_keys,
    digest,
    iter_fields,
    load_config,
    make_config,
    nearest,
    to_yaml,
)
from segjobs.errors import ConfigError

COMPLETE = ["input.uri=photos", "output.uri=out", "model.name=unet"]


def problems_of(kind: type[BaseModel], text: str | None, *overrides: str) -> list[str]:
    """What is wrong with a file of this text (beside the overrides), with the file named conf.yaml."""
    path = Path("conf.yaml") if text is not None else None
    if path:
        path.write_text(text or "")
    with pytest.raises(ConfigError) as caught:
        load_config(kind, str(path) if path else None, overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_all_problems_of_a_file_at_once() -> None:
    text = """
input: {uri: photos, include: x, exclude: [1, a], limit: 0}
modle: {name: unet}
model: {nam: unet, optins: {a: 1}, sha256: abc, resize: 0x0, categories: [a, [b]]}
compute: {precision: fp31, actors: 8-1, batch_size: many, decode: gpu}
postprocess: {mask_threshold: 1, min_area_px: 1.5}
output: {uri: 3}
fail_on_empty: perhaps
storage: {s3: {endpoint: http://x}}
"""
    assert sorted(problems_of(LabelConfig, text)) == sorted(
        [
            "conf.yaml: input.include: 'x': expected a list: input.include='[\"x\"]'",
            'conf.yaml: input.exclude.0: 1 is no text to YAML; quote it: "1" (in a shell: \'"1"\')',
            "conf.yaml: input.limit: 0: expected greater than or equal to 1",
            "conf.yaml: modle: unknown key; did you mean 'model'?",
            "conf.yaml: model.name: missing; give it in the file or as model.name=…",
            "conf.yaml: model.nam: unknown key; did you mean 'name'?",
            "conf.yaml: model.optins: unknown key; did you mean 'options'?",
            "conf.yaml: model.sha256: 'abc': string should match pattern '^[0-9a-f]{64}$'",
            "conf.yaml: model.resize: 0: expected 'native', 'short:520', 'long:1024' or '256x256' (height x width)",
            "conf.yaml: model.categories.1: ['b']: expected a text",
            "conf.yaml: compute.precision: 'fp31' does not fit; did you mean 'fp32' or 'fp16'?",
            "conf.yaml: compute.actors: '8-1': a range runs from the smaller to the larger number, such as '1-8'",
            "conf.yaml: compute.batch_size: 'many': expected a valid integer, unable to parse string as an integer",
            "conf.yaml: compute.decode: 'gpu' does not fit; known: auto, task, actor",
            "conf.yaml: postprocess.mask_threshold: 1: expected less than 1",
            "conf.yaml: postprocess.min_area_px: 1.5: expected a valid integer, got a number with a fractional part",
            'conf.yaml: output.uri: 3 is no text to YAML; quote it: "3" (in a shell: \'"3"\')',
            "conf.yaml: fail_on_empty: 'perhaps': expected a valid boolean, unable to interpret input",
            "conf.yaml: storage.s3.endpoint: unknown key; did you mean 'endpoint_url'?",
        ]
    )


@pytest.mark.parametrize(
    ("overrides", "problems"),
    [
        (["model.resize=big"], ["'big': expected 'native', 'short:520', 'long:1024' or '256x256' (height x width)"]),
        (["model.resize=short:0"], ["'short:0': expected 'native', 'short:520', 'long:1024' or '256x256'"]),
        (["compute.actors=[1]"], ["compute.actors: [1]: expected 'auto', a number such as 4, or a range"]),
        (["compute.actors=0"], ["compute.actors: 0: expected 'auto', a number such as 4, or a range"]),
        (["max_failed_fraction=nan"], ["max_failed_fraction: 'nan': expected less than or equal to 1"]),
        (
            ["shard=64"],
            ["shard: 64: expected a section with the keys bytes, images"],
        ),
        (["input.uri.x=1"], ["input.uri: {'x': 1}: expected a text"]),
        (["input.exclude=[1]"], ['input.exclude.0: 1 is no text to YAML; quote it: "1" (in a shell: \'"1"\')']),
        (["input.exclude=jpg"], ["input.exclude: 'jpg': expected a list: input.exclude='[\"jpg\"]'"]),
        (["input.uri="], ["input.uri: is empty; give a value, or leave the key out"]),
        (["model.resize=256"], ["did you mean 'short:256' (the shorter side) or '256x256'?"]),
        (["output.uri=''"], ["output.uri: '': string should have at least 1 character"]),
        (["model.options=[1]"], ["model.options: [1]: expected a valid dictionary"]),
        (
            ["compute.gpus_per_actor=0", "compute.precision=bf16"],
            ["compute.precision: bf16 is for GPUs, and these have"],
        ),
        (["top_k=3"], ["top_k: unknown key; did you mean postprocess.top_k?"]),
        (["postproces.top_k=3"], ["postproces: unknown key; did you mean 'postprocess'?"]),
        (["input.urj=1", "batch=2"], ["input.urj: unknown key; did you mean 'uri'?", "batch: unknown key; known: "]),
    ],
)
def test_problems_of_overrides_name_the_command_line(overrides: list[str], problems: list[str]) -> None:
    found = problems_of(LabelConfig, "input: {uri: a}\noutput: {uri: b}\nmodel: {name: c}", *overrides)
    assert len(found) == len(problems)
    for line, expected in zip(found, problems, strict=True):
        assert line.startswith("command line: ")
        assert expected in line


def test_malformed_overrides_are_reported_together_with_the_rest() -> None:
    found = problems_of(LabelConfig, "model: {nam: unet}", "=3", "output.uri", "--x=1", "input.exclude=[*.tif]")
    assert found[:3] == [
        f"command line: {text!r} is no override; expected key=value, such as output.uri=out/run1"
        for text in ("=3", "output.uri", "--x=1")
    ]
    assert found[3].startswith("command line: 'input.exclude=[*.tif]': not readable as YAML (")
    assert found[3].endswith("; quote it: input.exclude='[\"*.tif\"]'")
    assert found[4:] == [
        "conf.yaml: input: missing; give it in the file or as input=…",
        "conf.yaml: output: missing; give it in the file or as output=…",
        "conf.yaml: model.name: missing; give it in the file or as model.name=…",
        "conf.yaml: model.nam: unknown key; did you mean 'name'?",
    ]


def test_nothing_given_names_what_is_missing() -> None:
    assert problems_of(LabelConfig, None) == [
        f"command line: {key}: missing; give it in the file or as {key}=…" for key in ("input", "output", "model")
    ]
    predictions, truth, output = problems_of(EvaluateConfig, "env: []")
    assert truth.startswith("conf.yaml: truth.uri: missing; name a manifest of truth, or baseline.uri")
    assert [predictions, output] == [
        f"conf.yaml: {key}: missing; give it in the file or as {key}=…" for key in ("predictions", "output")
    ]
    assert problems_of(PrepareConfig, None, "input.uri=a", "output.uri=b", "labels.format=cocoo", "labels.ids=[a]") == [
        "command line: labels.format: 'cocoo' does not fit; did you mean 'coco'?",
        "command line: labels.uri: missing; give it in the file or as labels.uri=…",
        "command line: labels.ids.0: 'a': expected a valid integer, unable to parse string as an integer",
    ]
    assert problems_of(BenchConfig, None, "model.name=a", "input.urj=3") == [
        "command line: input.uri: missing; give it in the file or as input.uri=…",
        "command line: input.urj: unknown key; did you mean 'uri'?",
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"input: {uri: '${nope}'}", "conf.yaml: input.uri: Interpolation key 'nope' not found"),
        (b"input: {uri: '${input.uri}'}", "conf.yaml: input.uri: Recursive interpolation detected"),
        (b"input: {uri: '${oc.env:NO_SUCH}'}", "conf.yaml: input.uri: NO_SUCH is not among the names"),
        (b"env: [NO_SUCH]\ninput: {uri: '${oc.env:NO_SUCH}'}", "conf.yaml: input.uri: NO_SUCH is not set; set it, or"),
        (b"input: {uri: a, exclude: ['${input}']}", "conf.yaml: input.exclude.0: Interpolation to parent node"),
        (b"input.uri: a", "conf.yaml: input.uri: unknown key; in a file sections are nested: input: {uri: …}"),
    ],
)
def test_files_that_are_no_config(content: bytes, problem: str) -> None:
    Path("conf.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(LabelConfig, "conf.yaml", ["output.uri=out", "model.name=unet"])
    assert [line for line in caught.value.problems if line.startswith(problem)]


def test_overrides_are_yaml_laid_over_the_file() -> None:
    Path("conf.yaml").write_text(
        "input: {uri: photos, exclude: [a]}\noutput: {uri: '${input.uri}/run'}\n"
        "model: {name: unet, options: {encoder: resnet18, depth: 3}}\n"
    )
    config = load_config(
        LabelConfig,
        "conf.yaml",
        [
            "model.options.encoder=resnet34",
            "model.options.deep={a: [1, {b: null}]}",
            'input.exclude=["*.tif", x=y]',
            "compute.actors=2",
            "shard.images=7",
            "input.uri=a=b",
            "max_failed_fraction=1e-3",
        ],
    )
    assert config.model.options == {"encoder": "resnet34", "depth": 3, "deep": {"a": [1, {"b": None}]}}
    assert config.input.exclude == ["*.tif", "x=y"]
    assert (config.compute.actors, config.shard.images, config.max_failed_fraction) == ("2", 7, 0.001)
    assert (config.input.uri, config.output.uri) == (f"{Path.cwd()}/a=b", f"{Path.cwd()}/a=b/run")


def test_help_lists_every_key_with_type_default_and_meaning() -> None:
    for kind in (LabelConfig, PrepareConfig, EvaluateConfig, BenchConfig, ExportConfig):
        lines = describe_keys(kind).splitlines()
        fields = list(iter_fields(kind))
        assert len(lines) == 2 * len(fields)
        for (name, field), head, meaning in zip(fields, lines[::2], lines[1::2], strict=True):
            assert re.fullmatch(rf"  {re.escape(name)} \(.+; (required|needed with .+|default .+)\)", head), head
            assert field.description
            assert meaning.strip() == field.description
    lines = describe_keys(LabelConfig).splitlines()
    for line in (
        "  input.uri (str; required)",
        "  input.exclude (list[str]; default [])",
        "  input.limit (int | null; default null)",
        "  model.options (dict[str, Any]; default {})",
        '  compute.precision (fp32 | bf16 | fp16; default "fp32")',
        '  compute.actors (str; default "auto")',
        "  storage.s3.anonymous (bool; default false)",
        "  max_failed_fraction (float; default 0.01)",
    ):
        assert line in lines


def test_help_requires_no_key_of_a_section_that_may_be_absent() -> None:
    for kind, section in ((EvaluateConfig, "truth"), (EvaluateConfig, "baseline"), (BenchConfig, "input")):
        assert f"  {section}.uri (str; needed with {section})" in describe_keys(kind).splitlines()
    assert "predictions.uri (str; required)" in describe_keys(EvaluateConfig)
    assert "required" not in describe_keys(DemoConfig)


def test_keys_that_do_nothing_in_a_verb_are_none_of_its_keys() -> None:
    compute = {
        kind: {name.removeprefix("compute.") for name, _ in iter_fields(kind) if name.startswith("compute.")}
        for kind in (PrepareConfig, EvaluateConfig, ReportConfig, ExportConfig)
    }
    cluster = {"address", "allow_unauthenticated"}
    assert compute == {
        PrepareConfig: {*cluster, "grace_s"},
        EvaluateConfig: cluster,
        ReportConfig: cluster,
        ExportConfig: cluster,
    }


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("~/masks", "/home/me/masks"),
        ("~/", "/home/me/"),
        ("out/~x", "out/~x"),
        ("./s3:/x", "./s3:/x"),
        ("s3:x.jpg", "s3:x.jpg"),
        ("file:///x", "file:///x"),
        ("out/x#1", "out/x#1"),
        ("'out/x #1'", "out/x #1"),
        ("s3:/bucket/x", "s3://bucket/x"),
        ("dbfs:/x", "dbfs://x"),
        ("gs:/b/x", "gs://b/x"),
        ("file:/x", "/x"),
        ("~nobody-of-that-name/x", "write the whole path, or ./~nobody-of-that-name/x"),
        ("out/x #1", "'#1' is a comment; quote the value: output.uri='\"out/x #1\"'"),
        ("'out/x' #1", "'#1' is a comment"),
    ],
)
@pytest.mark.parametrize("key", ["input.uri", "output.uri", "model.weights"])
def test_a_uri_is_what_a_person_means_or_refused(
    key: str, text: str, meaning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = [*(word for word in COMPLETE if not word.startswith(key)), f"{key}={text}"]
    try:
        config: Any = load_config(LabelConfig, None, given)
    except ConfigError as error:
        (problem,) = error.problems
        assert meaning.replace("output.uri", key) in problem
        return
    section, _, name = key.partition(".")
    whole = meaning if "://" in meaning else str(Path.cwd() / meaning) + "/" * meaning.endswith("/")
    assert getattr(getattr(config, section), name) == whole


def test_a_path_of_a_file_that_yaml_cuts_is_refused() -> None:
    text = "input: {uri: in/x}  # a comment\noutput:\n  uri: out/night #1\nmodel: {name: unet} #todo\n"
    Path("cut.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^cut\.yaml: 'out/night' is followed by '#1', a comment to YAML; quote the"):
        load_config(LabelConfig, "cut.yaml", [])
    Path("cut.yaml").write_text(text.replace(" #1", "  # 1"), encoding="utf-8")
    assert load_config(LabelConfig, "cut.yaml", []).output.uri == str(Path.cwd() / "out/night")


def test_an_unknown_name_is_answered_with_the_nearest_or_all() -> None:
    assert nearest("unett", ["unet", "fcn", "unetplusplus"]) == "did you mean 'unet'?"
    assert nearest("fcn_resnet5", ["unet", "fcn_resnet50", "fcn_resnet101"]) == (
        "did you mean 'fcn_resnet50' or 'fcn_resnet101'?"
    )
    assert nearest("UNet", ["unet", "fcn"]) == nearest("unet", ["UNET", "fcn"]).lower() == "did you mean 'unet'?"
    assert nearest("xyz", ["unet", "fcn"]) == "known: unet, fcn"


def test_a_digest_depends_on_values_and_not_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})
    assert digest("a", "b") != digest("ab")


_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    st.sampled_from(
        ["${x}", "\\${x}", "\\\\${", "${", "???", "null", "yes", "1e3", "0x3", "1:30", " a ", "~", "", "a\n"]
    ),
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(
    uri=_TEXT.filter(lambda text: text and not text.startswith("~") and ":/" not in text),
    patterns=st.lists(_TEXT, max_size=3),
    options=st.dictionaries(_TEXT, _JSON, max_size=3),
    limit=st.none() | st.integers(1, 10**9),
    threshold=st.floats(0, 1),
)
def test_a_printed_config_loads_as_the_same_config(
    uri: str, patterns: list[str], options: dict[str, Any], limit: int | None, threshold: float
) -> None:
    config = LabelConfig.model_validate(
        {
            "input": {"uri": uri, "exclude": patterns, "limit": limit},
            "output": OutputConfig(uri="out"),
            "model": LabellingModelConfig(name="unet", options=options),
            "postprocess": PostprocessConfig(score_threshold=threshold, classes=patterns or None),
            "shard": ShardConfig(images=3),
        }
    )
    Path("printed.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config(LabelConfig, "printed.yaml", []) == config


@given(st.lists(st.text(max_size=20) | st.sampled_from([*COMPLETE, "a.b=c", "input[0]=1", "x=${", "x=[", "x={a: *b}"])))
def test_any_overrides_give_a_config_or_a_list_of_problems(overrides: list[str]) -> None:
    try:
        config = load_config(LabelConfig, None, overrides)
    except ConfigError as error:
        assert error.problems
        assert all(error.problems)
    else:
        assert config.input.uri


@given(st.dictionaries(_TEXT | st.sampled_from(["input", "model", "output", "shard"]), _JSON, max_size=4))
def test_any_mapping_gives_a_config_or_one_line_per_problem(raw: dict[str, Any]) -> None:
    import yaml

    Path("any.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:  # input.uri and the like are never all there
        load_config(LabelConfig, "any.yaml", [])
    assert all(line.startswith("any.yaml: ") for line in caught.value.problems)


def test_lists_of_sections_are_checked_entry_by_entry() -> None:
    given = ["data.uri=a", "model.name=unet", "output.uri=b"]
    config = load_config(TrainConfig, None, [*given, "data.mix=[{uri: c, weight: 0.5}, {uri: d}]"])
    assert [(one.uri, one.weight) for one in config.data.mix] == [(f"{Path.cwd()}/c", 0.5), (f"{Path.cwd()}/d", 1.0)]
    assert load_config(TrainConfig, None, ["compute.workers=2", *given]).compute.workers == 2
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, None, [*given, "data.mix=[{uri: c, wieght: 0.5}]"])
    assert caught.value.problems == ("command line: data.mix.0.wieght: unknown key; did you mean 'weight'?",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.class_weights={car: -1}", "loss.class_weights: .*expected 'balanced', weights by class name"),
        ("loss.class_weights=even", "loss.class_weights: 'even': expected 'balanced'"),
        ("loss.cross_entropy=0", "cross_entropy, dice and focal are all 0"),
        ("augment.crop_px=wide", "augment.crop_px: 'wide': expected pixels: 512, 360x480"),
        ("augment.crop_px=[1, 2, 3]", "augment.crop_px: .*expected pixels"),
        ("augment.scale=[2, 1]", "augment.scale: .*expected a range from the smaller to the larger factor"),
    ],
)
def test_losses_and_augmentation_that_make_no_sense(override: str, message: str) -> None:
    complete = ("data.uri=truth", "model.name=unet", "output.uri=out")
    (problem,) = problems_of(TrainConfig, None, *complete, override)
    assert re.search(message, problem)
    for fitting in ("augment.crop_px=512", "augment.crop_px=360x480", "loss.class_weights={car: 2}"):
        written = to_yaml(load_config(TrainConfig, None, [*complete, fitting]))
        Path("again.yaml").write_text(written)
        assert to_yaml(load_config(TrainConfig, "again.yaml", [])) == written


def test_local_paths_mean_the_same_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"uri": "photos/*.jpg"}, {"uri": "./out/run 1"}, {"name": "unet", "weights": "models/unet1"}
    settings = dict(zip(("input", "output", "model"), given, strict=True))
    config = make_config(LabelConfig, "label()", None, settings)
    assert config.input.uri == f"{tmp_path}/photos/*.jpg"
    assert config.output.uri == f"{tmp_path}/out/run 1"
    assert config.model.weights == f"{tmp_path}/models/unet1"
    kept = {"input": {"uri": "s3://b/x"}, "output": {"uri": "/out"}, "model": {"name": "unet", "weights": "none"}}
    config = make_config(LabelConfig, "label()", None, kept)
    assert (config.input.uri, config.output.uri, config.model.weights) == ("s3://b/x", "/out", "none")
    strange = tmp_path / os.fsdecode(b"caf\xe9")
    strange.mkdir()
    monkeypatch.chdir(strange)
    assert make_config(LabelConfig, "label()", None, settings).output.uri == f"file://{tmp_path}/caf%E9/out/run%201"
    strange.rmdir()
    with pytest.raises(ConfigError, match=r"output\.uri: .*the current folder is gone; give a whole path"):
        make_config(LabelConfig, "label()", None, settings)
