"""Whether two images look alike: pixels in, 64 bits out that are nearly the same for nearly the same picture.

The difference hash (Krawetz 2013, "Kind of Like That", hackerfactor.com; ``dhash`` of the library imagehash): the
image in grey, shrunk to 9x8 pixels, and of each row whether a pixel is brighter than the one to its left. Another size,
another compression, a little more light change few bits; of two unrelated photographs about half differ.
"""

import cv2
import numpy as np

BITS = 64
_SIDE = 8
_ONES = np.array([number.bit_count() for number in range(256)], np.uint8)


def difference_hash(image: np.ndarray) -> int:
    """uint8 (H, W, 3) RGB → an integer of 64 bits."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def distances(one: int, others: np.ndarray) -> np.ndarray:
    """Bits that differ between a hash and each of uint64 (N,): int64 (N,), 0 to 64."""
    different = np.bitwise_xor(others.astype(np.uint64), np.uint64(one))
    return _ONES[different.view(np.uint8).reshape(len(others), 8)].sum(axis=1, dtype=np.int64)
