"""Local paths on a cluster of several nodes: what a job reads and writes in; nothing out, or what a node does not see.

A local path means a disk of whoever opens it. A token is written at the output, and each node is asked, by a task of
its own, whether it is there, and what is read too. A node that joins later is asked for the run's plan with each
shard (``executor.py``), and ``run.py`` looks for every part from the driver before it closes a run.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence

import ray
from ray.exceptions import RayError

from segjobs.jobs.engine.executor import unshared
from segjobs.jobs.engine.ray_calls import Node, ask_node, is_client, nodes_alive
from segjobs.manifest.table_files import split_version
from segjobs.storage import Storage, is_remote, join, local_path


def check_shared(storage: Storage, output: str, reads: Mapping[str, str | None]) -> None:
    """Raise ClusterError where a node of the cluster does not see the local ``output``, or a local path of ``reads``.

    ``reads``: the config's key → a path that this process sees; what it does not see is not asked for.
    """
    nodes = nodes_alive()
    alone = len(nodes) == 1 and not is_client()  # a client's disk is no node's
    folders = {key: _folder(uri) for key, uri in reads.items() if uri and not is_remote(uri)}
    paths = {key: uri for key, uri in folders.items() if local_path(uri).exists()}
    if alone or (is_remote(output) and not paths):
        return
    token = join(output, f".seen-by-every-node-{uuid.uuid4().hex}")
    if not is_remote(output):
        storage.put_if_absent(token, b"")
        paths["output.uri"] = token
    try:
        told = ask(nodes, list(paths.values()))
    finally:
        if not is_remote(output):
            storage.delete(token)
    refuse({**paths, "output.uri": output} if not is_remote(output) else paths, told)


def _folder(uri: str) -> str:
    """A path as it is on the disk: of a collection's version the collection's."""
    return uri if local_path(uri).exists() else split_version(uri)[0]


def refuse(paths: Mapping[str, str], told: Iterable[tuple[str, Sequence[bool]]]) -> None:
    """Raise ClusterError where a node does not see one of the paths. ``told``: its address, and for each path."""
    for node, seen in told:
        for (key, uri), there in zip(paths.items(), seen, strict=True):
            if not there:
                raise unshared(key, uri, node)


def see(uris: Sequence[str]) -> list[bool]:
    """Task: whether each of these local paths is there."""
    return [local_path(uri).exists() for uri in uris]


def ask(nodes: Sequence[Node], uris: list[str]) -> list[tuple[str, list[bool]]]:
    """Each node's address, which containers of one machine can share, and what it sees; none of a node that is lost."""
    asked = [(node["NodeManagerAddress"], ask_node(node, see, uris)) for node in nodes]
    told: list[tuple[str, list[bool]]] = []
    for address, answer in asked:
        try:
            told.append((address, ray.get(answer)))
        except RayError:
            continue
    return told
