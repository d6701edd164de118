"""Labels that were drawn on an image as it is stored, or as it is shown: a label and its image's frame in, masks out.

A manifest's masks are in the frame that a viewer shows, with the EXIF orientation applied. Tools differ:

| labels.frame | sizes in the label file | shapes and pixels | who |
|---|---|---|---|
| shown | as shown | as shown | labelme, CVAT of today, whatever draws in a browser |
| stored | as stored | as stored | OpenCV with IMREAD_IGNORE_ORIENTATION, mmdetection, kwcoco, older CVAT |
| mixed | not compared | as shown | Label Studio's COCO, whose sizes are those of the file |
"""

from dataclasses import replace

from segjobs.labels.base import Finding, LabelReader, Masks
from segjobs.manifest.rle import encode_crop
from segjobs.manifest.segments import Segment
from segjobs.sources.decode import Frame


def read_in_frame(read: LabelReader, text: str, frame: Frame, labels_frame: str) -> Masks:
    """A label's masks as its image is shown. Raises ItemError as ``read`` does."""
    if frame.orientation == 1:
        return read(text, frame.size_hw)
    if labels_frame != "stored":
        masks = read(text, frame.size_hw)
    else:
        masks = read(text, frame.stored_hw)
        masks = replace(masks, segments=[_shown(segment, frame) for segment in masks.segments])
    detail = f"EXIF orientation {frame.orientation}: labels taken as {labels_frame}; see labels.frame"
    return replace(masks, findings=(*masks.findings, Finding("turned", 1, detail)))


def _shown(segment: Segment, frame: Frame) -> Segment:
    return segment.with_mask(encode_crop(frame.shown(segment.mask()), (0, 0), frame.size_hw), frame.size_hw)
