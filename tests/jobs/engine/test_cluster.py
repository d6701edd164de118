"""A Ray for a job: the one that runs, one that a job starts for itself, and one that does not answer."""

import signal
import socket
import subprocess
import sys

import pytest

from segjobs.config import ComputeConfig
from segjobs.errors import ClusterError
from segjobs.jobs.engine.cluster import _listens_to_loopback_alone, connect, start_local
from segjobs.jobs.engine.layout import Resources, Share


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


def test_a_local_ray_is_joined_at_its_loopback_address() -> None:
    with socket.socket() as local, socket.socket() as every:
        local.bind(("127.0.0.1", 0))
        local.listen()
        every.bind(("", 0))
        every.listen()
        assert _listens_to_loopback_alone(f"127.0.0.1:{local.getsockname()[1]}")
        assert not _listens_to_loopback_alone(f"127.0.0.1:{every.getsockname()[1]}")
        assert not any(map(_listens_to_loopback_alone, ("auto", "local", "ray://127.0.0.1:1", "10.0.0.1:6379")))


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
