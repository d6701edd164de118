"""Completions, in a real bash, and as the other shells ask for them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segjobs.completion import SHELLS, Completer
from segjobs.config import LabelConfig

BIN = str(Path(sys.executable).parent)
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}


def in_bash(line: str) -> list[str]:
    """What bash would offer behind ``line``, as readline asks for it: words are broken at ``=`` and ``:`` too."""
    script = f"""
        eval "$(segjobs completion bash)"
        COMP_LINE={line!r}
        COMP_POINT=${{#COMP_LINE}}
        COMP_TYPE=9
        _python_argcomplete segjobs
        printf "%s\\n" "${{COMPREPLY[@]}}"
    """
    bash = shutil.which("bash")
    assert bash
    done = subprocess.run([bash, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [word.strip() for word in done.stdout.splitlines() if word.strip()]


def test_bash_completes_verbs_keys_and_values() -> None:
    assert in_bash("segjobs la") == ["label"]
    assert in_bash("segjobs label in") == [
        "input.uri=",
        "input.include=",
        "input.exclude=",
        "input.skip_unreadable=",
        "input.limit=",
        "input.column=",
        "input.bands=",
        "input.range=",
    ]
    assert in_bash("segjobs label --config label.yaml compute.decode=a") == ["auto", "actor"]
    assert in_bash("segjobs label input.uri=photos/ output.uri=out compute.precis") == ["compute.precision="]
    assert in_bash("segjobs label --dr") == ["--dry-run"]
    assert in_bash("segjobs evaluate --dr") == [], "only the verbs that have it"
    assert in_bash("segjobs init train_") == ["train_camvid", "train_camvid_lraspp"]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script_that_asks_the_command(shell: str) -> None:
    done = subprocess.run(
        [f"{BIN}/segjobs", "completion", shell], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert "_ARGCOMPLETE" in done.stdout
    assert "segjobs" in done.stdout


def test_values_of_keys() -> None:
    complete = Completer(LabelConfig)
    assert complete("postprocess.fill_") == {
        "postprocess.fill_holes=": "fill holes of each mask (semantic: only unlabelled ones)"
    }
    assert list(complete("postprocess.fill_holes=")) == ["postprocess.fill_holes=true", "postprocess.fill_holes=false"]
    assert list(complete("compute.gpus_per_actor=")) == ["compute.gpus_per_actor=null"]
    assert complete("input.uri=pho") == {}
    assert complete("no.such") == {}
