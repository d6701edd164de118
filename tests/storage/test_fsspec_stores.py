"""Buckets other than S3's, and the web: what is opened, repeated, and whose fault a failure is."""

import errno
import importlib.util
import json
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fsspec.registry import _registry

from segjobs.config import InputConfig, LabelConfig, StorageConfig, load_config
from segjobs.errors import ConfigError, ItemError, StorageError
from segjobs.sources.images import list_images
from segjobs.sources.read import read_item
from segjobs.storage import Storage
from tests.fake_bucket import FakeBucket
from tests.in_process import label_in_process
from tests.jobs.label.test_job import TOY, check_masks, picture, rows_of, save

BUCKET = StorageConfig.model_validate({"schemes": ["gs"], "attempts": 3})
WEB = StorageConfig.model_validate({"schemes": ["http"], "attempts": 3, "max_item_bytes": 1000})


class Site(ThreadingHTTPServer):
    """Serves ``pages``; ``replies`` are statuses of the next GETs. ``plain``: without a length and an etag."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, bytes] = {}
        self.replies: list[int] = []
        self.plain = False

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        body = self.server.pages.get(self.path)
        status = self.server.replies.pop(0) if self.server.replies and self.command == "GET" else 200 if body else 404
        self.send_response(status)
        if not self.server.plain:
            self.send_header("Content-Length", str(len(body or b"")))
            self.send_header("ETag", f'"{hash(body)}"')
            self.send_header("Last-Modified", formatdate(1_700_000_000, usegmt=True))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body or b"")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setitem(_registry, "gs", FakeBucket)
    monkeypatch.setattr(FakeBucket, "failures", [])
    return f"gs://bucket/{tmp_path.name}"


# --- what is opened ----------------------------------------------------------------------------


def test_a_scheme_that_is_not_allowed_opens_nowhere(tmp_path: Path) -> None:
    for uri in ("gs://bucket/x", "az://container/x", "http://127.0.0.1:1/x", "https://127.0.0.1:1/x"):
        with pytest.raises(ConfigError, match=r"is opened where storage\.schemes=\["):
            Storage().read(uri)
    (tmp_path / "list.txt").write_text("http://127.0.0.1:1/x.png\n")
    with pytest.raises(ConfigError, match=r"storage\.schemes=\[http\]"):
        list(list_images(Storage(), InputConfig(uri=str(tmp_path / "list.txt"))))


def test_a_config_may_allow_schemes() -> None:
    words = ["input.uri=gs://b/x", "output.uri=az://c/out", "model.name=m", "storage.schemes=[gs,az]"]
    assert load_config(LabelConfig, None, words).output.uri == "az://c/out"
    with pytest.raises(ConfigError, match=r"output.uri: 'https://h/x': cannot write there"):
        load_config(
            LabelConfig, None, ["input.uri=a", "output.uri=https://h/x", "model.name=m", "storage.schemes=[https]"]
        )


@pytest.mark.parametrize(("scheme", "package"), [("gs", "gcsfs"), ("az", "adlfs")])
def test_an_extra_that_is_missing_is_named(scheme: str, package: str) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed here")
    with pytest.raises(ConfigError, match=rf"needs segjobs\[{scheme}\] on every node"):
        Storage(StorageConfig(schemes=[scheme])).read(f"{scheme}://bucket/x")  # type: ignore[list-item]


# --- buckets -----------------------------------------------------------------------------------


def test_what_passes_is_repeated_and_a_lost_reply_is_not_a_second_write(bucket: str) -> None:
    storage = Storage(BUCKET)
    FakeBucket.failures[:] = [TimeoutError()]
    assert not storage.put_if_absent(f"{bucket}/x", b"mine"), "the caller compares what is there"
    FakeBucket.failures[:] = [_replied(500), ConnectionResetError()]
    assert storage.read_item(f"{bucket}/x")[0] == b"mine"


def test_a_bucket_that_is_not_there_is_no_empty_one(bucket: str) -> None:
    storage = Storage(BUCKET)
    storage.put_if_absent(f"{bucket}/x", b"x")
    assert list(storage.walk(f"{bucket}/none")) == []
    with pytest.raises(StorageError, match="no bucket 'nowhere'"):
        list(storage.walk("gs://nowhere/photos"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (lambda: _replied(403), "access denied"),
        (lambda: OSError("Forbidden: /b/x"), "access denied"),
        (lambda: ValueError("no account name"), "cannot be used so: no account name"),
        (lambda: _replied(500), "the store fails"),
        (lambda: _replied(429), "the store fails"),
        (TimeoutError, "the store fails"),
    ],
)
def test_a_bucket_that_fails_stops_the_job(bucket: str, error: Any, message: str) -> None:
    storage = Storage(BUCKET)
    storage.put_if_absent(f"{bucket}/x", b"x")
    FakeBucket.failures[:] = [error() for _ in range(3)]
    with pytest.raises(StorageError, match=message):
        storage.read_item(f"{bucket}/x")
    assert len(FakeBucket.failures) == (0 if "store fails" in message else 2), "what will not pass is not repeated"


def _replied(status: int) -> Exception:
    error = aiohttp.ClientError(f"HTTP {status}")
    error.status = status  # type: ignore[attr-defined]
    return error


# --- the web -----------------------------------------------------------------------------------


def test_a_page_is_read_with_the_fingerprint_that_was_planned(site: Site, tmp_path: Path) -> None:
    site.pages = {"/a/x.png": b"first", "/a/b%20c.png": b"second"}
    (tmp_path / "list.txt").write_text(f"{site.root}/a/x.png\n{site.root}/a/b c.png\n{site.root}/a/none.png\n")
    for site.plain in (False, True):
        storage = Storage(WEB)
        files = list(list_images(storage, InputConfig(uri=str(tmp_path / "list.txt"))))
        assert [file.path for file in files] == ["x.png", "b c.png", "none.png"]
        assert [read_item(storage, file) for file in files[:2]] == [b"first", b"second"]
        with pytest.raises(ItemError, match="no such file") as none:
            read_item(storage, files[2])
        assert none.value.code == "NOT_FOUND"
    site.plain = False
    (planned, *_) = list(list_images(storage, InputConfig(uri=str(tmp_path / "list.txt"))))
    site.pages["/a/x.png"] = b"later"
    with pytest.raises(ItemError) as changed:
        read_item(storage, planned)
    assert changed.value.code == "CHANGED"


def test_a_page_is_tried_again_and_then_its_own_fault(site: Site) -> None:
    site.pages = {"/x": b"x", "/large": b"l" * 1001}
    storage = Storage(WEB)
    site.replies = [500, 408]
    assert storage.read_item(f"{site.root}/x")[0] == b"x"
    site.replies = [500, 500, 500]
    with pytest.raises(OSError, match="500") as failed:
        storage.read_item(f"{site.root}/x")
    assert failed.value.errno == errno.EIO
    site.replies = [403]
    with pytest.raises(OSError, match="403"):
        storage.read_item(f"{site.root}/x")
    for site.plain in (False, True):
        with pytest.raises(OSError, match="max_item_bytes is 1000") as large:
            storage.read_item(f"{site.root}/large")
        assert large.value.errno == errno.EFBIG
    site.replies = [429, 429, 429]
    with pytest.raises(StorageError, match="the store fails"):
        storage.read_item(f"{site.root}/x")


def test_the_web_has_no_folders_and_is_not_written(site: Site) -> None:
    storage = Storage(WEB)
    with pytest.raises(ConfigError, match="the web has no folders to list; give a list of URIs"):
        list_images(storage, InputConfig(uri=f"{site.root}/photos"))
    with pytest.raises(ConfigError, match="only read"):
        storage.put_if_absent(f"{site.root}/x", b"x")


def test_a_list_with_credentials_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("http://127.0.0.1:1/x.png?X-Amz-Signature=0123456789abcdef\n")
    with pytest.raises(ConfigError, match=r"Signature=\*\*\* holds a credential"):
        list(list_images(Storage(WEB), InputConfig(uri=str(tmp_path / "list.txt"))))


def test_images_of_the_web_are_labelled(site: Site, tmp_path: Path) -> None:
    images = [picture(number) for number in range(3)]
    for number, image in enumerate(images):
        save(tmp_path / "x.png", image)
        site.pages[f"/{number}.png"] = (tmp_path / "x.png").read_bytes()
    site.pages["/broken.png"] = b"no image"
    names = [f"{site.root}/{name}" for name in ("0.png", "1.png", "2.png", "broken.png", "none.png")]
    (tmp_path / "list.txt").write_text("\n".join(names))
    words = [f"input.uri={tmp_path}/list.txt", f"output.uri={tmp_path}/out", f"model.name={TOY}", "compute.actors=1"]
    config = load_config(LabelConfig, None, [*words, "storage.schemes=[http]", "max_failed_fraction=1"])
    label_in_process(config)
    rows = rows_of(tmp_path / "out")
    for row, image in zip(rows, images, strict=False):
        check_masks(row, image)
    assert [(row["error"] or {}).get("code") for row in rows[3:]] == ["UNREADABLE", "NOT_FOUND"]
    assert json.loads((tmp_path / "out/run.json").read_text())["counts"]["ok"] == 3
