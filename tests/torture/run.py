"""A label job under fire: images drawn from their numbers in, kills by the seed, a report of what the job made of them.

    draw ─→ undisturbed run ─→ cluster of three nodes ─→ driver, killed and started again ─→ checks ─→ report.json
                                                  └── a kill whenever parts were published since the last one

Every kill is drawn from the seed and its own number alone. The head node stays, since without an external store
Ray's own state ends with it; what runs on it may be killed.
"""

import hashlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import pyarrow.parquet as pq
from PIL import Image

from segjobs.jobs.engine.layout import Layout
from segjobs.jobs.label.job import most_in_flight
from tests.flow_process import Flow, flow, run_flow

ACTORS = 2
GRACE_S = 5
KINDS = {"driver SIGKILL": 10, "driver SIGTERM": 8, "actor": 37, "worker": 30, "node": 15}
_LONGEST_WAIT_S = 600  # for a part after a kill, or for a process to kill
_MOST_PARTS = 3  # between two kills
_NODES = 3  # of one CPU each
_LAYOUT = Layout(ACTORS, ACTORS, 0.5, 0, 1, "actor")


@dataclass(frozen=True)
class Torture:
    """``sleep_s``: what each image takes, so that kills fall into the middle of shards."""

    seed: int
    images: int
    kills: int
    shard_images: int
    sleep_s: float
    folder: Path
    seconds: float = float("inf")

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def command(self, output: Path) -> list[str]:
        settings = [f"shard.images={self.shard_images}", f"compute.actors={ACTORS}", f"compute.grace_s={GRACE_S}"]
        model = ["model.name=tests.toy_model:build", "compute.cpus_per_actor=0.5", "compute.threads=1"]
        settings.append("compute.allow_unauthenticated=true")  # of its own, at this machine's address
        return [f"input.uri={self.folder}/in", f"output.uri={output}", *model, *settings]


def torture(one: Torture) -> dict[str, Any]:
    """The report; ``finished`` is False where ``seconds`` ended it before the job's end."""
    _draw(one)
    if not (one.folder / "whole" / "run.json").exists():
        code, _, err = run_flow("label", *one.command(one.folder / "whole"))
        assert code == 0, err
    (one.folder / "log").mkdir(exist_ok=True)
    file = one.folder / "report.json"
    report: dict[str, Any] = json.loads(file.read_text()) if file.exists() else _new_report(one)
    try:
        # Workers have their node's environment, and the nodes are started here.
        with patch.dict(os.environ, TOY_LOG=str(one.folder / "log"), TOY_SLEEP_S=str(one.sleep_s)):
            _under_fire(one, report)
    finally:
        if report["finished"]:
            report |= _checked(one, report)
        file.write_text(json.dumps(report, indent=1))
    return report


def _new_report(one: Torture) -> dict[str, Any]:
    about = {name: getattr(one, name) for name in ("seed", "images", "shard_images", "sleep_s")}
    return {**about, "kills": [], "drivers": [], "seconds": 0.0, "finished": False, "wrong": []}


def _draw(one: Torture) -> None:
    folder = one.folder / "in"
    if folder.is_dir():
        return
    folder.mkdir(parents=True)
    for number in range(one.images):
        image = np.random.default_rng(number).integers(0, 256, (9, 11, 3), np.uint8)
        image[0, 0, 2] = number % 255
        Image.fromarray(image).save(folder / f"{number:06d}.png")


# --- the fire ----------------------------------------------------------------------------------


