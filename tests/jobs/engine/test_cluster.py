"""A Ray for a job: the one that runs, one that a job starts for itself, and one that does not answer."""

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from segjobs.config import ComputeConfig
from segjobs.errors import ClusterError
from segjobs.jobs.engine import cluster
from segjobs.jobs.engine.cluster import _listens_to_loopback_alone, connect, expected, start_local
from segjobs.jobs.engine.layout import Resources, Share
from segjobs.jobs.engine.ray_private import this_machine

import ray  # isort: skip  # after segjobs.jobs, which sets its environment


def test_a_ray_that_runs_is_used_as_it_is(ray_session: None) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert connect(ComputeConfig()) == Resources((Share(2.0),))
    assert connect(ComputeConfig(address="10.0.0.1:6379")) == Resources((Share(2.0),))
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_that_is_too_long_for_sockets_is_said_before_the_start(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, "/scratch/" + "x" * 60)
    with pytest.raises(ClusterError, match=rf"^{name}=/scratch/x+ has 69 bytes, .*: set RAY_TMPDIR to a shorter"):
        start_local()


def test_a_local_ray_is_joined_at_its_loopback_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "own_address", lambda: "127.0.0.2")
    with socket.socket() as local, socket.socket() as every:
        local.bind(("127.0.0.1", 0))
        local.listen()
        every.bind(("", 0))
        every.listen()
        assert _listens_to_loopback_alone(f"127.0.0.1:{local.getsockname()[1]}")
        assert not _listens_to_loopback_alone(f"127.0.0.1:{every.getsockname()[1]}")
        assert not any(map(_listens_to_loopback_alone, ("auto", "local", "ray://127.0.0.1:1", "10.0.0.1:6379")))


def test_processes_of_a_local_ray_keep_what_they_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    seen: list[str | None] = []
    monkeypatch.setattr(cluster, "_init", lambda *_, **__: seen.append(os.environ.get("PYTHONDONTWRITEBYTECODE")))
    start_local()
    assert seen == [None]
    assert os.environ["PYTHONDONTWRITEBYTECODE"] == "1"


def test_whoever_starts_a_local_ray_its_token_is_for_its_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "auth_token"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    seen: list[int] = []
    monkeypatch.setattr(cluster, "_init", lambda *_, **__: seen.append(stat.S_IMODE(token.stat().st_mode)))
    start_local()
    assert seen == [0o600]


def test_what_a_local_ray_will_have_is_known_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "_start", started.append)
    monkeypatch.setattr(cluster, "nodes_alive", lambda: [{"Resources": {"CPU": 7.0}}])
    monkeypatch.setattr(cluster, "node_kinds", list)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert expected(ComputeConfig()) == Resources((Share(*this_machine()),))
    assert started == []
    assert expected(ComputeConfig(address="auto")) == Resources((Share(7.0, 0.0),))
    assert started == ["auto"], "a cluster's is asked of it"


def test_an_address_where_no_ray_answers_is_a_clear_error() -> None:
    script = (  # a process without the session's Ray
        "from segjobs.config import ComputeConfig\nfrom segjobs.jobs.engine.cluster import connect\n"
        "connect(ComputeConfig(address='127.0.0.1:1'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "segjobs.errors.ClusterError: Ray at '127.0.0.1:1' cannot be reached: [Errno 111] Connection refused; "
        "start it there or correct compute.address"
    )
