"""Learn a model from a manifest of truth: see --help, conf/train.yaml and README.md."""

import sys

from segjobs.cli import main
from segjobs.config import TrainConfig
from segjobs.errors import ExitCode


def job(config: TrainConfig) -> ExitCode:
    """Import Ray and torch only when there is work for them."""
    from segjobs.jobs.train.job import train

    return train(config)


if __name__ == "__main__":
    sys.exit(main(TrainConfig, job))
