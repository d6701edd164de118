"""A proxy on loopback that stands before a real S3 server and does to requests what networks and stores do.

Requests are passed on byte by byte (the signature covers the Host header, which is kept). A ``Fault`` hits the
requests that it matches, as often as it says; ``chaos`` hits a share of all requests at random, by a seed.
"""

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from yarl import URL

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect"}
_CODES = {
    "busy": (503, "SlowDown"),
    "error": (500, "InternalError"),
    "conflict": (409, "ConditionalRequestConflict"),
    "expired": (400, "ExpiredToken"),
    "denied": (403, "AccessDenied"),
    "archived": (403, "InvalidObjectState"),
    "elsewhere": (301, "PermanentRedirect"),
}
TRANSIENT = ("busy", "error", "conflict", "reset", "lost", "cut", "drip")
"""The kinds that an attempt later is over: what ``chaos`` draws from. A ``drip`` is a body of four slow pieces."""


@dataclass
class Fault:
    """``kind``: a key of _CODES, or

    reset    the connection breaks before the store has seen the request
    lost     the store does it, and the reply is lost
    cut      half of the reply's body, then the connection breaks
    drip     the body comes in four pieces with pauses
    hang     the headers come, and nothing more
    ignored  a 412 becomes a 200, as of a store that ignores If-None-Match
    html     a web server answers, no S3 store

    ``then`` is called before the fault is done.
    """

    kind: str
    method: str = ""
    within: str = ""
    times: int = 1
    then: Callable[[], None] = lambda: None

    def hits(self, request: web.Request) -> bool:
        return self.times > 0 and request.method.startswith(self.method) and self.within in request.path_qs


@dataclass
class FaultProxy:
    """``url`` is the endpoint; ``seen`` has (method, path, fault's kind or ``""``) of each request."""

    target: str
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    _draw: Callable[[], str] = lambda: ""
    _session: aiohttp.ClientSession | None = None

    def chaos(self, seed: int, share: float) -> None:
        """From now on, let a ``share`` of all requests meet a transient fault."""
        dice = random.Random(seed)
        self._draw = lambda: dice.choice(TRANSIENT) if dice.random() < share else ""

    def attempts(self, method: str, within: str = "") -> int:
        return sum(one == method and within in path for one, path, _ in self.seen)

    def _kind(self, request: web.Request) -> str:
        for fault in self.faults:
            if fault.hits(request):
                fault.times -= 1
                fault.then()
                return fault.kind
        return self._draw()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        kind = self._kind(request)
        self.seen.append((request.method, request.path_qs, kind))
        body = await request.read()
        if kind in _CODES:
            status, code = _CODES[kind]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by the proxy</Message></Error>"
            return web.Response(status=status, text=text, content_type="application/xml")
        if kind == "html":
            return web.Response(text="<html><body>It works!</body>", content_type="text/html")
        if kind == "reset":
            return _broken(request)
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP]
        assert self._session
        url = URL(self.target + request.raw_path, encoded=True)
        async with self._session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as reply:
            content = await reply.read()
            if kind == "lost":
                return _broken(request)
            if kind == "ignored" and reply.status == 412:
                return web.Response(headers={"ETag": '"0"'})
            # A HEAD's length is of the body that a GET would have.
            kept = {k: v for k, v in reply.headers.items() if k.lower() not in _HOP_BY_HOP}
            answer = web.StreamResponse(status=reply.status, headers=kept)
            await answer.prepare(request)
            await self._send(request, answer, kind, b"" if request.method == "HEAD" else content)
            return answer

    async def _send(self, request: web.Request, answer: web.StreamResponse, kind: str, content: bytes) -> None:
        if kind == "hang":
            await asyncio.sleep(60)
        if kind == "cut":
            await answer.write(content[: len(content) // 2])
            _broken(request)
            return
        for number in range(4) if kind == "drip" else ():
            quarter = -(-len(content) // 4)
            await answer.write(content[number * quarter : (number + 1) * quarter])
            await asyncio.sleep(0.05)
        if kind != "drip" and content:
            await answer.write(content)
        await answer.write_eof()


def _broken(request: web.Request) -> web.Response:
    assert request.transport
    request.transport.abort()
    return web.Response()


@contextmanager
def fault_proxy(target: str) -> Iterator[FaultProxy]:
    """A running proxy before the server at ``target``."""
    proxy = FaultProxy(target)
    loop = asyncio.new_event_loop()
    ready, end = threading.Event(), asyncio.Event()

    async def run() -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", proxy._serve)
        async with aiohttp.ClientSession(
            auto_decompress=False, skip_auto_headers=("Content-Type", "User-Agent", "Accept", "Accept-Encoding")
        ) as session:
            proxy._session = session
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            assert site._server
            proxy.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
            ready.set()
            await end.wait()
            await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(30)
        loop.close()
