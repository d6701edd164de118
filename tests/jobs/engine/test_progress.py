"""Progress where no terminal is: plain lines on standard error, and none besides."""

import re

import pytest

from segjobs.jobs.engine.progress import Progress


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("label")
    progress.note("label: 5 images [bold]planned[/bold]; starting Ray " + "x" * 200)
    progress.start(total=5, done=1)
    progress.begin()
    progress.advance(ok=1, failed=1)  # the first line is due after ten seconds, or at the end
    progress.advance(ok=2, failed=0)
    progress.stop()
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first == "label: 5 images [bold]planned[/bold]; starting Ray " + "x" * 200, "not wrapped, not marked up"
    assert re.fullmatch(r"label: 5 of 5 · 1 failed · \d+\.\d/s · ETA 0:00", second)
    assert "\x1b" not in err


def test_a_live_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    progress = Progress("label")
    progress.start(total=5, done=1)
    progress.begin()
    progress.advance(ok=1, failed=3)
    progress.stop()
    progress.stop()
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b[" in err
    assert "5/5" in err
    assert "3 failed" in err
