"""Shared by all tests: real data where it is at hand, one Ray and one S3 server for the session."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import SystemRandom

import pytest
from fsspec.registry import _registry
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from segjobs.config import ClusterConfig, S3Config, StorageConfig
from segjobs.errors import StorageError
from segjobs.storage import Storage
from tests.fake_bucket import FakeBucket
from tests.ray_head import Head, start_head

# A shared machine pauses a test now and then; no test here asserts how long something takes. In CI the examples are the
# same each time, so that a change is judged by what it changes; elsewhere new ones are tried.
settings.register_profile("segjobs", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("segjobs")

# Hundreds of processes import torch or Ray here. Without bytecode, as images with this variable run, each compiles
# thousands of modules anew: importing torchvision takes three times the CPU time then, Ray Data 2.7 times.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["SEGJOBS_CACHE"] = str(Path(tempfile.gettempdir()) / "segjobs-tests")
# Ray's workers run 15 nicer than other processes: what another test computes in its own would hold them up for minutes.
os.environ |= {"RAY_worker_niceness": "0"}
# Of the S3 server below; here, since Ray's workers have the environment of the moment when Ray was started.
os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_DEFAULT_REGION": "us-east-1"}
REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
_MEASURED = ("manifest", "metrics", "evaluation", "storage")  # as [tool.coverage.run] has it
_PORTS = ("master", "volume", "filer", "s3")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images with labels; the test skips where it is not there."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


class _InPieces(LoadScopeScheduling):
    """Tests that share something dear go to one process, in one piece."""

    def _split_scope(self, nodeid: str) -> str:
        return _piece_of(nodeid)


def _piece_of(nodeid: str) -> str:
    """The files whose tests need a Ray are one piece, the flows another: two are started at most.

    A flow waits for processes of its own much of the time; all slow ones in one piece would be a third longer. What a
    file makes once for several tests, such as a network, would be made in each process: those tests are a piece too.
    Any other test is one for itself.
    """
    file, _, name = nodeid.partition("::")
    if _says(file, r"\bray_(session|environment|head)\b(?! import)"):
        return "flows" if file.startswith("tests/test_flow_") else "ray"
    if _says(file, r'\bscope="module", params='):
        return f"{file}::{re.split('[]-]', name.partition('[')[2])[0]}"  # one of them stands first in a test's name
    return file if _says(file, r'\bscope="module"') else nodeid


@cache
def _says(file: str, pattern: str) -> bool:
    return bool(re.search(pattern, (REPOSITORY / file).read_text()))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # by the number of their tests; their order is that below
    return _InPieces(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest first, by the time that they are allowed, then pieces: no process is left with a long one at the end.

    Coverage, which makes a test a third slower, is that of the rooms by their own tests.
    """
    for item in items:
        if item.path.relative_to(REPOSITORY / "tests").parts[0] not in _MEASURED:
            item.add_marker("no_cover")

    def rank(item: pytest.Item) -> tuple[float, bool]:
        marker = item.get_closest_marker("timeout")
        return -float(marker.args[0]) if marker else 0.0, _piece_of(item.nodeid) == item.nodeid

    items.sort(key=rank)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray with two CPUs, set up as jobs do, for all tests that run them or their parts in this process."""
    from segjobs.jobs.engine.cluster import connect, start_local  # sets Ray's environment before Ray is imported

    import ray  # isort: skip

    start_local(num_cpus=2, _node_ip_address="127.0.0.1")  # whoever joins at another address needs a token
    connect(ClusterConfig())
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def ray_environment(ray_session: None) -> dict[str, str]:
    """For a command in a process of its own: it joins the session's Ray. One for each would take most of the time."""
    import ray

    return {
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "RAY_AUTH_MODE": "token",  # a local Ray asks for it
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # and listens on loopback, where a plain script is to join it
    }


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A Ray head that runs for itself and asks for a token; a label job's stop has a minute there."""
    with start_head(tmp_path_factory.mktemp("head"), RAY_JOB_STOP_WAIT_TIME_S="60", TOY_SLEEP_S="1") as started:
        yield started


@pytest.fixture
def default_signals() -> Iterator[None]:
    """SIGINT as a fresh Python has it: whoever started the tests may ignore it, and a command run in here takes it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Room for some 600 MB more on the GPU, whatever it has."""
    import torch

    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 600 * 2**20) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def _free_port() -> int:
    """A port P such that P + 10000, which the server takes for gRPC, is free too; no connection is given either."""
    while True:
        port = SystemRandom().choice(range(20_000, 22_700))
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageConfig]:
    """A real S3 server on loopback with one bucket, ``segjobs``; its credentials are in the environment."""
    with start_s3(tmp_path_factory.mktemp("s3")) as config:
        yield config


@pytest.fixture(scope="session")
def iceberg_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StorageConfig, str]]:
    """Another one that has an Iceberg REST catalogue of a warehouse ``tables`` too, and the catalogue's address."""
    port = _free_port()
    with start_s3(tmp_path_factory.mktemp("iceberg"), f"-s3.port.iceberg={port}", "-tableBucket=tables") as config:
        yield config, f"http://127.0.0.1:{port}"


@contextmanager
def start_s3(folder: Path, *words: str) -> Iterator[StorageConfig]:
    """``words``: of its command, the later of two of one option holds."""
    identity = {
        "name": "test",
        "credentials": [{"accessKey": "test", "secretKey": "test-secret"}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = {name: _free_port() for name in _PORTS}
    command = [
        str(Path(sys.executable).parent / "weed"),
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}.port={port}" for name, port in ports.items()),
        f"-s3.config={folder / 's3.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
        "-bucket=segjobs",
        *words,
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            _wait_for(f"http://127.0.0.1:{ports['s3']}/healthz", server)
            config = StorageConfig(s3=S3Config(endpoint_url=f"http://127.0.0.1:{ports['s3']}"))
            _wait_for_bucket(config)
            yield config
        finally:
            server.kill()  # asked to end, it takes half a minute, for files that nobody wants


def _wait_for(url: str, server: subprocess.Popen[bytes], wait_s: float = 120) -> None:
    end = time.monotonic() + wait_s
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"no answer from {url}")


def _wait_for_bucket(config: StorageConfig, wait_s: float = 120) -> None:
    """The server answers before it has made its bucket."""
    end = time.monotonic() + wait_s
    while True:
        try:
            Storage(config).read("s3://segjobs/any")
        except FileNotFoundError:
            return
        except StorageError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB of its own; the test skips where this user may mount none."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)  # noqa: S607


_S3 = pytest.param("s3", marks=pytest.mark.slow)


def _place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Storage, str]:
    if request.param == "local":
        return Storage(), str(tmp_path / "store")
    return Storage(request.getfixturevalue("s3_server")), f"s3://segjobs/{tmp_path.name}"


@pytest.fixture(params=["local", _S3])
def shared_store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Storage, str]:
    """A storage and an empty place in it that other processes reach too, on the local disk and on S3."""
    return _place(request, tmp_path)


@pytest.fixture(params=["local", "bucket", _S3])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Storage, str]:
    """A storage and an empty place in it, on the local disk, in a bucket that fsspec opens, and on S3."""
    if request.param != "bucket":
        return _place(request, tmp_path)
    monkeypatch.setitem(_registry, "gs", FakeBucket)
    return Storage(StorageConfig(schemes=["gs"])), f"gs://bucket/{tmp_path.name}"
