"""Faults of networks and stores between this project and a real S3 server: what is repeated, and what stops at once."""

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp
from s3fs.errors import translate_boto_error

from segjobs.config import ShardConfig, StorageConfig
from segjobs.errors import ItemError, StorageError
from segjobs.manifest.parts import publish_part
from segjobs.manifest.plan import make_plan
from segjobs.manifest.schema import Footer, make_categories
from segjobs.sources.read import read_item
from segjobs.storage import FileInfo, Storage, join
from segjobs.storage.s3_client import S3, _instant, fault_of
from tests.fault_proxy import Fault, FaultProxy, fault_proxy


def reply(status: int, code: str, **about: str) -> ClientError:
    return ClientError({"Error": {"Code": code, **about}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (reply(412, "PreconditionFailed", Condition="If-None-Match"), "exists"),
        (reply(412, "PreconditionFailed"), "exists"),
        (reply(412, "412"), "exists"),
        (reply(412, "SomethingOfItsOwn"), "exists"),
        (reply(409, "ConditionalRequestConflict"), "transient"),
        (reply(409, "OperationAborted"), "transient"),
        (reply(503, "SlowDown"), "busy"),
        (reply(503, "ServiceUnavailable"), "busy"),
        (reply(429, "TooManyRequests"), "busy"),
        (reply(400, "RequestLimitExceeded"), "busy"),
        (reply(500, "InternalError"), "transient"),
        (reply(502, "502"), "transient"),
        (reply(400, "IncompleteBody"), "transient"),
        (reply(400, "ExpiredToken"), "expired"),
        (reply(403, "ExpiredToken"), "expired"),
        (reply(400, "400"), "expired"),
        (reply(403, "AccessDenied"), "denied"),
        (reply(403, "403"), "denied"),
        (reply(403, "SignatureDoesNotMatch"), "denied"),
        (reply(401, "Unauthorized"), "denied"),
        (reply(403, "InvalidObjectState"), "item"),
        (reply(404, "NoSuchKey"), "missing"),
        (reply(404, "404"), "missing"),
        (reply(301, "PermanentRedirect"), "refused"),
        (reply(400, "AuthorizationHeaderMalformed"), "refused"),
        (reply(501, "NotImplemented"), "refused"),
    ],
)
def test_a_reply_is_judged_by_its_status_in_every_shape(error: ClientError, kind: str) -> None:
    assert fault_of(error).kind == kind
    assert fault_of(translate_boto_error(error)).kind == kind, "s3fs wraps it in one of Python's own errors"


def test_faults_without_a_reply() -> None:
    assert fault_of(FileExistsError(errno.EEXIST, "there")).kind == "exists"
    assert fault_of(EndpointConnectionError(endpoint_url="http://x")).kind == "unreachable"
    assert fault_of(ConnectionResetError(errno.ECONNRESET, "reset")).kind == "transient"
    assert fault_of(TimeoutError()).kind == "slow"
    assert fault_of(ResponseParserError("unclosed token")).kind == "unreachable"
    assert fault_of(ValueError("Invalid endpoint: x")).kind == "refused"


class Role:
    """A client whose role may list below ``photos/`` only: what is not there answers 403. ``bucket``: is there."""

    def __init__(self, *keys: str, bucket: bool = True, listing: str = "photos/") -> None:
        self.keys, self.bucket, self.listing = keys, bucket, listing

    async def head_object(self, *, Bucket: str, Key: str) -> dict[str, object]:
        if not self.bucket:
            raise reply(404, "NoSuchBucket")
        if Key not in self.keys or Key.startswith("secret"):
            raise reply(403, "403")
        return {"ContentLength": 1, "LastModified": datetime(2026, 1, 1, tzinfo=UTC), "ETag": "e"}

    get_object = head_object

    async def head_bucket(self, *, Bucket: str) -> None:
        if not self.bucket:
            raise reply(404, "404")
        raise reply(403, "403")

    async def list_objects_v2(self, *, Bucket: str, Prefix: str, MaxKeys: int) -> dict[str, object]:
        if not Prefix.startswith(self.listing):
            raise reply(403, "AccessDenied")
        return {"Contents": [{"Key": key} for key in sorted(self.keys) if key.startswith(Prefix)][:MaxKeys]}


@pytest.fixture
def client_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], Storage]:
    """A storage whose requests a client of the test answers."""

    def storage(client: Any) -> Storage:
        async def once(_: S3, request: Any, left_s: float) -> Any:
            return await request.send(client)

        monkeypatch.setattr(S3, "_once", once)
        return Storage(quick("http://127.0.0.1:1"))

    return storage


