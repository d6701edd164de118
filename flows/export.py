"""Write a manifest in another tool's format: see --help, conf/export.yaml and README.md."""

import sys

from segjobs.cli import main
from segjobs.config import ExportConfig
from segjobs.errors import ExitCode


def job(config: ExportConfig, *, dry_run: bool = False) -> ExitCode:
    """Import Ray only when there is work for it."""
    from segjobs.jobs.export.job import export

    return export(config, dry_run=dry_run)


if __name__ == "__main__":
    sys.exit(main(ExportConfig, job, dry_run=True))
