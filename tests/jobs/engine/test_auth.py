"""Which clusters a job may join, who can read the token, and what is said where a cluster refuses it."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from segjobs.config import ComputeConfig
from segjobs.errors import ClusterError
from segjobs.jobs.engine.auth import check_access, check_token, keep_token
from tests.ray_head import Head

OPEN, ASKED = ComputeConfig(), ComputeConfig(allow_unauthenticated=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_without_a_home_folder_it_says_where_the_token_could_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as without HOME, of a user without a name
    with pytest.raises(ClusterError, match=r"no home folder is known .*; set HOME, or RAY_AUTH_TOKEN_PATH to a file"):
        keep_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/proc/nowhere/token")
    with pytest.raises(ClusterError, match=r"^/proc/nowhere/token: Ray's token cannot be kept there.*; set RAY_AUTH"):
        keep_token()


ELSEWHERE = ["10.0.0.1:6379", "ray://head.example:10001", "head:6379", "[2001:db8::1]:6379", "0.0.0.0:6379"]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_another_machine_without_a_token_is_refused(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in ("", "disabled"):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        with pytest.raises(ClusterError, match=r"RAY_AUTH_MODE is not 'token'.*compute.allow_unauthenticated=true"):
            check_access(target, OPEN)
        check_access(target, ASKED)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")  # a submitted job
    check_access(target, OPEN)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    monkeypatch.setenv("RAY_AUTH_MODE", "Token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x" * 64)
    check_access(target, OPEN)


@pytest.mark.parametrize("target", ["127.0.0.1:6379", "ray://localhost:10001", "[::1]:6379", "auto"])
def test_this_machine_needs_none(target: str) -> None:
    check_access(target, OPEN)


def test_a_token_that_others_can_read_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = home / "token"
    token.write_text("x" * 64)
    token.chmod(0o640)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    with pytest.raises(ClusterError, match=rf"others can read Ray's token \(mode 0640\); run chmod 600 {token}"):
        check_access("10.0.0.1:6379", OPEN)
    token.chmod(0o600)
    check_access("10.0.0.1:6379", OPEN)
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x" * 64)  # the file is not used
    check_access("10.0.0.1:6379", OPEN)


def test_a_local_ray_has_a_token_for_its_owner_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_token()
    path = home / ".ray" / "auth_token"
    first = path.read_text()
    assert (len(first), stat.S_IMODE(path.stat().st_mode)) == (64, 0o600)
    path.chmod(0o644)  # as Ray itself leaves it
    keep_token()
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (first, 0o600)
    path.unlink()
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    keep_token()
    assert not path.exists()


def test_a_home_that_cannot_hold_it_is_a_clear_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "file" / "token"))
    with pytest.raises(ClusterError, match="Ray's token cannot be kept there: File exists; set RAY_AUTH_TOKEN_PATH"):
        keep_token()


@pytest.mark.parametrize("target", ["10.0.0.1:6379", "127.0.0.1:6379", "auto"])
def test_a_token_that_is_not_there_is_said_before_ray_is_asked(
    target: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    path = home / ".ray" / "auth_token"
    with pytest.raises(ClusterError) as caught:
        check_access(target, OPEN)
    assert str(caught.value) == (
        f"{path}: RAY_AUTH_MODE is 'token', and the token cannot be read there: No such file or directory; copy it "
        f"from the cluster's head and run chmod 600 {path}, or name its file in RAY_AUTH_TOKEN_PATH"
    )


@pytest.fixture
def asking() -> Iterator[str]:
    """The address of a server that takes one token, as a head of Ray does: any call without it is UNAUTHENTICATED."""

    class Guard(grpc.ServerInterceptor):
        def intercept_service(self, continuation, handler_call_details):
            if ("authorization", "Bearer " + "a" * 64) in handler_call_details.invocation_metadata:
                return continuation(
                    handler_call_details
                )  # which knows no method: UNIMPLEMENTED, as Ray Client's server
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            )

    server = grpc.server(ThreadPoolExecutor(1), interceptors=[Guard()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_asks_for_a_token_is_told_from_one_that_is_not_there(
    scheme: str, asking: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = scheme + asking
    path = home / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("b" * 64)
    with pytest.raises(ClusterError) as caught:
        check_token(target)
    assert str(caught.value) == (
        f"Ray at {target!r} asks for a token, and this process sends none: set RAY_AUTH_MODE=token, with the cluster's "
        f"token in {path} (chmod 600), or in a file that RAY_AUTH_TOKEN_PATH names"
    )
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(ClusterError) as caught:
        check_token(target)
    assert str(caught.value) == (
        f"Ray at {target!r} asks for another token than that of {path}: put there that of its head"
    )
    path.write_text("a" * 64 + "\n")
    check_token(target)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "c" * 64)
    with pytest.raises(ClusterError, match="asks for another token than that of RAY_AUTH_TOKEN: put there"):
        check_token(target)


def test_what_else_is_wrong_with_an_address_is_left_to_ray() -> None:
    with socket.socket() as silent:  # it listens and never answers: no server of Ray
        silent.bind(("127.0.0.1", 0))
        check_token(f"127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("sent", ["its own", "none", "another"])
def test_a_head_that_asks_for_a_token(sent: str, ray_head: Head, tmp_path: Path) -> None:
    (tmp_path / "another").write_text("b" * 64)
    (tmp_path / "another").chmod(0o600)
    environment = dict(ray_head.environment)
    if sent == "none":
        del environment["RAY_AUTH_MODE"]  # an address that is given leaves the token at home then
    elif sent == "another":
        environment["RAY_AUTH_TOKEN_PATH"] = str(tmp_path / "another")
    script = (
        "from segjobs.config import ComputeConfig\nfrom segjobs.jobs.engine.cluster import connect\n"
        f"have = connect(ComputeConfig(address={ray_head.address!r}))\nprint(have.cpus, have.gpus)"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    said = (done.stdout or done.stderr).splitlines()[-1].removeprefix("segjobs.errors.ClusterError: ")
    assert (
        said
        == {
            "its own": "2.0 1.0",
            "none": (
                f"Ray at {ray_head.address!r} asks for a token, and this process sends none: set RAY_AUTH_MODE=token, "
                f"with the cluster's token in {ray_head.environment['RAY_AUTH_TOKEN_PATH']} (chmod 600), or in a file "
                "that RAY_AUTH_TOKEN_PATH names"
            ),
            "another": (
                f"Ray at {ray_head.address!r} asks for another token than that of {tmp_path / 'another'}: "
                "put there that of its head"
            ),
        }[sent]
    )
