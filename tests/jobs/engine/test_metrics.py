"""What Prometheus gets of a run: counted once, from the endpoint of a head that runs for itself."""

import re
import urllib.request
from pathlib import Path

import pytest

from segjobs.jobs.engine.executor import Unmetered
from segjobs.jobs.engine.metrics import METRICS, RayMeter
from segjobs.manifest.parts import PartInfo, Receipt
from tests.jobs.nightly.test_job import draw
from tests.ray_head import Head, wait_for

RECEIPT = Receipt(PartInfo("part-00000.parquet", 3, "0" * 64, "a", "c"), 2, {"TRUNCATED": 1}, {}, 5)


def scraped(url: str, verb: str) -> dict[str, dict[str, float]]:
    """Metric → its other labels' values → value, of the verb's."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, dict[str, float]] = {}
    for name, labels, value in re.findall(r"^(ray_segjobs_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        words = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if words.get("verb") == verb:
            key = words.get("outcome") or words.get("stage") or ""
            found.setdefault(name, {})[key] = found.get(name, {}).get(key, 0.0) + float(value)
    return found


def test_names_are_prometheus_s() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"ray_segjobs_[a-z_]+(?<!_)", metric.exported)
        assert metric.exported.endswith("_total") == (metric.kind == "counter")


def test_without_a_cluster_s_endpoint_nothing_is_asked_and_nothing_fails() -> None:
    """No Ray is started here, as for a client's driver."""
    for meter in (RayMeter("unasked"), Unmetered()):
        meter.begun(3)
        meter.published(RECEIPT, {"read": 1500.0, "decode": 0.0}, ours=True)
        meter.published(RECEIPT, {}, ours=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_on_a_head_is_counted(ray_head: Head, tmp_path: Path) -> None:
    for number in range(5):
        draw(tmp_path, f"{number}.png", number)
    (tmp_path / "photos/broken.png").write_bytes(b"\x89PNG no")
    words = [f"input.uri={tmp_path}/photos", f"collection.uri={tmp_path}/street", "model.name=tests.toy_model:build"]
    words += ["shard.images=2", "compute.actors=1", "compute.gpus_per_actor=0", "max_failed_fraction=1"]
    before = scraped(ray_head.metrics, "nightly")  # of other nights on this head

    def counted(name: str) -> dict[str, float]:
        since = before.get(name, {})
        values = scraped(ray_head.metrics, "nightly").get(name, {})
        return {key: value - since.get(key, 0) for key, value in values.items() if value != since.get(key)}

    done = ray_head.job("submit", "--working-dir", ".", "--", "python", "flows/nightly.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for(lambda: counted("ray_segjobs_shards_total").get("") == 3)
    found = scraped(ray_head.metrics, "nightly")
    assert found.keys() == {metric.exported for metric in METRICS}
    assert counted("ray_segjobs_images_total") == {"ok": 5, "TRUNCATED": 1}
    assert found["ray_segjobs_queue_images"] == {"": 0}
    assert {"read", "write"} <= found["ray_segjobs_stage_seconds_total"].keys()
    assert all(value > 0 for value in found["ray_segjobs_stage_seconds_total"].values())
