"""Kaggle's CSV: ``prepare`` reads back the very masks."""

import numpy as np
from hypothesis import given

from segjobs.exporters.base import Loss
from segjobs.exporters.kaggle import EXPORTER, write
from segjobs.labels.kaggle import read_kaggle
from segjobs.manifest.segments import Segment
from tests.exporters.samples import CAT, DOG, labelled, mask_of, overlapping, setting
from tests.manifests import segment_of


def csv_of(segments: list[Segment], **keys: object) -> bytes:
    image = labelled(segments, **keys)
    (document,) = EXPORTER.documents(setting("kaggle"))
    (series,) = document.series
    records = write(image, setting("kaggle")).records
    return (document.text + series.separator.join(records) + series.after).encode()


def starts_mask(runs: tuple[int, ...], size_hw: tuple[int, int]) -> np.ndarray:
    flat = np.zeros(size_hw[0] * size_hw[1], bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(size_hw[::-1]).T


@given(overlapping())
def test_prepare_reads_the_very_masks(segments: list[Segment]) -> None:
    kept = [segment for segment in segments if not segment.iscrowd]
    (image,) = read_kaggle(csv_of(segments)).images.values()
    assert [one.name for one in image.objects] == [segment.category for segment in kept]
    for one, segment in zip(image.objects, kept, strict=True):
        np.testing.assert_array_equal(starts_mask(one.values, segment.size_hw), mask_of(segment))


def test_rows_by_hand() -> None:
    mask = np.array([[0, 1, 1], [0, 1, 0]], bool)
    crowd = segment_of(~mask, CAT, iscrowd=True)
    written = write(labelled([segment_of(mask, DOG), crowd], image_id='a, "b".jpg'), setting("kaggle"))
    assert written.records == ('"a, ""b"".jpg",3 3,"dog ""é"""',)
    assert (written.segments, written.losses) == (1, (Loss("crowd", CAT.id, 1, 3),))
    assert write(labelled([], (2, 3)), setting("kaggle")).records == ("a/b.jpg,,",), "nothing is there"
    one_class = setting("kaggle")
    one_class = type(one_class)("instance", (DOG,), {DOG.id: DOG.id}, one_class.config, one_class.about)
    assert write(labelled([segment_of(mask, DOG)]), one_class).records == ("a/b.jpg,3 3",)
    assert EXPORTER.documents(one_class)[0].text == "ImageId,EncodedPixels\n"
