"""Every line and table on its way to a person: strangers' names stay names, and tell a terminal nothing."""

import errno
import json
import os

import pytest
from rich.table import Table

from segjobs.cli import run_verb
from segjobs.errors import ConfigError, SegjobsError, StorageError
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.terminal import Terminal
from segjobs.results import DryRun, ReportResult

NAME = "[red]:cat:[/blue]\x1b[2J\x9b1m\n\u202egpj"
SHOWN = r"[red]:cat:[/blue]\u001b[2J\u009b1m\u000a\u202egpj"


def test_lines_and_cells(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().print(f"such as {NAME}")
    Progress("label").note(NAME)
    table = Table(box=None)
    table.add_column("class", no_wrap=True)
    table.add_row(NAME)
    Terminal(width=110).print(table)
    assert [line.strip() for line in capsys.readouterr().err.splitlines()] == [
        f"such as {SHOWN}",
        SHOWN,
        "class",
        SHOWN,
    ]


def test_a_live_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("label").phase("listing", f"listing {NAME}"):
        pass
    assert "[2J\x9b" not in capsys.readouterr().err.replace("\x1b[2K", "")


def test_a_result_says_the_true_name_in_json() -> None:
    text = ReportResult(f"out/{NAME}", 1).text()
    assert json.loads(text)["page"] == f"out/{NAME}"
    assert text.rstrip("\n").isprintable()
    assert DryRun(({"output": NAME},)).text().splitlines()[0] == f"output:       {SHOWN}"


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (StorageError(f"{NAME}: no"), [f"error: {SHOWN}: no"]),
        (ConfigError(f"a: {NAME}", "b: no"), [f"error: a: {SHOWN}", "error: b: no"]),
    ],
)
def test_an_error_is_a_line_a_problem(
    error: SegjobsError, lines: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("segjobs.cli.configs.load_config", fails)
    monkeypatch.setattr("segjobs.cli.signal.signal", lambda *_: None)
    assert run_verb("label", []) == 2
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_the_machines_own_disk(code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: object) -> None:
        raise OSError(code, os.strerror(code), "/tmp/x")  # noqa: S108

    monkeypatch.setattr("segjobs.cli._importing", fails)
    monkeypatch.setattr("segjobs.cli.signal.signal", lambda *_: None)
    assert run_verb("demo", []) == 2
    assert capsys.readouterr().err == f"error: /tmp/x: {os.strerror(code)}; free some space, or set TMPDIR\n"


def test_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_verb("label", [f"--{NAME}"])
    assert f"unrecognized arguments: --{SHOWN}" in capsys.readouterr().err
