"""Label Studio's run-length code of brush masks, read: the integers of ``value.rle`` in, pixels out.

The code is rle-pack of thi.ng/umbrella (see ``exporters/label_studio_rle.py``, which writes it): 32 bits the number of
values, 5 bits the bits of a value, 4 × 4 bits those of a run length, each minus 1; then the runs.
"""

from collections.abc import Sequence

import numpy as np

from segjobs.errors import ItemError, ManifestError

_CHANNELS = 4  # RGBA, of which alpha is the mask


def decode_mask(code: Sequence[int], size_hw: tuple[int, int]) -> np.ndarray:
    """Integers of 0 to 255 → bool (H, W). Raises ManifestError where they are no such code, ItemError LABEL_SHAPE
    where they are of another size."""
    total = size_hw[0] * size_hw[1] * _CHANNELS
    try:
        data = bytes(code)
    except (TypeError, ValueError):
        raise ManifestError("rle: expected whole numbers of 0 to 255") from None
    bits = _Bits(data)
    found, value_bits = bits.take(32), bits.take(5) + 1
    length_bits = [bits.take(4) + 1 for _ in range(4)]
    if found != total:
        raise ItemError("LABEL_SHAPE", f"a mask of {found // _CHANNELS} pixels, the image has {total // _CHANNELS}")
    lengths, values, done = [], [], 0
    while done < total:
        repeated = bits.take(1)
        length = 1 + bits.take(length_bits[bits.take(2)])
        some = [bits.take(value_bits) for _ in range(1 if repeated else min(length, total - done))]
        values += some
        lengths += [length] if repeated else [1] * len(some)
        done += length
    flat = np.repeat(np.array(values, np.uint32), lengths)[:total]
    return flat.reshape(*size_hw, _CHANNELS)[..., -1] > 0


class _Bits:
    """A bit stream, high bits first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place, self._end = data, 0, 8 * len(data)

    def take(self, count: int) -> int:
        """The next ``count`` bits, up to 32, as a number. Raises ManifestError behind the end."""
        place, self._place = self._place, self._place + count
        if self._place > self._end:
            raise ManifestError("rle: ends before its last run")
        first, last = place >> 3, (self._place + 7) >> 3
        window = int.from_bytes(self._data[first:last], "big")
        return window >> (8 * last - self._place) & ((1 << count) - 1)
