"""Look at a collection and keep it: the same as ``segjobs collection``."""

import sys

from segjobs.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("collection"))
