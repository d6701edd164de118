"""See the whole product offline, on scenes that it draws itself: the same as ``segjobs demo``."""

import sys

from segjobs.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("demo"))
