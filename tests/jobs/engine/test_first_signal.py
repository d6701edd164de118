"""A signal that comes while a job is at work: noted once, then as ever."""

import os
import signal
import threading

import pytest

from segjobs.jobs.engine.first_signal import FirstSignal

pytestmark = pytest.mark.usefixtures("default_signals")


def test_the_first_one_is_noted_and_has_its_effect_when_it_is_let() -> None:
    with pytest.raises(KeyboardInterrupt), FirstSignal() as stop:
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.asked, stop.number) == (True, signal.SIGINT)
        stop.leave()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_one_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), FirstSignal():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_handlers_are_as_before_where_none_came() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with FirstSignal():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_another_thread_than_the_main_one_hears_none() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def enter() -> None:
        with FirstSignal() as stop:
            seen.append((signal.getsignal(signal.SIGINT) is before, stop.asked))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(True, False)]
