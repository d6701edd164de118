"""What Ray raises on the driver in; the error of this project at its root, or what a cluster lacks, in a line, out."""

import re

from ray.exceptions import (
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    OwnerDiedError,
    RayError,
)

from segjobs import __version__
from segjobs.errors import DISK_ERRNOS, ClusterError, SegjobsError

_RAY_ADVICE = "\nFailed to apply UDF transform after"  # Ray Data appends this and more to an error's own text
_SHORTAGES: dict[type[RayError], str] = {
    OutOfDiskError: "the disk on which a node of the cluster keeps Ray's files is full; free some space (RAY_TMPDIR)",
    ObjectStoreFullError: "the object store of a node is full; lower shard.bytes or start Ray with a larger one",
    OutOfMemoryError: "a node has too little memory; lower compute.actors, compute.batch_size or shard.bytes",
    LocalRayletDiedError: "Ray on the driver's node ended",
    NodeDiedError: "a node that the job cannot do without was lost",
    OwnerDiedError: "a process that the job cannot do without was lost",
    ActorUnschedulableError: "no node can hold an actor any more",
}
_MISSING = re.compile(r"No module named '([^'.]+)")


def own_error(error: BaseException) -> SegjobsError | None:
    """The error of this project at the root of what Ray raised on the driver, or None.

    What a cluster lacks or loses for good is a ClusterError, in a line that says how to mend it.
    """
    seen: set[int] = set()
    cluster: ClusterError | None = None
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        # Ray's double of an error of ours is of its class too, with a remote traceback as its text.
        if isinstance(found, SegjobsError) and not isinstance(found, RayError):
            found.args = (str(found).partition(_RAY_ADVICE)[0],)
            return found
        line = next((line for kind, line in _SHORTAGES.items() if isinstance(found, kind)), None)
        if isinstance(found, RayError) and (missing := _MISSING.search(str(found))):
            line = _not_installed(missing[1])
        if isinstance(found, OSError) and found.errno in DISK_ERRNOS:
            line = f"a node's disk takes no more: {found.filename or 'its temporary files'}: {found.strerror}"
        if line:
            cluster = ClusterError(f"{line}; what is published stays: run the command again to continue")
        found = getattr(found, "cause", None) or found.__cause__ or found.__context__
    return cluster


def _not_installed(module: str) -> str:
    package = f"segjobs ({__version__})" if module == "segjobs" else module
    return (
        f"a node of the cluster has no module {module!r}: install {package} there, into the environment of the Python "
        "that runs Ray, or submit the job to the cluster with ray job submit --working-dir"
    )
