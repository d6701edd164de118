"""Make the page of an evaluation or of a run: the same as ``segjobs report``."""

import sys

from segjobs.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("report"))
