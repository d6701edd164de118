"""COCO panoptic: a PNG of segment ids for each image, and a JSON that says what each segment is.

    panoptic.json        categories (with isthing), annotations with segments_info, images
    panoptic/<name>.png  RGB; id = R + 256·G + 65536·B (panopticapi's rgb2id), 0 where no segment is

A pixel belongs to one segment. Where an instance manifest's overlap, the one of higher score is on top; what the
others lose is counted, and areas and boxes are those of the visible pixels.
"""

import numpy as np

from segjobs.exporters.base import Exporter, Labelled, Setting, Written, to_json
from segjobs.exporters.coco_instances import document, image_entry
from segjobs.exporters.flatten import covering_losses, regions_of, top_segments
from segjobs.exporters.png import png_of

FOLDER, SUFFIX = "panoptic", ".png"


def write(image: Labelled, setting: Setting) -> Written:
    """One image → its PNG and its annotation."""
    top, visible = top_segments(image, setting)
    shown = np.flatnonzero(visible)
    number = np.zeros(len(image.segments) + 1, np.int32)  # the last entry is that of NOTHING, -1
    number[shown] = np.arange(1, shown.size + 1)
    ids = number[top]
    regions = regions_of(ids)
    info = [
        {
            "id": place + 1,
            "category_id": setting.ids[image.segments[position].category_id],
            "iscrowd": int(image.segments[position].iscrowd),
            "area": regions[place].area,
            "bbox": list(regions[place].bbox),
        }
        for place, position in enumerate(shown.tolist())
    ]
    record = {"image_id": image.number, "file_name": f"{image.name}{SUFFIX}", "segments_info": info}
    return Written(
        shown.size,
        data=png_of(np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)),
        image=to_json(image_entry(image)),
        records=(to_json(record),),
        losses=covering_losses(image, visible),
    )


def _notes(setting: Setting) -> list[str]:
    unknown = [category.name for category in setting.categories if category.isthing is None]
    if setting.task != "panoptic" or not unknown:
        return []
    return [f"{len(unknown)} classes, such as {unknown[0]!r}, do not say whether they are things: written as things"]


EXPORTER = Exporter(
    write, lambda setting: [document("panoptic.json", setting, things=True)], FOLDER, SUFFIX, notes=_notes
)
