"""Who may talk to a Ray cluster: with a token, or on this machine alone.

Ray runs whatever code reaches its ports, unless it asks for a token (``RAY_AUTH_MODE=token`` on every node and for
every client). Ray 2.60 asks for one by default in the clusters that ``ray.init`` starts, and writes it by the umask,
readable by all. ``ray start`` asks for one where RAY_AUTH_MODE says so, and, where that is not set, where it finds a
token of its user. This module refuses clusters of other machines without a token, asks a cluster whether it takes this
process's before Ray tries for half a minute, and keeps the token's file to its owner.
"""

import ipaddress
import os
import secrets
import stat
from pathlib import Path

from segjobs.config import ClusterConfig
from segjobs.errors import ClusterError

_MODE, _TOKEN, _PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"  # names of variables
_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"  # of a head; Ray Client's server knows it not, and refuses it alike
_ANSWER_S = 10
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the drivers that its job server starts


def check_access(target: str, compute: ClusterConfig) -> None:
    """Raise ClusterError unless the cluster at ``target`` is this machine's, asks for a token, or may go without.

    A submitted job is exempt: the cluster that runs it has taken its code already.
    """
    if target == "local":  # its token is kept where it is started
        return
    if os.environ.get(_MODE, "").lower() == "token":
        if not os.environ.get(_TOKEN):
            _check_file(token_file())
        return
    host = _host(target)
    if not (host is None or _is_loopback(host) or _SUBMITTED in os.environ or compute.allow_unauthenticated):
        raise ClusterError(
            f"Ray at {target!r} is another machine's, and {_MODE} is not 'token': whoever reaches its ports can run "
            f"code there and in its jobs. Start it with {_MODE}=token and set that here too (flows/README.md, "
            "Security), or accept it with compute.allow_unauthenticated=true"
        )


def check_token(target: str) -> None:
    """Raise ClusterError where the Ray that listens at ``target`` (``host:port``) refuses this process's token."""
    sent = os.environ.get(_MODE, "").lower() == "token"
    if not _refuses(target.removeprefix("ray://"), _token() if sent else None):
        return
    if not sent:
        raise ClusterError(
            f"Ray at {target!r} asks for a token, and this process sends none: set {_MODE}=token, with the cluster's "
            f"token in {token_file()} (chmod 600), or in a file that {_PATH} names"
        )
    where = _TOKEN if os.environ.get(_TOKEN) else token_file()
    raise ClusterError(f"Ray at {target!r} asks for another token than that of {where}: put there that of its head")


def _token() -> str:
    return (os.environ.get(_TOKEN) or token_file().read_text()).strip()


def _refuses(address: str, token: str | None) -> bool:
    import grpc  # not in every worker

    headers = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:  # as Ray connects
        try:
            channel.unary_unary(_ALIVE)(b"", timeout=_ANSWER_S, metadata=headers)
        except grpc.RpcError as error:  # any other is for Ray to meet
            return isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNAUTHENTICATED
    return False


def token_file() -> Path:
    """Where Ray looks for the token if it is not in the environment. Raises ClusterError where that is no place."""
    path = os.path.expanduser(os.environ.get(_PATH) or "~/.ray/auth_token")
    if path.startswith("~"):
        raise ClusterError(f"no home folder is known to keep Ray's token in; set HOME, or {_PATH} to a file of yours")
    return Path(path)


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
        path.read_bytes()
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ClusterError(
            f"{path}: {_MODE} is 'token', and the token cannot be read there: {error.strerror}; copy it from the "
            f"cluster's head and run chmod 600 {path}, or name its file in {_PATH}"
        ) from error
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