def test_what_a_listing_does_not_show_is_not_there(client_of: Callable[[object], Storage]) -> None:
    storage = client_of(Role("photos/a.jpg", "photos/b.jpg.txt"))
    assert storage.exists("s3://b/photos/a.jpg")
    for key in ("photos", "photos/b.jpg", "photos/plan.parquet"):
        assert storage.info(f"s3://b/{key}") is None
    for read in (storage.read, storage.read_item):
        with pytest.raises(FileNotFoundError):
            read("s3://b/photos/b.jpg")
    for uri in ("s3://b/elsewhere/x", "s3://b/secret"):
        with pytest.raises(StorageError, match="access denied"):
            storage.info(uri)
    with pytest.raises(StorageError, match="access denied"):  # it is there and may not be read
        client_of(Role("secret/x", listing="")).info("s3://b/secret/x")


def test_a_bucket_that_goes_away_in_mid_run_makes_no_image_bad(client_of: Callable[[object], Storage]) -> None:
    role = Role("photos/a.jpg")
    storage = client_of(role)
    assert storage.exists("s3://b/photos/a.jpg")
    role.bucket = False
    with pytest.raises(StorageError, match="no bucket 'b'"):
        storage.read_item("s3://b/photos/a.jpg")


def quick(url: str, **settings: float) -> StorageConfig:
    limits = {"attempts": 4, "read_timeout_s": 0.5, "deadline_s": 20, **settings}
    return StorageConfig.model_validate({"s3": {"endpoint_url": url}, **limits})


@pytest.fixture
def proxy(s3_server: StorageConfig) -> Iterator[FaultProxy]:
    assert s3_server.s3.endpoint_url
    with fault_proxy(s3_server.s3.endpoint_url) as running:
        yield running


@pytest.fixture
def root(tmp_path: Path) -> str:
    return f"s3://segjobs/faults/{tmp_path.name}"


