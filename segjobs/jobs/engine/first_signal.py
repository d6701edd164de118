"""A signal that asks a job to stop: noted at first, and given its own effect when what is in flight has ended."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class FirstSignal:
    """While it is entered, a first signal is noted; a second one has its usual effect.

    Signals reach the main thread only: entered in another one, it notes none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.number is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def leave(self) -> None:
        """Let the signal that came have its usual effect, now that nothing is in flight."""
        assert self.number is not None  # noqa: S101
        self._restore()
        signal.raise_signal(self.number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.number = number  # and no more: a handler may interrupt anything, a lock's holder too
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
