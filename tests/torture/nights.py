"""Many nights of one collection, by a seed: images come, change, move, go and break, people edit masks, drivers die.

    uv run python -m tests.torture.nights --seed 1 --photographs ../shared/data --folder /tmp/nights

    Nights ─→ photos/ changed, `segjobs nightly` (a third of the times killed, and run again) ─→ report: what was wrong

Each night's forward passes are counted by image: those that it planned, once each, and once more those of the shard
that was at work when the driver died. At the end the table's rows are those of a fresh run over the final photographs
where no person was, and the person's where one was; every version in between can be read, and each night is in the
history once.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import s3fs
import torch
from PIL import Image

from segjobs.config import LabelConfig, NightlyConfig, ShardConfig, StorageConfig
from segjobs.jobs.engine.executor import InProcess
from segjobs.jobs.nightly.job import nightly
from segjobs.manifest.collection import open_collection
from segjobs.manifest.merge import MARK_SCHEMA, Changes
from segjobs.manifest.nights import LABELLED, Night, nights_of, open_night
from segjobs.manifest.parts import list_parts, read_rows
from segjobs.manifest.plan import make_plan
from segjobs.manifest.schema import COLLECTION_SCHEMA
from segjobs.results import NightlyResult
from segjobs.storage import FileInfo, Storage, is_remote, join
from tests.in_process import label_in_process
from tests.toy_model import ToySegmenter

POINTS = ("night:before", "night:after", "plan:after", "part-0:before", "part-0:after", "part-1:before", "part-1:after",
          "run:before", "run:after", "files:before", "files:after", "commit:before", "commit:after", "ended:before",
          "ended:after")  # fmt: skip
SHARD = 4
_NIGHT = "import sys; from tests.torture.nights import one_night; one_night(sys.argv[1])"

Seen = dict[str, tuple[FileInfo, str | None]]
"""image_id → its file as it is listed, and the digest of its pixels; None where they cannot be had."""


@dataclass
class Nights:
    """``photographs``: files that images are made of. ``root``: where photos/ and street/ lie, the folder or a bucket.

    ``kills``: night → where it dies; drawn where none is given. ``wrong``: what did not hold, in words.
    """

    folder: Path
    photographs: Sequence[Path]
    seed: int = 1
    nights: int = 30
    begin_with: int = 24
    root: str = ""
    storage: StorageConfig = field(default_factory=StorageConfig)
    kills: Mapping[int, str] = field(default_factory=dict[int, str])
    killed: Counter[str] = field(default_factory=Counter[str])
    counts: Counter[str] = field(default_factory=Counter[str])
    passes: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    human: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])

    def __post_init__(self) -> None:
        self.root = self.root or str(self.folder)

    @property
    def street(self) -> str:
        return join(self.root, "street")

    @property
    def photos(self) -> Path:
        """Where the photographs are changed; of a bucket's, a copy."""
        return self.folder / "photos"