class Cluster:
    """Three nodes on this machine, of which two come and go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as RayCluster  # after segjobs.jobs, which sets Ray's environment

        self._node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
        self._cluster = RayCluster(initialize_head=True, head_node_args=self._node)
        self.address = self._cluster.address
        self._others = [self._cluster.add_node(**self._node) for _ in range(_NODES - 1)]

    def replace_node(self, number: int) -> str:
        """One of the two goes without a word, and another one comes."""
        node = self._others.pop(number)
        self._cluster.remove_node(node, allow_graceful=False)
        self._others.append(self._cluster.add_node(**self._node))
        return node.unique_id

    def end(self) -> None:
        self._cluster.shutdown()


def _under_fire(one: Torture, report: dict[str, Any]) -> None:
    """Run the job to its end through all kills, adding them to the report."""
    cluster, start, before_s = Cluster(), time.monotonic(), report["seconds"]
    try:
        while not report["finished"] and time.monotonic() - start < one.seconds:
            with flow("label", *one.command(one.output), RAY_ADDRESS=cluster.address) as driver:
                expected = _shoot(one, report, cluster, driver, start + one.seconds)
                code, _, err = driver.wait()
            report["drivers"].append(code)
            report["finished"] = code == 0
            if code not in (0, expected):
                report["wrong"].append(f"a driver ended with {code}, not {expected}: {err[-2000:]}")
                return
    finally:
        report["seconds"] = round(before_s + time.monotonic() - start, 1)
        cluster.end()


def _shoot(one: Torture, report: dict[str, Any], cluster: Cluster, driver: Flow, end: float) -> int:
    """Kill until it hits the driver, the number of kills is reached, or the time is; the driver's exit status then."""
    while len(report["kills"]) < one.kills:
        choice = random.Random(f"{one.seed}-{len(report['kills'])}")
        before = _parts(one)
        wanted = before + choice.randint(1, _MOST_PARTS)
        if not _wait(lambda wanted=wanted: _parts(one) >= wanted or driver.process.poll() is not None):
            report["wrong"].append(f"no part for {_LONGEST_WAIT_S} s after kill {len(report['kills'])}")
        if driver.process.poll() is not None:
            return 0
        if time.monotonic() > end:
            driver.process.send_signal(signal.SIGTERM)
            return 75
        time.sleep(choice.random() * one.sleep_s * one.shard_images)
        (kind,) = choice.choices(list(KINDS), list(KINDS.values()))
        kill = {"kind": kind, "at_s": round(time.time(), 2), "parts": _parts(one), "new_parts": _parts(one) - before}
        report["kills"].append(kill)
        if kind.startswith("driver"):
            number = signal.Signals[kind.split()[1]]
            driver.process.send_signal(number)
            return 75 if number == signal.SIGTERM else -number
        kill["target"] = cluster.replace_node(choice.randrange(2)) if kind == "node" else _kill_one(kind, choice)
    return 0


def _kill_one(kind: str, choice: random.Random) -> str:
    found: list[psutil.Process] = []
    _wait(lambda: found.extend(_processes(kind)) or found)
    process = choice.choice(sorted(found, key=lambda one: one.pid))
    name = process.cmdline()[0]
    process.kill()
    return name


def _processes(kind: str) -> Iterator[psutil.Process]:
    """Actors of the model, or whatever else works for the job, below this process (the nodes are its children).

    Not Ray's agents: a node ends with its agent, and the head's node takes the driver with it.
    """
    for process in psutil.Process().children(recursive=True):
        try:
            name = " ".join(process.cmdline()[:1])
        except psutil.Error:
            continue
        labels = name.startswith("ray::MapWorker")
        other = name.startswith("ray::") and not labels and "ray::_" not in name and not name.endswith("Agent")
        if labels if kind == "actor" else other:
            yield process


def _parts(one: Torture) -> int:
    folder = one.output / "parts"
    return sum(path.name.startswith("part-") for path in folder.iterdir()) if folder.is_dir() else 0


def _wait(condition: Any) -> bool:
    end = time.monotonic() + _LONGEST_WAIT_S
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


# --- the verdict -------------------------------------------------------------------------------


def _checked(one: Torture, report: dict[str, Any]) -> dict[str, Any]:
    """What the manifest is, and under ``wrong`` what it should not be."""
    wrong = list(report["wrong"])
    run, whole = (json.loads((folder / "run.json").read_text()) for folder in (one.output, one.folder / "whole"))
    sums = {part["name"]: part["sha256"] for part in run["parts"]}
    bodies = {path.name: path.read_bytes() for path in (one.output / "parts").glob("part-*")}
    if {name: hashlib.sha256(body).hexdigest() for name, body in bodies.items()} != sums:
        wrong.append("a sha256 of run.json is not its part's")
    rows = pq.read_table([one.output / "parts" / name for name in sums], columns=["image_id", "status"])
    expected = [f"{number:06d}.png" for number in range(one.images)]
    if rows["image_id"].to_pylist() != expected:
        wrong.append("rows are lost, doubled or out of order")
    if sums != {part["name"]: part["sha256"] for part in whole["parts"]}:
        wrong.append("a mask differs from the undisturbed run's")
    in_progress = sum(kill["new_parts"] > 0 for kill in report["kills"])
    if in_progress < 0.9 * len(report["kills"]):
        wrong.append(f"only {in_progress} of {len(report['kills'])} kills fell where parts were being published")
    if len(report["kills"]) < one.kills:
        wrong.append(f"the job ended after {len(report['kills'])} of {one.kills} kills")
    predicted = sum(len(path.read_text().split()) for path in (one.folder / "log").iterdir())
    repeated = predicted - one.images
    in_flight = most_in_flight(_LAYOUT, _NODES) * one.shard_images * len(report["kills"])
    if not 0 <= repeated <= in_flight:
        wrong.append(f"{repeated} images were predicted again, more than the {in_flight} that were in flight")
    return {
        "rows": rows.num_rows,
        "ok": rows["status"].to_pylist().count("ok"),
        "parts": len(sums),
        "kills_in_progress": in_progress,
        "by_kind": dict(Counter(kill["kind"] for kill in report["kills"])),
        "predicted_again": repeated,
        "wrong": wrong,
    }
