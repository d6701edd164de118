"""Turn labels into a truth manifest: see --help, conf/prepare.yaml and README.md."""

import sys

from segjobs.cli import main
from segjobs.config import PrepareConfig
from segjobs.errors import ExitCode


def job(config: PrepareConfig, *, dry_run: bool = False) -> ExitCode:
    """Import Ray only when there is work for it."""
    from segjobs.jobs.prepare.job import prepare

    return prepare(config, dry_run=dry_run)


if __name__ == "__main__":
    sys.exit(main(PrepareConfig, job, dry_run=True))
