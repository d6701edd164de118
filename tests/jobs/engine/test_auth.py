"""Which clusters a job may join, and who can read the token."""

import stat
from pathlib import Path

import pytest

from segjobs.config import ComputeConfig
from segjobs.errors import ClusterError
from segjobs.jobs.engine.auth import check_access, keep_token

OPEN, ASKED = ComputeConfig(), ComputeConfig(allow_unauthenticated=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


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
    check_access("local", OPEN)
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
        check_access("local", OPEN)
