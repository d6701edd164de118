"""A collection's nights in an Iceberg catalogue: the parts of their runs in, by reference, once each.

    nights of the collection ─┬→ <table>         a snapshot a night: its run's parts, as they lie (``add_files``)
                              └→ <table>_nights  a row a night, after them: run_id, night, labelled_at

Nothing is copied: a data file of the table is a part of a run, which nobody changes. The parts have no field ids; the
table's name mapping says which of their columns is which. An append cannot say that a row takes the place of another:
the newest of an image is the one whose run has the latest ``labelled_at``, and a run without a row there is not yet
published whole.

A night's snapshot has its run_id among its properties, which are looked at before each attempt; of two who append at
once, the second loses to the first (the table's head is another than it has seen), and looks again.
"""

import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from random import SystemRandom
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from segjobs.config import IcebergConfig
from segjobs.errors import ConfigError, StorageError
from segjobs.manifest.crash_points import crash_at
from segjobs.manifest.nights import run_of
from segjobs.manifest.parts import open_run
from segjobs.manifest.run_info import Run
from segjobs.manifest.schema import MANIFEST_SCHEMA
from segjobs.storage import Storage, is_remote, join, local_path

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

RUN_ID, NIGHT = "segjobs.run-id", "segjobs.night"
"""Properties of a snapshot."""
NIGHTS_SCHEMA = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("night", pa.string(), nullable=False),
        pa.field("labelled_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("model", pa.string()),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("failed", pa.int64(), nullable=False),
    ]
)
_NOT_ITS_OWN = {"gc.enabled": "false"}
"""The table's files are the collection's: no tool that expires snapshots or purges the table may delete them."""
_ATTEMPTS = 20
_WAIT_S = 0.2  # at most, before the second attempt; it grows with each


def open_catalogue(config: IcebergConfig) -> "Catalog":
    """The catalogue of ``config``, as pyiceberg's own configuration and environment describe it.

    Raises ConfigError where pyiceberg is not installed, or knows no such catalogue; StorageError where it does not
    answer.
    """
    try:
        from pyiceberg.catalog import load_catalog
    except ImportError as error:
        raise ConfigError("publish.iceberg needs pyiceberg: pip install 'segjobs[iceberg]'") from error
    what = f"publish.iceberg: catalogue {config.catalog!r}"
    with _said(what):
        try:
            return load_catalog(config.catalog, **config.properties)
        except ValueError as error:
            raise ConfigError(
                f"{what}: {error}; describe it in ~/.pyiceberg.yaml, in PYICEBERG_CATALOG__… of the environment, or in "
                "publish.iceberg.properties"
            ) from error


def publish_nights(catalogue: "Catalog", name: str, storage: Storage, uri: str, nights: Mapping[str, str]) -> list[str]:
    """Append the runs of those nights that are not in the table, in their order; the names of the nights that were.

    ``name``: of the table, ``street.masks``. ``uri``: the collection's; ``nights``: night → run_id. Whoever was cut off
    is gone on with. Raises StorageError.
    """
    done: list[str] = []
    with _said(f"publish.iceberg: {name}"):
        masks = _table(catalogue, name, MANIFEST_SCHEMA)
        ledger = _table(catalogue, f"{name}_nights", NIGHTS_SCHEMA)
        known = _known(ledger)
        for night, run_id in nights.items():
            if (night, run_id) in known:
                continue
            run = open_run(storage, run_of(uri, night, run_id))
            about = {RUN_ID: run_id, NIGHT: night}
            paths = [_path(join(run.uri, "parts", part.name)) for part in run.parts]
            row = _row(night, run_id, run)
            crash_at("iceberg:before")
            _append_once(masks, about, lambda tx, paths=paths, about=about: tx.add_files(paths, about))
            crash_at("iceberg:parts")
            _append_once(ledger, about, lambda tx, row=row, about=about: tx.append(row, about))
            crash_at("iceberg:after")
            done.append(night)
    return done


def _path(uri: str) -> str:
    return uri if is_remote(uri) else local_path(uri).absolute().as_uri()


def _row(night: str, run_id: str, run: Run) -> pa.Table:
    counts = run.info.counts
    row = {
        "run_id": run_id,
        "night": night,
        "labelled_at": datetime.fromisoformat(run.info.finished),
        "model": run.info.model_label,
        "images": counts.images,
        "failed": counts.failed,
    }
    return pa.Table.from_pylist([row], NIGHTS_SCHEMA)


def _table(catalogue: "Catalog", name: str, schema: pa.Schema) -> "Table":
    if not catalogue.table_exists(name):
        catalogue.create_namespace_if_not_exists(name.rpartition(".")[0])
    return catalogue.create_table_if_not_exists(name, schema, properties=_NOT_ITS_OWN)


def _known(ledger: "Table") -> set[tuple[str, str]]:
    """Nights with their run_ids: an image that is tried again alone has the same run_id in each night."""
    rows = ledger.scan(selected_fields=("night", "run_id")).to_arrow()
    return set(zip(rows["night"].to_pylist(), rows["run_id"].to_pylist(), strict=True))


def _append_once(table: "Table", about: dict[str, str], append: Callable[[Any], None]) -> None:
    """Make a snapshot with these properties, unless there is one of them. ``append``: given a transaction."""
    from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException

    for number in range(_ATTEMPTS):
        table.refresh()
        if any(one.summary and about.items() <= one.summary.additional_properties.items() for one in table.snapshots()):
            return
        # pyiceberg would append again to whatever the other has made of the table, this run's rows too.
        own = {**table.metadata.properties, "commit.retry.num-retries": "0"}
        table.metadata = table.metadata.model_copy(update={"properties": own})
        try:
            with table.transaction() as transaction:
                append(transaction)
            return
        except (CommitFailedException, CommitStateUnknownException):
            time.sleep(SystemRandom().uniform(0, _WAIT_S * (number + 1)))
    raise StorageError(f"publish.iceberg: {'.'.join(table.name())}: {_ATTEMPTS} others were first; run it again")


@contextmanager
def _said(what: str) -> Generator[None]:
    """What a catalogue and its libraries raise, as one line of ours; their warnings are about their own settings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ConfigError, StorageError):
        raise
    except Exception as error:
        if not _is_theirs(error):
            raise
        raise StorageError(f"{what}: {type(error).__name__}: {' '.join(str(error).split())}") from error


def _is_theirs(error: Exception) -> bool:
    """Whether a library of the catalogue's raises it, or the network or a disk; pyiceberg's checks are ValueErrors."""
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError | ValueError) or package in (
        "pyiceberg",
        "sqlalchemy",
        "requests",
        "botocore",
        "google",
    )
