"""What is used of Ray beside its public names: these fail where a release changes it."""

import inspect
import math
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from segjobs.jobs.engine import ray_private
from segjobs.jobs.engine.ray_private import (
    free_by_node,
    lean_node,
    lean_training,
    node_kinds,
    other_drivers,
    without_iteration_metrics,
    without_log_level,
)
from tests.ray_head import Head

import ray  # isort: skip  # after segjobs.jobs, which sets its environment
from ray._private import node, parameter, services, worker  # isort: skip
from ray import _raylet  # isort: skip
from ray._raylet import wait_for_persisted_port  # isort: skip
from ray.data import Dataset  # isort: skip
from ray.data._internal.block_batching.iter_batches import BatchIterator  # isort: skip
from ray.train.v2.api import data_parallel_trainer  # isort: skip


def test_a_callback_is_called_between_the_scheduler_s_rounds() -> None:
    assert list(inspect.signature(ray_private.ExecutionCallback.on_execution_step).parameters) == ["self", "executor"]


def test_blocks_are_mapped_whole() -> None:
    stage = {"fn_constructor_args", "compute", "batch_size", "batch_format", "num_cpus", "num_gpus"}
    assert stage <= inspect.signature(Dataset.map_batches_internal).parameters.keys()


def test_a_dataset_s_statistics_are_not_sent_while_its_blocks_are_taken() -> None:
    """They grow with its input, and are sent as often as the clock says."""
    sends = "if (now - self._metrics_last_updated) > self.UPDATE_METRICS_INTERVAL_S:"
    assert sends in inspect.getsource(BatchIterator.yield_batch_context)
    before = BatchIterator.UPDATE_METRICS_INTERVAL_S
    with without_iteration_metrics():
        assert math.inf == BatchIterator.UPDATE_METRICS_INTERVAL_S
    assert before == BatchIterator.UPDATE_METRICS_INTERVAL_S


def test_closures_are_pickled() -> None:
    number = 7
    assert ray.cloudpickle.loads(ray_private.pickled(lambda: number))() == number


def test_ray_init_looks_up_what_is_replaced() -> None:
    assert "ray._private.parameter.RayParams(" in inspect.getsource(worker.init)
    source = inspect.getsource(node.Node)
    for name in ("get_node", "start_api_server", "start_raylet"):
        assert f"ray._private.services.{name}(" in source
    assert "not ray_constants.ENABLE_RAY_CLUSTER" in inspect.getsource(services.get_node_ip_address)
    assert "ray._raylet.CoreWorker(" in inspect.getsource(worker.connect)
    with lean_node(patience_s=1):
        assert parameter.RayParams().no_monitor
        assert not services.ray_constants.ENABLE_RAY_CLUSTER
    assert services.ray_constants.ENABLE_RAY_CLUSTER


def test_a_training_without_a_dashboard_has_no_cleaner_that_asks_it(ray_session: None) -> None:
    trainer = data_parallel_trainer.DataParallelTrainer(lambda: None)

    def cleaners() -> list[object]:
        callbacks = trainer._create_default_callbacks()
        return [one for one in callbacks if "Cleaner" in type(one).__name__]

    assert len(cleaners()) == 1
    with lean_training():
        assert cleaners() == []
    assert len(cleaners()) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_on_a_cluster_with_a_dashboard_keeps_its_cleaner(ray_head: Head) -> None:
    script = (
        "import sys\nfrom segjobs.config import ComputeConfig\nfrom segjobs.jobs.engine.cluster import connect\n"
        "from segjobs.jobs.engine.ray_private import lean_training\nconnect(ComputeConfig(address=sys.argv[1]))\n"
        "from ray.train.v2.api import data_parallel_trainer\n"
        "with lean_training():\n    print(data_parallel_trainer.PlacementGroupCleanerCallback.__name__)"
    )
    command = [sys.executable, "-c", script, ray_head.address]
    done = subprocess.run(command, env=ray_head.environment, capture_output=True, text=True, check=False)
    assert done.stdout == "PlacementGroupCleanerCallback\n", done.stderr


