"""Standard output carries a job's result and nothing else, so that what follows in a pipe can read it.

Libraries print there too, from any thread: Ray its warnings about the cluster, a user's model what it likes.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

_results: TextIO | None = None


@contextmanager
def only_results() -> Iterator[None]:
    """While it is entered, what is printed goes to standard error; ``write_result`` writes to standard output."""
    global _results
    before, _results = _results, sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _results = before


def write_result(text: str) -> None:
    """Whole lines of the result."""
    (_results or sys.stdout).write(text)


def drop_output() -> None:
    """No result follows: from now on standard output, and what is printed, leads nowhere."""
    if _results:
        _results.flush()
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # to the process's end
    os.dup2(nowhere.fileno(), 1)
    sys.stdout = nowhere
