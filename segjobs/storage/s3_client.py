"""``s3://`` files: one request in, its reply out, repeated where that helps and stopped where it cannot.

    request ─▶ reply           (an image's GET and a part's PUT: by obstore first, s3_quick.py)
       ├─▶ 5xx, throttling, reset, time-out, body cut short ─▶ again after a random wait, up to ``storage.attempts``
       ├─▶ credentials have expired ─▶ a new session, once, and again
       ├─▶ denied, no bucket, wrong endpoint or region ─▶ StorageError at once
       ├─▶ denied, of a key that a listing of it does not show ─▶ no such key
       └─▶ no such key, condition not met ─▶ for the caller

What is left when the attempts or ``storage.deadline_s`` are over is the store's fault (StorageError) unless the
request was for one image and the store answers for its bucket: then it is an OSError of that image, TimeoutError
where it was too slow, and the caller asks for other images (``segjobs/sources/blame.py``). Throttling is never an
image's fault.

botocore's own retries are off (``total_max_attempts=1``): they end before a body is read, and all threads share a
quota of about a hundred repetitions, which 32 requests in flight use up in the first seconds of an outage. s3fs,
which repeats around them, lends its session and its event loop only; all errors are botocore's, with their status.
(aiohttp sends a request once more by itself where a connection that it had kept turns out to be closed.)
"""

import asyncio
import errno
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import aiohttp
from aiobotocore.session import AioSession
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ParamValidationError,
    ReadTimeoutError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp
from fsspec.asyn import sync
from s3fs import S3FileSystem

from segjobs.config import StorageConfig
from segjobs.errors import StorageError
from segjobs.storage.retry import LONGEST_WAIT_S, Action, Failed, Fault, usual_action, wait_s, with_retries
from segjobs.storage.s3_quick import LARGEST_PUT, Connection, NotServed, QuickBucket, connection_of, is_plain

Reply = TypeVar("Reply")
Client = Any
"""aiobotocore's, which is made when a program runs."""
S3Reply = dict[str, Any]
"""A reply as botocore parses it, by the names of S3's documentation."""

# ValueError: botocore's of an endpoint that is no URL. RecursionError: its search for the region that a redirect
# means asks the endpoint that redirects, such as http://… of a server that wants https.
_FAULTS = (BotoCoreError, ClientError, ResponseParserError, aiohttp.ClientError, OSError, ValueError, RecursionError)
_TRANSIENT = (
    HTTPClientError,
    BotoConnectionError,
    IncompleteReadError,
    FlexibleChecksumError,
    aiohttp.ClientError,
    OSError,
)
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "InvalidToken"}
_BUSY = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded"}
_DAMAGED_ON_THE_WAY = {"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "RequestTimeout", "InternalError"}
_OF_ONE_OBJECT = {"InvalidObjectState", "KeyTooLongError"}  # archived; no key can be as long
_PROBE_S = 10.0  # in which a store that is up tells whether a bucket is there
_CONNECTIONS = 64  # more than any stage has requests in flight
_CHUNK_BYTES = 2**20
_MISSES = 20  # of obstore in a row, where s3fs has what it was asked for at once: then the quick way is given up
_SLOWEST_BYTES_PER_S = 2**20  # large objects have their deadline extended to this rate


def fault_of(error: BaseException) -> Fault:
    """Classify an error of botocore, aiohttp or s3fs by its HTTP status, in whatever shape it comes.

    s3fs keeps botocore's error as the cause of its own (FileExistsError or OSError(EINVAL) for a 412), botocore's
    holds the reply.
    """
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if isinstance(response, dict):
        return _fault_of_reply(response)
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return Fault("large", error.strerror or text)
    if isinstance(error, FileExistsError):
        return Fault("exists", text)
    if isinstance(error, ParamValidationError):  # the two regular expressions behind it say no more
        return Fault("refused", text.removeprefix("Parameter validation failed: ").partition(": Bucket name must")[0])
    if isinstance(error, RecursionError):
        return Fault("refused", "it redirects every request: another scheme (https), host or region")
    if isinstance(error, EndpointConnectionError | SSLError):
        return Fault("unreachable", text)
    if isinstance(error, ResponseParserError):
        return Fault("unreachable", f"no reply of an S3 store: {text}")
    if isinstance(error, TimeoutError | ReadTimeoutError | ConnectTimeoutError):
        return Fault("slow", text if str(error) else "no reply in time")
    return Fault("transient" if isinstance(error, _TRANSIENT) else "refused", text)


def _fault_of_reply(response: S3Reply) -> Fault:
    about = response.get("Error", {})
    metadata = response.get("ResponseMetadata", {})
    status, code = metadata.get("HTTPStatusCode", 0), str(about.get("Code", ""))
    text = f"HTTP {status} {code}: {' '.join(str(about.get('Message', '')).split())}".removesuffix(": ")
    if code in _EXPIRED or (status == 400 and code == "400"):  # the reply to a HEAD has no body to tell more
        return Fault("expired", text)
    if status == 412:
        return Fault("exists", text)
    if status in (429, 503) or code in _BUSY:
        return Fault("busy", text, _retry_after_s(metadata))
    # A 409 says that another writer is at it right now: only the next attempt tells whether it succeeds.
    if status in (408, 409) or code in _DAMAGED_ON_THE_WAY or (status >= 500 and status != 501):
        return Fault("transient", text)
    if code in _OF_ONE_OBJECT:
        return Fault("item", text)
    if status == 404:
        return Fault("missing", text)
    return Fault("denied" if status in (401, 403) else "refused", text)


def _retry_after_s(metadata: S3Reply) -> float:
    text = str(metadata.get("HTTPHeaders", {}).get("retry-after", ""))
    return min(float(text), LONGEST_WAIT_S) if text.isdecimal() else 0.0


def _new_session(config: StorageConfig) -> AioSession:
    """botocore's part of s3fs: which credentials there are, and how replies are read."""
    session = AioSession(profile=config.s3.profile)
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_instant)
    return session


