"""``python -m segjobs``: the same as the command ``segjobs``."""

import sys

from segjobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
