"""Images that kill their process: found by bisection, named with what they did, and all others get their rows."""

import ctypes
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjobs.errors import ClusterError, ItemError, StorageError
from segjobs.jobs.engine import isolation
from segjobs.jobs.engine.executor import Work
from segjobs.jobs.engine.isolation import Death, work_isolated
from segjobs.jobs.engine.watchdog import OnStuck, Watchdog


def items_of(*names: str) -> pa.Table:
    return pa.table({"image_id": pa.array(names, pa.string()), "result": pa.nulls(len(names), pa.string())})


def answered(items: pa.Table, text: str = "ok") -> pa.Table:
    return items.set_column(1, "result", pa.array([text] * items.num_rows, pa.string()))


def failed(item: pa.Table, error: ItemError) -> pa.Table:
    return answered(item, f"{error.code}: {error.message}")


class Pretended:
    """A child of this process: dies on ``killers``, and on all of ``together`` at once; keeps what it was given."""

    def __init__(self, killers: Collection[str], together: Collection[str] = (), *, names: bool = False) -> None:
        self.killers, self.together, self.names = set(killers), set(together), names
        self.given: list[list[str]] = []

    def run(self, items: pa.Table) -> pa.Table | Death:
        given = items["image_id"].to_pylist()
        self.given.append(given)
        if self.killers & set(given) or (self.together and self.together <= set(given)):
            return Death("TIMEOUT" if self.names else "CRASHED", "it died", tuple(self.killers) if self.names else ())
        return answered(items, ",".join(given))

    def end(self) -> None:
        pass


NAMES = [f"{n:02d}" for n in range(20)]


@given(
    count=st.integers(1, 20), killers=st.sets(st.sampled_from(NAMES), max_size=5), names=st.booleans(), data=st.data()
)
def test_exactly_the_killers_fail_and_the_others_are_done_together(
    count: int, killers: set[str], names: bool, data: st.DataObject
) -> None:
    given_names = NAMES[:count]
    killers = killers & set(given_names)
    child = Pretended(killers, names=names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolation, "_Child", lambda make: child)
        rows = work_isolated(items_of(*given_names), lambda _: answered, failed)
    assert rows["image_id"].to_pylist() == given_names
    others = ",".join(name for name in given_names if name not in killers)
    code = "TIMEOUT" if names else "CRASHED"
    verdict = f"{code}: it died, twice while alone in a process"
    assert rows["result"].to_pylist() == [verdict if name in killers else others for name in given_names]
    for killer in killers:
        assert child.given.count([killer]) == 2, "no verdict on a single death"


def test_images_that_kill_only_together_are_all_done(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Pretended([], together=["00", "03"])
    monkeypatch.setattr(isolation, "_Child", lambda make: child)
    rows = work_isolated(items_of(*NAMES[:4]), lambda _: answered, failed)
    assert rows["result"].to_pylist() == ["00,01", "00,01", "02,03", "02,03"]


def test_what_the_watchdog_named_is_tried_apart_from_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Pretended(["13"], names=True)
    monkeypatch.setattr(isolation, "_Child", lambda make: child)
    work_isolated(items_of(*NAMES), lambda _: answered, failed)
    assert [len(given) for given in child.given] == [20, 19, 1, 1]


def make(report: OnStuck) -> Work:
    """Answers with the process's number; some names do to it what some images do.

    Whatever the machine's speed, each has one way out: only the endless one is watched, and only the greedy one grows.
    """
    watchdog = Watchdog(0.5, report)
    hoard = []

    def work(items: pa.Table) -> pa.Table:
        for name in items["image_id"].to_pylist():
            if name == "segfault":
                ctypes.string_at(0)
            elif name == "endless":
                with watchdog.holding([name]):
                    time.sleep(1000)
            elif name == "greedy":
                hoard.append(b"x" * 2**29)
                time.sleep(1000)
            elif name == "exit":
                os._exit(7)
            elif name == "full":
                raise StorageError("the disk is full")
        return answered(items, "ok")

    return work


def test_real_processes_end_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_free_bytes", lambda: 2**28)
    child = isolation._Child(make)
    try:
        assert child.run(items_of("a", "b")) == answered(items_of("a", "b"))
        greedy = child.run(items_of("greedy"))
        assert isinstance(greedy, Death)
        assert greedy.what.startswith("it takes more memory than 0.")
        stuck = Death("TIMEOUT", "its worker came to no end within compute.batch_deadline_s", ("endless",))
        assert child.run(items_of("a", "endless")) == stuck
        assert child.run(items_of("exit")) == Death("CRASHED", "its worker ended with status 7")
        assert child.run(items_of("segfault")) == Death("CRASHED", "its worker died of SIGSEGV")
    finally:
        child.end()


def test_an_error_of_the_whole_stays_one() -> None:
    with pytest.raises(StorageError, match="the disk is full"):
        work_isolated(items_of("full"), make, failed)


def test_a_child_that_cannot_start_is_nobody_s_fault(tmp_path: Path) -> None:
    def dies(_: OnStuck) -> Work:
        with (tmp_path / "starts").open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    with pytest.raises(ClusterError, match=r"a child process .* cannot start: its worker died of SIGKILL"):
        work_isolated(items_of("a"), dies, failed)
    assert (tmp_path / "starts").read_text() == "xxx"
