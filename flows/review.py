"""Pick images of a collection for people, and write their tasks: the same as ``segjobs review``."""

import sys

from segjobs.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("review"))
