"""Score predictions against truth: see --help, conf/evaluate.yaml and README.md."""

import sys

from segjobs.cli import main
from segjobs.config import EvaluateConfig
from segjobs.errors import ExitCode


def job(config: EvaluateConfig) -> ExitCode:
    """Import Ray only when there is work for it."""
    from segjobs.jobs.evaluate.job import evaluate

    return evaluate(config)


if __name__ == "__main__":
    sys.exit(main(EvaluateConfig, job))
