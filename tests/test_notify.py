"""Who is told of a job's end: by a real command and a real server, at every exit status, and without any harm."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import ValidationError

import segjobs
from segjobs import cli, notify
from segjobs.cli import Verb, run_verb
from segjobs.config import CollectionConfig, NotifyConfig, load_config
from segjobs.errors import ConfigError, ExitCode, StorageError
from segjobs.notify import tell
from segjobs.results import CollectionResult
from segjobs.storage import Storage
from tests.collections_made import commit

LINE = '{"output": "out/run1", "exit_code": 0}\n'
NOTE = "import os, sys; open(sys.argv[1], 'a').write(sys.stdin.read() + os.environ['SEGJOBS_EXIT_CODE'] + os.environ['SEGJOBS_VERB'])"  # noqa: E501


def noting(file: Path) -> list[str]:
    """A command that writes down what it is told."""
    return [sys.executable, "-c", NOTE, str(file)]


@dataclass
class Server:
    """Answers with ``answers``, one after the other, then with 200; keeps (content type, body)."""

    url: str
    answers: list[int] = field(default_factory=list[int])
    heard: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            found.heard.append((self.headers["Content-Type"], body))
            self.send_response(found.answers.pop(0) if found.answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        found = Server(f"http://127.0.0.1:{listening.server_port}/hook/hunter2")
        thread = Thread(target=listening.serve_forever)
        thread.start()
        yield found
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "_WAIT_S", 0.0)


def test_a_command_gets_the_line_and_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell(NotifyConfig(command=noting(tmp_path / "note")), "label", LINE, ExitCode.GATE_MISSED)
    first, rest = (tmp_path / "note").read_text().split("\n")
    assert json.loads(first) == {"verb": "label", "output": "out/run1", "exit_code": 0} and rest == "4label"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ([sys.executable, "-c", "raise SystemExit(3)"], "ended with 3"),
        (["/no/such/command", "token=hunter2hunter2"], "/no/such/command"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "took longer than 0.5 s"),
    ],
)
def test_a_command_that_fails_is_a_line(command: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    tell(NotifyConfig(command=command, timeout_s=0.5), "label", LINE, ExitCode.DONE)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("notify.command: nobody was told: ") and why in line and "hunter2" not in line
    assert line.endswith("; the job's result stands")


def test_a_webhook_gets_the_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    tell(NotifyConfig(webhook=server.url), "label", LINE, ExitCode.DONE)
    ((kind, body),) = server.heard
    assert kind == "application/json"
    assert json.loads(body) == {"verb": "label", "output": "out/run1", "exit_code": 0}
    tell(NotifyConfig(webhook=server.url), "prepare", LINE + LINE, ExitCode.DONE)
    assert server.heard[1][0] == "application/x-ndjson" and server.heard[1][1].count("\n") == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("answers", "code", "tries", "told"),
    [
        ([503, 429], ExitCode.DONE, 3, True),
        ([500, 500, 500], ExitCode.DONE, 3, False),
        ([404], ExitCode.DONE, 1, False),
        ([500], ExitCode.STOPPED, 1, False),  # SIGKILL comes soon
    ],
)
def test_a_webhook_is_tried_again_where_that_may_help(
    server: Server, answers: list[int], code: ExitCode, tries: int, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers += answers
    last = answers[-1]
    tell(NotifyConfig(webhook=server.url), "label", LINE, code)
    assert len(server.heard) == tries
    error = capsys.readouterr().err
    assert told is (error == "")
    assert told or f"notify.webhook: nobody was told: 127.0.0.1 answers {last}" in error
    assert "hunter2" not in error, "the path may be a secret"


def test_a_secret_url_comes_from_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = NotifyConfig(webhook="env:NIGHT_HOOK", when="failure")
    monkeypatch.setenv("NIGHT_HOOK", server.url)
    tell(config, "label", LINE, ExitCode.DONE)
    assert server.heard == [], "only failures are told"
    tell(config, "label", LINE, ExitCode.TOO_MANY_FAILED)
    assert len(server.heard) == 1
    for value in ("", "file:///etc/passwd", "hunter2"):
        monkeypatch.setenv("NIGHT_HOOK", value)
        tell(config, "label", LINE, ExitCode.BUG)
        error = capsys.readouterr().err
        assert "env:NIGHT_HOOK is not set to a URL" in error and "hunter2" not in error
    monkeypatch.setenv("NIGHT_HOOK", "http://127.0.0.1:9/hunter2")
    tell(config, "label", LINE, ExitCode.BUG)
    error = capsys.readouterr().err
    assert "127.0.0.1: " in error and "hunter2" not in error


def test_what_a_config_may_hold() -> None:
    for wrong in ("ftp://x", "hooks.example.org", "https://u:p@host/x", "env:", "env:1X"):
        with pytest.raises(ValidationError, match="expected https://host/path, or env:NAME"):
            NotifyConfig(webhook=wrong)
    words = ["collection.uri=out/street", "notify.webhook=https://hooks.slack.com/services/T/B/hunter2"]
    with pytest.raises(ConfigError, match=r"notify.webhook: holds a credential") as caught:
        load_config(CollectionConfig, None, words)
    assert "hunter2" not in str(caught.value)


# --- the command and the function ----------------------------------------------------------------


def _raises(error: BaseException) -> Callable[..., Any]:
    def job(config: Any) -> Any:
        raise error

    return job


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(
    ("job", "code", "expected"),
    [
        (lambda config: CollectionResult("out/street", "status", {}), 0, {"collection": "out/street", "do": "status"}),
        (
            lambda config: CollectionResult("out/street", "status", {}, ExitCode.TOO_MANY_FAILED),
            3,
            {"collection": "out/street", "do": "status"},
        ),
        (lambda config: CollectionResult("o", "status", {}, ExitCode.GATE_MISSED), 4, {"collection": "o"}),
        (_raises(StorageError("the bucket is gone, token=hunter2")), 2, {"error": "the bucket is gone, token=hunter2"}),
        (_raises(cli._Stopped()), 75, {"error": "stopped by a signal; the same command continues"}),
        (_raises(ZeroDivisionError("x")), 1, {"error": "a bug: ZeroDivisionError: x"}),
    ],
)
@pytest.mark.parametrize("works", [True, False])
def test_every_end_is_told_and_none_is_changed(
    job: Callable[..., Any],
    code: int,
    expected: dict[str, Any],
    works: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(cli.VERBS, "collection", Verb("", CollectionConfig, lambda: job, dry_run=True, ray=False))
    note = tmp_path / "note"
    command = noting(note) if works else ["/no/such/command"]
    words = ["collection.uri=out/street", f"notify.command={json.dumps(command)}"]
    if code == 1:
        with pytest.raises(ZeroDivisionError):
            run_verb("collection", words)
    else:
        assert run_verb("collection", words) == code
    out, err = capsys.readouterr()
    assert ("nobody was told" in err) is not works
    if code in (0, 2, 3, 4):
        assert json.loads(out)["exit_code"] == code, "the line stands on standard output, and once"
    if works:
        line, rest = note.read_text().split("\n")
        assert rest == f"{code}collection"
        told = json.loads(line)
        assert told["verb"] == "collection" and told["exit_code"] == code
        assert told.items() >= expected.items()


@pytest.mark.usefixtures("default_signals")
def test_a_dry_run_tells_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def job(config: Any, dry_run: bool = False) -> CollectionResult:
        return CollectionResult("out/street", "status", {})

    monkeypatch.setitem(cli.VERBS, "collection", Verb("", CollectionConfig, lambda: job, dry_run=True, ray=False))
    words = ["collection.uri=out/street", f"notify.command={json.dumps(noting(tmp_path / 'note'))}", "--dry-run"]
    assert run_verb("collection", words) == 0
    assert not (tmp_path / "note").exists()


def test_a_real_command_line(tmp_path: Path) -> None:
    commit(Storage(), tmp_path / "street", {"a": ["sr"]}, app_id="1")
    words = ["collection", "status", f"notify.command={json.dumps(noting(tmp_path / 'note'))}"]
    for place, code in (("street", 0), ("nowhere", 2)):
        done = subprocess.run(
            [sys.executable, "-m", "segjobs", *words, f"collection.uri={tmp_path / place}"],
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ),
        )
        assert done.returncode == code and len(done.stdout.splitlines()) == 1
    told = (tmp_path / "note").read_text()
    assert '"images": {"ok": 1}' in told and "0collection" in told and told.endswith("2collection")


def test_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: dict[str, Any] = {"input": str(tmp_path), "output": str(tmp_path / "out"), "model": "unet"}
    keys |= {"notify": {"command": noting(tmp_path / "note")}}
    monkeypatch.setattr("segjobs.jobs.label.job.label", named("label", _raises(StorageError("the disk is full"))))
    with pytest.raises(StorageError):
        segjobs.label(**keys)
    assert '{"verb": "label", "error": "the disk is full", "exit_code": 2}\n2label' in (tmp_path / "note").read_text()
    monkeypatch.setattr("segjobs.jobs.label.job.label", named("label", _raises(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        segjobs.label(**keys)
    assert (tmp_path / "note").read_text().endswith("75label")


def named(name: str, job: Callable[..., Any]) -> Callable[..., Any]:
    job.__name__ = name
    return job
