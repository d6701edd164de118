"""Measure the bare model, the label pipeline and each of its stages: the same as ``segjobs bench``."""

import sys

from segjobs.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("bench"))
