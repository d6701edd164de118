"""Standard output carries a command's result and nothing else, so that what follows in a pipe can read it.

On a terminal a person has read all of it on standard error, and lines of JSON would only wrap.

Libraries print there too, from any thread: Ray its warnings about the cluster, a user's model what it likes.
"""

import os
import sys
from contextlib import redirect_stdout


def kept_for_the_result() -> redirect_stdout:
    """While it is entered, what is printed goes to standard error."""
    return redirect_stdout(sys.stderr)


def for_a_program() -> bool:
    """Whether standard output leads to a pipe or a file."""
    return not sys.stdout.isatty()


def drop_output() -> None:
    """No result follows: from now on standard output, and what is printed, leads nowhere."""
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # to the process's end
    os.dup2(nowhere.fileno(), 1)
    sys.stdout = nowhere
