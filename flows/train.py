"""Learn a model from a manifest of truth: the same as ``segjobs train``."""

import sys

from segjobs.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("train"))
