"""The outline of a mask: pixels in, closed rings of pixel corners out, and all of them joined into one ring.

A ring runs along the edges of pixels, with the mask to its right (rows count downwards), so it encloses exactly the
mask's area: a rasteriser that asks for the centre of a pixel, or COCO's, gives back the very pixels. A ring of a
hole runs the other way round. Formats of one ring per object (YOLO) get the rings joined by bridges that are walked
to and fro, which enclose nothing.

The edges of the mask are cut into straight pieces; each horizontal piece ends where a vertical one starts, so
following them from piece to piece yields the rings (the "crack following" of the border-tracing literature).
Where two pixels of the mask touch at a corner only, the ring goes through the corner: 8 neighbours are one part.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

_FIRST_REACH_PX = 4  # lines above and below among which the nearest corner is looked for first


def rings_of(mask: np.ndarray) -> list[np.ndarray]:
    """bool (H, W) → rings, int64 (N, 2) of x, y in pixels, the last corner not repeated; by their topmost edge."""
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), np.int8)
    padded[1:-1, 1:-1] = mask
    y, left, right, below = _edges(padded[1:, 1:-1] - padded[:-1, 1:-1])
    x, upper, lower, beside = _edges((padded[1:-1, 1:] - padded[1:-1, :-1]).T)
    if not y.size:
        return []
    # The mask is on the right-hand side: above it a piece goes right, below it left; on its left up, on its right down.
    goes_right, goes_up = below > 0, beside > 0
    start_x, end_x = np.where(goes_right, left, right), np.where(goes_right, right, left)
    start_y, end_y = np.where(goes_up, lower, upper), np.where(goes_up, upper, lower)
    columns = width + 1
    vertical = _next(y * columns + end_x, goes_right, start_y * columns + x, goes_up)
    horizontal = _next(end_y * columns + x, ~goes_up, y * columns + start_x, goes_right)
    following = horizontal[vertical].tolist()
    corners = np.stack([start_x, y, end_x, y], axis=1).reshape(-1, 2, 2)
    rings, seen = [], bytearray(len(following))
    for first in range(len(following)):
        pieces, piece = [], first
        while not seen[piece]:
            seen[piece] = 1
            pieces.append(piece)
            piece = following[piece]
        if pieces:
            rings.append(corners[pieces].reshape(-1, 2))
    return rings


def window_of(mask: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
    """bool (H, W), not empty → the corner (x, y) of its own window, and the mask in there, bool (h, w)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (int(columns[0]), int(rows[0])), mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def parts_of(mask: np.ndarray) -> list[list[np.ndarray]]:
    """bool (H, W), not empty → for each part of 4 neighbours its outer ring, then its holes'; none meets itself.

    That makes valid polygons: rings may touch each other in corners, but not themselves.
    """
    corner_xy, window = window_of(mask)
    count, numbers, boxes, _ = cv2.connectedComponentsWithStats(window.astype(np.uint8), connectivity=4)
    parts: list[list[np.ndarray]] = []
    for number in range(1, count):
        left, top, width, height = boxes[number, :4].tolist()
        alone = numbers[top : top + height, left : left + width] == number
        shift = np.array([left, top]) + corner_xy
        rings = [loop + shift for ring in rings_of(alone) for loop in _loops(ring)]
        parts.append(sorted(rings, key=lambda ring: signed_area(ring) < 0))
    return parts


def _loops(ring: np.ndarray) -> list[np.ndarray]:
    """A ring cut in the corners that it passes twice."""
    loops: list[np.ndarray] = []
    path: list[tuple[int, int]] = []
    place: dict[tuple[int, int], int] = {}
    for x, y in ring.tolist():
        if (x, y) in place:
            first = place[x, y]
            loops.append(np.array(path[first:], np.int64))
            for corner in path[first + 1 :]:
                del place[corner]
            del path[first + 1 :]
        else:
            place[x, y] = len(path)
            path.append((x, y))
    return [*loops, np.array(path, np.int64)]


