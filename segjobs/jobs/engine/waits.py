"""What a job waits for, in a line: what it needs of one node and what the nodes have free in, a line or none out.

    Progress: nothing heard for ten seconds ─→ look at the cluster ─→ lacking ─→ a line, and rarely again

Ray starts what it was asked for once a node has room, however long that takes, and says nothing meanwhile: another
driver may hold the CPUs, or the node that could hold an actor has gone, or has yet to come.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from ray.exceptions import RayError

from segjobs.jobs.engine.layout import Share
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.ray_calls import nodes_alive
from segjobs.jobs.engine.ray_private import free_by_node, other_drivers

_LOOK_S = 1.0
_FIRST_S, _AGAIN_S = 10.0, 60.0
_RARER = 5  # times as long between two lines as between those before
_LONGEST_S = 3600.0


@dataclass(frozen=True)
class Need:
    """What has to fit on one node. ``what``: in words, such as "an actor"."""

    what: str
    share: Share


TASK = Need("a task", Share(1.0))
"""What Ray asks for where nothing else is said."""


@dataclass(frozen=True)
class NodeNow:
    """What a node has, and what of it nobody holds."""

    whole: Share
    free: Share


@dataclass(frozen=True)
class Now:
    """The cluster as it is now. ``others``: drivers besides this one."""

    nodes: tuple[NodeNow, ...]
    others: int


def look() -> Now:
    """At the cluster that this process is connected to."""
    free = free_by_node()
    nodes = [node for node in nodes_alive() if node["NodeID"] in free]
    pairs = [(Share.of(node["Resources"]), Share.of(free[node["NodeID"]])) for node in nodes]
    return Now(tuple(NodeNow(whole, left) for whole, left in pairs), other_drivers())


def lacking(needs: Sequence[Need], now: Now) -> str | None:
    """What the first of ``needs`` that no node has room for waits for; None where each has, or this job holds it."""
    for need in needs:
        if not now.nodes or any(node.free.room(need.share) for node in now.nodes):
            continue
        able = [node for node in now.nodes if node.whole.room(need.share)]
        if not able:
            largest = max(now.nodes, key=lambda node: node.whole.nearness(need.share))
            return (
                f"{need.what} needs {need.share} on one node, and the largest of {len(now.nodes)} has {largest.whole}: "
                "a node that can hold it has to join the cluster"
            )
        if now.others:
            freest = max(able, key=lambda node: node.free.nearness(need.share))
            return (
                f"{need.what} needs {need.share} on one node, and the freest of {len(now.nodes)} has "
                f"{_of(freest, need.share)} free: {now.others} other driver(s) are at work on the cluster"
            )
    return None


def _of(node: NodeNow, need: Share) -> str:
    gpus = f" and {node.free.gpus:g} of {node.whole.gpus:g} GPU(s)" if need.gpus else ""
    return f"{node.free.cpus:g} of {node.whole.cpus:g} CPU(s){gpus}"


class Waits:
    """While it is entered: once ``progress`` has heard nothing for ten seconds, a line says what ``needs`` lack.

    From a thread of its own. Lines come ever more rarely until something is heard; None is no line.
    """

    def __init__(self, progress: Progress, needs: Sequence[Need], *, look: Callable[[], Now] = look) -> None:
        self._progress = progress
        self._needs = needs
        self._look = look
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="waits", daemon=True)

    def __enter__(self) -> Self:
        self._progress.hear()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(_LOOK_S)  # a cluster that is in trouble may leave it without an answer

    def _follow(self) -> None:
        due = Due()
        try:
            while not self._ended.wait(_LOOK_S):
                quiet_s = self._progress.quiet_s()
                if due.at(quiet_s) and (line := lacking(self._needs, self._look())):
                    due.told(quiet_s)
                    self._progress.note(f"{self._progress.verb}: waiting for {quiet_s:.0f} s: {line}")
        except (RayError, RuntimeError):  # the cluster is gone, and the loop beside this thread says so
            return


class Due:
    """When the next line is due: after so many seconds of silence, and then ever more rarely."""

    def __init__(self) -> None:
        self._next_s, self._pause_s = _FIRST_S, _AGAIN_S

    def at(self, quiet_s: float) -> bool:
        """Whether it is; a silence shorter than ten seconds begins anew."""
        if quiet_s < _FIRST_S:
            self._next_s, self._pause_s = _FIRST_S, _AGAIN_S
        return quiet_s >= self._next_s

    def told(self, quiet_s: float) -> None:
        """A line came."""
        self._next_s, self._pause_s = quiet_s + self._pause_s, min(_LONGEST_S, self._pause_s * _RARER)
