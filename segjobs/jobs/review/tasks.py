"""The task files of a review: its picked rows in; what Label Studio or CVAT imports, by the writers of ``export``, out.

    picked.parquet → a row each → tasks.json and label_config.xml, or annotations/instances_default.json; images.txt

They are made of the rows alone, so whoever writes them writes the same bytes.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segjobs.config import ExportConfig
from segjobs.errors import ConfigError
from segjobs.exporters.base import Document, Setting
from segjobs.exporters.file_names import plain_name, same_stem
from segjobs.exporters.table import get_exporter
from segjobs.jobs.export.documents import Documents, PublishedFile
from segjobs.jobs.export.parts import EXPORT_SCHEMA, written_row
from segjobs.manifest.reviews import Review
from segjobs.manifest.schema import Footer
from segjobs.storage import Storage

IMAGES = "images.txt"
"""The images' uris, a line each: what the tool is to be given."""


def setting_of(export: ExportConfig, footer: Footer, version: int, written_by: str) -> Setting:
    """What the writers need. Raises ConfigError where the format cannot hold the collection's classes."""
    about = {
        "description": f"{footer.task} masks of {export.manifest.uri}@{version}, to be reviewed",
        "version": f"segjobs {written_by}",
    }
    ids = {category.id: category.id for category in footer.categories}
    setting = Setting(footer.task, footer.categories, ids, export, about, by_model=True)
    if problems := get_exporter(export.format).check(setting):
        raise ConfigError(*problems)
    return setting


def write_tasks(storage: Storage, review: Review, export: ExportConfig) -> tuple[list[PublishedFile], pa.Table]:
    """Publish the review's files; what they are, and a row of ``EXPORT_SCHEMA`` for each image."""
    setting = setting_of(export, review.footer, review.version, review.written_by)
    rows = _export_rows(review.rows.to_pylist(), setting)
    uris = "".join(f"{uri}\n" for uri in rows.filter(pc.equal(rows["status"], "ok"))["uri"].to_pylist())
    documents = [*get_exporter(export.format).documents(setting), Document(IMAGES, uris)]
    with Documents(storage, review.folder, documents) as opened:
        opened.add(rows)
        return opened.publish(), rows


def _export_rows(rows: Sequence[Any], setting: Setting) -> pa.Table:
    known = [category.id for category in setting.categories]
    numbers = {row["image_id"]: number for number, row in enumerate(rows, 1)}
    shared = same_stem([row["image_id"] for row in rows])
    made = [
        written_row(
            row,
            setting,
            known,
            name=plain_name(row["image_id"]),
            number=numbers.__getitem__,
            shares_name=row["image_id"] in shared,
        )[0]
        for row in rows
    ]
    return pa.Table.from_pylist(made, schema=EXPORT_SCHEMA)
