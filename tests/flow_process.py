"""Flows as a person runs them: one process, with a Ray of its own or at ``RAY_ADDRESS``, watched and cleaned up after.

``run_here`` runs one in this process, on the session's Ray, where only its work is of interest. A Ray of its own takes
most of a small flow's time: a flow has one where the test is of how Ray ends with it.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from segjobs import config as configs
from segjobs.errors import SegjobsError

REPOSITORY = Path(__file__).resolve().parents[1]
_LONGEST_S = 500


@dataclass
class Flow:
    """A running flow. ``family``: every process that it started, as far as seen."""

    process: subprocess.Popen[str]
    family: set[psutil.Process] = field(default_factory=set)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Poll until it holds; the flow must not end before."""
        end = time.monotonic() + _LONGEST_S
        while not condition():
            assert self.process.poll() is None, f"ended early: {self.process.communicate()}"
            assert time.monotonic() < end, "waited in vain"
            self.look()
            time.sleep(0.02)
        self.look()

    def look(self) -> None:
        self.family |= set(psutil.Process(self.process.pid).children(recursive=True))

    def wait(self) -> tuple[int, str, str]:
        """Exit status, standard output and error."""
        out, err = self.process.communicate(timeout=_LONGEST_S)
        return self.process.returncode, out, err

    def left_alive(self) -> list[psutil.Process]:
        """Which of its processes live on after its end, but for Ray's agents.

        Those of a killed driver ask its GCS for a minute what it wants, and then end.
        """
        others = [one for one in self.family if _lives(one) and not _is_agent(one)]
        _, alive = psutil.wait_procs(others, timeout=200)
        return [one for one in alive if _lives(one)]


def _is_agent(process: psutil.Process) -> bool:
    try:
        return re.match(r"ray::\w+Agent\b", " ".join(process.cmdline())) is not None
    except psutil.NoSuchProcess:
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def flow(name: str, *arguments: str, **environment: str) -> Iterator[Flow]:
    """Start ``flows/<name>.py``; whatever of it still runs at the end is killed.

    ``environment``: of its workers too, at a RAY_ADDRESS by a runtime environment, as ``ray job submit`` passes it.
    """
    if "RAY_ADDRESS" in environment:
        environment["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps({"runtime_env": {"env_vars": environment}})
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "flows" / f"{name}.py"), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )
    running = Flow(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            running.look()
            process.kill()
        process.communicate()
        for one in running.family:
            if _lives(one):
                one.kill()


def run_flow(name: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run a flow to its end: exit status, standard output and error."""
    with flow(name, *arguments, **environment) as running:
        return running.wait()


def run_here(capsys: pytest.CaptureFixture[str], name: str, *arguments: str) -> tuple[int, str, str]:
    """The job of ``flows/<name>.py`` in this process: exit status, standard output and error."""
    job = getattr(importlib.import_module(f"segjobs.jobs.{name}.job"), name)
    capsys.readouterr()
    try:
        result = job(configs.load_config(getattr(configs, f"{name.title()}Config"), None, arguments))
        code, text, error = result.exit_code, result.text(), ""
    except SegjobsError as failure:
        code, text, error = failure.exit_code, "", str(failure)
    out, err = capsys.readouterr()
    return code, out + text, err + error
