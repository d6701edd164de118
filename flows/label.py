"""Segment a collection of images: the same as ``segjobs label``."""

import sys

from segjobs.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("label"))
