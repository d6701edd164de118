"""The loop around a request: what is sent again, how often, and what comes out in the end."""

import errno
import random

import pytest

from segjobs.storage.retry import Action, Failed, Fault, FaultKind, usual_action, wait_s, with_retries


class Sender:
    """Fails with each of ``kinds`` in turn, then replies. ``left_s``: the time that each attempt was given."""

    def __init__(self, *kinds: FaultKind, least_wait_s: float = 0.0) -> None:
        self.kinds = list(kinds)
        self.least_wait_s = least_wait_s
        self.left_s: list[float] = []

    def __call__(self, left_s: float) -> str:
        self.left_s.append(left_s)
        if not self.kinds:
            return "reply"
        kind = self.kinds.pop(0)
        raise Failed(Fault(kind, f"of kind {kind}", self.least_wait_s)) from ConnectionResetError(kind)


@pytest.fixture(autouse=True)
def without_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest of the random waits: none."""
    monkeypatch.setattr(random, "uniform", lambda low, high: low)


@pytest.mark.parametrize("kind", ["transient", "slow", "busy"])
def test_what_passes_is_sent_again_until_the_attempts_are_made(kind: FaultKind) -> None:
    send = Sender(kind, kind)
    assert with_retries(send, attempts=3, deadline_s=60) == "reply"
    assert len(send.left_s) == 3
    send = Sender(kind, kind, kind)
    with pytest.raises(Failed, match=f"of kind {kind}") as caught:
        with_retries(send, attempts=3, deadline_s=60)
    assert (caught.value.fault.kind, caught.value.attempts) == (kind, 3)
    assert isinstance(caught.value.__cause__, ConnectionResetError), "what the library raised"


@pytest.mark.parametrize(
    "kind", ["unreachable", "expired", "denied", "missing", "exists", "large", "empty", "item", "refused"]
)
def test_what_will_not_pass_is_not_sent_again(kind: FaultKind) -> None:
    send = Sender(kind)
    with pytest.raises(Failed) as caught:
        with_retries(send, attempts=3, deadline_s=60)
    assert (caught.value.attempts, len(send.left_s)) == (1, 1)


def test_a_store_decides_by_its_own_state_and_what_it_mended_goes_on_at_once() -> None:
    mended: list[str] = []

    def action(fault: Fault) -> Action:
        if fault.kind == "expired" and not mended:
            mended.append("session")
            return "now"
        return usual_action(fault)

    # With a wait that no deadline allows: at once means without one.
    assert with_retries(Sender("expired", least_wait_s=1000), attempts=1, deadline_s=60, action=action) == "reply"
    mended.clear()
    with pytest.raises(Failed) as caught:
        with_retries(Sender("expired", "expired"), attempts=9, deadline_s=60, action=action)
    assert (caught.value.fault.kind, caught.value.attempts) == ("expired", 2)
    mended.clear()
    with pytest.raises(Failed) as caught:
        with_retries(Sender("expired", "busy", "busy"), attempts=2, deadline_s=60, action=action)
    assert (caught.value.fault.kind, caught.value.attempts) == ("busy", 2), "mending is no reason for more attempts"


def test_no_attempt_begins_after_the_deadline() -> None:
    send = Sender("busy", least_wait_s=61)
    with pytest.raises(Failed) as caught:
        with_retries(send, attempts=9, deadline_s=60)
    assert caught.value.attempts == 1, "the store asks for a wait that is longer"
    send = Sender("transient")
    with_retries(send, attempts=9, deadline_s=60)
    first, second = send.left_s
    assert 60 >= first > second > 0, "what the last attempts took is not given again"


def test_other_errors_pass() -> None:
    def send(left_s: float) -> str:
        raise FileNotFoundError(errno.ENOENT, "none")

    with pytest.raises(FileNotFoundError):
        with_retries(send, attempts=9, deadline_s=60)


def test_the_bound_of_the_wait_doubles_up_to_twenty_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: (low, high))
    bounds = [(0, bound) for bound in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20.0, 20.0)]
    assert [wait_s(attempt) for attempt in (1, 2, 3, 4, 5, 6, 7, 8, 100)] == bounds
