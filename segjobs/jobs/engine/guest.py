"""A job in somebody's own process, such as a notebook: what it sets for itself there ends with it.

Ray Data's settings, levels and handlers of loggers, filters of warnings, variables of the environment, signal handlers
(``first_signal.py`` and ``cluster.py`` give these back themselves).
"""

import logging
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager

from segjobs.jobs import ABSENT, ENVIRONMENT, set_environment
from segjobs.jobs.engine.ray_data import set_for_now


@contextmanager
def as_guest() -> Generator[None]:
    """While it is entered, the process is the job's; then it is as it was.

    A Ray that the caller has started is joined (``cluster.connect``) and goes on; one that a job had to start stays
    for the next, and ends with the process or with ``ray.shutdown()``.
    """
    set_environment()
    with set_for_now(), warnings.catch_warnings(), _loggers(), _environment():
        yield


@contextmanager
def _loggers() -> Generator[None]:
    """Loggers that are there keep their levels, handlers, and whether they propagate."""
    known = [one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    before = [(one, one.level, list(one.handlers), one.propagate, one.disabled) for one in (logging.root, *known)]
    try:
        yield
    finally:
        for logger, level, handlers, propagate, disabled in before:
            logger.setLevel(level)
            logger.handlers[:], logger.propagate, logger.disabled = handlers, propagate, disabled


@contextmanager
def _environment() -> Generator[None]:
    """What jobs and Ray set in the environment; another thread's variables stay."""
    before = {name: value for name, value in os.environ.items() if name not in ABSENT}
    try:
        yield
    finally:
        for name in [name for name in os.environ if _is_of_ray(name) and name not in before]:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if _is_of_ray(name)})


def _is_of_ray(name: str) -> bool:
    return name in ENVIRONMENT or name == "PYTHONBREAKPOINT" or name.startswith("RAY_")
