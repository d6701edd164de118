"""Bring a collection of masks up to date: the same as ``segjobs nightly``."""

import sys

from segjobs.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("nightly"))
