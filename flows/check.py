"""Try a model on drawn images: the same as ``segjobs check``."""

import sys

from segjobs.cli import run_verb

if __name__ == "__main__":
    sys.exit(run_verb("check"))