BODY = bytes(range(256)) * 4000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["busy", "error", "reset", "lost", "cut", "drip", "hang", "conflict"])
def test_what_passes_is_repeated(kind: str, proxy: FaultProxy, root: str, tmp_path: Path) -> None:
    storage = Storage(quick(proxy.url))
    times = 1 if kind in ("drip", "hang") else 2
    uri = join(root, "a b#?%25+ü.jpg")
    proxy.faults = [Fault(kind, method, times=times) for method in ("PUT", "GET", "HEAD")]
    made = storage.put_if_absent(uri, BODY)
    assert made == (kind != "lost"), "the lost reply's own object is there: 412"
    assert storage.read(uri) == BODY
    info = storage.info(uri)
    assert info is not None
    assert info.size == len(BODY)
    proxy.faults = [Fault(kind, "GET", times=times)]
    assert storage.read_item(uri) == (BODY, info)
    proxy.faults = [Fault(kind, "GET", "list-type", times=times)]
    assert [file.uri for file in storage.walk(root)] == [uri]
    proxy.faults = [Fault(kind, "GET", times=times)]
    storage.get_file(uri, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == BODY
    assert not [fault for fault in proxy.faults if fault.times], "every fault was met"


@pytest.mark.slow
def test_a_write_whose_reply_is_lost_is_known_as_ones_own(proxy: FaultProxy, root: str, tmp_path: Path) -> None:
    storage = Storage(quick(proxy.url))
    proxy.faults = [Fault("lost", "PUT")]
    assert publish_part(storage, root, 7, BODY) == (BODY, True)
    assert [kind for _, _, kind in proxy.seen] == ["lost", "", ""], "put, put again (412), read back"
    assert publish_part(storage, root, 7, b"another's") == (BODY, False)
    (tmp_path / "document").write_bytes(BODY)
    proxy.faults = [Fault("reset", "PUT"), Fault("lost", "PUT")]
    assert not storage.put_file_if_absent(join(root, "document"), tmp_path / "document")
    assert storage.read(join(root, "document")) == BODY, "sent whole from its first byte each time"


@pytest.mark.slow
def test_a_store_that_ignores_the_condition_is_refused(proxy: FaultProxy, root: str) -> None:
    from segjobs.jobs.engine.adopt import publish_plan
    from segjobs.jobs.engine.shards import Job

    plan = make_plan([FileInfo("/a.jpg", "a.jpg", 1, 1, "")], ShardConfig())
    job = Job("label", root, plan, {}, Footer("semantic", make_categories(["sky"]), "digest"), {})
    proxy.faults = [Fault("ignored", "PUT", times=2)]
    with pytest.raises(StorageError, match=r"the store ignores 'If-None-Match: \*'"):
        publish_plan(Storage(quick(proxy.url)), job)
    job = replace(job, uri=join(root, "other"))
    proxy.faults = [Fault("reset", "PUT"), Fault("lost", "PUT")]  # the first success, unheard of, is no second one
    publish_plan(Storage(quick(proxy.url)), job)
    assert proxy.attempts("PUT", "other") == 3


@pytest.mark.slow
def test_a_store_that_goes_on_failing_stops_the_job_after_the_attempts(proxy: FaultProxy, root: str) -> None:
    storage = Storage(quick(proxy.url))
    uri = join(root, "x.jpg")
    storage.put_if_absent(uri, BODY)
    for kind, line in (("busy", "overloaded"), ("error", "fails"), ("reset", "fails")):
        proxy.faults, proxy.seen = [Fault(kind, times=10**6)], []
        with pytest.raises(StorageError, match=line):
            storage.read_item(uri)
        assert 4 <= proxy.attempts("GET") <= 8  # clients repeat once on a connection that they had kept
        with pytest.raises(StorageError, match=line):
            storage.put_if_absent(uri, BODY)


@pytest.mark.slow
def test_what_ails_one_image_is_a_row_where_the_store_answers_others(proxy: FaultProxy, root: str) -> None:
    storage = Storage(quick(proxy.url, attempts=2, deadline_s=3))
    storage.put_if_absent(join(root, "x.jpg"), BODY)
    (item,) = storage.walk(root)
    codes = {"error": "UNREADABLE", "reset": "UNREADABLE", "cut": "UNREADABLE", "hang": "TIMEOUT"}
    for kind, code in {**codes, "archived": "UNREADABLE"}.items():
        proxy.faults = [Fault(kind, "GET", "x.jpg", times=10**6)]
        with pytest.raises(ItemError) as caught:
            read_item(storage, item)
        assert caught.value.code == code, kind
    small = Storage(quick(proxy.url, max_item_bytes=len(BODY) - 1))
    proxy.faults = []
    with pytest.raises(ItemError, match=r"TOO_LARGE.*storage\.max_item_bytes is \d+$"):
        read_item(small, item)
    proxy.faults = [Fault("busy", "GET", "x.jpg", times=10**6)]
    with pytest.raises(StorageError, match="overloaded"):
        read_item(storage, item)


@pytest.mark.slow
def test_what_will_not_pass_stops_at_once(proxy: FaultProxy, root: str) -> None:
    for kind, line in (
        ("denied", "access denied .*AccessDenied"),
        ("elsewhere", "cannot be used so: it redirects every request"),
    ):
        storage = Storage(quick(proxy.url))
        proxy.faults, proxy.seen = [Fault(kind, times=10**6)], []
        with pytest.raises(StorageError, match=line):
            list(storage.walk(root))
        assert len(proxy.seen) == 1 or kind == "elsewhere"
        with pytest.raises(StorageError, match=line):
            storage.read_item(join(root, "x.jpg"))
    proxy.faults = [Fault("html", times=10**6)]  # botocore makes a 500 of a reply that is no XML
    with pytest.raises(StorageError, match=r"fails \(HTTP 500"):
        list(Storage(quick(proxy.url, attempts=2)).walk(root))
    proxy.faults = []
    for uri in ("s3://no-such-bucket/x.jpg", "s3://No_Bucket!/x.jpg"):
        for call in (storage.read_item, storage.read, storage.info, lambda uri: list(storage.walk(uri))):
            with pytest.raises(StorageError, match=r"no bucket|cannot be used so: Invalid bucket name"):
                call(uri)
    with pytest.raises(StorageError, match="cannot be used so: Invalid bucket name"):
        storage.put_if_absent("s3://No_Bucket!/x", b"x")  # SeaweedFS makes a bucket that is missing


@pytest.mark.slow
def test_credentials_that_expired_are_looked_up_anew_once(
    proxy: FaultProxy, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Storage(quick(proxy.url)).put_if_absent(join(root, "x"), BODY)
    file = tmp_path / "credentials"
    good = "[me]\naws_access_key_id = test\naws_secret_access_key = test-secret\n"
    file.write_text("[me]\naws_access_key_id = old\naws_secret_access_key = old\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    config = quick(proxy.url)
    storage = Storage(config.model_copy(update={"s3": config.s3.model_copy(update={"profile": "me"})}))
    proxy.faults = [Fault("expired", then=lambda: file.write_text(good) and None)]
    assert storage.read(join(root, "x")) == BODY
    proxy.faults = [Fault("expired", times=2)]
    with pytest.raises(StorageError, match=r"the credentials have expired.*ExpiredToken"):
        storage.read(join(root, "x"))


@pytest.mark.slow
def test_the_way_to_the_store_is_known_in_every_process(proxy: FaultProxy, root: str) -> None:
    import pickle

    storage = Storage(quick("http://127.0.0.1:1", attempts=3))
    with pytest.raises(StorageError, match=r"cannot reach http://127.0.0.1:1"):
        storage.read(join(root, "x"))
    assert not pickle.loads(pickle.dumps(storage))._reached  # noqa: S301
    storage = Storage(quick(proxy.url))
    storage.put_if_absent(join(root, "x"), BODY)
    assert pickle.loads(pickle.dumps(storage))._reached  # noqa: S301


def test_times_are_read_as_botocore_reads_them() -> None:
    for text in (
        "2026-01-31T23:59:59.123Z",
        "2026-01-31T23:59:59+02:00",
        "Sat, 31 Jan 2026 23:59:59 GMT",
        "1769903999",
    ):
        assert _instant(text) == parse_timestamp(text)
