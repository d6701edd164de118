"""Label Studio's run-length code for brush masks: bytes of pixels in, the integers of ``value.rle`` out.

The code is rle-pack of thi.ng/umbrella, as ``label_studio_converter.brush`` writes it: a bit stream, high bits first,
    32 bits  number of values; 5 bits  bits of a value, minus 1; 4 × 4 bits  bits of a run length, minus 1 (3, 4, 8, 16)
    then for each run  1, 2 bits which of the four lengths, the length minus 1, the value (8 bits);
                       of a single value  0, 00, 000, the value
A run of more than 65536 is cut; all its pieces take the longest form. The stream is filled with zeros to whole bytes,
with one more byte where it ends on one already.
"""

import numpy as np

_VALUE_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
_LONGEST = 1 << _LENGTH_BITS[-1]
_HEADER_BITS = 32 + 5 + 4 * 4


def encode_rle(values: np.ndarray) -> list[int]:
    """uint8 (N,) → Label Studio's integers, 0 to 255, equal to what ``label_studio_converter.brush`` gives."""
    if values.ndim != 1 or values.dtype != np.uint8 or not values.size:
        raise ValueError(f"expected uint8 (N,) with N > 0, got {values.dtype} {values.shape}")
    return _pack(*_runs(values))


def encode_mask(mask: np.ndarray) -> list[int]:
    """bool (H, W) → Label Studio's integers of the RGBA image, row by row, of 255 in the mask and 0 elsewhere."""
    lengths, values = _runs(mask.ravel().astype(np.uint8) * np.uint8(255))
    return _pack(lengths * 4, values)


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run lengths, int64, and the value of each, uint8."""
    starts = np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1))
    return np.diff(starts, append=values.size), values[starts]


def _pack(lengths: np.ndarray, values: np.ndarray) -> list[int]:
    total = int(lengths.sum())
    pieces = -(-lengths // _LONGEST)
    last = np.cumsum(pieces) - 1
    long = np.repeat(lengths > _LONGEST, pieces)
    sizes = np.full(int(pieces.sum()), _LONGEST, np.int64)
    sizes[last] = lengths - (pieces - 1) * _LONGEST
    form = np.searchsorted([1 << bits for bits in _LENGTH_BITS], sizes)
    form[long] = len(_LENGTH_BITS) - 1
    width = np.array(_LENGTH_BITS)[form]
    single = np.repeat(lengths == 1, pieces)
    codes = (~single).astype(np.int64) << 2 | form
    codes = (codes << width | sizes - 1) << _VALUE_BITS | np.repeat(values, pieces)
    code_bits = 3 + width + _VALUE_BITS

    offsets = _HEADER_BITS + np.cumsum(code_bits) - code_bits
    used = _HEADER_BITS + int(code_bits.sum())
    bits = np.zeros(used + 8 - used % 8, np.uint8)
    bits[:_HEADER_BITS] = list(map(int, _header(total)))
    for count in np.unique(code_bits).tolist():
        these = np.flatnonzero(code_bits == count)
        place = np.arange(count)
        bits[offsets[these, None] + place] = codes[these, None] >> (count - 1 - place) & 1
    return np.packbits(bits).tolist()


def _header(total: int) -> str:
    sizes = "".join(f"{bits - 1:04b}" for bits in _LENGTH_BITS)
    return f"{total:032b}{_VALUE_BITS - 1:05b}{sizes}"
