"""What a person reads where Ray fails on the driver."""

import errno

from ray.exceptions import ObjectStoreFullError, RaySystemError

from segjobs import __version__
from segjobs.errors import ConfigError, ItemError, StorageError
from segjobs.jobs.engine.ray_errors import own_error


def test_the_error_of_this_project_is_found_below_what_ray_wraps_around_it() -> None:
    class Wrapped(Exception):
        cause: BaseException | None = None

    inner = ConfigError("model.name 'x' is no model")
    one, two = Wrapped(), Wrapped()
    one.cause = inner
    two.__cause__ = one
    assert own_error(two) is inner
    advised = ConfigError("first\nFailed to apply UDF transform after 1/1 attempts (total backoff 0.0s).\nTo change")
    assert str(own_error(advised)) == "first"
    assert str(own_error(ItemError("CHANGED", "x"))) == "CHANGED: x"
    loop = Wrapped()
    loop.cause = loop
    assert own_error(loop) is None
    assert own_error(ValueError("x")) is None
    missing = Wrapped()
    missing.cause = RaySystemError("System error: No module named 'segjobs'\ntraceback: …")
    assert str(own_error(missing)) == (
        f"a node of the cluster has no module 'segjobs': install segjobs ({__version__}) there, into the environment "
        "of the Python that runs Ray, or submit the job to the cluster with ray job submit --working-dir; "
        "what is published stays: run the command again to continue"
    )
    three = Wrapped()
    three.cause = ObjectStoreFullError("by 3 bytes")
    assert str(own_error(three)) == (
        "the object store of a node is full; lower shard.bytes or start Ray with a larger one; "
        "what is published stays: run the command again to continue"
    )
    four = Wrapped()
    four.cause = OSError(errno.ENOSPC, "No space left on device", "/tmp/x")  # noqa: S108
    assert str(own_error(four)) == (
        "a node's disk takes no more: /tmp/x: No space left on device; what is published stays: run the command again "
        "to continue"
    )
    full = StorageError("out: the disk is full")
    full.__cause__ = four.cause
    four.cause = full
    assert own_error(four) is full