def _edges(step: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Differences across lines, int8 (lines, length) → line, start, end and sign of each straight piece."""
    lines, length = step.shape
    flat = np.zeros((lines, length + 1), np.int8)
    flat[:, :-1] = step
    flat = np.append(flat.ravel(), np.int8(0))
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate(([0], changes)) if flat[0] else changes
    values = flat[starts]
    ends = np.append(starts[1:], flat.size)
    pieces = values != 0
    starts, ends, values = starts[pieces], ends[pieces], values[pieces]
    line = starts // (length + 1)
    return line, starts - line * (length + 1), ends - line * (length + 1), values


def _next(ends: np.ndarray, wanted: np.ndarray, starts: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """For each piece the piece of the other direction that starts where it ends.

    ``ends``, ``starts``: numbers of corners. Where two start at one corner, the one whose ``kind`` is ``wanted``:
    a turn to the left, over to the pixel that touches at the corner.
    """
    keys = 2 * starts + ~kind
    order = np.argsort(keys)
    keys = keys[order]
    place = np.searchsorted(keys, 2 * ends)
    following = np.minimum(place + 1, keys.size - 1)
    two = (following > place) & (keys[following] // 2 == ends)
    return order[place + (two & ~wanted)]


def signed_area(ring: np.ndarray) -> int:
    """Pixels that a ring encloses; negative for a hole's."""
    x, y = ring[:, 0], ring[:, 1]
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) // 2


def simplified(ring: np.ndarray, tolerance_px: float) -> np.ndarray | None:
    """The ring without corners that lie within ``tolerance_px`` of it (Douglas and Peucker); None if it vanishes."""
    if not tolerance_px:
        return ring
    points = cv2.approxPolyDP(ring.astype(np.int32)[:, None, :], tolerance_px, closed=True)[:, 0, :].astype(np.int64)
    return points if len(points) >= 3 else None


def joined(rings: Sequence[np.ndarray]) -> np.ndarray:
    """All rings as one, int64 (N, 2): each is entered at its topmost corner, from the nearest corner of an earlier one.

    Bridges are walked twice, so the even-odd rule and COCO's rasteriser see nothing of them.
    """
    entries, bridges = _bridges(rings)

    def walk(number: int) -> Iterator[np.ndarray | int]:
        """Once around a ring from its entry: its corners, and the rings that are visited on the way."""
        ring, entry, done = rings[number], entries[number], 0
        turned = np.roll(ring, -entry, axis=0)
        for at, visits in sorted(((corner - entry) % len(ring), who) for corner, who in bridges[number].items()):
            yield turned[done : at + 1]
            for visit in visits:
                yield visit
                yield turned[at : at + 1]
            done = at + 1
        yield turned[done:]
        if number:
            yield turned[:1]  # closed; the earlier ring goes on from the corner where it was left

    path, walks = [], [walk(0)]  # a list, not recursion: thousands of rings may lie one behind the other
    while walks:
        piece = next(walks[-1], None)
        if piece is None:
            walks.pop()
        elif isinstance(piece, int):
            walks.append(walk(piece))
        else:
            path.append(piece)
    return np.concatenate(path)


def _bridges(rings: Sequence[np.ndarray]) -> tuple[list[int], list[dict[int, list[int]]]]:
    """The corner by which each ring is entered, and for each ring: corner → the later rings entered from it."""
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    corner = np.concatenate([np.arange(len(ring)) for ring in rings])
    points = np.concatenate(rings)
    order = np.lexsort((points[:, 0], points[:, 1]))
    owner, corner, points = owner[order], corner[order], points[order]
    entries, bridges = [0] * len(rings), [{} for _ in rings]
    for number in range(1, len(rings)):
        ring = rings[number]
        entries[number] = int(np.lexsort((ring[:, 0], ring[:, 1]))[0])
        x, y = ring[entries[number]].tolist()
        reach_px = _FIRST_REACH_PX
        while True:  # the corners of the lines around, of ever more lines until none beyond them can be nearer
            first, last = np.searchsorted(points[:, 1], [y - reach_px, y + reach_px + 1])
            earlier = first + np.flatnonzero(owner[first:last] < number)
            squares = ((points[earlier] - (x, y)) ** 2).sum(axis=1)
            everything = first == 0 and last == len(points)
            if everything or (squares.size and squares.min() <= reach_px**2):
                break
            reach_px *= 2
        nearest = earlier[squares.argmin()]
        bridges[owner[nearest]].setdefault(int(corner[nearest]), []).append(number)
    return entries, bridges
