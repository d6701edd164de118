"""Pictures that are looked at before they are sent: ranked candidates in, those that no other one looks like out.

ranked → read and decoded, a few ahead → perceptual hash ─┬→ in_order: the first ones, without near-duplicates
                                                          └→ spread: far from each other, without near-duplicates
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from segjobs.errors import ItemError
from segjobs.jobs.review.candidates import Detail
from segjobs.sources.decode import decode_image
from segjobs.sources.perceptual_hash import BITS, difference_hash, distances
from segjobs.sources.read import read_original
from segjobs.storage import Storage

_THREADS = 8
_AHEAD = 64  # pictures that are read at once: the first ones decide which further ones are needed


@dataclass(frozen=True)
class Looks:
    """A candidate that can be sent. ``place``: in the order of the ranked; ``hash``: None of a huge image."""

    place: int
    detail: Detail
    hash: int | None


class Pictures:
    """Candidates' pictures, read from the store and decoded; what cannot be shown is counted in ``left_out``."""

    def __init__(self, storage: Storage, max_pixels: int) -> None:
        self._storage, self._max_pixels = storage, max_pixels
        self.left_out: Counter[str] = Counter()

    def look(self, ranked: Sequence[Detail]) -> Iterator[Looks]:
        """In their order; an image that is gone, or no longer the one that was labelled, is left out."""
        with ThreadPoolExecutor(_THREADS) as threads:
            for start in range(0, len(ranked), _AHEAD):
                some = ranked[start : start + _AHEAD]
                for place, (detail, seen) in enumerate(zip(some, threads.map(self._hash, some), strict=True), start):
                    if isinstance(seen, str):
                        self.left_out[seen] += 1
                    else:
                        yield Looks(place, detail, seen)

    def _hash(self, detail: Detail) -> int | str | None:
        """The hash, None of an image that is too large for one, or the code of why it cannot be shown."""
        try:
            data = read_original(self._storage, detail.uri, sha256=detail.sha256)
            return difference_hash(decode_image(data, max_pixels=self._max_pixels))
        except ItemError as error:
            return None if error.code == "TOO_LARGE" else error.code


class Unlike:
    """Says of one picture after the other whether it is a near-duplicate of an earlier one. ``bits``: None: of none."""

    def __init__(self, sent: np.ndarray, bits: int | None) -> None:
        self._hashes, self._bits = sent, bits
        self.near_duplicates = 0

    def takes(self, looks: Looks) -> bool:
        """Whether it is none; then it is an earlier one from now on."""
        if looks.hash is None or self._bits is None:
            return True
        if len(self._hashes) and int(distances(looks.hash, self._hashes).min()) <= self._bits:
            self.near_duplicates += 1
            return False
        self._hashes = np.append(self._hashes, np.uint64(looks.hash))
        return True


def in_order(pictures: Iterable[Looks], count: int, unlike: Unlike) -> list[Looks]:
    """The first ones; no more pictures are read than it takes."""
    chosen: list[Looks] = []
    for looks in pictures:
        if unlike.takes(looks):
            chosen.append(looks)
            if len(chosen) == count:
                break
    return chosen


def spread(pictures: Iterable[Looks], count: int, unlike: Unlike, sent: np.ndarray) -> list[Looks]:
    """Each the farthest from those chosen and sent before: greedy k-centre.

    A 2-approximation of the smallest radius that covers the pool (Gonzalez 1985), as a core-set for active learning
    (Sener and Savarese 2018, https://arxiv.org/abs/1708.00489). The distance is the share of the hash's bits that
    differ, and half the sum of the differences of the classes' shares, each in [0, 1]. Of what was sent the hash
    counts.
    """
    pool = list(pictures)
    if not pool:
        return []
    names = sorted({name for one in pool for name in one.detail.shares})
    shares = np.array([[one.detail.shares.get(name, 0.0) for name in names] for one in pool], np.float64)
    hashes = np.array([one.hash or 0 for one in pool], np.uint64)
    nearest = np.full(len(pool), np.inf)
    for one in sent.tolist():
        np.minimum(nearest, distances(one, hashes) / BITS, out=nearest)
    chosen: list[Looks] = []
    while len(chosen) < count and nearest.max() >= 0:
        place = int(nearest.argmax())
        if unlike.takes(pool[place]):
            chosen.append(pool[place])
            apart = distances(int(hashes[place]), hashes) / BITS + np.abs(shares - shares[place]).sum(axis=1) / 2
            np.minimum(nearest, apart, out=nearest)
        nearest[place] = -1
    return chosen
