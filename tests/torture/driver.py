"""uv run python -m tests.torture.driver files --count 1000000 --folder /tmp/driver

What one driver carries, by simulation: real listing, plans, parts, receipts, scores and reports; in the model's place
rows that are made in no time. Each figure is a line of JSON: seconds, CPU seconds and peak MiB of a process of its own.

    files     list and plan COUNT images, hard links to a few photographs
    run       label COUNT images in shards of 62 in this process, and die before the last shard; memory on the way
    resume    the same run again: its parts are taken by their receipts; then run.json is read
    full      the same, every part read (verify=full)
    cluster   label COUNT images on a cluster of three nodes on this machine, die before the last shard, and resume
    objects   list and plan COUNT objects of a bucket that a process beside this one makes up, a thousand a page
    bucket    list and plan COUNT real objects of a SeaweedFS server, which it starts and fills
    parts     label COUNT images into a bucket of such a server, die before the last shard, and resume; requests of it
    evaluate  score COUNT pairs of label maps and make their report
    report    make their report alone: the counts of a hundred pairs, which repeat, are written for all
    cost      label COUNT photographs of --photographs by the LR-ASPP of the directory --model, with torch and with
              ONNX Runtime, and score these against each other: what of it is CPU an image
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import obstore
import pyarrow as pa
from obstore.store import S3Store
from PIL import Image

from segjobs.config import (
    EvaluateConfig,
    InputConfig,
    LabelConfig,
    S3Config,
    ShardConfig,
    StorageConfig,
    load_config,
)
from segjobs.errors import StorageError
from segjobs.evaluation.entries import Evaluation, open_evaluation
from segjobs.evaluation.output import output_files
from segjobs.evaluation.pairing import SCORES_SCHEMA, Range
from segjobs.evaluation.report import make_report
from segjobs.evaluation.score_range import publish_range, score_rows
from segjobs.evaluation.scored_parts import OF_KEY, inputs_uri, part_of, scored_digest
from segjobs.jobs.engine.executor import Actors, Executor, InProcess, Stage, Worker
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.run import run_job
from segjobs.jobs.engine.shards import Job
from segjobs.manifest.parts import Run, find_run, list_parts, part_bytes, part_uri, write_run
from segjobs.manifest.plan import make_plan
from segjobs.manifest.run_info import PartInfo, RunCounts
from segjobs.manifest.schema import MANIFEST_SCHEMA, Footer, make_categories
from segjobs.manifest.seal import sealed_table, sealed_text
from segjobs.sources.images import list_images
from segjobs.storage import FileInfo, Storage
from tests.fault_proxy import fault_proxy
from tests.in_process import label_in_process
from tests.made import TRUTH, row_of, scored
from tests.manifests import info_of

SHARD, LINKS = 62, 50_000  # a file system allows so many links to a file
BUCKET, FEW, DRAWN = "s3://segjobs", 8, 100
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


def bucket(folder: Path, count: int) -> None:
    filled = folder / "bucket" / "filled"
    with _seaweed(filled.parent) as config:
        if not filled.exists():
            with measured("put objects, with the server's CPU") as about:
                _apart(_fill, config, count)
                about["server_cpu_s"] = _cpu_s_below(os.getpid())
            filled.touch()
        before = _cpu_s_below(os.getpid())
        with measured("list and plan real objects", objects=count) as about:
            plan = make_plan(list_images(Storage(config), InputConfig(uri=f"{BUCKET}/in/")), ShardConfig(images=SHARD))
            about |= {"shards": plan.num_shards, "server_cpu_s": round(_cpu_s_below(os.getpid()) - before, 2)}
    assert plan.items.num_rows == count


def _fill(config: StorageConfig, count: int) -> None:
    endpoint = config.s3.endpoint_url
    store = S3Store("segjobs", endpoint=endpoint, client_options={"allow_http": True}, region="us-east-1")

    def put(number: int) -> None:
        obstore.put(store, f"in/{number // 1000:05d}/{number:07d}.jpg", b"%d" % number, use_multipart=False)

    with ThreadPoolExecutor(32) as threads:
        for _ in threads.map(put, range(count)):
            pass


@contextmanager
def _seaweed(folder: Path) -> Iterator[StorageConfig]:
    from tests.conftest import start_s3  # puts its credentials into the environment

    folder.mkdir(parents=True, exist_ok=True)
    with start_s3(folder) as config:
        yield config


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


class _Memory:
    """Memory at each tenth of the way: this process's, and of ``others`` that it has begun, the largest of a kind."""

    def __init__(self, count: int, *, others: bool = False) -> None:
        self._every, self._done, self.mb = count / 10, 0, list[int]()
        self.others_mb: dict[str, list[int]] | None = {} if others else None

    def note(self, images: int) -> None:
        before = self._done
        self._done += images
        if before // self._every == self._done // self._every:
            return
        self.mb.append(_resident_mb("self"))
        if self.others_mb is not None:
            for kind, mb in _begun_by(os.getpid()).items():
                self.others_mb.setdefault(kind, []).append(mb)


