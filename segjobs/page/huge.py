"""A huge image on the page: windows of its file and its segments in; a small picture, and one window of full size, out.

    Windows, segments ─→ small      the whole image at a few times the thumbnail, as a Subject
    a small Subject   ─→ telling    where most of it is not as it should be, or most of its classes meet
    that place        ─→ window     these pixels as a Subject, as they are

Neither the image nor a mask of it is ever made: a mask's pixels are looked up in its runs, in the small picture those
at the centres of its pixels.
"""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from segjobs.manifest.segments import Segment
from segjobs.page.pictures import EXTRA, MISSING, WRONG, Subject, class_map, difference, drawn_size
from segjobs.sources.windows import Window, Windows, shrunk


def small(subject: Subject, windows: Windows | None, *, thumb_px: int) -> Subject:
    """The whole image, of the size that thumbnails are drawn at. ``subject``: without photo."""
    height, width = drawn_size(subject.size_hw, thumb_px)
    rows, columns = (
        ((np.arange(number) + 0.5) * side / number).astype(np.int64)
        for number, side in zip((height, width), subject.size_hw, strict=True)
    )
    photo = None if windows is None else shrunk(windows, (height, width))
    return _seen(subject, rows, columns, photo)


def telling(of: Subject, size_hw: tuple[int, int], *, side_px: int) -> Window:
    """The window of an image of ``size_hw``, at most ``side_px`` wide and high, to look at; ``of``: its ``small``."""
    height, width = (min(side_px, side) for side in size_hw)
    interest = np.zeros(of.size_hw, np.float32)
    if of.truth is not None and of.prediction is not None:
        kinds = difference(of.truth, of.prediction, of.size_hw, task=of.task)
        interest += np.isin(kinds, (WRONG, MISSING, EXTRA))
    if not interest.any():
        for segments in (of.truth, of.prediction):
            if segments is not None:
                classes = class_map(segments, of.size_hw)
                interest[1:] += classes[1:] != classes[:-1]
                interest[:, 1:] += classes[:, 1:] != classes[:, :-1]
    scale_y, scale_x = (small / side for small, side in zip(of.size_hw, size_hw, strict=True))
    around = max(1, round(width * scale_x)), max(1, round(height * scale_y))
    density = cv2.boxFilter(interest, -1, around, normalize=False, borderType=cv2.BORDER_CONSTANT)
    y, x = divmod(int(np.argmax(density)), of.size_hw[1])
    top = min(max(0, round((y + 0.5) / scale_y) - height // 2), size_hw[0] - height)
    left = min(max(0, round((x + 0.5) / scale_x) - width // 2), size_hw[1] - width)
    return Window(top, left, height, width)


def window(subject: Subject, windows: Windows | None, place: Window) -> Subject:
    """The pixels of one place. ``subject``: of the whole image, without photo."""
    rows, columns = np.arange(place.top, place.top + place.height), np.arange(place.left, place.left + place.width)
    return _seen(subject, rows, columns, None if windows is None else windows.read(place))


def _seen(subject: Subject, rows: np.ndarray, columns: np.ndarray, photo: np.ndarray | None) -> Subject:
    """Of each mask, the pixels at these rows and columns. Raises ManifestError for a mask of another size."""
    truth, prediction = (
        None if segments is None else _masks_at(segments, subject.size_hw, rows, columns)
        for segments in (subject.truth, subject.prediction)
    )
    return replace(subject, photo=photo, truth=truth, prediction=prediction, size_hw=(len(rows), len(columns)))


def _masks_at(
    segments: Sequence[Segment], size_hw: tuple[int, int], rows: np.ndarray, columns: np.ndarray
) -> list[Segment]:
    for segment in segments:
        segment.check_size(size_hw)
    seen = (segment.seen_at(rows, columns) for segment in segments)
    return [segment for segment in seen if segment is not None]
