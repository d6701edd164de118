"""The command line as a process: exit codes, and all problems at once.

A stop that can be continued: ``tests/test_flow_resume.py``.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from segjobs import __version__
from segjobs.cli import VERBS
from segjobs.config import LabelConfig, describe_keys, load_config
from segjobs.config.examples import example_names
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
        assert re.search(rf"^    {name} +{re.escape(verb.summary[:40])}", shown.stdout, re.MULTILINE)
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
    names = sorted(path.stem for path in (REPOSITORY / "conf").glob("*.yaml"))
    assert example_names() == names
    assert {*VERBS} - {*names} == {"demo"}, "whose keys need no file"
    unknown = command("init", "lable")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "invalid choice: 'lable'" in unknown.stderr


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
