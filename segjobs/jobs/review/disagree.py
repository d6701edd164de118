"""How far the masks of an image are from those of another time or another model: two manifests in, 1 - mIoU out.

a version of the collection ┐
                            ├→ disagreements → Ranked: images whose masks differ, the farthest first
an earlier one, or a manifest ┘
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segjobs.config import ReviewConfig
from segjobs.errors import ManifestError
from segjobs.jobs.review.candidates import Candidates, Ranked, drawn
from segjobs.manifest import coco_api
from segjobs.manifest.coco_api import Rle
from segjobs.manifest.collection import Collection, open_collection
from segjobs.manifest.parts import open_run, read_part
from segjobs.manifest.run_info import Run
from segjobs.storage import Storage

_MOST_COMPARED = 20_000  # a few milliseconds each
_VERSIONS_BACK = 30
_COLUMNS = ("image_id", "status", "segments")


def disagreements(config: ReviewConfig, storage: Storage, now: Collection, found: Candidates) -> Ranked:
    """Candidates by the disagreement with ``against``, else with the newest version in which some had other masks."""
    nothing = np.zeros(0)
    if config.against.uri is not None:
        run = open_run(storage, config.against.uri)
        there = _known(storage, run)
        places = np.array([place for place, one in enumerate(found.image_ids) if one in there], np.int64)
        what = run.uri
    else:
        earlier = _earlier(storage, now, found)
        if earlier is None:
            return Ranked(nothing.astype(np.int64), nothing, "no image of them had other masks in an earlier version")
        old, places = earlier
        run, what = old.run(), old.pinned
    compared = drawn(places, found, _MOST_COMPARED, config.seed)
    note = f"compared with {what}"
    if len(compared) < len(places):
        note += f": {len(compared)} of {len(places)} images, drawn at random"
    wanted = {found.image_ids[place]: place for place in compared.tolist()}
    scores = dict(_scores(storage, now, run, wanted))
    order = sorted((place for place, score in scores.items() if score > 0), key=lambda place: (-scores[place], place))
    return Ranked(np.array(order, np.int64), np.array([scores[place] for place in order], np.float64), note)


def _known(storage: Storage, run: Run) -> set[str]:
    found: set[str] = set()
    for part in run.parts:
        rows = read_part(storage, run, part, columns=("image_id", "status"))
        found.update(rows.filter(pc.equal(rows["status"], "ok"))["image_id"].to_pylist())
    return found


def _earlier(storage: Storage, now: Collection, found: Candidates) -> tuple[Collection, np.ndarray] | None:
    """The newest version in which another run had made the masks of some candidates, and the places of these."""
    place_of = {image_id: place for place, image_id in enumerate(found.image_ids)}
    own = {file.part.name for file in now.files}
    readable = {entry["version"] for entry in now.history()}  # the log is cleaned of old ones
    for version in range(now.version - 1, now.version - 1 - _VERSIONS_BACK, -1):
        if version not in readable:
            return None
        try:
            old = open_collection(storage, f"{now.uri}@{version}")
            places: list[int] = []
            for file in old.files:
                if file.part.name in own:
                    continue
                rows = old.columns(file, ("image_id", "status", "gone_at", "run_id"))
                rows = rows.filter(pc.and_(pc.is_null(rows["gone_at"]), pc.equal(rows["status"], "ok")))
                for image_id, run_id in zip(rows["image_id"].to_pylist(), rows["run_id"].to_pylist(), strict=True):
                    place = place_of.get(image_id)
                    if place is not None and found.run_ids[place] != run_id:
                        places.append(place)
        except ManifestError:  # a vacuum has taken its files
            return None
        if places:
            return old, np.array(sorted(places), np.int64)
    return None


def _scores(storage: Storage, now: Collection, other: Run, wanted: Mapping[str, int]) -> Iterator[tuple[int, float]]:
    """Place → 1 - mIoU of each wanted image that both have, of one size. A file of each side is in memory at a time."""
    theirs = _Masks(storage, other)
    run = now.run()
    for part in run.parts:
        for row in _rows(storage, run, part, wanted):
            segments = theirs.of(row["image_id"], wanted)
            score = None if segments is None else disagreement(row["segments"], segments)
            if score is not None:
                yield wanted[row["image_id"]], score


def _rows(storage: Storage, run: Run, part: Any, wanted: Mapping[str, int]) -> list[dict[str, Any]]:
    here = [image_id for image_id in wanted if part.first_id <= image_id <= part.last_id]
    if not here:
        return []
    rows = read_part(storage, run, part, columns=_COLUMNS)
    return rows.filter(pc.is_in(rows["image_id"], value_set=pa.array(here, pa.string()))).to_pylist()


class _Masks:
    """The other side's masks, asked for in order of image_id."""

    def __init__(self, storage: Storage, run: Run) -> None:
        self._storage, self._run = storage, run
        self._left = list(run.parts)
        self._held: dict[str, Any] = {}
        self._up_to = ""

    def of(self, image_id: str, wanted: Mapping[str, int]) -> Sequence[Mapping[str, Any]] | None:
        while self._left and self._up_to < image_id:
            part = self._left.pop(0)
            rows = _rows(self._storage, self._run, part, wanted)
            self._held = {row["image_id"]: row["segments"] for row in rows if row["status"] == "ok"}
            self._up_to = part.last_id
        return self._held.get(image_id)


def disagreement(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> float | None:
    """1 - the mean, over the classes that either shows, of the IoU of a class's pixels; 0 where neither shows any.

    None where they are masks of another size. Objects of a class are united: who is who does not matter.
    """
    here, there = _by_class(one), _by_class(other)
    sizes = {tuple(mask["size"]) for mask in (*here.values(), *there.values())}
    if len(sizes) > 1:
        return None
    names = sorted(here.keys() | there.keys())
    if not names:
        return 0.0
    ious = [
        float(coco_api.mask_ious([here[name]], [there[name]], [False])[0, 0]) if name in here and name in there else 0.0
        for name in names
    ]
    return 1 - sum(ious) / len(ious)


def _by_class(segments: Sequence[Mapping[str, Any]]) -> dict[str, Rle]:
    found: dict[str, list[Rle]] = {}
    for one in segments:
        if one["area"]:
            code = one["segmentation"]
            found.setdefault(one["category"], []).append({"size": code["size"], "counts": code["counts"]})
    return {name: coco_api.union(masks) for name, masks in found.items()}
