"""See the whole product offline, on scenes that it draws itself: see README.md."""

import sys

from segjobs.cli import main
from segjobs.config import DemoConfig
from segjobs.errors import ExitCode


def job(config: DemoConfig) -> ExitCode:
    """Import Ray and torch only when there is work for them."""
    from segjobs.jobs.demo.job import demo

    return demo(config)


if __name__ == "__main__":
    sys.exit(main(DemoConfig, job))
