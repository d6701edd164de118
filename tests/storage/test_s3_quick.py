"""Two clients, one set of rules: what s3fs and obstore send for the same settings, and which of them a request takes.

A web server in this process answers every request with one object and keeps the headers.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from segjobs.config import StorageConfig
from segjobs.errors import StorageError
from segjobs.storage import Storage
from segjobs.storage import s3_client as client
from segjobs.storage.s3_quick import connection_of, is_plain
from tests.fault_proxy import Fault, fault_proxy

BODY = b"an image"
ETAG = '"e"'


@dataclass
class Seen:
    """One request: whose it is, and what it goes by."""

    client: str
    method: str
    path: str
    host: str
    key: str
    region: str
    token: str

    @property
    def rules(self) -> tuple[str, ...]:
        return (self.path, self.host, self.key, self.region, self.token)


@dataclass
class Recorder:
    """A store with one object under every key. ``refuse``: the status that obstore's requests are answered with."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    refuse: int = 0

    def clients(self, method: str = "") -> list[str]:
        return [one.client for one in self.seen if one.method.startswith(method)]


def _seen(request: BaseHTTPRequestHandler) -> Seen:
    # AWS4-HMAC-SHA256 Credential=KEY/20260101/us-east-1/s3/aws4_request, SignedHeaders=…
    credential = request.headers.get("authorization", "").partition("Credential=")[2].partition(",")[0].split("/")
    obstore = request.headers.get("user-agent", "").startswith("object_store")
    return Seen(
        "obstore" if obstore else "s3fs",
        request.command,
        request.path.partition("?")[0],
        request.headers["host"],
        credential[0],
        credential[2] if len(credential) > 2 else "",
        request.headers.get("x-amz-security-token", ""),
    )


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            one = _seen(self)
            made.seen.append(one)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            refused = one.client == "obstore" and made.refuse
            self.send_response(made.refuse if refused else 200)
            body = b"" if self.command in ("HEAD", "PUT") or refused else BODY
            self.send_header("Content-Length", str(len(BODY) if self.command == "HEAD" else len(body)))
            self.send_header("ETag", ETAG)
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None: ...

    with serving(Handler) as made.url:
        yield made


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No credentials and no settings but those that a test gives."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return monkeypatch


KEYS = {"AWS_ACCESS_KEY_ID": "env", "AWS_SECRET_ACCESS_KEY": "secret"}
CREDENTIALS = """[default]
aws_access_key_id = default
aws_secret_access_key = secret
[me]
aws_access_key_id = mine
aws_secret_access_key = secret
aws_session_token = token
"""
HELPER = """import json
print(json.dumps({"Version": 1, "AccessKeyId": "helped", "SecretAccessKey": "secret", "SessionToken": "lent"}))
"""
# storage.s3, environment, ~/.aws/config → (access key, region, session token) of both clients' requests
RULES: dict[str, tuple[dict[str, Any], dict[str, str], str, tuple[str, str, str]]] = {
    "environment": ({}, KEYS, "", ("env", "us-east-1", "")),
    "its session token": ({}, {**KEYS, "AWS_SESSION_TOKEN": "t"}, "", ("env", "us-east-1", "t")),
    "its region": ({}, {**KEYS, "AWS_DEFAULT_REGION": "eu-north-1"}, "", ("env", "eu-north-1", "")),
    "region": ({"region": "eu-west-3"}, {**KEYS, "AWS_DEFAULT_REGION": "eu-north-1"}, "", ("env", "eu-west-3", "")),
    # obstore's own variable, which botocore does not know
    "another tool's region": ({}, {**KEYS, "AWS_REGION": "eu-south-1"}, "", ("env", "us-east-1", "")),
    "credentials file": ({}, {}, "", ("default", "us-east-1", "")),
    "environment before the file's": ({}, KEYS, "[default]\nregion = eu-central-1\n", ("env", "eu-central-1", "")),
    "profile": ({"profile": "me"}, {}, "[profile me]\nregion = eu-west-1\n", ("mine", "eu-west-1", "token")),
    "profile before the environment": ({"profile": "me"}, KEYS, "", ("mine", "us-east-1", "token")),
    "profile of the environment": ({}, {"AWS_PROFILE": "me"}, "", ("mine", "us-east-1", "token")),
    "helper": (
        {"profile": "help"},
        {},
        "[profile help]\ncredential_process = {helper}\n",
        ("helped", "us-east-1", "lent"),
    ),
    "anonymous": ({"anonymous": True}, KEYS, "", ("", "", "")),
}


