"""Export: a manifest in, another tool's files out.

    run.json + plan.parquet → plan.py: what is exported, the images' names and numbers
    → parts.py (tasks): the files of each part's images, and parts/part-00012.parquet with their texts
    → documents.py: the texts of all parts, in order, in the format's documents → export.json

The writers in ``exporters/`` know the formats. Every file is published whole and never replaced, one part is in memory
at a time, and equal manifests give equal bytes, so running the command again continues it.

    <uri>/plan.json       what is exported, with which settings; another export is refused   written first
    <uri>/parts/          a row per image                                                    in any order
    <uri>/…               the format's files
    <uri>/failures.jsonl  images that nothing was written for, with code and message         where there are any
    <uri>/export.json     counts, losses and the documents with their sha256                 written last
"""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from typing import cast

import pyarrow as pa

from segjobs import __version__
from segjobs.config import ExportConfig, digest
from segjobs.errors import ConfigError, ManifestError
from segjobs.exporters.table import get_exporter
from segjobs.jobs.engine.cluster import connect
from segjobs.jobs.engine.progress import Progress
from segjobs.jobs.engine.ray_data import dataset_of, map_blocks, rows_of
from segjobs.jobs.engine.shared_disk import check_shared
from segjobs.jobs.engine.standing import check_writable
from segjobs.jobs.engine.waits import TASK, Waits
from segjobs.jobs.export.documents import Documents
from segjobs.jobs.export.parts import Exporting, Span, export_part
from segjobs.jobs.export.plan import adopt, make_plan, make_setting, make_spans, numbering
from segjobs.jobs.export.summary import ExportReport, ExportTally, dry_run_of, print_summary
from segjobs.manifest.parts import footer_of, image_ids_of, list_parts, open_run, part_uri
from segjobs.manifest.schema import FOOTER_KEY, Footer
from segjobs.manifest.seal import open_table, sealed_json
from segjobs.results import DryRun, ExportResult
from segjobs.storage import Storage, join

_AHEAD = 8  # parts that are read before they are needed


def export(config: ExportConfig, *, dry_run: bool = False) -> ExportResult | DryRun:
    """Run or continue the export that ``config`` describes; prints the summary on standard error.

    Raises a SegjobsError for what stops the whole job. ``dry_run`` only reports what would be done.
    """
    progress = Progress("export")
    storage = Storage(config.storage)
    run = open_run(storage, config.manifest.uri)
    if footer_of(run).boxes_only:
        raise ManifestError(f"manifest.uri: {run.uri} has boxes alone, and an export writes masks")
    setting = make_setting(config, run)
    exporter = get_exporter(config.format)
    image_ids = image_ids_of(storage, run)
    numbers = None
    if config.ids_from is not None:
        numbers, ids = numbering(storage, config.ids_from, image_ids, setting)
        setting = replace(setting, ids=ids)
    if problems := exporter.check(setting):
        raise ConfigError(*problems)
    for note in exporter.notes(setting):
        progress.note(f"export: {note}")
    plan = make_plan(config, run, setting, numbers)
    report = cast(
        "ExportReport | None", adopt(storage, config.output.uri, plan, overwrite=config.overwrite and not dry_run)
    )
    spans = make_spans(run, image_ids, exporter, numbers)
    done = list_parts(storage, config.output.uri) if report is None else set()
    if dry_run:
        return dry_run_of(config, run, exporter, setting, len(done))
    if report is not None:
        progress.note(f"nothing to do: {join(config.output.uri, 'export.json')} is there")
    else:
        check_writable(config.output.uri)
        storage.put_if_absent(join(config.output.uri, "plan.json"), sealed_json(plan))
        adopt(storage, config.output.uri, plan)  # another command may have been first
        known = tuple(category.id for category in footer_of(run).categories)
        footer = replace(footer_of(run), config_digest=digest(plan))
        exporting = Exporting(storage, run, config.output.uri, setting, footer, known)
        report = _run(exporting, spans, done, plan, progress)
    return print_summary(report, config)


def _run(
    exporting: Exporting, spans: Sequence[Span], done: set[int], plan: dict[str, object], progress: Progress
) -> ExportReport:
    began = time.monotonic()
    pending = [span for span in spans if span.index not in done]
    total = sum(span.part.rows for span in spans)
    if pending:
        progress.note(f"export: {total} images to {exporting.setting.config.format}")
        connect(exporting.setting.config.compute, progress)
        check_shared(exporting.storage, exporting.uri, {"manifest.uri": exporting.run.uri})
    progress.start(total=total, done=total - sum(span.part.rows for span in pending))
    try:
        progress.begin()
        with Waits(progress, [TASK]):
            for ok, failed in _work(exporting, pending):
                progress.advance(ok=ok, failed=failed)
    finally:
        progress.stop()
    tally = ExportTally()
    writing = progress.phase("documents", "writing the documents")
    documents = Documents(exporting.storage, exporting.uri, exporting.exporter.documents(exporting.setting))
    with writing, documents:
        for rows in _parts(exporting, spans):
            tally.add(rows)
            documents.add(rows)
        files = documents.publish()
    report: ExportReport = {
        "version": __version__,
        "source": exporting.run.uri,
        "task": exporting.setting.task,
        "categories": [asdict(category) for category in exporting.setting.categories],
        "images": {"images": tally.images, "ok": tally.ok, "failed": tally.images - tally.ok},
        "segments": tally.segments,
        "failures": dict(sorted(tally.failures.items())),
        "examples": dict(sorted(tally.examples.items())),
        "losses": tally.loss_rows(footer_of(exporting.run)),
        "files": files,
        "seconds": round(time.monotonic() - began, 3),
    }
    exporting.storage.put_if_absent(join(exporting.uri, "export.json"), sealed_json({**plan, **report}))
    return report


def _work(exporting: Exporting, pending: Sequence[Span]) -> Iterator[tuple[int, int]]:
    """Run the tasks; (ok, failed) of each as it ends."""
    if not pending:
        return
    blocks = [pa.table({"span": [json.dumps(asdict(span))]}) for span in pending]
    task = partial(export_part, exporting=exporting)
    for row in rows_of(map_blocks(dataset_of(blocks), task)):
        yield row["ok"], row["failed"]


def _parts(exporting: Exporting, spans: Sequence[Span]) -> Iterator[pa.Table]:
    """The export's own parts in order, a few read ahead."""

    def read(span: Span) -> pa.Table:
        uri = part_uri(exporting.uri, span.index)
        rows = open_table(exporting.storage.read(uri), uri, mend="move it away and run the command again")
        footer = (rows.schema.metadata or {}).get(FOOTER_KEY, b"{}")
        if Footer.from_bytes(footer).config_digest != exporting.footer.config_digest:
            raise ManifestError(f"{uri} is a part of another export; move it away and run the command again")
        ids, part = rows["image_id"], span.part
        if rows.num_rows != part.rows or ids[0].as_py() < part.first_id or ids[-1].as_py() > part.last_id:
            raise ManifestError(f"{uri} holds other images than {span.part.name} of the manifest; move it away")
        return rows

    with ThreadPoolExecutor(_AHEAD) as threads:
        for start in range(0, len(spans), _AHEAD):
            yield from threads.map(read, spans[start : start + _AHEAD])
