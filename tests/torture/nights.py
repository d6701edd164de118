"""Many nights of one collection, by a seed: images come, change, move, go and break, people edit masks, drivers die.

    Nights ─→ photos/ changed, `segjobs nightly` (a third of the times killed, and run again) ─→ report: what was wrong

At the end the table's rows are those of a fresh run over the final photographs where no person was, and the person's
where one was; every version in between can be read, and each night is in the history once.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from segjobs.config import LabelConfig, NightlyConfig
from segjobs.jobs.engine.executor import InProcess
from segjobs.jobs.nightly.job import nightly
from segjobs.manifest.collection import open_collection
from segjobs.manifest.merge import MARK_SCHEMA, Changes
from segjobs.manifest.parts import read_rows
from segjobs.manifest.schema import COLLECTION_SCHEMA
from segjobs.results import NightlyResult
from segjobs.storage import Storage
from tests.in_process import label_in_process

POINTS = ("night:before", "night:after", "plan:after", "part-0:after", "run:before", "run:after", "files:before",
          "files:after", "commit:before", "commit:after", "ended:before", "ended:after")  # fmt: skip
_NIGHT = "import sys; from tests.torture.nights import one_night; one_night(sys.argv[1], int(sys.argv[2]), sys.argv[3])"
LABELLED = ("new", "changed", "retry", "stale")


@dataclass
class Nights:
    """``photographs``: files that images are made of. ``wrong``: what did not hold, in words."""

    folder: Path
    photographs: Sequence[Path]
    seed: int = 1
    nights: int = 30
    begin_with: int = 24
    killed: Counter[str] = field(default_factory=Counter[str])
    counts: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    human: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])

    @property
    def street(self) -> str:
        return str(self.folder / "street")


def settings(folder: str, number: int) -> dict[str, Any]:
    """Of the job in a night: another model from the tenth on, another post-processing from the twentieth on."""
    return {
        "input": {"uri": f"{folder}/photos"},
        "model": {"name": "tests.toy_model:build", "options": {"seed": int(number >= 10)}},
        "postprocess": {"min_area_px": 4 if number >= 20 else 0},
        "compute": {"actors": 1},
        "shard": {"images": 4},
        "max_failed_fraction": 1,
    }


def one_night(folder: str, number: int, street: str) -> NightlyResult:
    """A night as its command runs it, in this process."""
    about = {**settings(folder, number), "collection": {"uri": street}, "stale": "relabel", "budget_images": 7}
    result = nightly(NightlyConfig.model_validate(about), executor=InProcess())
    assert isinstance(result, NightlyResult)
    return result


def live(nights: Nights) -> Nights:
    """All nights and the checks at their end."""
    chance = random.Random(nights.seed)
    photos, log = nights.folder / "photos", nights.folder / "log"
    for folder in (photos, log):
        folder.mkdir(parents=True)
    os.environ["TOY_LOG"] = str(log)
    try:
        for number in range(nights.nights):
            _change(nights, chance, nights.begin_with if number == 0 else chance.randrange(4))
            if number % 5 == 4:
                _edit(nights, chance)
            killed = _maybe_killed(nights, chance, number)
            _passes(log)
            result = one_night(str(nights.folder), number, nights.street)
            expected = sum(result.counts.get(name, 0) for name in LABELLED) - result.failures.get("TRUNCATED", 0)
            if (done := _passes(log)) != expected and not killed:
                nights.wrong.append(f"night {number}: {done} forward passes for {expected} images")
            nights.counts.update({name: count for name, count in result.counts.items() if name != "same"})
        while one_night(str(nights.folder), nights.nights, nights.street).counts.get("stale"):
            pass
    finally:
        del os.environ["TOY_LOG"]
    _check(nights)
    return nights


def _change(nights: Nights, chance: random.Random, come: int) -> None:
    photos = nights.folder / "photos"

    def make(path: Path) -> None:
        with Image.open(chance.choice(nights.photographs)) as image:
            small = image.convert("RGB").resize((chance.randrange(20, 40), chance.randrange(20, 40)))
        small.putpixel((0, 0), (0, 0, chance.randrange(200)))
        small.save(path)

    there = sorted(photos.iterdir())
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


def _edit(nights: Nights, chance: random.Random) -> None:
    """A person says of an image that it shows nothing but its first class."""
    now = open_collection(Storage(), nights.street)
    rows = [row for file in now.files for row in now.read(file).to_pylist() if row["status"] == "ok"]
    row = chance.choice([row for row in rows if row["gone_at"] is None])
    changed = {**row, "origin": "human", "model": None, "processing": None, "segments": row["segments"][:1]}
    table = pa.Table.from_pylist([changed], COLLECTION_SCHEMA)
    app_id = f"human:{now.version}"
    now.commit(lambda _: Changes(lambda: [table], MARK_SCHEMA.empty_table()), now.footer, app_id=app_id)
    nights.human[row["image_id"]] = changed["segments"]


def _maybe_killed(nights: Nights, chance: random.Random, number: int) -> bool:
    if number == 0 or chance.random() > 1 / 3:
        return False
    point = chance.choice(POINTS)
    command = [sys.executable, "-c", _NIGHT, str(nights.folder), str(number), nights.street]
    done = subprocess.run(
        command, env={**os.environ, "SEGJOBS_CRASH_AT": point}, check=False, stderr=subprocess.DEVNULL
    )
    if done.returncode not in (0, -signal.SIGKILL):
        nights.wrong.append(f"night {number} to be killed at {point} ended with {done.returncode}")
    nights.killed[point] += done.returncode == -signal.SIGKILL
    return True


def _passes(log: Path) -> int:
    count = sum(len(file.read_text().split()) for file in log.iterdir())
    for file in log.iterdir():
        file.unlink()
    return count


def _check(nights: Nights) -> None:
    about = {**settings(str(nights.folder), nights.nights), "output": {"uri": str(nights.folder / "fresh")}}
    label_in_process(LabelConfig.model_validate(about))
    fresh = {row["image_id"]: row for row in read_rows(Storage(), str(nights.folder / "fresh"))}
    now = {row["image_id"]: row for row in read_rows(Storage(), nights.street)}
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
    newest = open_collection(Storage(), nights.street)
    names = [entry["night"] for entry in newest.history() if "night" in entry]
    if len(names) != len(set(names)):
        nights.wrong.append("a night was committed twice")
    for version in range(1, newest.version + 1):
        for _ in read_rows(Storage(), f"{nights.street}@{version}", columns=["image_id", "segments"]):
            pass
