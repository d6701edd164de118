"""Score predictions against truth: the same as ``segjobs evaluate``."""

import sys

from segjobs.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("evaluate"))