@pytest.mark.parametrize("rule", RULES)
def test_both_clients_obey_the_same_settings(
    rule: str, recorder: Recorder, bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings, environment, config, expected = RULES[rule]
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "credentials").write_text(CREDENTIALS)
    (tmp_path / "config").write_text(config.replace("{helper}", f"{sys.executable} {tmp_path}/helper.py"))
    for name, value in environment.items():
        bare.setenv(name, value)
    storage = Storage(StorageConfig.model_validate({"s3": {"endpoint_url": recorder.url, **settings}}))
    assert storage.info("s3://bucket/a b.jpg") == storage.read_item("s3://bucket/a b.jpg")[1]
    assert storage.put_if_absent("s3://bucket/a b.jpg", b"part")
    one, two, three = recorder.seen
    assert [one.client, two.client, three.client] == ["s3fs", "obstore", "obstore"]
    assert one.rules == two.rules == three.rules
    assert (one.key, one.region, one.token) == expected
    assert one.path == "/bucket/a%20b.jpg"


def test_both_take_the_endpoint_of_the_environment(recorder: Recorder, bare: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        bare.setenv(name, value)
    bare.setenv("AWS_ENDPOINT_URL_S3", recorder.url)
    storage = Storage()
    assert storage.read_item("s3://bucket/a.jpg")[0] == BODY
    assert recorder.clients() == ["obstore"]
    bare.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    given = Storage(StorageConfig.model_validate({"s3": {"endpoint_url": recorder.url}}))
    given.read_item("s3://bucket/a.jpg")
    given.info("s3://bucket/a.jpg")
    assert recorder.clients() == ["obstore", "obstore", "s3fs"], "the config's comes first"


ELSEWHERE: dict[str, dict[str, str]] = {
    "a proxy": {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""},
    "FIPS": {"AWS_USE_FIPS_ENDPOINT": "true"},
    "encryption that obstore alone asks for": {"AWS_SERVER_SIDE_ENCRYPTION": "AES256"},
}


@pytest.mark.parametrize("why", ELSEWHERE)
def test_what_obstore_would_do_otherwise_goes_by_s3fs_alone(why: str, bare: pytest.MonkeyPatch) -> None:
    for name, value in {**KEYS, **ELSEWHERE[why]}.items():
        bare.setenv(name, value)
    url = None if why == "FIPS" else "http://store.example"
    s3 = client.S3(StorageConfig.model_validate({"s3": {"endpoint_url": url, "region": "us-east-2"}}))
    assert connection_of(s3.filesystem) is None


def test_both_trust_the_same_authorities(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in KEYS.items():
        bare.setenv(name, value)
    (tmp_path / "ca.pem").write_bytes(b"-----BEGIN CERTIFICATE-----")
    bare.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    bundles = {}
    for url in ("http://store.example", "https://store.example"):
        way = connection_of(client.S3(StorageConfig.model_validate({"s3": {"endpoint_url": url}})).filesystem)
        assert way is not None
        bundles[url] = way.ca
    assert bundles == {"http://store.example": None, "https://store.example": b"-----BEGIN CERTIFICATE-----"}


def test_of_aws_the_bucket_is_in_the_name_of_the_host(bare: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        bare.setenv(name, value)
    ways = {}
    for region in ("eu-west-1", "cn-north-1"):
        s3 = client.S3(StorageConfig.model_validate({"s3": {"region": region}}))
        way = connection_of(s3.filesystem)
        assert way is not None
        ways[region] = (way.endpoint, way.region, way.virtual)
    assert ways == {
        "eu-west-1": ("https://s3.eu-west-1.amazonaws.com", "eu-west-1", True),
        "cn-north-1": ("https://s3.cn-north-1.amazonaws.com.cn", "cn-north-1", True),
    }


@pytest.mark.parametrize(
    ("bucket", "key", "plain"),
    [
        ("b", "a/b c#?%25+ü[0].jpg", True),
        ("b", "..a/.b/c..", True),
        ("b", "a//b", False),
        ("b", "a/", False),
        ("b", "/a", False),
        ("b", "./a", False),
        ("b", "a/../b", False),
        ("b", "a/..", False),
        ("b", "a\nb", False),
        ("b", "", False),
        ("arn:aws:s3:eu-west-1:1:accesspoint", "a", False),
    ],
)
def test_keys_that_obstore_would_take_for_others_are_not_its(bucket: str, key: str, plain: bool) -> None:
    assert is_plain(bucket, key) is plain


def storage_of(recorder: Recorder, **settings: Any) -> Storage:
    return Storage(StorageConfig.model_validate({"s3": {"endpoint_url": recorder.url}, "attempts": 2, **settings}))


def test_a_key_with_a_last_slash_stays_what_it_is(recorder: Recorder) -> None:
    storage_of(recorder).read_item("s3://bucket/folder/")
    assert [(one.client, one.path) for one in recorder.seen] == [("s3fs", "/bucket/folder/")]


def test_all_but_items_and_parts_go_by_s3fs(recorder: Recorder, tmp_path: Path) -> None:
    storage = storage_of(recorder)
    storage.read("s3://bucket/a")
    storage.info("s3://bucket/a")
    storage.get_file("s3://bucket/a", tmp_path / "a")
    storage.put_file_if_absent("s3://bucket/b", tmp_path / "a")
    storage.put_if_absent("s3://bucket/large", bytes(2**23 + 1))
    assert set(recorder.clients()) == {"s3fs"}
    storage.read_item("s3://bucket/a")
    storage.put_if_absent("s3://bucket/b", bytes(2**23))
    assert recorder.clients()[-2:] == ["obstore", "obstore"]


def test_what_obstore_misses_again_and_again_is_no_more_asked_of_it(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_MISSES", 3)
    storage = storage_of(recorder)
    recorder.refuse = 403
    for _ in range(5):
        assert storage.read_item("s3://bucket/a")[0] == BODY
    assert recorder.clients() == ["obstore", "s3fs"] * 3 + ["s3fs", "s3fs"]
    recorder.seen, recorder.refuse = [], 0
    other = storage_of(recorder)
    for refuse in (403, 403, 0, 403, 403, 0):
        recorder.refuse = refuse
        other.read_item("s3://bucket/a")
    assert recorder.clients().count("obstore") == 6, "a miss now and then is a network's"


def test_a_larger_item_is_not_read(recorder: Recorder) -> None:
    with pytest.raises(OSError, match=r"8 bytes, storage\.max_item_bytes is 7"):
        storage_of(recorder, max_item_bytes=7).read_item("s3://bucket/a")


# --- before a real server ----------------------------------------------------------------------

EXPIRED = "[me]\naws_access_key_id = old\naws_secret_access_key = old\n"
GOOD = "[me]\naws_access_key_id = test\naws_secret_access_key = test-secret\n"


@pytest.mark.slow
def test_credentials_that_expired_are_looked_up_anew_for_both(
    s3_server: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://segjobs/{tmp_path.name}/x.jpg"
    Storage(s3_server).put_if_absent(uri, BODY)
    file = tmp_path / "credentials"
    file.write_text(EXPIRED)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    with fault_proxy(s3_server.s3.endpoint_url or "") as proxy:
        storage = Storage(StorageConfig.model_validate({"s3": {"endpoint_url": proxy.url, "profile": "me"}}))
        proxy.faults = [Fault("expired", then=lambda: file.write_text(GOOD) and None)]
        assert storage.read_item(uri)[0] == BODY
        assert len(proxy.seen) == 2
        assert storage.read_item(uri)[0] == BODY
        assert storage.put_if_absent(f"{uri}.2", BODY)
        assert len(proxy.seen) == 4, "by obstore with the new ones, at once"
        proxy.faults = [Fault("expired", times=3)]
        with pytest.raises(StorageError, match=r"the credentials have expired.*ExpiredToken"):
            storage.read_item(uri)


@pytest.mark.slow
def test_a_part_that_is_there_is_not_written_again(s3_server: StorageConfig, tmp_path: Path) -> None:
    uri = f"s3://segjobs/{tmp_path.name}/part"
    storage = Storage(s3_server)
    assert storage.put_if_absent(uri, b"one")
    assert not storage.put_if_absent(uri, b"two")
    assert storage.read(uri) == b"one"


@pytest.mark.slow
def test_threads_share_a_bucket(s3_server: StorageConfig, tmp_path: Path) -> None:
    root, storage = f"s3://segjobs/{tmp_path.name}", Storage(s3_server)
    bodies = {f"{root}/{number}": bytes([number]) * 10_000 for number in range(64)}
    call: Callable[[str], bool] = lambda uri: storage.put_if_absent(uri, bodies[uri])  # noqa: E731
    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(call, bodies))
        assert not any(threads.map(call, bodies))
        read = dict(zip(bodies, threads.map(lambda uri: storage.read_item(uri)[0], bodies), strict=True))
    assert read == bodies
