"""What the pages say is so: commands parse, keys, paths, names and messages exist, examples run, and the tour too."""

import ast
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import segjobs
from segjobs import __version__
from segjobs import config as configs
from segjobs.cli import VERBS, verb_of
from segjobs.config import LabelConfig, ModelConfig, PostprocessConfig, iter_fields, load_config
from segjobs.config.examples import example_names
from segjobs.errors import ITEM_CODES, ConfigError, ExitCode, ItemError
from segjobs.exporters.table import EXPORTERS
from segjobs.labels.class_tables import class_table
from segjobs.labels.splits import check_splits
from segjobs.labels.table import ADAPTERS
from segjobs.manifest.schema import VOC_NAMES
from segjobs.metrics.conventions import CONVENTIONS
from segjobs.metrics.gate import CLASS_FIGURES, SET_FIGURES, parse_rules
from segjobs.metrics.names import HEADLINE, RATIOS
from segjobs.models.contract import CHECKS, Subject, run_contract
from segjobs.models.postprocess import to_segments
from segjobs.models.registry import build, resolve
from segjobs.models.table import FROM_WEIGHTS, MODELS
from segjobs.models.weights import digest_of
from segjobs.storage import Storage
from tests import first_week
from tests.flow_process import run_here
from tests.in_process import label_in_process
from tests.pages import (
    GUIDE,
    MAP,
    PAGES,
    README,
    REPOSITORY,
    SCORES,
    Command,
    all_commands,
    anchors,
    blocks,
    commands,
    links,
    section,
    shell_lines,
    spans,
)

OPTIONS = {"--dry-run", "--print-config", "--help"}
PLACEHOLDERS = {"VERB", "…", "key=value"}
LONGEST_LINE = 130  # of prose
TOUR = "Prepare, train, label, look, score, gate"

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


@cache
def text_of(page: Path) -> str:
    return page.read_text("utf-8")


# --- commands ----------------------------------------------------------------------------------


def every_command() -> list[Any]:
    found = [(page, command) for page in PAGES for command in all_commands(text_of(page))]
    return [
        pytest.param(command, id=f"{page.relative_to(REPOSITORY)}:{number}:{command.verb}")
        for number, (page, command) in enumerate(found)
        if not PLACEHOLDERS & {command.verb, *command.words}
    ]


@pytest.mark.parametrize("command", every_command())
def test_every_command_is_one_that_its_verb_takes(command: Command) -> None:
    if command.verb == "init":
        assert command.words[0] in example_names()
        return
    assert command.verb in VERBS, command.text
    verb, words = verb_of(command.verb, command.words)
    words = list(verb.placed(words))
    path = None
    if "--config" in words:
        place = words.index("--config")
        path = str(REPOSITORY / "conf" / Path(words[place + 1]).name)  # `segjobs init VERB` prints it
        del words[place : place + 2]
    if "--probe" in words:
        place = words.index("--probe")
        assert VERBS[command.verb].probe and "--dry-run" in words and words[place + 1].isdecimal()
        del words[place : place + 2]
    options = {word for word in words if word.startswith("-")}
    assert options <= OPTIONS
    assert "--dry-run" not in options or verb.dry_run
    if "--help" not in options:
        check(load_config(verb.config, path, [word for word in words if word not in options]))


def check(config: Any) -> None:
    """What the job itself would refuse before it opens anything."""
    if isinstance(config, configs.PrepareConfig):
        check_splits(config.splits, config.group)
        if config.labels.format == "png":
            class_table(config.labels)
    if isinstance(config, configs.EvaluateConfig):
        parse_rules(config.gate, re.findall(r"\[(\w+)\]", " ".join(config.gate)), config.bootstrap.confidence)
    model = getattr(config, "model", None)
    for one in getattr(model, "members", ()) or [model]:
        # Of those others, weights are all that they are.
        if one is not None and ":" not in one.name and one.name not in FROM_WEIGHTS:
            resolve(one.model_copy(update={"weights": "none", "sha256": None}), Storage())


def test_commands_are_found_wherever_they_stand() -> None:
    line = (
        "pip install uv && uv run segjobs demo steps=10 > log; python flows/label.py --dry-run 'a=[1, 2]' # segjobs x"
    )
    found = [(command.verb, command.words) for command in commands(line.replace(";", " ; "))]
    assert found == [("demo", ("steps=10",)), ("label", ("--dry-run", "a=[1, 2]"))]
    assert [
        command.verb for command in all_commands("`segjobs label --help`, `uv run flows/demo.py a=1`, `segjobs`")
    ] == [
        "label",
        "demo",
    ]
    assert all(any(command.verb == verb for command in all_commands(text_of(GUIDE))) for verb in VERBS)


