"""A job in somebody's own process, such as a notebook: what it sets of Ray Data's for itself ends with it."""

import logging
from collections.abc import Generator
from contextlib import contextmanager

from segjobs.jobs.engine.ray_data import set_for_now


@contextmanager
def as_guest() -> Generator[None]:
    """While it is entered, Ray Data's settings are a copy of the caller's, which come back as they were.

    A Ray that the caller has started is joined (``cluster.connect``) and goes on; one that a job had to start stays
    for the next, and ends with the process or with ``ray.shutdown()``.
    """
    logger = logging.getLogger("ray.data")
    level = logger.level
    with set_for_now():
        try:
            yield
        finally:
            logger.setLevel(level)
