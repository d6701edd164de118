"""Where deltalake finds a table, with the credentials that the other stores use."""

from pathlib import Path

import pytest

from segjobs.config import S3Config, StorageConfig
from segjobs.errors import ConfigError, StorageError
from segjobs.storage import Storage
from segjobs.storage.delta import delta_place


def test_a_local_table_is_a_path(tmp_path: Path) -> None:
    place = delta_place(Storage(), f"file://{tmp_path}/a%20b")
    assert place == (f"{tmp_path}/a b", {})


def test_a_table_in_s3_has_the_storages_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    config = StorageConfig(s3=S3Config(endpoint_url="http://127.0.0.1:8333", region="eu-north-1"))
    place, options = delta_place(Storage(config), "s3://bucket/street/masks")
    assert place == "s3://bucket/street/masks"
    assert options.pop("timeout") == "60s" and options == {
        "AWS_CONDITIONAL_PUT": "etag",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:8333",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "eu-north-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
    }
    anonymous = StorageConfig(s3=S3Config(anonymous=True))
    _, options = delta_place(Storage(anonymous), "s3://bucket/street/masks")
    assert options["AWS_SKIP_SIGNATURE"] == "true" and "AWS_ACCESS_KEY_ID" not in options


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(ConfigError, match="local disk or in S3"):
        delta_place(Storage(), "gs://bucket/street/masks")
    for name, shown in (("a#b", "#"), ("a?b", "?"), ("a%20b", "%20"), ("a\\b", "\\\\"), ("a\nb", "\\n")):
        for root in ("/x", "s3://bucket"):
            with pytest.raises(ConfigError) as caught:
                delta_place(Storage(), f"{root}/{name}/masks")
            assert f"a name with '{shown}' in it" in str(caught.value)
    with pytest.raises(StorageError, match="nobody"):
        delta_place(Storage(StorageConfig(s3=S3Config(profile="nobody"))), "s3://bucket/street/masks")
