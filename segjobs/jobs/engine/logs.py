"""What workers log: a run, a shard and a stage in; lines of Python's logging that carry them out.

    2026-01-31T02:00:07Z INFO segjobs run=0123456789abcdef shard=12 stage=labelling: 64 images begun
    2026-01-31T02:00:31Z WARNING segjobs run=0123456789abcdef shard=12 stage=write: TRUNCATED 'a/b.jpg': ends early

On Ray each worker's lines are in its file of the session's logs (``ray logs``, the dashboard, or whatever gathers
``/tmp/ray/session_*/logs/worker-*.err``). In a process of one's own they go where its logging is set up to go. What
other loggers say meanwhile, a model of one's own say, gets the same words in a worker, where it is said by the thread
that is at the shard; of a helper's thread it is not known whose shard it works on.
"""

import logging
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from segjobs.redact import redact
from segjobs.text import visible

LOGGER = logging.getLogger("segjobs")
LOGGER.addHandler(logging.NullHandler())  # a library's: else warnings would reach standard error by themselves
_FAILED = 20  # of a shard, each in a line
_about: ContextVar[Mapping[str, object] | None] = ContextVar("segjobs_about", default=None)


def log_rows(rows: pa.Table) -> None:
    """A line for each image that failed, a bounded number. ``rows``: with ``image_id`` and ``error``."""
    failed = rows.filter(pc.is_valid(rows["error"])).select(["image_id", "error"])
    for row in failed.slice(0, _FAILED).to_pylist():
        LOGGER.warning("%s %r: %s", row["error"]["code"], row["image_id"], row["error"]["message"])
    if failed.num_rows > _FAILED:
        LOGGER.warning("and %d more failed", failed.num_rows - _FAILED)


@contextmanager
def logging_about(**about: object) -> Generator[None]:
    """While it is entered, lines of this thread carry these words: ``run``, ``shard``, ``stage``."""
    token = _about.set({**(_about.get() or {}), **about})
    try:
        yield
    finally:
        _about.reset(token)


class _Words(logging.Filter):
    """Adds the words to a record, as ``words`` for a format and as ``run``, ``shard`` and ``stage`` for others."""

    def filter(self, record: logging.LogRecord) -> bool:
        about = _about.get() or {}
        for name in ("run", "shard", "stage"):
            setattr(record, name, about.get(name))
        record.words = "".join(f" {name}={value}" for name, value in about.items())
        return True


class _Line(logging.Formatter):
    """One line a record, whatever a stranger's name holds; a traceback follows it."""

    converter = time.gmtime

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s%(words)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return visible(redact(super().formatMessage(record)))


@cache
def log_in_worker() -> None:
    """Once in a worker of Ray: its lines go to its standard error, of which Ray makes a file.

    Where the cluster's own logging is set up (``ray.LoggingConfig``), they go there, with the words as attributes.
    """
    LOGGER.setLevel(logging.INFO)
    if logging.getLogger().handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Words())
    handler.setFormatter(_Line())
    logging.getLogger().addHandler(handler)


LOGGER.addFilter(_Words())
