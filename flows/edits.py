"""Take people's corrections into a collection of masks: the same as ``segjobs edits``."""

import sys

from segjobs.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("edits"))
