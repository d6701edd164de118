"""Measure the bare model, the label pipeline and each of its stages: see --help, conf/bench.yaml and README.md."""

import sys

from segjobs.cli import main
from segjobs.config import BenchConfig
from segjobs.errors import ExitCode


def job(config: BenchConfig) -> ExitCode:
    """Import Ray and torch only when there is work for them."""
    from segjobs.jobs.bench.job import bench

    return bench(config)


if __name__ == "__main__":
    sys.exit(main(BenchConfig, job))
