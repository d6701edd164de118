"""Kaggle's run-length CSV: an object a row in, manifest segments out.

    ImageId,EncodedPixels[,ClassId]   a.png,"1 3 11 3",2
    Image_Label,EncodedPixels         a.png_Fish,"1 3 11 3"

Runs are pairs of start and length, from 1, column by column, as in most competitions. A row without runs (empty, nan
or -1) says that nothing is there. The columns are found by their names, whatever the case: one with ``rle`` or
``encoded``, one with ``image`` (else the first), and, for the class, one with ``class`` or ``label``. Without a class
column all objects are of the one name of ``labels.categories``, by default ``object``.
"""

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence

from segjobs.errors import ManifestError
from segjobs.labels.base import LabelRequest, Labels, read_whole
from segjobs.labels.drawn import Document, Drawn, DrawnImage, labels_of
from segjobs.labels.match_files import image_stem
from segjobs.text import quoted

_NOTHING = ("", "nan", "-1", "1 0")


def kaggle_labels(request: LabelRequest) -> Labels:
    """Adapter of ``kaggle``: the text of an image is the JSON of its objects."""
    config = request.config
    data = read_whole(request.storage, config.uri)
    names = config.categories or []
    document = read_kaggle(data, name=config.uri, only=names[0] if len(names) == 1 else "object")
    bare = {image_stem(image_id): image_id for image_id in request.image_ids}
    # Many a list names images without their suffix.
    images = {bare.get(key, key): image for key, image in document.images.items()}
    return labels_of(request, Document(images, document.digest))


def read_kaggle(data: bytes, *, name: str = "CSV", only: str = "object") -> Document:
    """The rows by image. ``only``: the class where no column says it. Raises ManifestError where it is no such file."""
    objects: dict[str, list[Drawn]] = defaultdict(list)
    reader = None
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        header = next(reader, [])
        image, runs, kind = _columns(header)
        for row in reader:
            if not row:
                continue
            key, label = row[image], only if kind is None else row[kind]
            if kind == image:
                key, found, label = key.rpartition("_")
                if not found:
                    raise ValueError(f"{label!r}: expected an image's name, _ and a class")
            code = row[runs].strip()
            runs_of = objects[key]
            if code.lower() not in _NOTHING:
                runs_of.append(Drawn(label, "starts", tuple(int(word) for word in code.split())))
    except (ValueError, IndexError, csv.Error) as error:
        what = "too few columns" if isinstance(error, IndexError) else " ".join(str(error).split())
        line = reader.line_num if reader else 1
        raise ManifestError(f"{name}: line {line}: {what}; expected ImageId and EncodedPixels") from None
    return Document({key: DrawnImage(tuple(found)) for key, found in objects.items()}, hashlib.sha256(data).hexdigest())


def _columns(header: Sequence[str]) -> tuple[int, int, int | None]:
    """Which columns hold the image, the runs and the class (the image's own, where it holds both)."""
    names = [name.strip().lower() for name in header]

    def find(*parts: str) -> int | None:
        return next((place for place, name in enumerate(names) if any(part in name for part in parts)), None)

    runs, image, kind = find("rle", "encoded"), find("image"), find("class", "label")
    if runs is None or len(names) < 2:
        raise ValueError(f"the columns are {quoted(header) or 'none'}")
    return (0 if image is None else image), runs, kind
