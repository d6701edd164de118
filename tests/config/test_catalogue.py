"""Every config model with everything wrong at once: one line for each key, and never a traceback."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from segjobs import config as configs
from segjobs.config import LabelConfig, LabelsConfig, PrepareConfig, iter_fields, load_config
from segjobs.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
VERBS = ["label", "prepare", "evaluate", "report", "export", "bench", "demo"]
KINDS: dict[str, type[BaseModel]] = {verb: getattr(configs, f"{verb.title()}Config") for verb in VERBS}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems_of(kind: type[BaseModel], raw: Any, *overrides: str) -> list[str]:
    Path("conf.yaml").write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    with pytest.raises(ConfigError) as caught:
        load_config(kind, "conf.yaml", overrides)
    assert caught.value.exit_code == 2
    assert all("\n" not in line for line in caught.value.problems)
    return list(caught.value.problems)


def nested(values: dict[str, Any]) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        at = raw
        for section in sections:
            at = at.setdefault(section, {})
        at[name] = value
    return raw


def containers(annotation: Any) -> set[Any]:
    """list and dict, as far as a value of this type can be one."""
    origin = getattr(annotation, "__origin__", annotation)
    return {origin} & {list, dict} | {one for inner in get_args(annotation) for one in containers(inner)}


@pytest.mark.parametrize("verb", VERBS)
def test_a_wrong_type_at_every_key_at_once(verb: str) -> None:
    wrong = {
        name: [["deep"]] if dict in containers(field.annotation) else {"deep": 1}
        for name, field in iter_fields(KINDS[verb])
    }
    found = problems_of(KINDS[verb], nested(wrong))
    for name, value in wrong.items():
        lines = [line for line in found if re.match(rf"conf\.yaml: {re.escape(name)}(\.|:)", line)]
        assert len(lines) == 1, f"{name}: {lines}"
        assert repr(value) in lines[0], "the line has the value"
    assert len(found) == len(wrong)


@pytest.mark.parametrize("verb", VERBS)
def test_a_typo_in_every_key_at_once(verb: str) -> None:
    names = [name for name, _ in iter_fields(KINDS[verb])]
    found = problems_of(KINDS[verb], nested({f"{name}x": 1 for name in names}))
    for name in names:
        (line,) = [line for line in found if line.startswith(f"conf.yaml: {name}x: unknown key; did you mean ")]
        assert f"'{name.rpartition('.')[2]}'" in line


@pytest.mark.parametrize("verb", VERBS)
def test_every_missing_key_at_once(verb: str) -> None:
    kind = KINDS[verb]
    needed = [name for name, field in kind.model_fields.items() if field.get_default() is PydanticUndefined]
    needed = [name for name in needed if kind.model_fields[name].default_factory is None]
    if needed:
        assert [line for line in problems_of(kind, {}) if "give it in the file" in line] == [
            f"conf.yaml: {name}: missing; give it in the file or as {name}=…" for name in needed
        ]
    sections = {name: {} for name in needed if containers(kind.model_fields[name].annotation) == set()}
    deep = {
        name
        for name, field in iter_fields(kind)
        if field.is_required() and name.partition(".")[0] in sections and "." in name
    }
    if deep:
        found = problems_of(kind, {name: {} for name in {one.partition(".")[0] for one in deep}})
        assert {line.split(": ")[1] for line in found if "missing" in line} >= deep


VALID = "input: {uri: a}\noutput: {uri: b}\nmodel: {name: c}\n"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("input.uri=gs://b/x", "or s3://bucket/key, or allow them: storage.schemes=[gs], with segjobs[gs]"),
        ("input.uri=https://h/x.jpg", "storage.schemes=[https], with segjobs[http] installed"),
        ("input.uri=az://c/x", "cannot open az:// URIs"),
        ("input.uri=ftp://h/x", "cannot open ftp:// URIs"),
        ("input.uri=memory://x", "cannot open memory:// URIs"),
        ("input.uri=simplecache::s3://b/x", "cannot open chains of file systems ('::')"),
        ("input.uri=zip://a::s3://b/x.zip", "cannot open zip:// URIs"),
        ("input.uri=file://host/x", "cannot open a file:// URI of another host; expected file:///path"),
        ("input.uri=s3://", "no bucket; expected s3://bucket/prefix"),
        ("input.uri=s3:///x", "no bucket; expected s3://bucket/prefix"),
        ('input.uri="a\\0b"', "cannot open a name with a NUL character"),
        ("output.uri=http://h/x", "output.uri: 'http://h/x': cannot write there; expected a folder or s3:"),
        ("model.weights=http://h/x.pth", "model.weights: 'http://h/x.pth': cannot open http:// URIs"),
        ("storage.s3.endpoint_url=host:9000", "storage.s3.endpoint_url: 'host:9000': expected http://host:port or"),
        ("storage.s3.endpoint_url=s3://x", "storage.s3.endpoint_url: 's3://x': expected http://host:port or"),
        ("storage.attempts=0", "storage.attempts: 0: expected greater than or equal to 1"),
        ("storage.deadline_s=.inf", "storage.deadline_s: inf: expected a finite number"),
        ("storage.read_timeout_s=-1", "storage.read_timeout_s: -1: expected greater than 0"),
    ],
)
def test_uris_and_limits_that_do_not_fit(override: str, problem: str) -> None:
    (line,) = problems_of(LabelConfig, VALID, override)
    assert problem in line
    assert line.startswith("command line: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: " + "[" * 3000 + "]" * 3000, "conf.yaml: not readable as YAML: "),
        (
            "a: &a [x]\nb: &b [*a,*a]\n" + "".join(f"k{n}: &k{n} [{','.join(['*b'] * 90)}]\n" for n in range(20)),
            "conf.yaml: ",
        ),
        ("a: &x [*x]", "conf.yaml: not readable as YAML: line 1: YAML recursive aliases"),
        ("input: {limit: " + "9" * 5000 + "}", "conf.yaml: not readable as YAML: Exceeds the limit (4300 digits)"),
        ("input: {limit: " + "x" * 10**5 + "}", "conf.yaml: input.limit: 'xxx"),
        ("1: 2\ntrue: 3\nnull: 4", "conf.yaml: not readable as YAML: Incompatible key type"),
        ("input: !!set {a, b}", "conf.yaml: not readable as YAML: Value 'set' is not a supported"),
        ("input:\n\turi: a", "conf.yaml: not readable as YAML: line 2: a tab before a key"),
        ("a: 1\n---\nb: 2", "conf.yaml: not readable as YAML: line 2: but found another document"),
        ("3", "conf.yaml: not readable as YAML: Invalid loaded object type: int"),
        ("input: {uri: '${'}", "conf.yaml: not readable as YAML: no viable alternative"),
        ("input: {uri: '${oc.env:A,b,c}'}", "conf.yaml: input.uri: expected ${oc.env:NAME} or ${oc.env:NAME,default}"),
        ("input: {uri: '${oc.env:1}'}", "conf.yaml: input.uri: expected ${oc.env:NAME} or ${oc.env:NAME,default}"),
        (
            "model: {name: !!python/object/apply:os.system [exit]}",
            "conf.yaml: not readable as YAML: line 1: could not determine",
        ),
    ],
    ids=range(14),
)
def test_files_that_mean_harm(text: str, problem: str) -> None:
    found = problems_of(LabelConfig, text)
    assert any(line.startswith(problem) for line in found), found
    assert all(len(line) < 600 for line in found)


def lines_of(verb: str, *settings: str) -> list[str]:
    found = problems_of(KINDS[verb], "{}", *settings)
    return [line.removeprefix("command line: ").removeprefix("conf.yaml: ") for line in found]


def test_contradictions_are_said_all_at_once() -> None:
    assert lines_of(
        "prepare",
        *("input.uri=a", "output.uri=b", "labels.uri=c", "labels.format=yolo", "labels.threshold=3"),
        *(
            "labels.masks=d",
            "labels.unknown=map",
            "labels.class_file=e",
            "labels.categories=[x]",
            "labels.task=instance",
        ),
        *("storage.s3.anonymous=true", "storage.s3.profile=me"),
    ) == [
        "labels.masks: has no effect with labels.format=yolo, only with coco_panoptic; drop it",
        "labels.task: has no effect with labels.format=yolo, only with binary, voc, labelme, coco, qupath, ade20k, "
        "label_studio, cvat, via, kaggle; drop it",
        "labels.class_file: labels.categories or labels.table names the classes already; drop one",
        "labels.threshold: has no effect with labels.format=yolo, only with binary; drop it",
        "labels.unknown_class: labels.unknown=map needs it, and nothing else takes it",
        "storage.s3.profile: storage.s3.anonymous=true sends no credentials; drop one",
    ]
    table = (
        "labels.format=png",
        "labels.table=voc",
        "labels.ids=[1]",
        "labels.categories=[x]",
        "labels.colors=[[1,2,3]]",
    )
    assert lines_of("prepare", "input.uri=a", "output.uri=b", "labels.uri=c", *table) == [
        "labels.categories: labels.table=voc says it already; drop one",
        "labels.ids: labels.table=voc says it already; drop one",
        "labels.colors: has no effect with labels.format=png, only with rgb; drop it",
    ]
    voc = ("labels.format=voc", "labels.ids=[1]")
    assert lines_of("prepare", "input.uri=a", "output.uri=b", "labels.uri=c", *voc) == [
        "labels.ids: labels.table=voc says it already; drop one",
    ]
    assert load_config(
        PrepareConfig, None, ["input.uri=a", "output.uri=b", "labels.uri=c", *voc, "labels.class_file=d"]
    ).labels.ids == [1]
    assert lines_of("evaluate", "predictions.uri=a", "output.uri=b", "predictions.format=coco_results") == [
        "predictions.images: missing; COCO results hold numbers only: name the COCO JSON whose images and categories "
        "they refer to",
        "truth.uri: missing; name a manifest of truth, or baseline.uri to compare two models without",
    ]
    assert lines_of("report", "output.uri=b", "truth.uri=t") == [
        "evaluation.uri, predictions.uri: give one: what evaluate wrote, or a run",
        "truth.uri: a page shows truth of an evaluation: give evaluation.uri",
    ]
    assert lines_of("export", "manifest.uri=a", "output.uri=b", "format=png", "yolo.tolerance_px=2", "ids_from=x") == [
        "ids_from: has no effect with format=png, only with coco_instances, coco_results, coco_panoptic; drop it",
        "yolo: has no effect with format=png, only with yolo; drop it",
    ]


def test_contradictions_are_said_beside_everything_else() -> None:
    assert lines_of("report", "output.uri=b", "truth.uri=t", "thumb_px=1", "titel=x") == [
        "evaluation.uri, predictions.uri: give one: what evaluate wrote, or a run",
        "truth.uri: a page shows truth of an evaluation: give evaluation.uri",
        "thumb_px: 1: expected greater than or equal to 32",
        "titel: unknown key; did you mean 'title'?",
    ]
    assert lines_of("evaluate", "output.uri=b", "predictions.uri=a", "predictions.format=png", "truth.uri=3.5") == [
        'truth.uri: 3.5 is no text to YAML; quote it: "3.5" (in a shell: \'"3.5"\')',
    ], "what does not fit its own key contradicts nothing"


def test_a_section_alone_knows_its_contradictions() -> None:
    with pytest.raises(ValidationError, match=r"labels\.table=voc says it already; drop one") as caught:
        LabelsConfig(format="png", uri="x", table="voc", categories=["a"])
    (error,) = caught.value.errors()
    assert (error["type"], error["loc"]) == ("contradiction", ("categories",))


@pytest.mark.parametrize(
    "expression",
    [
        "${oc.decode:'[1]'}",
        "${oc.create:{a: 1}}",
        "${oc.select:input}",
        "${oc.dict.keys:input}",
        "${oc.deprecated:input.uri}",
        "${${output.uri}:x}",
        "${mine:1}",
    ],
)
def test_no_other_resolver_exists(expression: str) -> None:
    from omegaconf import OmegaConf

    OmegaConf.register_resolver("mine", lambda value: f"ran {value}", annotation_validation="off")
    try:
        text = f'input: {{uri: "{expression}"}}\noutput: {{uri: oc.decode}}\nmodel: {{name: c}}'
        (line,) = problems_of(LabelConfig, text)
    finally:
        OmegaConf.clear_resolver("mine")
    assert re.match(r"conf\.yaml: input\.uri: Unsupported interpolation type (oc\.|mine)", line)
    assert OmegaConf.has_resolver("oc.decode"), "of other programs' configs"


def test_the_environment_is_read_by_an_allowlist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOT_OF_DATA", "/data")
    monkeypatch.setenv("OTHER", "other")
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DB_PASSWORD", "MY_API_KEY"):
        monkeypatch.setenv(name, "hunter2")
    text = "env: [ROOT_OF_DATA, UNSET_ONE]\ninput: {uri: '${oc.env:ROOT_OF_DATA}/${oc.env:UNSET_ONE,jpg}'}\n"
    Path("conf.yaml").write_text(text + "output: {uri: b}\nmodel: {name: c}")
    assert load_config(LabelConfig, "conf.yaml", []).input.uri == "/data/jpg"
    secrets = "model: {name: '${oc.env:AWS_SECRET_ACCESS_KEY}', options: {a: ['${oc.env:HF_TOKEN}']}}"
    found = problems_of(
        LabelConfig,
        "env: [ROOT_OF_DATA, AWS_SECRET_ACCESS_KEY, HF_TOKEN, MY_API_KEY]\ninput: {uri: '${oc.env:OTHER}'}\n" + secrets,
        "output.uri=${oc.env:DB_PASSWORD}",
    )
    assert sorted(line.split(";")[0] for line in found) == [
        "command line: output.uri: DB_PASSWORD holds a secret by its name, and configs are printed and kept",
        "conf.yaml: input.uri: OTHER is not among the names that the config may read",
        "conf.yaml: model.name: AWS_SECRET_ACCESS_KEY holds a secret by its name, and configs are printed and kept",
        "conf.yaml: model.options.a.0: HF_TOKEN holds a secret by its name, and configs are printed and kept",
    ]
    assert "hunter2" not in "".join(found)
    assert problems_of(LabelConfig, "env: '${oc.env:HOME}'\n" + VALID) == [
        "conf.yaml: env: HOME is not among the names that the config may read; add env: [HOME]"
    ]


SECRET = "hunter2" * 3
LEAKS = [
    f"input.uri=https://me:{SECRET}@host/photos",
    f"input.uri=https://host/x.jpg?X-Amz-Signature={SECRET}&X-Amz-Date=1",
    f"output.uri=s3://b/x?token={SECRET}",
    f"storage.s3.endpoint_url=https://me:{SECRET}@host",
    f"storage.s3.endpoint_url=https://host/?sig={SECRET}",
    f"model.weights=https://host/w.pth?access_token={SECRET}",
    f"model.options.token={SECRET}",
    f"model.options.deep={{api_key: {SECRET}}}",
    f"model.options.header='Bearer {SECRET}'",
    f"model.options.hub=hf_{SECRET}",
    f"input.exclude=['https://me:{SECRET}@host']",
    f"compute.address=ray://me:{SECRET}@host:10001",
]


@pytest.mark.parametrize("override", LEAKS)
def test_secrets_in_a_config_are_refused_and_not_repeated(override: str) -> None:
    key = override.partition("=")[0]
    found = problems_of(LabelConfig, VALID, override)
    assert any(line.startswith(f"command line: {key}") and "holds a credential" in line for line in found)
    assert SECRET not in "".join(found)


def test_a_flow_answers_with_lines_and_status_2_and_shows_no_secret() -> None:
    flow = [sys.executable, str(REPOSITORY / "flows" / "label.py"), "--print-config"]
    done = subprocess.run([*flow, *LEAKS, "modle=1", "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert all(line.startswith("error: ") for line in done.stderr.splitlines())
    assert len(done.stderr.splitlines()) > 8
    assert SECRET not in done.stderr
