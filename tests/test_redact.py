"""What is printed or kept shows no credential, and is otherwise as it was."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segjobs.errors import ConfigError, ItemError, StorageError
from segjobs.redact import is_secret_name, redact, secrets_in

SECRET = "hunter2" * 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://me:{SECRET}@host/x", "https://***@host/x"),
        (f"s3://me:{SECRET}@bucket/x and more", "s3://***@bucket/x and more"),
        (f"https://h/x?X-Amz-Date=1&X-Amz-Signature={SECRET}&y=2", "https://h/x?X-Amz-Date=1&X-Amz-Signature=***&y=2"),
        (f"https://h/x?AWSAccessKeyId={SECRET}&Signature={SECRET}", "https://h/x?AWSAccessKeyId=***&Signature=***"),
        (f"https://h/x?sv=1&SIG={SECRET}", "https://h/x?sv=1&SIG=***"),
        (f"https://h/x?X-Goog-Signature={SECRET}", "https://h/x?X-Goog-Signature=***"),
        (f"GET /?token={SECRET}#top", "GET /?token=***#top"),
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer ***"),
        (f"'Authorization': 'Bearer {SECRET}'", "'Authorization': 'Bearer ***'"),
        (f"Authorization: {SECRET}; check it", "Authorization: ***; check it"),
        (f"authorization: Token {SECRET}", "authorization: Token ***"),
        (
            f"Authorization: AWS4-HMAC-SHA256 Credential={SECRET}/2026/s3, SignedHeaders=host, Signature={SECRET}",
            "Authorization: AWS4-HMAC-SHA256 Credential=***, SignedHeaders=host, Signature=***",
        ),
        (f"https://u:p@{SECRET}@host/x", "https://***@host/x"),
        (f"https://u:@@{SECRET}@host:81/a@b", "https://***@host:81/a@b"),
        (f"https://u:p/{SECRET}@host/x", "https://***@host/x"),
        (f"https://u:p?{SECRET}#@host/x", "https://***@host/x"),
        (f"https://{SECRET}@host/x", "https://***@host/x"),
        (f"redis://:{SECRET}@host:6379/0 is gone", "redis://***@host:6379/0 is gone"),
        (f"AccountName=me;AccountKey={SECRET}==;EndpointSuffix=x", "AccountName=me;AccountKey=***;EndpointSuffix=x"),
        (f"Endpoint=sb://x/;SharedAccessKey={SECRET}=", "Endpoint=sb://x/;SharedAccessKey=***"),
        (f"grant_type=x&client_secret={SECRET}&scope=y", "grant_type=x&client_secret=***&scope=y"),
        (f"client_secret={SECRET}", "client_secret=***"),
        (f'{{"client_secret": "{SECRET}", "id": 3}}', '{"client_secret": "***", "id": 3}'),
        (f"AWS_SECRET_ACCESS_KEY={SECRET} segjobs label", "AWS_SECRET_ACCESS_KEY=*** segjobs label"),
        (f"azure_storage_account_key = '{SECRET}'", "azure_storage_account_key = '***'"),
        (
            f"https://x.blob.core.windows.net/c?sv=1&amp;sig={SECRET}%3D",
            "https://x.blob.core.windows.net/c?sv=1&amp;sig=***",
        ),
        (f"x-api-key: {SECRET}", "x-api-key: ***"),
        (f"github_pat_{SECRET}", "***"),
        (f"eyJ{SECRET}.eyJ{SECRET}.{SECRET}", "***"),
        ("the key AKIA0123456789ABCDEF is unknown", "the key *** is unknown"),
        (f"hf_{SECRET}", "***"),
        (f"https://hooks.slack.com/services/T0/B0/{SECRET}", "https://hooks.slack.com/services/***"),
        (f"'https://discord.com/api/webhooks/1/{SECRET}'", "'https://discord.com/api/webhooks/***'"),
        (f"https://me.webhook.office.com/webhookb2/{SECRET}/x", "https://me.webhook.office.com/webhookb2/***"),
        (f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}", "***"),
    ],
)
def test_secrets_are_taken_out(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown
    assert list(secrets_in({"a": [{"b": text}]})) == ["a.0.b"]


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a b#?%25+ü.jpg",
        "s3://bucket/me:you@home.jpg",
        "http://127.0.0.1:8333",
        "https://host/x?y=1&tokens=3",
        "see a:b@c, x?sign=1",
        "hf://org/repo@main",
        "torchvision:COCO_V1",
        "photos/**/*.jpg",
        "bearer of news",
        "file:///home/me@work/a:b@c.jpg",
        "http://[::1]:80/a@b",
        "https://host:443/me:you@home.jpg",
        "hf://org@x/repo",
        "az://container@account/x",
        "s3://bucket/token=3/key=4/sig=5/a.jpg",
        "api_key: unknown key; known: url",
        "storage.s3.profile: password: expected a text",
        "designature=3 and monkey=4",
        "labels.code=3, see ?year=2026&key=11",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text
    assert not list(secrets_in({"a": text}))


@given(st.text())
def test_what_was_redacted_stays_as_it_is(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "password", "db.password", "api_key", "APIKEY", "AccountKey"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["HOME", "AWS_DEFAULT_REGION", "tokens", "keys", "monkey", "passwords_file_count"])
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret_name(name)


def test_errors_do_not_repeat_them() -> None:
    leak = f"cannot reach https://me:{SECRET}@host"
    item = pickle.loads(pickle.dumps(ItemError("UNREADABLE", leak)))  # noqa: S301
    for error in (StorageError(leak), ConfigError(leak, leak), item):
        assert SECRET not in str(error)
    assert SECRET not in item.message
    assert SECRET not in ConfigError(leak).problems[0]
