"""Progress: plain lines where no terminal is, a live line where one is, and the seconds of every phase."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from segjobs.jobs.engine import progress as module
from segjobs.jobs.engine.progress import Progress, clock, importing

SECONDS = r"\d+\.\d s"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines come every few milliseconds instead of every ten seconds."""
    monkeypatch.setattr(module, "_FIRST_LINE_S", 0.005)
    monkeypatch.setattr(module, "_LINE_EVERY_S", 0.005)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


class Lines:
    """What a Progress prints, as it comes."""

    def __init__(self, progress: Progress) -> None:
        self.all: list[str] = []
        self._changed = threading.Condition()
        note = progress.note

        def kept(text: str) -> None:
            note(text)
            with self._changed:
                self.all.append(text)
                self._changed.notify()

        progress.note = kept

    def wait_for(self, pattern: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: any(re.fullmatch(pattern, line) for line in self.all), 60), self.all


def test_each_phase_ends_in_a_line_with_its_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("label")
    progress.note("a [bold]note[/bold] " + "x" * 200)
    with progress.phase("listing", "listing [a]/") as listing:
        assert list(listing.counting("abc", "images")) == ["a", "b", "c"]
        listing.outcome = "3 images"
    with progress.phase("ray", "starting Ray"):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    first, second, third = err.splitlines()
    assert first == "a [bold]note[/bold] " + "x" * 200, "not wrapped, not marked up"
    assert re.fullmatch(rf"label: listing \[a\]/: 3 images, {SECONDS}", second)
    assert re.fullmatch(rf"label: starting Ray: {SECONDS}", third)
    assert list(progress.take_seconds()) == ["listing", "ray"]
    assert progress.take_seconds() == {}, "each is told once"


def test_a_phase_that_fails_is_told_by_its_error_alone(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("label")
    with pytest.raises(KeyError), progress.phase("ray", "starting Ray"):
        raise KeyError
    assert capsys.readouterr().err == ""
    assert progress.take_seconds() == {}


def test_a_long_phase_is_heard_of(at_once: None) -> None:
    progress = Progress("label")
    lines = Lines(progress)
    with progress.phase("listing", "listing a/") as listing:
        counted = listing.counting(iter("abc"), "images")
        lines.wait_for(r"label: listing a/: \d s so far")
        next(counted)
        next(counted)
        lines.wait_for(r"label: listing a/: 2 images, \d s so far")


def test_imports_are_the_first_phase_of_the_next_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with importing("label"):
        pass
    assert re.fullmatch(rf"label: importing Ray: {SECONDS}\n", capsys.readouterr().err)
    assert list(Progress("label").take_seconds()) == ["imports"]
    assert Progress("label").take_seconds() == {}


@contextmanager
def running(progress: Progress, **amounts: Any) -> Iterator[Progress]:
    progress.start(**amounts)
    progress.begin()
    yield progress
    progress.stop()


def test_images_are_counted_before_their_shard_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    with running(Progress("label"), total=20, done=4) as progress:
        assert progress.line() == "label: 4 of 20 images · starting workers: 0 s so far"
        progress.counted(7, ok=0, failed=0)
        assert progress.line() == "label: 4 of 20 images · the first image: 0 s so far"
        progress.counted(7, ok=2, failed=1)
        assert re.fullmatch(r"label: 7 of 20 images · 1 failed · \d+\.\d/s · ETA \d+:\d\d", progress.line())
        progress.counted(8, ok=1, failed=0)
        assert progress.line().startswith("label: 8 of 20 images · 1 failed")
        progress.counted(7, ok=0, failed=0)  # its worker died: another attempt begins
        assert progress.line().startswith("label: 5 of 20 images · 0 failed")
        progress.advance(shard=7, ok=6, failed=2)
        assert progress.line().startswith("label: 13 of 20 images · 2 failed")
        progress.counted(7, ok=5, failed=2)  # a word that comes late
        assert progress.line().startswith("label: 13 of 20 images · 2 failed")
    assert list(progress.take_seconds()) == ["workers", "first image"]
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"label: starting workers: {SECONDS}", first)
    assert re.fullmatch(rf"label: the first image: {SECONDS}", second)


def test_a_job_that_counts_no_images_advances_by_what_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    with running(Progress("export"), total=5, done=1) as progress:
        progress.advance(ok=1, failed=1)
        progress.advance(ok=2, failed=0)
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"export: starting workers: {SECONDS}", first)
    assert re.fullmatch(r"export: 5 of 5 images · 1 failed · \d+\.\d/s · ETA 0:00", last), "the end has its line"
    assert list(progress.take_seconds()) == ["workers"]


def test_a_run_with_nothing_left_to_do_waits_for_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    with running(Progress("label"), total=5, done=5) as progress:
        pass
    assert capsys.readouterr().err == "label: 5 of 5 images\n"
    assert progress.take_seconds() == {}


def test_a_job_may_word_its_line_itself(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("train")
    progress.start(total=9, done=0, unit="steps")
    progress.show(3, "loss 0.5")
    assert progress.line() == "train: 3 of 9 steps · loss 0.5"
    progress.stop()
    progress.stop()
    assert capsys.readouterr().err == "", "it did not come to its end"


def test_slow_work_is_heard_of_where_nothing_changes(at_once: None) -> None:
    progress = Progress("label")
    lines = Lines(progress)
    with running(progress, total=20, done=0):
        lines.wait_for(r"label: 0 of 20 images · starting workers: \d s so far")
        progress.counted(0, ok=3, failed=0)
        lines.wait_for(r"label: 3 of 20 images · 0 failed · \d+\.\d/s · ETA \d+:\d\d")


def test_a_live_line_on_a_terminal(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("label")
    with progress.phase("ray", "starting Ray"):
        pass
    with running(progress, total=5, done=1):
        progress.counted(0, ok=1, failed=0)
        progress.advance(shard=0, ok=1, failed=3)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b[" in err
    assert re.search(r"label: starting Ray: 0 s so far", err), "from its first moment"
    assert re.search(rf"label: starting Ray: {SECONDS}", err)
    assert "5 of 5 images · 3 failed" in err
    assert err.count("\x1b[?25h") == err.count("\x1b[?25l") > 0, "the cursor is back"


def test_workers_may_count_while_a_live_line_is_drawn(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("label")

    def count() -> None:
        for number in range(200):
            progress.counted(number, ok=1, failed=0)
            progress.note(f"line {number}")

    with running(progress, total=200, done=0):
        thread = threading.Thread(target=count, daemon=True)
        thread.start()
        for number in range(200):
            progress.advance(shard=number, ok=1, failed=0)
        thread.join(60)
        assert not thread.is_alive(), "neither waits for the other"
        assert progress.line().startswith("label: 200 of 200 images")
    capsys.readouterr()


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 64.6, 7265)] == ["0:00", "1:05", "2:01:05"]
