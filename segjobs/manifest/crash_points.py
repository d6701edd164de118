"""Where a test lets a process die: a point's name in, SIGKILL where the environment names that point."""

import os
import signal


def crash_at(point: str) -> None:
    """For tests of resuming alone: end this process as SIGKILL would where SEGJOBS_CRASH_AT names the point.

    Points: ``plan:``, ``part-N:``, ``run:``, ``night:``, ``table:``, ``files:``, ``commit:``, ``picked:`` and
    ``review:``, each with ``before`` and ``after``.
    """
    if os.environ.get("SEGJOBS_CRASH_AT") == point:
        os.kill(os.getpid(), signal.SIGKILL)
