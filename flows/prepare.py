"""Turn labels into a truth manifest: the same as ``segjobs prepare``."""

import sys

from segjobs.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("prepare"))