def _resident_mb(pid: str, *, shared: bool = True) -> int:
    _, resident, of_others, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    return (resident - (0 if shared else of_others)) * os.sysconf("SC_PAGE_SIZE") // 2**20


def _begun_by(root: int) -> dict[str, int]:
    """Kind of process → MiB of the largest one, without what it shares (Ray's object store), of all below ``root``."""
    found: dict[str, int] = {}
    for pid in _below(root):
        with suppress(OSError):
            kind = " ".join(Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")[:3])
            kind = kind.partition(" ")[0].rpartition("/")[2] if kind.startswith("/") else kind
            found[kind] = max(found.get(kind, 0), _resident_mb(str(pid), shared=False))
    return found


def _cpu_s_below(root: int) -> float:
    """CPU seconds of the processes below ``root``."""
    ticks = 0
    for pid in _below(root):
        with suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _below(root: int) -> list[int]:
    """The processes that ``root`` has begun, and those that they have."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, last = list[int](), {root}
    while last:
        last = {pid for pid, parent in parents.items() if parent in last}
        found += last
    return found


class _Watched(Progress):
    """Notes the memory on the way."""

    def __init__(self, count: int, *, others: bool = False) -> None:
        super().__init__("label")
        self.memory = _Memory(count, others=others)

    def advance(self, *, ok: int, failed: int, shard: int | None = None) -> None:
        super().advance(ok=ok, failed=failed, shard=shard)
        self.memory.note(ok + failed)


def run(folder: Path, count: int) -> None:
    job = _job(folder, count)
    progress = _Watched(count)
    with measured("run in this process", images=count, shards=job.plan.num_shards) as about:
        try:
            run_job(STORAGE, job, [_stage(job.plan.num_shards - 1)], progress, executor=InProcess())
        except StorageError as error:
            about["ended"] = str(error)
        about["rss_mb"] = progress.memory.mb


def resume(folder: Path, count: int, *, how: Any = "receipts") -> None:
    job = replace(_job(folder, count), verify=how)
    with measured(f"resume, verify={how}", parts=job.plan.num_shards):
        summary = run_job(
            STORAGE, job, [_stage()], Progress("label"), executor=_executor() if how == "full" else InProcess()
        )
    assert summary.images == count
    with measured("read run.json", parts=job.plan.num_shards):
        assert find_run(STORAGE, job.uri) is not None


def parts(folder: Path, count: int) -> None:
    with _seaweed(folder / "parts") as config:
        job = replace(_job(folder, count), uri=f"{BUCKET}/out")
        with measured("run into a bucket, in a process of its own", images=count, shards=job.plan.num_shards):
            _apart(_run_into, config, folder, count)
        with fault_proxy(config.s3.endpoint_url or "") as proxy:
            storage = Storage(StorageConfig(s3=S3Config(endpoint_url=proxy.url)))
            with measured("resume in a bucket", parts=job.plan.num_shards) as about:
                summary = run_job(storage, job, [_stage()], Progress("label"), executor=InProcess())
                about |= {"already_done": summary.already_done, "requests": len(proxy.seen)}
                about |= Counter("LIST" if "prefix=" in path else method for method, path, _ in proxy.seen)
            with measured("read run.json in a bucket", parts=job.plan.num_shards):
                assert find_run(storage, job.uri) is not None
    assert summary.images == count


def _run_into(config: StorageConfig, folder: Path, count: int) -> None:
    job = replace(_job(folder, count), uri=f"{BUCKET}/out")
    with suppress(StorageError):
        run_job(Storage(config), job, [_stage(job.plan.num_shards - 1)], Progress("label"), executor=InProcess())


def full(folder: Path, count: int) -> None:
    Path(_job(folder, 1).uri, "run.json").unlink(missing_ok=True)
    resume(folder, count, how="full")


def cluster(folder: Path, count: int) -> None:
    executor = _executor(nodes=3)
    job, progress = _job(folder / "cluster", count), _Watched(count, others=True)
    shards = job.plan.num_shards
    with measured("run on three nodes", images=count, shards=shards) as about:
        try:
            run_job(STORAGE, job, [_stage(shards - 1)], progress, executor=executor)
        except StorageError as error:
            about["ended"] = str(error)
        about |= {"driver_rss_mb": progress.memory.mb, "others_mb": progress.memory.others_mb}
    with measured("resume on three nodes", shards=shards) as about:
        summary = run_job(STORAGE, job, [_stage()], Progress("label"), executor=executor)
        about["already_done"] = summary.already_done
    assert summary.images == count
    with measured("read run.json", parts=shards):
        assert find_run(STORAGE, job.uri) is not None


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
    """Pairs of label maps of 48×64 pixels: a hundred are drawn, and repeated under other names.

    What another one has scored in the same folder is not scored again, as in the job.
    """
    evaluation = _evaluation(folder, count)
    (entry,) = evaluation.entries
    standing = list_parts(STORAGE, entry.uri, "scores")
    pending = [(number, span) for number, span in enumerate(entry.spans) if number not in standing]
    memory = _Memory(sum(_images(span) for _, span in pending))
    with measured("score", pairs=count, ranges=len(entry.spans), before=len(standing)) as about:
        for number, span in pending:
            publish_range(number, span, entry.pairing, entry.uri)
            memory.note(_images(span))
        about["rss_mb"] = memory.mb
    _report(evaluation, count)


def report(folder: Path, count: int) -> None:
    evaluation = _evaluation(folder, count)
    _apart(_write_scores, folder, count)
    _report(evaluation, count)


def _report(evaluation: Evaluation, count: int) -> None:
    with measured("report", pairs=count) as about:
        made = make_report(evaluation)
        for uri, data in output_files(evaluation, made):
            STORAGE.put_if_absent(uri, data)
        about["images"] = made.images
    assert made.images["ok"] == count


def _write_scores(folder: Path, count: int) -> None:
    """Pair n's counts are those of pair n % 100: scored once, and published under all names."""
    (entry,) = _evaluation(folder, count).entries
    drawn = pa.Table.from_pylist(score_rows(entry.spans[0], entry.pairing)[:DRAWN], SCORES_SCHEMA)
    digest, start = scored_digest(STORAGE, entry.uri), 0
    for number, span in enumerate(entry.spans):
        places = np.arange(start, start + _images(span))
        start += places.size
        metadata = {OF_KEY: part_of(digest, number)}
        data = sealed_table(_named(drawn, places, 0), metadata=metadata, options={"row_group_size": 1000})
        STORAGE.put_if_absent(part_uri(entry.uri, number, "scores"), data)


def _evaluation(folder: Path, count: int) -> Evaluation:
    """The two sides, made where they are not there, and what is to be scored."""
    for side, shift in (("truth", 0), ("predicted", 7)):
        if not (folder / side / "run.json").exists():
            _apart(_write_side, str(folder / side), count, shift)
    sides = {"predictions": {"uri": str(folder / "predicted")}, "truth": {"uri": str(folder / "truth")}}
    config = EvaluateConfig.model_validate({**sides, "output": {"uri": str(folder / "scores")}})
    evaluation = open_evaluation(config, STORAGE)
    for entry in evaluation.entries:
        STORAGE.put_if_absent(inputs_uri(entry.uri), sealed_text(entry.inputs.to_json()))
    return evaluation


def _images(span: Range) -> int:
    return sum(part.rows for part in span.truth)


def _write_side(uri: str, count: int, shift: int) -> None:
    """A finished manifest in parts of a shard's images."""
    drawn = pa.Table.from_pylist(list(_pictures(DRAWN)), MANIFEST_SCHEMA)
    footer = Footer("semantic", tuple(TRUTH), "digest", {"label": f"{Path(uri).name}@1"})
    parts: list[PartInfo] = []
    for number, start in enumerate(range(0, count, SHARD)):
        rows = _named(drawn, np.arange(start, min(start + SHARD, count)), shift)
        data = part_bytes(rows, footer)
        where = part_uri(uri, number)
        STORAGE.put_if_absent(where, data)
        digest, ids = hashlib.sha256(data).hexdigest(), rows["image_id"].to_pylist()
        parts.append(PartInfo(where.rpartition("/")[2], len(ids), digest, ids[0], ids[-1]))
    write_run(STORAGE, Run(uri, tuple(parts), info_of(footer, RunCounts(count, count, 0, 0), run_id=Path(uri).name)))


def _named(drawn: pa.Table, places: np.ndarray, shift: int) -> pa.Table:
    """The rows at these places, int64 (N,), of those that were drawn again and again, each under its own name."""
    rows = drawn.take(pa.array((places + shift) % drawn.num_rows))
    ids = [f"{place:07d}" for place in places.tolist()]
    for name, texts in (("image_id", ids), ("uri", [f"/d/{one}" for one in ids])):
        rows = rows.set_column(rows.schema.get_field_index(name), drawn.schema.field(name), pa.array(texts))
    return rows


def _apart(work: Callable[..., None], *arguments: Any) -> None:
    """In a process of its own, whose memory is not counted with what comes after it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(work, arguments)


def _pictures(count: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    letters = np.array(["s", "r", "t", "c"])
    for number in range(count):
        picture = rng.integers(0, 4, (6, 8)).repeat(8, 0).repeat(8, 1)
        yield row_of(f"{number:03d}", ["".join(letters[line]) for line in picture], TRUTH)


def cost(folder: Path, count: int, photographs: str, model: str) -> None:
    """What a run of a few takes, imports, building and exporting, is not counted."""
    spent: dict[str, float] = {}
    for runtime in ("torch", "onnxruntime"):
        for name, images in (("first", FEW), ("few", FEW), (runtime, count)):
            words = [
                *(f"input.uri={photographs}", f"input.limit={images}", f"output.uri={folder / name}-{runtime}"),
                *("model.name=lraspp_mobilenet_v3_large", f"model.weights={model}", "model.resize=native"),
                *(f"model.runtime={runtime}", "shard.images=62"),
            ]
            before = time.process_time()
            assert label_in_process(load_config(LabelConfig, None, words)).ok == images
            spent[name] = time.process_time() - before
        spent[runtime] = 1000 * (spent[runtime] - spent["few"]) / (count - FEW)
    before = time.process_time()
    scored(folder, f"{folder}/torch-torch", f"{folder}/onnxruntime-onnxruntime", bootstrap={"resamples": 0})
    spent["scored"] = 1000 * (time.process_time() - before) / count
    figures = {f"{name}_cpu_ms": round(spent[name], 2) for name in ("torch", "onnxruntime", "scored")}
    sys.stdout.write(json.dumps({"figure": "cost of an image", "images": count, **figures}) + "\n")


WHAT: dict[str, Callable[[Path, int], None]] = {
    "files": files,
    "objects": objects,
    "bucket": bucket,
    "parts": parts,
    "run": run,
    "resume": resume,
    "full": full,
    "cluster": cluster,
    "evaluate": evaluate,
    "report": report,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*WHAT, "cost"])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True, help="images and manifests; kept")
    parser.add_argument("--photographs")
    parser.add_argument("--model", help="a directory that train has written")
    arguments = parser.parse_args()
    if arguments.what == "cost":
        cost(arguments.folder, arguments.count, arguments.photographs, arguments.model)
    else:
        WHAT[arguments.what](arguments.folder, arguments.count)