def settings(nights: Nights, number: int) -> dict[str, Any]:
    """Of the job in a night: another model from the tenth on, another post-processing from the twentieth on."""
    return {
        "input": {"uri": join(nights.root, "photos")},
        "model": {"name": "tests.torture.nights:build", "options": {"seed": int(number >= nights.nights // 3)}},
        "postprocess": {"min_area_px": 4 if number >= 2 * nights.nights // 3 else 0},
        "compute": {"actors": 1},
        "shard": {"images": SHARD},
        "max_failed_fraction": 1,
        "storage": nights.storage.model_dump(),
    }


def config_of(nights: Nights, number: int) -> str:
    about = {**settings(nights, number), "collection": {"uri": nights.street}, "stale": "relabel", "budget_images": 7}
    return NightlyConfig.model_validate(about).model_dump_json()


def one_night(config: str) -> NightlyResult:
    """A night as its command runs it, in this process."""
    result = nightly(NightlyConfig.model_validate_json(config), executor=InProcess())
    assert isinstance(result, NightlyResult)
    return result


# --- passes ------------------------------------------------------------------------------------


class Counted(ToySegmenter):
    """The toy, which writes down the pixels of each image that goes through it."""

    def forward(self, batch: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        with (Path(os.environ["NIGHTS_LOG"]) / str(os.getpid())).open("a") as file:
            file.writelines(f"{_digest(one.permute(1, 2, 0).numpy())}\n" for one in batch)
        return super().forward(batch)


def build(seed: int = 0) -> Counted:
    """The factory that ``model.name`` names."""
    return Counted(seed, None, None)


def _digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:16]


def _passes(log: Path) -> Counter[str]:
    """Pixels → how often they went through the network since this was asked for last."""
    found = Counter(line for file in log.iterdir() for line in file.read_text().split())
    for file in log.iterdir():
        file.unlink()
    return found


def _seen(nights: Nights) -> Seen:
    found: Seen = {}
    for file in Storage(nights.storage).walk(join(nights.root, "photos")):
        try:
            with Image.open(nights.photos / file.path) as image:
                found[file.path] = file, _digest(np.asarray(image.convert("RGB")))
        except OSError:
            found[file.path] = file, None
    return found


def _expected(night: Night, before: Seen, after: Seen, done: set[int], at_work: int | None) -> Counter[str]:
    """What the night's passes must be. ``done``: shards that were published ``before`` the kill; the others are
    computed ``after`` it. ``at_work``: the shard that was computed and not published."""
    passes: Counter[str] = Counter()
    for number, items in make_plan(night.files(), ShardConfig(images=SHARD)).shards():
        tries = [before] if number in done else [before, after] if number == at_work else [after]
        for item in items.to_pylist():
            for seen in tries:
                file, pixels = seen.get(item["image_id"], (None, None))
                planned = (item["size"], item["mtime"].timestamp(), item["etag"])
                if file and pixels and (file.size, file.mtime_us / 1e6, file.etag) == planned:
                    passes[pixels] += 1
    return passes


# --- nights ------------------------------------------------------------------------------------


def live(nights: Nights) -> Nights:
    """All nights and the checks at their end."""
    chance = random.Random(nights.seed)
    log = nights.folder / "log"
    for folder in (nights.photos, log):
        folder.mkdir(parents=True)
    os.environ["NIGHTS_LOG"] = str(log)
    try:
        for number in range(nights.nights):
            _change(nights, chance, nights.begin_with if number == 0 else chance.randrange(4))
            if number % 5 == 4:
                _edit(nights, chance)
            drawn = chance.choice(POINTS) if number and chance.random() < 1 / 3 else None
            _night(nights, chance, number, nights.kills.get(number) if nights.kills else drawn)
        for _ in range(100):
            if not any(_night(nights, chance, nights.nights, None).counts.get(name) for name in LABELLED):
                break
        else:
            nights.wrong.append("it never comes to rest")
    finally:
        del os.environ["NIGHTS_LOG"]
    _check(nights)
    return nights


def _night(nights: Nights, chance: random.Random, number: int, point: str | None) -> Night:
    """A night, killed at ``point`` and run again after more has changed; its passes are held against its plan."""
    storage, before = Storage(nights.storage), _seen(nights)
    done, at_work = set[int](), None
    died = point is not None and _killed(nights, number, point)
    if died:
        begun = nights_of(storage, nights.street)[1]
        run_uri = open_night(storage, nights.street, begun[0]).run_uri if begun else None
        done = list_parts(storage, run_uri) if run_uri else set()
        if point is not None and point.startswith("part-") and point.endswith(":before"):
            at_work = int(point.removeprefix("part-").removesuffix(":before"))
        if point == "ended:after":  # the night is over, and what follows is another one
            _count(nights, number, before, before, done, at_work)
            before, done = _seen(nights), set()
        _change(nights, chance, chance.randrange(2))
    if point is None or died:
        one_night(config_of(nights, number))
    return _count(nights, number, before, _seen(nights), done, at_work)


def _count(nights: Nights, number: int, before: Seen, after: Seen, done: set[int], at_work: int | None) -> Night:
    storage = Storage(nights.storage)
    ended, begun = nights_of(storage, nights.street)
    if begun:
        nights.wrong.append(f"night {number}: {begun} are begun and not ended")
    night = open_night(storage, nights.street, ended[-1])
    expected, passes = _expected(night, before, after, done, at_work), _passes(nights.folder / "log")
    if passes != expected:
        nights.wrong.append(
            f"night {number}: {passes.total()} passes for {expected.total()}; too many {dict(passes - expected)}, too "
            f"few {dict(expected - passes)}"
        )
    nights.passes.update(
        planned=night.of(*LABELLED).num_rows, done=passes.total(), at_work=SHARD * (at_work is not None)
    )
    nights.counts.update({name: count for name, count in night.counts.items() if name != "same"})
    return night


def _killed(nights: Nights, number: int, point: str) -> bool:
    """Whether the night, which was to die at ``point``, did; else it came to its end."""
    command = [sys.executable, "-c", _NIGHT, config_of(nights, number)]
    done = subprocess.run(
        command, env={**os.environ, "SEGJOBS_CRASH_AT": point}, check=False, stderr=subprocess.PIPE, text=True
    )
    if done.returncode not in (0, -signal.SIGKILL):
        nights.wrong.append(
            f"night {number} to be killed at {point} ended with {done.returncode}: {done.stderr[-900:]}"
        )
    nights.killed[point] += done.returncode == -signal.SIGKILL
    return done.returncode == -signal.SIGKILL


def _change(nights: Nights, chance: random.Random, come: int) -> None:
    photos = nights.photos
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in photos.iterdir()}

    def make(path: Path) -> None:
        with Image.open(chance.choice(nights.photographs)) as image:
            small = image.convert("RGB").resize((chance.randrange(20, 40), chance.randrange(20, 40)))
        small.putpixel((0, 0), (0, 0, chance.randrange(200)))
        small.save(path)

    there = sorted(before)
    for number in range(come):
        make(photos / f"{chance.randrange(10**6):06}-{number}.png")
    for path in there:
        match chance.randrange(30):
            case 0:
                path.unlink()
            case 1:
                make(path)
            case 2:
                os.utime(path, (chance.randrange(10**9), chance.randrange(10**9)))
            case 3:
                path.rename(photos / f"{chance.randrange(10**6):06}-moved.png")
            case 4:
                path.write_bytes(path.read_bytes()[:60])
            case 5:
                shutil.copy(path, photos / f"{chance.randrange(10**6):06}-copy.png")
    if is_remote(nights.root):
        _copy(nights, before)


def _copy(nights: Nights, before: dict[Path, tuple[int, int]]) -> None:
    """Do to the bucket what was done to the folder since ``before``."""
    bucket = s3fs.S3FileSystem(endpoint_url=nights.storage.s3.endpoint_url, use_listings_cache=False)
    now = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in nights.photos.iterdir()}
    for path in sorted({*before, *now}):
        key = join(nights.root, "photos", path.name)
        if path not in now:
            bucket.rm_file(key)
        elif now[path] != before.get(path):
            bucket.pipe_file(key, path.read_bytes())


def _edit(nights: Nights, chance: random.Random) -> None:
    """A person says of an image that it shows nothing but its first class."""
    now = open_collection(Storage(nights.storage), nights.street)
    rows = [row for file in now.files for row in now.read(file).to_pylist() if row["status"] == "ok"]
    row = chance.choice([row for row in rows if row["gone_at"] is None])
    changed = {**row, "origin": "human", "model": None, "processing": None, "segments": row["segments"][:1]}
    table = pa.Table.from_pylist([changed], COLLECTION_SCHEMA)
    app_id = f"human:{now.version}"
    now.commit(lambda _: Changes(lambda: [table], MARK_SCHEMA.empty_table()), now.footer, app_id=app_id)
    nights.human[row["image_id"]] = changed["segments"]


# --- the verdict -------------------------------------------------------------------------------


def _check(nights: Nights) -> None:
    storage = Storage(nights.storage)
    fresh_uri = join(nights.root, "fresh")
    os.environ["NIGHTS_LOG"] = str(nights.folder)
    try:
        about = {**settings(nights, nights.nights), "output": {"uri": fresh_uri}}
        label_in_process(LabelConfig.model_validate(about))
    finally:
        del os.environ["NIGHTS_LOG"]
    fresh = {row["image_id"]: row for row in read_rows(storage, fresh_uri)}
    now = {row["image_id"]: row for row in read_rows(storage, nights.street)}
    if now.keys() != fresh.keys():
        nights.wrong.append(f"rows that differ: {sorted(now.keys() ^ fresh.keys())}")
    for image_id in now.keys() & fresh.keys():
        one, other = now[image_id], fresh[image_id]
        if one["origin"] == "human":
            if one["segments"] != nights.human[image_id]:
                nights.wrong.append(f"{image_id}: the person's masks were lost")
        elif any(one[name] != other[name] for name in ("status", "source", "segments", "confidence", "uri", "model")):
            nights.wrong.append(f"{image_id}: is not as a fresh run has it")
    if lost := {i for i in nights.human.keys() & now.keys() if now[i]["origin"] != "human"}:
        nights.wrong.append(f"masks of people that were replaced: {sorted(lost)}")
    newest = open_collection(storage, nights.street)
    names = sorted(entry["night"] for entry in newest.history() if "night" in entry)
    if names != nights_of(storage, nights.street)[0]:
        nights.wrong.append("a night was committed twice, or not at all")
    for version in range(1, newest.version + 1):
        for _ in read_rows(storage, f"{nights.street}@{version}", columns=["image_id", "segments"]):
            pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--photographs", type=Path, required=True, help="a folder of photographs, looked through")
    parser.add_argument("--folder", type=Path, required=True, help="photos, collection and log; kept")
    given = parser.parse_args()
    found = sorted(path for name in ("*.jpg", "*.png") for path in given.photographs.rglob(name))
    lived = live(Nights(given.folder, found, seed=given.seed, nights=given.nights))
    report = {name: getattr(lived, name) for name in ("seed", "nights", "killed", "counts", "passes", "wrong")}
    sys.stdout.write(json.dumps({**report, "photographs": len(found)}, indent=1) + "\n")
    sys.exit(bool(lived.wrong))
