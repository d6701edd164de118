"""uv run python -m tests.torture.driver files --count 1000000 --folder /tmp/driver

What one driver carries, by simulation: real listing, plans, parts, receipts, scores and reports; in the model's place
rows that are made in no time. Each figure is a line of JSON: seconds, CPU seconds and peak MiB of a process of its own.

    files     list and plan COUNT images, hard links to a few photographs
    run       label COUNT images in shards of 62 in this process, and die before the last shard; memory on the way
    resume    the same run again: its parts are taken by their receipts; then run.json is read
    full      the same, every part read (verify=full)
    cluster   label COUNT images on a cluster of three nodes on this machine
    objects   list and plan COUNT objects of a bucket that a process beside this one makes up, a thousand a page
    evaluate  score COUNT pairs of label maps and make their report
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyarrow as pa
from PIL import Image

from segjobs.config import InputConfig, S3Config, ShardConfig, StorageConfig
from segjobs.errors import StorageError
from segjobs.jobs.engine.executor import Actors, Executor, InProcess, Stage, Worker
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.run import run_job
from segjobs.jobs.engine.shards import Job
from segjobs.manifest.parts import find_run
from segjobs.manifest.plan import make_plan
from segjobs.manifest.schema import MANIFEST_SCHEMA, Footer, make_categories
from segjobs.sources.images import list_images
from segjobs.storage import FileInfo, Storage
from tests.made import TRUTH, finished, row_of, scored

SHARD, LINKS = 62, 50_000  # a file system allows so many links to a file
STORAGE = Storage()


@contextmanager
def measured(name: str, **about: Any) -> Iterator[dict[str, Any]]:
    """Prints what the block took. Whoever runs it may add to it."""
    start, spent = time.monotonic(), time.process_time()
    yield about
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    took = {"s": round(time.monotonic() - start, 2), "cpu_s": round(time.process_time() - spent, 2)}
    sys.stdout.write(json.dumps({"figure": name, **took, "peak_mb": round(peak), **about}) + "\n")
    sys.stdout.flush()


def files(folder: Path, count: int) -> None:
    _draw(folder / "in", count)
    with measured("list and plan", images=count) as about:
        plan = make_plan(list_images(STORAGE, InputConfig(uri=str(folder / "in"))), ShardConfig(images=SHARD))
        about["shards"] = plan.num_shards
    assert plan.items.num_rows == count


def _draw(root: Path, count: int) -> None:
    if root.is_dir():
        return
    for number in range(count):
        base = root.parent / f"base-{number // LINKS}.jpg"
        path = root / f"{number // 1000:05d}" / f"{number:07d}.jpg"
        if number % LINKS == 0:
            root.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)).save(base)
        if number % 1000 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(base)


def objects(folder: Path, count: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    told, tell = spawn.Pipe()
    server = spawn.Process(target=_serve, args=(tell, count), daemon=True)
    server.start()
    storage = Storage(StorageConfig(s3=S3Config(endpoint_url=f"http://127.0.0.1:{told.recv()}", anonymous=True)))
    with measured("list and plan objects", objects=count) as about:
        plan = make_plan(list_images(storage, InputConfig(uri="s3://bucket/in/")), ShardConfig(images=SHARD))
        about["shards"] = plan.num_shards
    server.kill()
    assert plan.items.num_rows == count


def _serve(tell: Connection, count: int) -> None:
    """A bucket of so many objects: pages of ListObjectsV2, whose token is the next object's number."""

    class Pages(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            start = int(query.get("continuation-token", ["0"])[0])
            stop = min(start + 1000, count)
            entries = "".join(
                f"<Contents><Key>in/{n // 1000:05d}/{n:07d}.jpg</Key>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f'<ETag>"{n:032x}"</ETag><Size>100000</Size><StorageClass>STANDARD</StorageClass></Contents>'
                for n in range(start, stop)
            )
            more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{stop}</NextContinuationToken>"
            end = more if stop < count else "<IsTruncated>false</IsTruncated>"
            body = f"<ListBucketResult><Name>bucket</Name>{entries}{end}</ListBucketResult>".encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        tell.send(server.server_port)
        server.serve_forever()


# --- a run -------------------------------------------------------------------------------------


def _job(folder: Path, count: int) -> Job:
    listing = (
        FileInfo(f"/d/{n // 1000:05d}/{n:07d}.jpg", f"{n // 1000:05d}/{n:07d}.jpg", 1000, 1_000_000, "")
        for n in range(count)
    )
    footer = Footer("semantic", make_categories([category.name for category in TRUTH]), "digest")
    return Job("label", str(folder / "out"), make_plan(listing, ShardConfig(images=SHARD)), {}, footer, {})


def _rows() -> pa.Table:
    """A shard's rows: label maps of 48×64 pixels."""
    return pa.Table.from_pylist(list(_pictures(SHARD)), MANIFEST_SCHEMA)


class _StandIn:
    """The model's place: the same rows for every shard, under its images' names."""

    def __init__(self, dies_at: int | None = None) -> None:
        self._rows = _rows()
        self._dies_at = dies_at

    def __call__(self, items: pa.Table) -> pa.Table:
        if items["shard"][0].as_py() == self._dies_at:
            raise StorageError("the store is gone")
        rows = self._rows.slice(0, items.num_rows)
        for name in ("image_id", "uri"):
            rows = rows.set_column(rows.schema.get_field_index(name), MANIFEST_SCHEMA.field(name), items[name])
        for name in ("shard", "shard_key"):
            rows = rows.append_column(name, items[name])
        return rows


def _stand_in(dies_at: int | None, _: object) -> Worker:
    work = _StandIn(dies_at)
    return Worker(work, work)


def _stage(dies_at: int | None = None) -> Stage:
    return Stage("labelling", partial(_stand_in, dies_at), Actors(least=2, most=2, cpus=0.5, in_flight=4))


class _Rss(Progress):
    """Notes this process's memory at each tenth of the way."""

    def __init__(self, count: int) -> None:
        super().__init__("label")
        self._every, self._done, self.mb = count / 10, 0, list[int]()

    def advance(self, *, ok: int, failed: int, shard: int | None = None) -> None:
        super().advance(ok=ok, failed=failed, shard=shard)
        before = self._done
        self._done += ok + failed
        if before // self._every != self._done // self._every:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.mb.append(pages * os.sysconf("SC_PAGE_SIZE") // 2**20)


def run(folder: Path, count: int) -> None:
    job = _job(folder, count)
    progress = _Rss(count)
    with measured("run in this process", images=count, shards=job.plan.num_shards) as about:
        try:
            run_job(STORAGE, job, [_stage(job.plan.num_shards - 1)], progress, executor=InProcess())
        except StorageError as error:
            about["ended"] = str(error)
        about["rss_mb"] = progress.mb


def resume(folder: Path, count: int, *, how: Any = "receipts") -> None:
    job = replace(_job(folder, count), verify=how)
    with measured(f"resume, verify={how}", parts=job.plan.num_shards):
        summary = run_job(
            STORAGE, job, [_stage()], Progress("label"), executor=_executor() if how == "full" else InProcess()
        )
    assert summary.images == count
    with measured("read run.json", parts=job.plan.num_shards):
        assert find_run(STORAGE, job.uri) is not None


def full(folder: Path, count: int) -> None:
    Path(_job(folder, 1).uri, "run.json").unlink(missing_ok=True)
    resume(folder, count, how="full")


def cluster(folder: Path, count: int) -> None:
    executor = _executor(nodes=3)
    job, progress = _job(folder / "cluster", count), _Rss(count)
    with measured("run on three nodes", images=count, shards=job.plan.num_shards) as about:
        run_job(STORAGE, job, [_stage()], progress, executor=executor)
        about["driver_rss_mb"] = progress.mb


def _executor(nodes: int = 1) -> Executor:
    from segjobs.config import ClusterConfig
    from segjobs.jobs.engine.cluster import connect
    from segjobs.jobs.engine.ray_executor import RayExecutor

    if nodes == 1:
        connect(ClusterConfig())
        return RayExecutor()
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 200 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    for _ in range(nodes - 1):
        made.add_node(**node)
    connect(ClusterConfig(address=made.address, allow_unauthenticated=True))
    return RayExecutor()


# --- an evaluation -----------------------------------------------------------------------------


def evaluate(folder: Path, count: int) -> None:
    """Pairs of label maps of 48×64 pixels: a hundred are drawn, and repeated under other names."""
    drawn = list(_pictures(100))
    for side, shift in (("truth", 0), ("predicted", 7)):
        rows = [
            {**drawn[(number + shift) % len(drawn)], "image_id": f"{number:07d}", "uri": f"/d/{number}"}
            for number in range(count)
        ]
        finished(folder / side, rows, TRUTH, cut=range(1000, count, 1000), task="semantic")
    with measured("evaluate", pairs=count) as about:
        report = scored(folder, str(folder / "truth"), str(folder / "predicted"))
        about["images"] = report.images
    assert report.images["ok"] == count


def _pictures(count: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    letters = np.array(["s", "r", "t", "c"])
    for number in range(count):
        picture = rng.integers(0, 4, (6, 8)).repeat(8, 0).repeat(8, 1)
        yield row_of(f"{number:03d}", ["".join(letters[line]) for line in picture], TRUTH)


WHAT: dict[str, Callable[[Path, int], None]] = {
    "files": files,
    "objects": objects,
    "run": run,
    "resume": resume,
    "full": full,
    "cluster": cluster,
    "evaluate": evaluate,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True, help="images and manifests; kept")
    arguments = parser.parse_args()
    WHAT[arguments.what](arguments.folder, arguments.count)
