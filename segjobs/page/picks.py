"""Which images a page shows: scores of all in, the worst, the best and some at random out.

Every task ranks the images that it reads (``candidates``) and hands on the few that could be shown;
``choose`` ranks those again. The choice is the same for any cut of the images into tasks:
random ones are those whose hash of seed and image_id is smallest.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Wanted:
    """How many images of each kind a page shows."""

    worst: int
    best: int
    random: int
    seed: int

    @property
    def total(self) -> int:
        return self.worst + self.best + self.random


class Pick(NamedTuple):
    """One image; ``score`` in [0, 1], None where it has none."""

    image_id: str
    score: float | None


def candidates(image_ids: Sequence[str], scores: Sequence[float | None], wanted: Wanted) -> list[Pick]:
    """The images among these that could be chosen, whatever other images there are.

    ``scores``: one per image; None and NaN are neither worst nor best. At most three times
    ``wanted.total`` of them.
    """
    found = [Pick(*pair) for pair in zip(image_ids, map(_finite, scores), strict=True)]
    ranked, shuffled = _rankings(found, wanted.seed)
    # Of every kind as many as all together: an image that another kind takes has to have a successor.
    most = wanted.total
    return sorted({*ranked[:most], *ranked[len(ranked) - min(most, len(ranked)) :], *shuffled[:most]})


def choose(found: Iterable[Pick], wanted: Wanted) -> dict[str, list[Pick]]:
    """``worst`` (lowest score first), ``best`` (highest first) and ``random``; no image twice."""
    ranked, shuffled = _rankings(set(found), wanted.seed)
    worst = ranked[: wanted.worst]
    rest = ranked[wanted.worst :]
    best = sorted(rest[len(rest) - min(wanted.best, len(rest)) :], key=lambda pick: (-(pick.score or 0), pick.image_id))
    taken = {*worst, *best}
    random = [pick for pick in shuffled if pick not in taken][: wanted.random]
    return {"worst": worst, "best": best, "random": random}


def _rankings(found: Iterable[Pick], seed: int) -> tuple[list[Pick], list[Pick]]:
    """Those with a score, lowest first, and all in their random order."""
    every = list(found)
    ranked = sorted((pick for pick in every if pick.score is not None), key=lambda pick: (pick.score, pick.image_id))
    return ranked, sorted(every, key=lambda pick: _lot(seed, pick.image_id))


def _lot(seed: int, image_id: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{image_id}".encode(errors="surrogatepass")).digest()


def _finite(score: float | None) -> float | None:
    return score if score is not None and math.isfinite(score) else None
