"""A predictor in an actor: shards in, rows out; images that kill their process, in child processes of its kind."""

from functools import partial

import pyarrow as pa

from segjobs.jobs.engine.executor import Work, Worker
from segjobs.jobs.engine.isolation import work_isolated
from segjobs.jobs.engine.watchdog import OnStuck
from segjobs.jobs.label.predictor import Predictor, Settings

_CHILD_IMPORTS = (__name__, "segjobs.models.registry", "segjobs.models.batching", "segjobs.models.postprocess")


def labelling(settings: Settings, report: OnStuck) -> Worker:
    """Once in an actor: a model that labels its shards."""
    predictor = Predictor(settings, report)

    def isolated(items: pa.Table) -> pa.Table:
        with predictor.set_aside():  # the device is the child's meanwhile
            return work_isolated(items, partial(_child_of, settings), predictor.failed, imports=_CHILD_IMPORTS)

    return Worker(predictor.predict, isolated, shown=predictor.predict)


def _child_of(settings: Settings, report: OnStuck) -> Work:
    """In a child process: a predictor of its own."""
    return Predictor(settings, report).predict
