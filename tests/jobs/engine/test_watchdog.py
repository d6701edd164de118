"""What a watchdog does to its process: in processes of their own."""

import signal
import subprocess
import sys
import time

SCRIPT = """
import ctypes, sys, time
from segjobs.jobs.engine import watchdog

watchdog._BACKSTOP_S = 0.2
with watchdog.Watchdog(float(sys.argv[1]), lambda names: print(names, flush=True)) as dog:
    with dog.holding(["before"]):
        pass
    with dog.holding(["a", "b"]):
        print("holding", flush=True)
        {work}
print("ok", flush=True)
"""


def start(work: str, deadline_s: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT.replace("{work}", work), str(deadline_s)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    return process


def test_what_is_held_too_long_is_named_and_the_process_ends() -> None:
    with start("time.sleep(1000)", 0.3) as process:
        assert process.communicate()[0] == "['a', 'b']\n"
    assert process.returncode == 86


def test_code_that_keeps_python_s_lock_for_ever_is_ended_too() -> None:
    with start("ctypes.PyDLL(None).sleep(1000)", 0.3) as process:
        assert process.communicate()[0] == ""
    assert process.returncode == -signal.SIGALRM


def test_time_in_which_the_process_stood_still_does_not_count() -> None:
    with start("sys.stdin.readline()", 2) as process:
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.1)
        process.send_signal(signal.SIGCONT)
        assert process.communicate("go\n")[0] == "ok\n"
    assert process.returncode == 0