# --- keys --------------------------------------------------------------------------------------

_KEY = re.compile(r"[a-z_]+(\.[a-z_0-9]+)*=.+")
_DOTTED = re.compile(r"([a-z_]+)((?:\.[a-z_0-9]+)*)(?:\.\*)?")
_FILES = (".json", ".jsonl", ".parquet", ".yaml", ".png", ".html", ".txt", ".py", ".safetensors", ".md", ".pth")


def keys_of(verb: str) -> Iterator[str]:
    """Every key and section of a verb."""
    for name, _ in iter_fields(VERBS[verb].config):
        parts = name.split(".")
        yield from (".".join(parts[: length + 1]) for length in range(len(parts)))


@by_page
def test_keys_exist_and_take_the_values_that_are_shown(page: Path) -> None:
    sections = {key.partition(".")[0] for verb in VERBS for key in keys_of(verb) if "." in key}
    known = {key for verb in VERBS for key in keys_of(verb)}
    for span in spans(text_of(page)):
        if _KEY.fullmatch(span) and span not in PLACEHOLDERS and "…" not in span:
            assert any(takes(verb, shlex.split(span)) for verb in VERBS), f"{span}: no verb takes it"
        elif (match := _DOTTED.fullmatch(span)) and match[2] and match[1] in sections and not span.endswith(_FILES):
            assert match[1] + match[2] in known or match[0].startswith("model.options."), f"{span}: no key of any verb"


def takes(verb: str, overrides: list[str]) -> bool:
    """Whether nothing is wrong with these keys; others may be missing."""
    try:
        load_config(VERBS[verb].config, None, overrides)
    except ConfigError as error:
        return all(": missing; " in problem for problem in error.problems)
    return True


# --- paths, links, names -----------------------------------------------------------------------

_PATH = re.compile(r"(segjobs|flows|conf|tests|\.ci)/[\w./*-]*")


