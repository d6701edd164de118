"""The way out of a job that is asked to stop: a signal in, what is in flight ends, and then the signal's own effect.

    SIGTERM, SIGINT ─→ attempts.stop() ─→ shards in flight end or the grace time does ─→ the signal again

A thread beside the driver's loop does it, and prints on the way what the workers have to say.
"""

import os
import threading
import time
from typing import Self

import ray
from ray.exceptions import RayError

from segjobs.jobs.engine.attempts import Attempts, News
from segjobs.jobs.engine.first_signal import FirstSignal
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.ray_calls import Answer, Asked, is_answered

_LOOK_S = 0.2


class GracefulStop:
    """While it is entered, a first signal stops the run gently, and the workers' lines and counts are passed on."""

    def __init__(self, attempts: Attempts, progress: Progress, grace_s: float) -> None:
        self._attempts = attempts
        self._progress = progress
        self._grace_s = grace_s
        self._signal = FirstSignal()
        self._ended = False
        self._thread = threading.Thread(target=self._follow, name="drain", daemon=True)

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self._signal.asked

    def __enter__(self) -> Self:
        self._signal.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join()
        self._signal.__exit__()

    def leave(self) -> None:
        """Let the signal that came have its usual effect, now that nothing is in flight."""
        self._signal.leave()

    def _follow(self) -> None:
        try:
            while not self._ended:
                time.sleep(_LOOK_S)
                self._pass_on(self._ask(self._attempts.record.news))
                if self._signal.number is not None and not self._ended:
                    self._stop(self._signal.number)
                    return
        except RayError:  # the cluster is gone, and the loop beside this thread says so
            return

    def _pass_on(self, news: News | None) -> None:
        if news is not None:
            for line in news.lines:
                self._progress.note(line)
            for shard, (ok, failed) in news.counts.items():
                self._progress.counted(shard, ok=ok, failed=failed)

    def _stop(self, number: int) -> None:
        end = time.monotonic() + self._grace_s
        begun = self._ask(self._attempts.record.stop)
        if begun:
            self._progress.note(f"stopping: shards that are begun have {self._grace_s:g} s to end")
        while begun and not self._ended and time.monotonic() < end:
            time.sleep(_LOOK_S)
        if not self._ended:
            os.kill(os.getpid(), number)

    def _ask(self, method: Asked[[], Answer]) -> Answer | None:
        """The record's answer; None where there is none before this thread is to end (it may still be starting)."""
        answer = method.remote()
        while not self._ended:
            if is_answered(answer, _LOOK_S):
                return ray.get(answer)
        return None
