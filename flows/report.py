"""Make the page of an evaluation or of a run: see --help, conf/report.yaml and README.md."""

import sys

from segjobs.cli import main
from segjobs.config import ReportConfig
from segjobs.errors import ExitCode


def job(config: ReportConfig) -> ExitCode:
    """Import Ray only when there is work for it."""
    from segjobs.jobs.report.job import report

    return report(config)


if __name__ == "__main__":
    sys.exit(main(ReportConfig, job))
