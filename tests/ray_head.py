"""A Ray head that runs for itself and asks for a token, as ``ray start --head`` makes it: started, awaited, ended."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from tests.flow_process import REPOSITORY

RAY = str(Path(sys.executable).parent / "ray")
_LONGEST_S = 300
_STARTS = 3


@dataclass(frozen=True)
class Head:
    """``address``: of its GCS, as a driver's compute.address; ``jobs``: its job server; ``environment``: may use it.

    ``metrics``: what Prometheus asks.
    """

    address: str
    jobs: str
    environment: dict[str, str]
    metrics: str

    def job(self, verb: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """``ray job VERB``."""
        command = [RAY, "job", verb, "--address", self.jobs, *words]
        env = {**self.environment, **environment}
        return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + _LONGEST_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


@contextmanager
def start_head(folder: Path, **environment: str) -> Iterator[Head]:
    """A head whose jobs see ``environment`` besides; its token and its log lie in ``folder``."""
    token = folder / "token"
    token.write_text("a" * 64)
    token.chmod(0o600)
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PYTHONPATH": str(REPOSITORY)}
    env |= {"PATH": f"{Path(RAY).parent}:{os.environ['PATH']}", **environment}  # whose python a job runs with
    env.pop("RAY_ADDRESS", None)
    with ExitStack() as stack:
        # On a busy machine a part of the head can give up waiting for another, and all of it ends.
        started = (_start(stack, env, folder / "log") for _ in range(_STARTS))
        head = next((found for found in started if found), None)
        assert head, (folder / "log").read_text()
        yield head


def _kill(pid: int) -> None:
    """End a head and all that it has started; asked to, it takes half a minute."""
    head = psutil.Process(pid)
    for one in (head, *head.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            one.kill()


def _start(stack: ExitStack, environment: dict[str, str], log_file: Path) -> Head | None:
    """None where it ended before all parts of it were there."""
    from segjobs.jobs.engine.ray_private import free_ports  # here, since it imports Ray, which takes seconds

    # Its node ends where it has waited 15 s for an agent to find a port of its own. Two of the four reach it.
    agents = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
    port, jobs_port, client_port, *others = free_ports(3 + len(agents))
    command = [RAY, "start", "--head", "--block", f"--port={port}"]
    command += ["--num-cpus=2", "--num-gpus=1"]  # the GPU is in the books only, for the layout; the toy needs none
    command += ["--node-ip-address=127.0.0.1", f"--ray-client-server-port={client_port}"]
    command += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={jobs_port}"]
    command += [f"--{agent}-port={number}" for agent, number in zip(agents, others, strict=True)]
    # Of its own, and short, since sockets lie there: a job is told the address that the last head of a folder has left.
    own = TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
    command += [f"--temp-dir={stack.enter_context(own)}"]
    log = stack.enter_context(log_file.open("ab"))
    node = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    stack.callback(_kill, node.pid)
    metrics = f"http://127.0.0.1:{others[agents.index('metrics-export')]}/metrics"
    head = Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{jobs_port}", environment, metrics)

    def stands() -> bool:
        listening = (one.laddr for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN)
        ready = any(place and place.port == client_port for place in listening)
        return ready and head.job("list").returncode == 0

    wait_for(lambda: node.poll() is not None or stands())
    return head if node.poll() is None else None