def _instant(text: Any) -> datetime:
    """A time of a listing or of a header. botocore takes two thirds of a listing's time for them, by dateutil."""
    if isinstance(text, str) and text[4:5] == "-":
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    return parse_timestamp(text)


class S3:
    """Requests to one endpoint. Thread-safe. ``reached``: another process has had an answer from it.

    Until there was one, a connection that is refused is a wrong endpoint, and not repeated.
    """

    def __init__(self, config: StorageConfig, *, reached: bool = False) -> None:
        self.reached = reached
        self._config = config
        self._buckets: set[str] = set()
        self._sessions = 0
        self._renewing = threading.Lock()
        self._quick = _Quick()
        settings = config.s3
        self.filesystem = S3FileSystem(
            anon=settings.anonymous,
            session=_new_session(config),
            endpoint_url=settings.endpoint_url,
            client_kwargs={"region_name": settings.region} if settings.region else {},
            config_kwargs={
                "connect_timeout": config.connect_timeout_s,
                "read_timeout": config.read_timeout_s,
                "retries": {"total_max_attempts": 1, "mode": "standard"},
                "max_pool_connections": _CONNECTIONS,
            },
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    # --- requests ------------------------------------------------------------------------------

    def head(self, bucket: str, key: str) -> S3Reply:
        """Size, time and etag of an object. Raises FileNotFoundError, StorageError."""
        return self._try(_Request(bucket, key, lambda client: client.head_object(Bucket=bucket, Key=key), reads=True))

    def get(self, bucket: str, key: str, *, item: bool = False) -> tuple[bytes, S3Reply]:
        """The bytes of an object and its header. Raises FileNotFoundError, StorageError.

        ``item``: one image, whose own failures are OSError (TimeoutError) if the store is up.
        """

        async def read(client: Client) -> tuple[bytes, S3Reply]:
            reply = await client.get_object(Bucket=bucket, Key=key)
            async with reply["Body"] as body:
                if item:
                    self._check_item(reply["ContentLength"])
                data = await body.read()
            _check_length(len(data), reply)
            return data, reply

        request = _Request(bucket, key, read, item=item, reads=True)
        return self._try(request, quick=(lambda way: way.get(key)) if item else None)

    def _check_item(self, size: int) -> None:
        most = self._config.max_item_bytes
        if size > most:
            raise OSError(errno.EFBIG, f"{size} bytes, storage.max_item_bytes is {most}")

    def download(self, bucket: str, key: str, path: Path) -> None:
        """Stream an object to a local file. Raises FileNotFoundError, StorageError."""
        size = self.head(bucket, key)["ContentLength"]

        async def stream(client: Client) -> None:
            file.seek(0)
            file.truncate()
            reply = await client.get_object(Bucket=bucket, Key=key)
            async with reply["Body"] as body:
                while chunk := await body.read(_CHUNK_BYTES):
                    try:
                        file.write(chunk)
                    except OSError as error:  # of this disk, and not of the store
                        raise StorageError(f"{path}: cannot write: {error.strerror or error}") from error
            _check_length(file.tell(), reply)

        with path.open("wb") as file:
            self._try(_Request(bucket, key, stream, moved_bytes=size))

    def list_page(self, bucket: str, prefix: str, token: str | None) -> S3Reply:
        """Up to 1000 keys below a prefix, in the reply's own words. Raises StorageError."""
        more = {"ContinuationToken": token} if token else {}
        return self._try(
            _Request(bucket, prefix, lambda client: client.list_objects_v2(Bucket=bucket, Prefix=prefix, **more))
        )

    def put_if_absent(
        self, bucket: str, key: str, body: Callable[[], bytes | BinaryIO], *, size: int, **headers: str
    ) -> bool:
        """One PUT with ``If-None-Match: *``; False where the store says that something is there (412).

        ``body`` gives the content anew for each attempt. After a reply that was lost, what is there may be this
        call's own: the caller compares.
        """
        quick = None if headers or size > LARGEST_PUT else lambda way: way.create(key, body()) or {}
        headers["IfNoneMatch"] = "*"
        request: _Request[S3Reply] = _Request(
            bucket,
            key,
            lambda client: client.put_object(Bucket=bucket, Key=key, Body=body(), **headers),
            moved_bytes=size,
        )
        try:
            self._try(request, quick=quick)
        except FileExistsError:
            return False
        return True

    def delete(self, bucket: str, key: str) -> None:
        """Take an object away; nothing where there is none. Raises StorageError."""
        self._try(_Request(bucket, key, lambda client: client.delete_object(Bucket=bucket, Key=key)))

    # --- attempts ------------------------------------------------------------------------------

    def _try(self, request: "_Request[Reply]", *, quick: "Callable[[QuickBucket], Reply] | None" = None) -> Reply:
        """``quick``: the same request by obstore, where it has a way: the first of the attempts."""
        begin = time.monotonic()
        attempts, tried = self._config.attempts, False
        if quick is not None and (way := self._quick_way(request)) is not None:
            try:
                reply = quick(way)
            except NotServed as missed:
                tried = True
                self._judge(missed)
            else:
                self._quick.misses = 0
                return self._served(request, reply)
        deadline_s = max(self._config.deadline_s, request.moved_bytes / _SLOWEST_BYTES_PER_S)
        session, renewed, sent = self._sessions, False, 0

        def send(left_s: float) -> Reply:
            nonlocal session, sent
            session = self._sessions
            sent += 1
            try:
                reply: Any = sync(self.filesystem.loop, self._once, request, left_s)
            except _FAULTS as error:
                raise Failed(fault_of(error)) from error
            return reply

        def action(fault: Fault) -> Action:
            nonlocal renewed
            if fault.kind == "expired" and not renewed:
                renewed = True
                self._renew(session)
                return "now"
            if fault.kind == "unreachable" and self.reached:
                return "wait"
            self.reached = self.reached or fault.kind == "busy"
            return usual_action(fault)

        try:
            reply = with_retries(
                send,
                attempts=max(1, attempts - tried),
                deadline_s=deadline_s - (time.monotonic() - begin),
                action=action,
            )
        except Failed as failed:
            raise self._final(request, failed.fault, failed.attempts + tried) from failed.__cause__
        if tried and sent == 1:
            self._quick.misses += 1
        return self._served(request, reply)

    def _served(self, request: "_Request[Any]", reply: Reply) -> Reply:
        self.reached = True
        self._buckets.add(request.bucket)
        return reply

    # --- the quick way -------------------------------------------------------------------------

    def _quick_way(self, request: "_Request[Any]") -> QuickBucket | None:
        """The bucket by obstore; None where this is s3fs's own: see ``s3_quick.py``.

        And where obstore missed what s3fs then had at once, many times in a row.
        """
        quick = self._quick
        if quick.misses >= _MISSES or not is_plain(request.bucket, request.key):
            return None
        with self._renewing:
            if quick.session != self._sessions:
                quick.session, quick.way, quick.buckets = self._sessions, None, {}
            if request.bucket not in quick.buckets:
                try:
                    way = quick.way or connection_of(self.filesystem)
                except _FAULTS:  # no credentials, no such profile: s3fs says so
                    return None
                quick.way = way
                quick.buckets[request.bucket] = way and QuickBucket(request.bucket, way, self._config)
            return quick.buckets[request.bucket]

    def _judge(self, missed: NotServed) -> None:
        if any(code in str(missed) for code in _EXPIRED):
            self._renew(self._quick.session)
        elif missed.busy:
            time.sleep(wait_s(1))

    async def _once(self, request: "_Request[Reply]", left_s: float) -> Reply:
        async with asyncio.timeout(max(left_s, 0)):
            return await request.send(await self.filesystem.set_session())

    def _renew(self, session: int) -> None:
        """A new session, whose credentials are looked up anew; by the first of the threads that need it."""
        with self._renewing:
            if session == self._sessions:
                self.filesystem.session = _new_session(self._config)
                self.filesystem.connect(refresh=True)
                self._sessions += 1

    def _final(self, request: "_Request[Any]", fault: Fault, attempts: int) -> OSError | StorageError:
        """The error that a request ends with."""
        endpoint = self._config.s3.endpoint_url or "AWS"
        tried = f"{attempts} attempt(s)"
        match fault.kind:
            case "exists":
                return FileExistsError(errno.EEXIST, fault.text, request.uri)
            case "missing" if self._has_bucket(request.bucket, anew=request.item):
                return FileNotFoundError(errno.ENOENT, "no such object", request.uri)
            case "missing":
                return StorageError(f"{request.uri}: no bucket {request.bucket!r} at {endpoint}")
            case "large":
                return OSError(errno.EFBIG, fault.text, request.uri)
            case "item":
                return OSError(errno.ENODATA, fault.text, request.uri)
            case "denied" if request.reads and self._lists_without(request):
                return FileNotFoundError(errno.ENOENT, "no such object", request.uri)
            case "denied":
                return StorageError(
                    f"{request.uri}: access denied ({fault.text}); check credentials and bucket policy (without "
                    "s3:ListBucket, an object that is gone reads as denied too)"
                )
            case "expired":
                return StorageError(
                    f"{request.uri}: the credentials have expired, or are of another region ({fault.text}); renew "
                    "them, or set storage.s3.region"
                )
            case "unreachable":
                return StorageError(f"{request.uri}: cannot reach {endpoint}: {fault.text}; check storage.s3")
            case "busy":
                return StorageError(
                    f"{request.uri}: {endpoint} is overloaded ({fault.text}) after {tried}; run the command again "
                    "later, with fewer actors, or raise storage.attempts"
                )
            case "refused":
                return StorageError(f"{request.uri}: {endpoint} cannot be used so: {fault.text}; check storage.s3")
        probe = self._probe(request.bucket) if request.item else fault
        if probe is not None and request.item and probe.kind == "missing":
            return StorageError(f"{request.uri}: no bucket {request.bucket!r} at {endpoint}")
        if request.item and (probe is None or probe.kind in ("denied", "expired")):
            kind = TimeoutError if fault.kind == "slow" else OSError
            return kind(errno.ETIMEDOUT if fault.kind == "slow" else errno.EIO, f"{fault.text} ({tried})", request.uri)
        return StorageError(f"{request.uri}: {endpoint} fails ({fault.text}) after {tried}; run the command again")

    def _probe(self, bucket: str) -> Fault | None:
        """Ask once for a bucket: None where it is there, else what is wrong."""
        request = _Request(bucket, "", lambda client: client.head_bucket(Bucket=bucket))
        try:
            sync(self.filesystem.loop, self._once, request, _PROBE_S)
        except _FAULTS as error:
            return fault_of(error)
        return None

    def _has_bucket(self, bucket: str, *, anew: bool) -> bool:
        """``anew``: it was there, and may be gone."""
        if anew or bucket not in self._buckets:
            fault = self._probe(bucket)
            if fault and fault.kind == "missing":
                return False
            self._buckets.add(bucket)
        return True

    def _lists_without(self, request: "_Request[Any]") -> bool:
        """Whether the bucket may be listed there and lacks the object.

        Who may list below a prefix only is told 403, and not 404, of what is not there. The name of such a prefix
        itself, without its slash, is no object either where the prefix may be listed.
        """
        for prefix in (request.key, f"{request.key}/"):
            listing = _Request(
                request.bucket,
                prefix,
                lambda client, prefix=prefix: client.list_objects_v2(Bucket=request.bucket, Prefix=prefix, MaxKeys=1),
            )
            try:
                page: Any = sync(self.filesystem.loop, self._once, listing, _PROBE_S)
            except _FAULTS:
                continue
            return all(entry["Key"] != request.key for entry in page.get("Contents", ()))
        return False


@dataclass
class _Quick:
    """obstore's part. ``session``: the number of s3fs's that its settings are of. ``misses``: in a row."""

    session: int = -1
    way: Connection | None = None
    buckets: dict[str, QuickBucket | None] = field(default_factory=dict[str, QuickBucket | None])
    misses: int = 0


@dataclass(frozen=True)
class _Request(Generic[Reply]):
    """``send`` takes the client and may be called several times. ``moved_bytes``: of its body, where that is large.

    ``reads``: an object. ``item``: one of many, whose failures may be its own.
    """

    bucket: str
    key: str
    send: Callable[[Client], Awaitable[Reply]]
    item: bool = False
    reads: bool = False
    moved_bytes: int = 0

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def _check_length(done: int, reply: S3Reply) -> None:
    if done != reply["ContentLength"]:
        raise OSError(errno.EIO, f"the reply ended after {done} of {reply['ContentLength']} bytes")