@by_page
def test_files_that_are_named_exist(page: Path) -> None:
    for span in spans(text_of(page)):
        if _PATH.fullmatch(span):
            pattern = re.sub(r"\b(FORMAT|VERB)\b", "*", span.rstrip("/"))
            assert any(REPOSITORY.glob(pattern)), f"{span}: there is no such file"
    for module in re.findall(r"python -m ([\w.]+)", text_of(page)):
        assert importlib.util.find_spec(module), f"{module}: no such module"


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(text_of(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: there is no such file"
        assert not anchor or anchor in anchors(text_of(target)), f"{link}: there is no such heading"


def test_the_way_of_one_image_is_the_codes() -> None:
    rows = re.findall(r"^\| .* \| `(segjobs/[\w/]+\.py)` \| (.*) \|$", text_of(MAP), re.MULTILINE)
    assert len(rows) >= 20
    for path, names in rows:
        defined = {node.name for node in ast.parse((REPOSITORY / path).read_text()).body if hasattr(node, "name")}
        assert set(spans(names)) <= defined, f"{path} defines no {set(spans(names)) - defined}"


def test_every_room_is_on_the_map() -> None:
    shown = set(spans(section(text_of(MAP), "Rooms")))
    rooms = {f"segjobs/{path.parent.name}/" for path in REPOSITORY.glob("segjobs/*/__init__.py")}
    assert rooms <= shown


def test_the_pages_are_short_enough_to_read() -> None:
    assert len(text_of(README).splitlines()) <= 150
    for page in PAGES:
        prose = re.sub(r"^\|.*$|^!?\[.*$", "", text_of(page), flags=re.MULTILINE)
        assert max(map(len, prose.splitlines())) <= LONGEST_LINE, page


def test_the_picture_is_small() -> None:
    (picture,) = (README.parent / link for link in links(text_of(README)) if link.endswith(".jpg"))
    assert picture.stat().st_size < 80_000
    with Image.open(picture) as image:
        assert min(image.size) > 200


# --- what is listed ----------------------------------------------------------------------------


def test_lists_are_complete() -> None:
    guide, scores = set(spans(text_of(GUIDE))), set(spans(text_of(SCORES)))
    for names in (MODELS, ADAPTERS, EXPORTERS, ITEM_CODES, ("dataset", "per_image", *CONVENTIONS)):
        assert set(names) <= guide
    assert {
        *HEADLINE,
        *RATIOS,
        *CONVENTIONS,
        *SET_FIGURES.keys() - {"mean_iou", "frequency_weighted_iou"},
    } <= scores | {*HEADLINE}
    assert {*HEADLINE, *RATIOS, *CONVENTIONS, *CLASS_FIGURES} <= scores
    assert all(name in section(text_of(GUIDE), "Models") for name in VOC_NAMES)
    codes = re.findall(r"^\| (\d+) \| ", text_of(GUIDE), re.MULTILINE)
    assert [int(code) for code in codes] == sorted(ExitCode)


def test_the_changelog_tells_of_this_version() -> None:
    versions = re.findall(r"^## \[(.*?)\]", text_of(REPOSITORY / "CHANGELOG.md"), re.MULTILINE)
    assert versions == ["Unreleased", __version__]


def test_messages_in_the_troubleshooting_are_the_codes() -> None:
    said = []
    for path in REPOSITORY.glob("segjobs/**/*.py"):
        said += [node.value for node in ast.walk(ast.parse(path.read_text())) if is_text(node)]
    rows = re.findall(r"^\| (.*?) \| ", section(text_of(GUIDE), "Troubleshooting"), re.MULTILINE)
    for message in (span for row in rows for span in spans(row) if " " in span):
        for piece in filter(None, (piece.strip(" .;") for piece in message.split("…"))):
            assert any(piece in text for text in said), f"{piece!r}: no message of the code"


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


# --- examples ----------------------------------------------------------------------------------


@by_page
def test_python_compiles(page: Path) -> None:
    for body in blocks(text_of(page), "python"):
        compile(body, str(page), "exec")


@by_page
def test_python_uses_the_public_names(page: Path) -> None:
    for body in blocks(text_of(page), "python"):
        used = [node for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Attribute)]
        names = {node.attr for node in used if isinstance(node.value, ast.Name) and node.value.id == "segjobs"}
        assert names <= set(segjobs.__all__)


def test_the_names_of_coco_are_eighty(capsys: pytest.CaptureFixture[str]) -> None:
    (body,) = (body for body in blocks(text_of(GUIDE), "python") if "MaskRCNN" in body)
    exec(compile(body, str(GUIDE), "exec"), {})  # noqa: S102
    names = ast.literal_eval(capsys.readouterr().out)
    assert (len(names), names[0], names[-1]) == (80, "person", "toothbrush")


def test_the_model_of_your_own_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (body,) = (body for body in blocks(text_of(GUIDE), "python") if body.startswith("# my_models.py"))
    (tmp_path / "my_models.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    config = ModelConfig(name="my_models:water", options={"seed": 1})
    model = build(config, Storage(), device="cpu")
    assert resolve(config, Storage()) == model.card
    assert resolve(ModelConfig(name="my_models:water", options={"seed": 2}), Storage()).digest != model.card.digest
    image = np.random.default_rng(0).integers(0, 256, (31, 47, 3), np.uint8)
    (prediction,) = model.predict([image])
    segments, confidence = to_segments(prediction, model.card.categories, PostprocessConfig())
    assert {segment.category for segment in segments} == {"land", "water"}
    assert sum(segment.area for segment in segments) == 31 * 47
    assert confidence is not None and 0.5 <= confidence <= 1
    (output,) = model.forward([model.preprocess(image)])
    with pytest.raises(ItemError, match="NON_FINITE"):
        model.postprocess(output * np.nan, (31, 47))
    assert {found.check: found.fault for found in run_contract(Subject(model, "cpu", lambda: model))} == dict.fromkeys(
        CHECKS
    )
    path = tmp_path / "water.safetensors"
    save_file(model.module.state_dict(), path)
    given = ModelConfig(name="my_models:water", weights=str(path), categories=["dry", "wet"], sha256=digest_of(path))
    trained = build(given, Storage(), device="cpu")
    assert np.array_equal(trained.predict([image])[0].ids, prediction.ids)
    assert [one.name for one in trained.card.categories] == ["dry", "wet"]


def test_several_runs_by_prefix_become_one_collection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is to be done where one driver ends, as it stands but for its model and places."""
    (body,) = (body for body in blocks(section(text_of(GUIDE), "What one driver carries"), "sh") if "label" in body)
    images = ["2026-01/a.png", "2026-01/b.png", "2026-02/a.png"]
    for name in [*images, "2026-03/a.png"]:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (200, 100, 0)).save(tmp_path / "photos" / name)
    listed = [command for line in body.splitlines() for command in commands(line)]
    assert [command.verb for command in listed] == ["label", "label", "collection"]
    for command in listed:
        words = [re.sub(r"s3://(photos|masks)", rf"{tmp_path}/\1", word) for word in command.words]
        if command.verb == "collection":
            code, _, err = run_here(capsys, "collection", *VERBS["collection"].placed(words))
            assert code == ExitCode.DONE, err
            continue
        words = ["model.name=tests.toy_model:build" if word.startswith("model.") else word for word in words]
        assert label_in_process(load_config(LabelConfig, None, words)).failed == 0
    manifest = segjobs.open_manifest(str(tmp_path / "masks" / "all"))
    assert [image.image_id for image in manifest] == images


# What the tour's commands are given besides, to take seconds.
SMALL = {
    "demo": ["train_images=12", "test_images=4", "steps=10"],
    "train": ["schedule.steps=2", "schedule.warmup_steps=1", "batch_size=2"],
    "label": ["compute.actors=1"],
    "nightly": ["compute.actors=1", "shard.images=8"],
    "evaluate": ["bootstrap.resamples=50"],
    "report": ["images.worst=1", "images.best=0", "images.random=0"],
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_session")
def test_the_tour_from_its_first_line_to_its_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command as it stands, but for its size and the folder that ``out/`` is in."""

    def here(text: str) -> str:
        return re.sub(r"\bout/", f"{tmp_path}/out/", text)

    start, tour = section(text_of(README), "Install"), section(text_of(README), TOUR)
    demo = [command for command in all_commands(start) if command.verb == "demo"]
    line = [command for line in shell_lines(tour) for command in commands(line)]
    assert [command.verb for command in line] == [
        *("prepare", "prepare", "train", "label", "report", "evaluate", "report", "evaluate")
    ]
    for command in [*demo, *line]:
        words = [f"output.uri={tmp_path}/out/demo"] if command in demo else [here(word) for word in command.words]
        code, out, err = run_here(capsys, command.verb, *words, *SMALL.get(command.verb, ()))
        gate = json.loads(out.splitlines()[-1]).get("gate", {})
        assert code == (ExitCode.DONE if all(gate.values()) else ExitCode.GATE_MISSED), (command.text, err)
    assert set(gate) == {"miou >= 0.5", "miou drop <= 0.1"}
    places = [span for span in spans(tour) if span.startswith("out/")]
    assert len(places) >= 2
    assert all(Path(here(place)).exists() for place in places)

    (label,) = (command for command in line if command.verb == "label")
    code, _, err = run_here(capsys, "label", *map(here, label.words), *SMALL["label"])
    assert (code, "nothing to do" in err) == (ExitCode.DONE, True)

    # The guide's examples, on this run.
    read = [body for body in blocks(text_of(GUIDE), "python") if '"out/run1' in body]
    assert len(read) >= 3
    for body in read:
        exec(compile(here(body.replace("out/run1", "out/tour/run1")), "flows/README.md", "exec"), {})  # noqa: S102
    (sql,) = (body for body in blocks(text_of(GUIDE), "sql") if "out/run1" in body)
    by_class, failed = (
        duckdb.sql(here(query.replace("out/run1", "out/tour/run1"))).fetchall()
        for query in sql.split(";")
        if query.strip()
    )
    assert sum(images for _, images, _ in by_class) >= 4
    assert failed == []


# What the first week's commands are given for a network that is there in every checkout.
TOY = {
    "model.name=deeplabv3_resnet50": "model.name=tests.toy_model:build",
    "model.weights=models/new": "model.options={seed: 1}",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("ray_session")
def test_the_first_week_is_what_one_sees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command as it stands, but for its model and folder; the lines that are shown are those that it prints."""
    week = text_of(GUIDE).split("### Your first week")[1].partition("\n## ")[0]
    told = blocks(week, "text")
    for number, body in enumerate(blocks(week, "sh"), 1):
        first_week.before_night(tmp_path / "photos", number)
        printed = ""
        for line in body.replace("\\\n", " ").splitlines():
            (command,) = commands(line)
            words = [TOY.get(word, word) for word in VERBS[command.verb].placed(command.words)]
            words = [re.sub(r"=(photos/|out/)", rf"={tmp_path}/\1", word) for word in words]
            code, out, err = run_here(capsys, command.verb, *words, *SMALL.get(command.verb, ()))
            assert code == (ExitCode.GATE_MISSED if number == 4 else ExitCode.DONE), err
            printed += out + err
        assert first_week.shown(printed, tmp_path) == told[number - 1].splitlines()
    assert number == len(told) == 7
