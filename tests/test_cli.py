"""The command line as a process: exit codes, and all problems at once.

A stop that can be continued: ``tests/test_flow_resume.py``.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from segjobs import __version__
from segjobs.cli import VERBS, Verb, run_verb
from segjobs.config import LabelConfig, ReportConfig, describe_keys, load_config
from segjobs.config.examples import example_names
from segjobs.errors import ExitCode, ManifestError
from segjobs.results import (
    BenchResult,
    DemoResult,
    EvaluateResult,
    ExportResult,
    PrepareResult,
    ReportResult,
    Result,
    RunResult,
    TrainResult,
)
from tests.flow_process import REPOSITORY, run_flow

TOY = "model.name=tests.toy_model:build"


def test_help_lists_every_key() -> None:
    code, out, err = run_flow("label", "--help")
    assert (code, err) == (0, "")
    assert describe_keys(LabelConfig) in out
    for option in ("--config FILE", "--dry-run", "--print-config", "key=value"):
        assert option in out


def test_every_problem_is_an_error_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("input: {urj: x}\nmodel: {name: unet}\nshard: {images: 0}\n")
    code, out, err = run_flow("label", "--config", str(tmp_path / "c.yaml"), "compute.precision=fp31", "output.uri")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: command line: 'output.uri' is no override; expected key=value, such as output.uri=out/run1",
        f"error: {tmp_path}/c.yaml: input.uri: missing; give it in the file or as input.uri=…",
        f"error: {tmp_path}/c.yaml: input.urj: unknown key; did you mean 'uri'?",
        f"error: {tmp_path}/c.yaml: output: missing; give it in the file or as output=…",
        "error: command line: compute.precision: 'fp31' does not fit; did you mean 'fp32' or 'fp16'?",
        f"error: {tmp_path}/c.yaml: shard.images: 0: expected greater than or equal to 1",
    ]


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``segjobs`` as it is installed beside this Python."""
    segjobs = str(Path(sys.executable).parent / "segjobs")
    variables = {**os.environ, **environment}
    return subprocess.run([segjobs, *words], capture_output=True, text=True, check=False, env=variables)


def test_the_command_lists_its_verbs() -> None:
    shown = command("--help")
    assert shown.returncode == 0
    for name, verb in VERBS.items():
        assert re.search(rf"^    {name}\s+{re.escape(verb.summary[:40])}", shown.stdout, re.MULTILINE)
    assert command("--version").stdout == f"segjobs {__version__}\n"
    module = [sys.executable, "-m", "segjobs", "--version"]
    assert subprocess.check_output(module, text=True) == f"segjobs {__version__}\n"
    nothing = command()
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr == shown.stdout
    unknown = command("lable", "input.uri=x")
    assert (unknown.returncode, unknown.stderr) == (2, "error: 'lable' is no verb; did you mean 'label'?\n")


def test_a_verb_of_the_command_is_its_flow() -> None:
    for words in (["--print-config", "input.uri=a", "output.uri=b", "model.name=unet"], ["input.urj=a"]):
        same = command("label", *words)
        assert (same.returncode, same.stdout, same.stderr) == run_flow("label", *words)


def test_init_prints_the_file_of_a_verb() -> None:
    assert command("init", "label").stdout == (REPOSITORY / "conf" / "label.yaml").read_text()
    names = sorted(path.stem for path in (REPOSITORY / "conf").glob("*.*"))
    assert example_names() == names
    assert command("init", "onnx").stdout == (REPOSITORY / "conf" / "onnx.json").read_text()
    assert {*VERBS} - {*names} == {"demo"}, "whose keys need no file"
    unknown = command("init", "lable")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "invalid choice: 'lable'" in unknown.stderr


def test_a_current_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    """Help works there; no job begins, whose torch and whose workers would end without a word."""
    gone = tmp_path / "gone"
    program = f"import os; os.mkdir({str(gone)!r}); os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); import sys; "
    program += f"sys.path.insert(0, {str(REPOSITORY)!r}); from segjobs.cli import main; sys.exit(main())"

    def there(*words: str) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    assert there("--help") == (0, "") == there("label", "--help")
    whole = [f"input.uri={tmp_path}", f"output.uri={tmp_path}/out", TOY]
    expected = "error: the current folder is gone; change to one that is there (cd /) and try again\n"
    assert there("label", *whole) == (2, expected) == there("check", TOY)
    code, err = there("demo")
    assert (code, err.count("\n")) == (2, 1) and "output.uri: 'out/demo': the current folder is gone" in err


def test_usage_errors_are_exit_code_2() -> None:
    code, _, err = run_flow("label", "--no-such-option")
    assert code == 2
    assert "unrecognized arguments: --no-such-option" in err
    code, _, err = run_flow("evaluate", "--dry-run")
    assert code == 2, "only the flows that have it"


def test_the_printed_config_loads_again(tmp_path: Path) -> None:
    arguments = ["input.uri=a b", "output.uri=out", "model.name=unet", "model.options.encoder=resnet18"]
    code, out, err = run_flow("label", *arguments, "--print-config", 'input.exclude=["*.tif"]')
    assert (code, err) == (0, "")
    (tmp_path / "printed.yaml").write_text(out)
    expected = load_config(LabelConfig, None, [*arguments, 'input.exclude=["*.tif"]'])
    assert load_config(LabelConfig, str(tmp_path / "printed.yaml"), []) == expected


@pytest.fixture
def handlers() -> Iterator[None]:
    """A verb in this process leaves the signals' handlers as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("terminal", [False, True])
def test_lines_for_programs_are_printed_for_programs_and_have_the_exit_code(
    terminal: bool, handlers: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(config: ReportConfig) -> Result:
        if config.title == "none":
            raise ManifestError("out/run1: not there")
        return ReportResult(config.output.uri, 7)

    monkeypatch.setitem(VERBS, "report", Verb("a page", ReportConfig, lambda: job))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    words = ["predictions=/p", "output=/o"]
    assert run_verb("report", words) == 0
    assert run_verb("report", [*words, "title=none"]) == 2
    out, err = capsys.readouterr()
    assert err.endswith("error: out/run1: not there\n")
    lines = [{"page": "/o", "bytes": 7, "exit_code": 0}, {"error": "out/run1: not there", "exit_code": 2}]
    assert [json.loads(line) for line in out.splitlines()] == ([] if terminal else lines)


def test_every_result_s_line_has_its_exit_code() -> None:
    few, missed = ExitCode.TOO_MANY_FAILED, ExitCode.GATE_MISSED
    run = RunResult("/o", "1", 2, 1, 1, {"CRASHED": 1}, 3, 0, 1.0, {}, {}, few)
    page = ReportResult("/o", 7)
    results = [
        (run, [3]),
        (PrepareResult({"train": run, "val": replace(run, exit_code=ExitCode.DONE)}), [3, 0]),
        (TrainResult("/o", 1, 1.0, None), [0]),
        (EvaluateResult("/o", {}, {}, {}, missed), [4]),
        (page, [0]),
        (ExportResult("/o", "png", 2, 1, 1, {}, 3, {}, 1.0, few), [3]),
        (DemoResult((run, page), 0.5, "/o/sheet.png"), [3, 0, 0]),
        (BenchResult({"images": 3}), [0]),
    ]
    for result, codes in results:
        assert [json.loads(line)["exit_code"] for line in result.text().splitlines()] == codes, result
