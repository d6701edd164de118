"""A signal while workers are at work: no more shards are begun, and the signal has its effect at the end."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from segjobs.jobs.engine.attempts import Attempts, open_attempts
from segjobs.jobs.engine.graceful_stop import GracefulStop
from segjobs.jobs.engine.progress import Progress
from segjobs.storage import Storage

import ray  # isort: skip  # after segjobs.jobs, which sets its environment

pytestmark = pytest.mark.usefixtures("default_signals")


@pytest.fixture(scope="module")
def attempts(ray_session: None) -> Attempts:
    attempts = open_attempts(Storage(), "out")
    ray.get(attempts.record.begin.remote("labelling of shard 0"))
    return attempts


def _until(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not seen() and time.monotonic() < end:
        time.sleep(0.05)
    assert seen()


def _hear(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """Wait until it was printed."""
    said: list[str] = []

    def heard() -> bool:
        said.append(capsys.readouterr().err)
        return line in "".join(said)

    _until(heard)


def test_shards_are_left_from_a_signal_on_and_it_has_its_effect_when_it_is_let(
    attempts: Attempts, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt), GracefulStop(attempts, Progress("label"), grace_s=600) as stopping:
        assert not stopping.asked
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.asked
        _hear(capsys, "stopping: shards that are begun have 600 s to end")
        assert ray.get(attempts.record.begin.remote("labelling of shard 1")).stopping
        stopping.leave()


def test_after_the_grace_time_the_signal_comes_again(attempts: Attempts) -> None:
    with pytest.raises(KeyboardInterrupt), GracefulStop(attempts, Progress("label"), grace_s=0):
        os.kill(os.getpid(), signal.SIGINT)
        _until(lambda: False)


def test_what_workers_say_is_passed_on(attempts: Attempts, capsys: pytest.CaptureFixture[str]) -> None:
    attempts.tell("a worker hung")
    with GracefulStop(attempts, Progress("label"), grace_s=600) as stopping:
        _hear(capsys, "a worker hung")
    assert not stopping.asked
