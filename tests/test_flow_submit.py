"""Jobs submitted to a Ray head that runs for itself, with a token, data on S3: exit statuses, logs, stop and go on."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from segjobs.config import StorageConfig
from segjobs.manifest.parts import list_parts, read_rows
from segjobs.storage import Storage
from tests.flow_process import REPOSITORY
from tests.test_flow_s3 import image, png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

RAY = str(Path(sys.executable).parent / "ray")
IMAGES = 24  # far more than are in flight when the stop comes
_LONGEST_S = 300
_STARTS = 3


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + _LONGEST_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def head(s3_server: StorageConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of the job server, and the environment of who may use it."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("a" * 64)
    token.chmod(0o600)
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    environment |= {"RAY_JOB_STOP_WAIT_TIME_S": "60", "TOY_SLEEP_S": "1", "PYTHONPATH": str(REPOSITORY)}
    environment |= {"PATH": f"{Path(RAY).parent}:{os.environ['PATH']}"}  # whose python the job runs with
    environment.pop("RAY_ADDRESS", None)
    with ExitStack() as stack:
        # On a busy machine a part of the head can give up waiting for another, and all of it ends.
        started = (start_head(stack, environment, token.parent / "log") for _ in range(_STARTS))
        address = next((found for found in started if found), None)
        assert address, (token.parent / "log").read_text()
        yield address, environment


def start_head(stack: ExitStack, environment: dict[str, str], log_file: Path) -> str | None:
    """The address of its job server, once all parts of it are there; None where it ended."""
    port, client_port = free_port(), free_port()
    command = [RAY, "start", "--head", "--block", f"--port={free_port()}"]
    command += ["--num-cpus=2", "--num-gpus=1"]  # the GPU is in the books only, for the layout; the toy needs none
    command += ["--node-ip-address=127.0.0.1", f"--ray-client-server-port={client_port}"]
    command += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    log = stack.enter_context(log_file.open("ab"))
    node = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    stack.callback(node.send_signal, signal.SIGTERM)
    address = f"http://127.0.0.1:{port}"

    def stands() -> bool:
        listening = (one.laddr for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN)
        ready = any(place and place.port == client_port for place in listening)
        return ready and ray_job(environment, address, "list").returncode == 0

    wait_for(lambda: node.poll() is not None or stands())
    return address if node.poll() is None else None


def ray_job(environment: dict[str, str], address: str, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [RAY, "job", verb, "--address", address, *words]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def test_submitted_jobs_end_as_the_same_commands_do(
    head: tuple[str, dict[str, str]], s3_server: StorageConfig, tmp_path: Path
) -> None:
    import segjobs.jobs  # noqa: F401  # sets Ray's environment before Ray is imported

    from ray.job_submission import JobStatus, JobSubmissionClient  # isort: skip

    address, environment = head
    root = f"s3://segjobs/{tmp_path.name}"
    storage = Storage(s3_server)
    for number in range(IMAGES):
        storage.put_if_absent(f"{root}/in/{number:02d}.png", png(image(number)))
    storage.put_if_absent(f"{root}/in/broken.png", b"no image")
    words = ["--config", "conf/label.yaml", f"storage.s3.endpoint_url={s3_server.s3.endpoint_url}"]
    words += [
        f"input.uri={root}/in",
        f"output.uri={root}/out",
        "model.name=tests.toy_model:build",
    ]
    words += ["shard.images=1", "compute.actors=1", "max_failed_fraction=0"]

    refused = ray_job({**environment, "RAY_AUTH_TOKEN_PATH": os.devnull}, address, "list")
    assert refused.returncode != 0, "no token, no answer"

    token = Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    client = JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"})  # this process's Ray has none

    def submit(name: str, *more: str, wait: bool = True) -> int | None:
        options = ["--submission-id", name, "--working-dir", ".", *([] if wait else ["--no-wait"])]
        done = ray_job(environment, address, "submit", *options, "--", "python", "flows/label.py", *words, *more)
        code = client.get_job_info(name).driver_exit_code
        if wait:
            assert done.returncode == int(code != 0), done.stdout + done.stderr
        return code

    assert submit("typo", "compute.batchsize=3") == 2
    assert "compute.batchsize: unknown key; did you mean 'batch_size'?" in client.get_job_logs("typo")

    submit("stopped", wait=False)
    wait_for(lambda: len(list_parts(storage, f"{root}/out")) >= 2 or client.get_job_status("stopped").is_terminal())
    client.stop_job("stopped")  # `ray job stop` takes seconds to start
    wait_for(lambda: client.get_job_status("stopped").is_terminal())
    assert client.get_job_status("stopped") == JobStatus.STOPPED
    assert "stopped by a signal; what is published stays" in client.get_job_logs("stopped")
    published = len(list_parts(storage, f"{root}/out"))
    assert 2 <= published < IMAGES
    assert not storage.exists(f"{root}/out/run.json")

    assert submit("again") == 3
    logs = client.get_job_logs("again")
    assert "on 1 actor(s) of 1 GPU, decoding in tasks" in logs
    assert f"{published} of them were done by an earlier attempt" in logs
    assert "UNREADABLE 1: 'broken.png'" in logs
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", logs), "plain lines, no bar and no colours"
    assert submit("done", "max_failed_fraction=1") == 0
    assert "nothing to do: run " in client.get_job_logs("done")
    rows = {row["image_id"]: row["status"] for row in read_rows(storage, f"{root}/out")}
    assert rows == {**{f"{n:02d}.png": "ok" for n in range(IMAGES)}, "broken.png": "failed"}
