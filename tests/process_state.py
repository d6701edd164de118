"""What a job may have changed in the process that it runs in."""

import logging
import os
import signal
import warnings

from segjobs.jobs import ENVIRONMENT

from ray.data import DataContext  # isort: skip  # after segjobs.jobs, which sets its environment

OURS = tuple(ENVIRONMENT)
_OF_TESTS = ("PYTEST_CURRENT_TEST",)


def process() -> dict[str, object]:
    """What a job may have changed."""
    loggers = [logging.root, *map(logging.getLogger, ("ray", "ray.data", "segjobs-test"))]
    return {
        "environment": {name: value for name, value in os.environ.items() if name not in _OF_TESTS},
        "loggers": [(one.level, list(one.handlers), one.propagate, one.disabled) for one in loggers],
        "warnings": list(warnings.filters),
        "signals": [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)],
        "Ray Data": str(DataContext.get_current()),
    }
