"""Who may talk to a Ray cluster: with a token, or on this machine alone.

Ray runs whatever code reaches its ports, unless it asks for a token (``RAY_AUTH_MODE=token`` on every node and for
every client). Ray 2.60 asks for one by default in the clusters that ``ray.init`` starts, and writes it by the umask,
readable by all. This module refuses clusters of other machines without a token, and keeps its file to its owner.
"""

import ipaddress
import os
import secrets
import stat
from pathlib import Path

from segjobs.config import ClusterConfig
from segjobs.errors import ClusterError

_MODE, _TOKEN, _PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"  # names of variables
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the drivers that its job server starts


def check_access(target: str, compute: ClusterConfig) -> None:
    """Raise ClusterError unless the cluster at ``target`` is this machine's, asks for a token, or may go without.

    A submitted job is exempt: the cluster that runs it has taken its code already.
    """
    if target == "local":
        keep_token()
        return
    if os.environ.get(_MODE, "").lower() == "token":
        if _TOKEN not in os.environ:
            _check_file(token_file())
        return
    host = _host(target)
    if not (host is None or _is_loopback(host) or _SUBMITTED in os.environ or compute.allow_unauthenticated):
        raise ClusterError(
            f"Ray at {target!r} is another machine's, and {_MODE} is not 'token': whoever reaches its ports can run "
            f"code there and in its jobs. Start it with {_MODE}=token and set that here too (flows/README.md, "
            "Security), or accept it with compute.allow_unauthenticated=true"
        )


def token_file() -> Path:
    """Where Ray looks for the token if it is not in the environment."""
    return Path(os.environ.get(_PATH) or Path.home() / ".ray" / "auth_token").expanduser()


def keep_token() -> None:
    """Before a local Ray starts: its token's file exists, for its owner only (mode 0600)."""
    if os.environ.get(_MODE, "token").lower() != "token" or _TOKEN in os.environ:
        return
    path = token_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        except FileExistsError:
            if stat.S_IMODE(path.stat().st_mode) & 0o077 and path.stat().st_uid == os.geteuid():
                path.chmod(0o600)
    except OSError as error:
        raise ClusterError(
            f"{path}: Ray's token cannot be kept there: {error.strerror}; set {_PATH} to a file of yours, "
            f"or {_MODE}=disabled"
        ) from error


def _check_file(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return  # there is none, or not for us: Ray says so where it needs one
    if mode & 0o077:
        raise ClusterError(f"{path}: others can read Ray's token (mode {mode:04o}); run chmod 600 {path}")


def _host(target: str) -> str | None:
    """The host of ``host:port`` and ``ray://host:port``; None for what Ray resolves on this machine (auto)."""
    host, separator, _ = target.rpartition("://")[2].rpartition(":")
    return host.strip("[]") if separator else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
