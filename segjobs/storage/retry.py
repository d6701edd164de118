"""A request to a remote store, sent again where that helps: the one loop of all stores.

    send ─▶ reply
      └──▶ Failed(Fault) ─▶ its kind ─▶ again after a random wait │ again at once │ no more

What a library raised becomes a ``Fault`` in the store's own file, and so does what is left of it in the end: this
loop knows kinds only.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

Reply = TypeVar("Reply")

FaultKind = Literal[
    "transient",  # 5xx, a reset, a body cut short
    "slow",  # no reply in time
    "busy",  # throttled
    "unreachable",  # no connection at all
    "expired",  # credentials of another hour
    "denied",  # by policy, or for want of credentials
    "missing",  # no such object or bucket
    "exists",  # the condition of a write is not met
    "large",  # more than ``storage.max_item_bytes``
    "empty",  # a range of an object without bytes
    "item",  # this object alone cannot be read: archived, a name too long
    "refused",  # anything else that asking again does not change
]
Action = Literal["wait", "now", "stop"]
"""What a fault calls for: again after a wait, again at once, or no more."""

LONGEST_WAIT_S = 20.0
_FIRST_WAIT_S = 0.2


@dataclass(frozen=True)
class Fault:
    """What went wrong with one request, and one line about it. ``least_wait_s``: the store's own Retry-After."""

    kind: FaultKind
    text: str
    least_wait_s: float = 0.0


class Failed(Exception):
    """A request that failed. Its cause is what the library raised. ``attempts``: how often it was sent."""

    def __init__(self, fault: Fault, attempts: int = 1) -> None:
        super().__init__(fault.text)
        self.fault = fault
        self.attempts = attempts


def usual_action(fault: Fault) -> Action:
    return "wait" if fault.kind in ("transient", "slow", "busy") else "stop"


def with_retries(
    send: Callable[[float], Reply],
    *,
    attempts: int,
    deadline_s: float,
    action: Callable[[Fault], Action] = usual_action,
) -> Reply:
    """The reply of ``send(seconds that are left)``, which raises Failed where it may be sent again.

    Raises its last Failed, with the number of attempts, when ``action`` says so, ``attempts`` are made, or the next
    one would begin after ``deadline_s``. Other exceptions pass.
    """
    end = time.monotonic() + deadline_s
    attempt = 0
    while True:
        attempt += 1
        try:
            return send(end - time.monotonic())
        except Failed as failed:
            then = action(failed.fault)
            pause_s = max(failed.fault.least_wait_s, wait_s(attempt)) if then == "wait" else 0.0
            last = attempt >= attempts or time.monotonic() + pause_s > end
            if then == "stop" or (then == "wait" and last):
                raise Failed(failed.fault, attempt) from failed.__cause__
        time.sleep(pause_s)


def wait_s(attempt: int) -> float:
    """Full jitter: anything up to a bound that doubles, so that workers that failed together do not return together.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
    """
    return random.uniform(0, min(_FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S))  # noqa: S311
