"""Write a manifest in another tool's format: the same as ``segjobs export``."""

import sys

from segjobs.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("export"))