def test_a_driver_that_starts_is_silent_of_its_log_level_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def make(name: str, *, fails: bool) -> str:
        os.write(2, b"I: Set ray log level from environment variable RAY_BACKEND_LOG_LEVEL to 3\nE: no GCS\n")
        if fails:
            raise RuntimeError("no GCS")
        return name

    monkeypatch.setattr(_raylet, "CoreWorker", make)
    with without_log_level():
        assert _raylet.CoreWorker("a", fails=False) == "a"
        with pytest.raises(RuntimeError, match="no GCS"):
            _raylet.CoreWorker("a", fails=True)
    assert _raylet.CoreWorker is make
    assert capfd.readouterr().err == "E: no GCS\n" * 2


def test_a_machine_is_asked_as_a_node_asks_it() -> None:
    assert "ResourceAndLabelSpec(" in inspect.getsource(node.Node)
    cpus, gpus = ray_private.this_machine()
    assert cpus >= 1 and gpus >= 0


def test_a_node_is_waited_for_and_ray_is_as_it_was_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def late(gcs_address: str, node_id: str) -> dict[str, Any]:
        nonlocal looks
        looks += 1
        if looks < 4:
            raise RuntimeError("no such node yet")
        return {"node": node_id}

    monkeypatch.setattr(services, "get_node", late)
    before = (parameter.RayParams, services.start_api_server, services.get_node)
    with lean_node(patience_s=60):
        assert services.get_node("address", "7") == {"node": "7"}
    assert looks == 4
    looks = 0
    with lean_node(patience_s=-1), pytest.raises(RuntimeError, match="no such node yet"):
        services.get_node("address", "7")
    assert (parameter.RayParams, services.start_api_server, services.get_node) == before


def test_a_node_finds_its_agents_ports_written_and_is_not_waited_for_once_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for the ports, and end where they take long."""
    assert {"session_dir", "node_id"} <= inspect.signature(services.start_raylet).parameters.keys()
    started = []

    def start(redis_address: str, node_id: str, session_dir: str) -> SimpleNamespace:
        agents = ("metrics_agent", "metrics_export", "dashboard_agent_listen", "runtime_env_agent")
        names = [f"{agent}_port" for agent in agents]
        started.append({name: wait_for_persisted_port(session_dir, node_id, name) for name in names})
        return SimpleNamespace(process=subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

    def no_node(gcs_address: str, node_id: str) -> None:
        raise RuntimeError("no such node yet")

    monkeypatch.setattr(services, "start_raylet", start)
    monkeypatch.setattr(services, "get_node", no_node)
    with lean_node(patience_s=3600):
        node_process = services.start_raylet("address", "7", str(tmp_path)).process
        parameters = parameter.RayParams()
        node_process.communicate(b"\n")
        with pytest.raises(RuntimeError, match="no such node yet"):  # an hour before the patience ends
            services.get_node("address", "7")
    (found,) = started
    assert found == {name: getattr(parameters, name) for name in found}
    assert len(set(found.values())) == 4


def test_ports_are_none_that_a_connection_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        given = listening.getsockname()[1]
        assert not set(ray_private.free_ports(50)) & set(range(given - 500, given + 500))
        listening.listen()
        monkeypatch.setattr(ray_private, "_PORTS", [given, given, given, 20_777])
        assert ray_private.free_ports(1) == [20_777]


def test_a_local_ray_has_no_more_processes_than_a_job_needs(ray_session: None) -> None:
    scripts = {Path(word).name for one in psutil.Process().children() for word in one.cmdline() if word[-3:] == ".py"}
    assert not scripts & {"monitor.py", "log_monitor.py", "dashboard.py"}


def test_a_local_ray_listens_on_the_loopback_interface_alone(ray_session: None) -> None:
    folder = Path(ray.get_runtime_context().get_session_name()).name
    roots = [one for one in psutil.Process().children() if any(folder in word for word in one.cmdline())]
    assert len(roots) == 2, "its GCS server and its node, none of another Ray that a test has started"
    hosts: set[str] = set()
    for process in (other for one in roots for other in (one, *one.children(recursive=True))):
        with suppress(psutil.NoSuchProcess):
            hosts |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert hosts and {host.removeprefix("::ffff:") for host in hosts} == {"127.0.0.1"}
    assert ray.is_initialized()


def test_the_state_of_a_cluster(ray_session: None) -> None:
    (free,) = free_by_node().values()
    assert 0 <= free.get("CPU", 0) <= 2
    assert other_drivers() == 0
    assert node_kinds() == [], "no autoscaler has told of any"
