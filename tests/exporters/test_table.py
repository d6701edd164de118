"""What every writer is held to: what it gives can be published and joined, and is the same each time."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from segjobs.config import ExportConfig
from segjobs.config.export import EXPORT_FORMATS
from segjobs.errors import ConfigError
from segjobs.exporters.base import LOSSES, Exporter
from segjobs.exporters.table import EXPORTERS, get_exporter
from tests.exporters.samples import CATEGORIES, labelled, segments_of_map, setting

IDS = np.array([[0, 0, 1, -1], [2, 0, 1, -1], [2, 2, 1, -1]], np.int8)


def test_the_config_names_the_table() -> None:
    assert list(EXPORT_FORMATS) == list(EXPORTERS)
    with pytest.raises(ConfigError, match=r"format 'yollo' is none; did you mean 'yolo'\?"):
        get_exporter("yollo")


@pytest.mark.parametrize("name", EXPORTERS)
def test_what_a_writer_gives(name: str) -> None:
    exporter = get_exporter(name)
    given = setting(name)
    assert exporter.check(given) == []
    written = exporter.write(labelled(segments_of_map(IDS)), given)
    assert written == exporter.write(labelled(segments_of_map(IDS)), pickle.loads(pickle.dumps(given)))  # noqa: S301
    assert 0 <= written.segments <= 3
    assert (written.data is not None) == (exporter.folder is not None), "a file of each image where there is a folder"
    assert {loss.kind for loss in written.losses} <= {*LOSSES}
    assert {loss.category_id for loss in written.losses} <= {None, *(category.id for category in CATEGORIES)}
    documents = exporter.documents(given)
    assert len({document.path for document in documents}) == len(documents)
    for document in documents:
        assert not document.path.startswith(("/", ".")), "below the export's folder"
        for series in document.series:
            texts = written.records if series.column == "records" else (written.image,) if written.image else ()
            if series.numbered:
                assert all(json.loads(f'{{"id":1,{text}') for text in texts)


def test_coco_files_have_the_areas_and_boxes_that_are_stated() -> None:
    (plain, *_) = segments_of_map(IDS)
    stated = replace(plain, stated_bbox=(0.5, 0.0, 2.25, 3.0), stated_area=4.5)
    instances = [
        json.loads("{" + get_exporter("coco_instances").write(labelled([one]), setting("coco_instances")).records[0])
        for one in (plain, stated)
    ]
    assert [(one["area"], one["bbox"]) for one in instances] == [
        (plain.area, list(plain.bbox)),
        (4.5, [0.5, 0, 2.25, 3]),
    ]
    written = get_exporter("coco_results").write(labelled([plain, stated]), setting("coco_results"))
    assert all("bbox" not in json.loads(record) for record in written.records), "loadRes would take the box's area"
    boxes = json.loads(f"[{written.image}]")
    assert [one["bbox"] for one in boxes] == [list(plain.bbox), [0.5, 0, 2.25, 3]]
    assert all("segmentation" not in one for one in boxes)


def test_a_config_takes_the_names_of_the_table_alone() -> None:
    whole = {"manifest": {"uri": "m"}, "output": {"uri": "o"}}
    assert ExportConfig.model_validate({**whole, "format": "yolo"}).format == "yolo"
    with pytest.raises(ValueError, match="did you mean 'yolo'"):
        ExportConfig.model_validate({**whole, "format": "yollo"})
    assert isinstance(get_exporter("yolo"), Exporter)
