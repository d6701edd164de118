"""What a run tells Prometheus while it goes: published shards in; counters of Ray's metrics endpoint out.

    run.py: a shard is published ─→ Meter ─→ ray.util.metrics ─→ each node's metrics port, as ``ray_NAME`` (``_total``)

The driver counts, each shard once, when its part stands; what another driver of the same run has published it leaves to
that. No run_id is among the labels: each would be a time series of its own for ever. The dashboard that shows them is
conf/deploy/grafana.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from ray.util import metrics

from segjobs.jobs.engine.ray_calls import is_client
from segjobs.manifest.parts import Receipt


@dataclass(frozen=True)
class Metric:
    """``name``: as the code has it; Prometheus sees ``exported``."""

    name: str
    kind: Literal["counter", "gauge"]
    description: str
    labels: tuple[str, ...]

    @property
    def exported(self) -> str:
        return f"ray_{self.name}" + ("_total" if self.kind == "counter" else "")


IMAGES = Metric("segjobs_images", "counter", "Images with a published row, by outcome: ok or a failure code",
                ("verb", "outcome"))  # fmt: skip
SEGMENTS = Metric("segjobs_segments", "counter", "Masks in published rows", ("verb",))
STAGE_SECONDS = Metric(
    "segjobs_stage_seconds",
    "counter",
    "Seconds that published images took, by stage, summed over threads",
    ("verb", "stage"),
)
SHARDS = Metric("segjobs_shards", "counter", "Shards that were published", ("verb",))
QUEUE = Metric("segjobs_queue_images", "gauge", "Images of the run without a published row yet", ("verb",))
METRICS = (IMAGES, SEGMENTS, STAGE_SECONDS, SHARDS, QUEUE)


class RayMeter:
    """See ``executor.Meter``. A driver that is a client of Ray's has no metrics: of it nothing is told."""

    def __init__(self, verb: str) -> None:
        self._verb = {"verb": verb}
        self._waiting = 0
        self._deaf = is_client()

    def begun(self, waiting: int) -> None:
        self._waiting = waiting
        self._set()

    def published(self, receipt: Receipt, spent_ms: Mapping[str, float], *, ours: bool) -> None:
        self._waiting -= receipt.part.rows
        self._set()
        if not ours:
            return
        for outcome, count in ({"ok": receipt.ok} | receipt.failures).items():
            self._add(IMAGES, count, outcome=outcome)
        for stage, milliseconds in spent_ms.items():
            self._add(STAGE_SECONDS, milliseconds / 1000, stage=stage)
        self._add(SEGMENTS, receipt.segments)
        self._add(SHARDS, 1)

    def _set(self) -> None:
        if not self._deaf:
            _gauge(QUEUE).set(self._waiting, self._verb)

    def _add(self, metric: Metric, value: float, **labels: str) -> None:
        if value > 0 and not self._deaf:  # Ray refuses to add nothing
            _counter(metric).inc(value, {**self._verb, **labels})


@cache
def _counter(metric: Metric) -> metrics.Counter:
    return metrics.Counter(metric.name, metric.description, metric.labels)


@cache
def _gauge(metric: Metric) -> metrics.Gauge:
    return metrics.Gauge(metric.name, metric.description, metric.labels)
