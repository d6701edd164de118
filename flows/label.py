"""Segment a collection of images: see --help, conf/label.yaml and README.md."""

import sys

from segjobs.cli import main
from segjobs.config import LabelConfig
from segjobs.errors import ExitCode


def job(config: LabelConfig, *, dry_run: bool = False) -> ExitCode:
    """Import Ray and torch only when there is work for them."""
    from segjobs.jobs.label.job import label

    return label(config, dry_run=dry_run)


if __name__ == "__main__":
    sys.exit(main(LabelConfig, job, dry_run=True))
