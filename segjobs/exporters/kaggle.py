"""Kaggle's run-length CSV: an object a row, as most competitions take it.

    masks.csv   ImageId,EncodedPixels          where one class is exported
                ImageId,EncodedPixels,Class    where several are

Runs are pairs of start and length, from 1, column by column. An image where nothing is has one row without runs. Scores
have no column; crowd regions are left out.
"""

import csv
import io
from collections.abc import Sequence

import numpy as np

from segjobs.exporters.base import Document, Exporter, Labelled, Series, Setting, Written
from segjobs.exporters.flatten import without_crowds
from segjobs.manifest.segments import Segment


def write(image: Labelled, setting: Setting) -> Written:
    """One image → its rows."""
    found, crowds = without_crowds(image)
    named = len(setting.categories) > 1
    rows = [[image.image_id, _runs(segment), *([segment.category] if named else [])] for segment in found]
    nothing = [[image.image_id, "", *([""] if named else [])]]
    return Written(len(found), records=tuple(map(_line, rows or nothing)), losses=crowds)


def _runs(segment: Segment) -> str:
    """``start length start length …`` of the pixels that the mask covers."""
    lengths = segment.runs(segment.size_hw)
    covered = lengths[1::2]
    starts = np.cumsum(lengths)[::2][: len(covered)] + 1
    return " ".join(map(str, np.stack([starts, covered], axis=1).ravel().tolist()))


def _line(words: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(words)
    return text.getvalue()


def _documents(setting: Setting) -> list[Document]:
    header = "ImageId,EncodedPixels" + (",Class" if len(setting.categories) > 1 else "")
    return [Document("masks.csv", f"{header}\n", (Series("records", "", "\n", "\n"),))]


EXPORTER = Exporter(write, _documents)
