"""Nights in an Iceberg table: once each whatever dies, readable, and the newest rows by the guide's query."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pydantic import ValidationError
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import RESTError
from pyiceberg.utils.config import Config

from segjobs.config import IcebergConfig, StorageConfig
from segjobs.errors import ConfigError, ItemError, StorageError
from segjobs.manifest import iceberg
from segjobs.manifest.iceberg import NIGHT, RUN_ID, open_catalogue, publish_nights
from segjobs.manifest.nights import moment_of, run_of
from segjobs.storage import Storage
from tests.made import SKY, manifest
from tests.pages import GUIDE, blocks, section
from tests.ray_head import wait_for

TABLE = "street.masks"
NIGHTS = {"2026-02-01T02-00-00": "aaaa", "2026-02-02T02-00-00": "bbbb"}
PICTURES: list[dict[str, Any]] = [{"a": ["sr"], "b": ["ss"]}, {"b": ["rr"], "c": ["s."]}]


def config_at(folder: Path) -> IcebergConfig:
    properties = {"type": "sql", "uri": f"sqlite:///{folder}/catalogue.db", "warehouse": f"file://{folder}/warehouse"}
    return IcebergConfig(table=TABLE, properties=properties)


def two_nights(folder: Path) -> str:
    uri = str(folder / "street")
    for (night, run_id), pictures in zip(NIGHTS.items(), PICTURES, strict=True):
        where = run_of(uri, night, run_id)
        manifest(where, pictures, cut=(1,), change=lambda rows, run_id=run_id: [r.update(run_id=run_id) for r in rows])
    return uri


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalog:
    return open_catalogue(config_at(tmp_path))


def runs_of(catalogue: Catalog) -> list[tuple[str, str]]:
    """(run_id, night) of each snapshot of the masks."""
    summaries = [
        one.summary.additional_properties for one in catalogue.load_table(TABLE).metadata.snapshots if one.summary
    ]
    return [(one[RUN_ID], one[NIGHT]) for one in summaries]


def rows_of(catalogue: Catalog, name: str = TABLE) -> Any:
    return catalogue.load_table(name).scan().to_arrow()


def test_nights_are_appended_by_reference_once(tmp_path: Path, catalogue: Catalog) -> None:
    uri = two_nights(tmp_path)
    assert publish_nights(catalogue, TABLE, Storage(), uri, dict(list(NIGHTS.items())[:1])) == [*NIGHTS][:1]
    assert publish_nights(catalogue, TABLE, Storage(), uri, NIGHTS) == [*NIGHTS][1:]
    assert publish_nights(catalogue, TABLE, Storage(), uri, NIGHTS) == []
    table = catalogue.load_table(TABLE)
    assert [(run, night) for night, run in NIGHTS.items()] == runs_of(catalogue)
    files = [task.file.file_path for task in table.scan().plan_files()]
    assert all(path.startswith(f"file://{uri}/runs/") for path in files) and len(files) == 4, "nothing is copied"
    assert not list((tmp_path / "warehouse").rglob("masks/data/*.parquet"))
    rows = rows_of(catalogue).sort_by([("image_id", "ascending"), ("run_id", "ascending")]).to_pylist()
    assert [(row["image_id"], row["run_id"]) for row in rows] == [
        *(("a", "aaaa"), ("b", "aaaa"), ("b", "bbbb"), ("c", "bbbb")),
    ]
    (first, *_) = rows[0]["segments"]
    assert first["category"] == SKY.name and first["segmentation"]["size"] == [1, 2], "columns without ids are found"
    assert rows[0]["source"]["sha256"] == "00"
    assert table.metadata.properties["gc.enabled"] == "false", "no catalogue's tool deletes the collection's parts"
    assert table.metadata.properties.get("commit.retry.num-retries") is None, "others' commits keep their own settings"


def test_the_guide_s_query_gives_the_newest_row_of_each_image(tmp_path: Path, catalogue: Catalog) -> None:
    (query,) = blocks(section(GUIDE.read_text(), "Collection"), "sql")
    uri = two_nights(tmp_path)
    # Tried again alone, in two nights: one run_id.
    again = {"2026-02-03T02-00-00": "cccc", "2026-02-04T02-00-00": "cccc"}
    tried: list[Any] = [ItemError("TIMEOUT", "slow"), ["ss"]]
    for (night, run_id), picture in zip(again.items(), tried, strict=True):
        mark = {"run_id": run_id}
        manifest(run_of(uri, night, run_id), {"c": picture}, change=lambda rows, mark=mark: rows[0].update(mark))
    assert publish_nights(catalogue, TABLE, Storage(), uri, {**NIGHTS, **again}) == [*NIGHTS, *again]
    with duckdb.connect() as database:
        for name in ("masks", "masks_nights"):
            database.register(name, later(rows_of(catalogue, f"street.{name}")))
        rows = database.sql(query.replace("vision.", "")).to_arrow_table().to_pylist()
    assert {(row["image_id"], row["run_id"], row["status"]) for row in rows} == {
        *(("a", "aaaa", "ok"), ("b", "bbbb", "ok"), ("c", "cccc", "ok")),
    }
    assert len(rows) == 3


def later(rows: pa.Table) -> pa.Table:
    """Nights that were labelled on the days of their names; the tests' runs all ended in one second."""
    if "night" not in rows.column_names:
        return rows
    moments = pa.array([moment_of(name) for name in rows["night"].to_pylist()], pa.timestamp("us", tz="UTC"))
    return rows.set_column(rows.column_names.index("labelled_at"), "labelled_at", moments)


_PUBLISH = """
import sys
from pathlib import Path
from segjobs.manifest.iceberg import open_catalogue, publish_nights
from segjobs.storage import Storage
from tests.manifest.test_iceberg import NIGHTS, TABLE, config_at
folder = Path(sys.argv[1])
publish_nights(open_catalogue(config_at(folder)), TABLE, Storage(), str(folder / "street"), NIGHTS)
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", ["iceberg:before", "iceberg:parts", "iceberg:after"])
def test_killed_anywhere_each_night_is_there_once(tmp_path: Path, point: str, catalogue: Catalog) -> None:
    two_nights(tmp_path)
    environment = {**os.environ, "SEGJOBS_CRASH_AT": point}
    died = subprocess.run([sys.executable, "-c", _PUBLISH, str(tmp_path)], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    subprocess.run([sys.executable, "-c", _PUBLISH, str(tmp_path)], check=True)
    assert [(run, night) for night, run in NIGHTS.items()] == runs_of(catalogue)
    assert sorted(rows_of(catalogue, f"{TABLE}_nights")["run_id"].to_pylist()) == ["aaaa", "bbbb"]
    assert rows_of(catalogue).num_rows == 4


def test_of_two_at_once_the_second_looks_again(
    tmp_path: Path, catalogue: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, others = two_nights(tmp_path), list[list[str]]()
    own = iceberg._append_once
    other = open_catalogue(config_at(tmp_path))

    def late(table: Any, about: dict[str, str], append: Any) -> None:
        def after_the_other(transaction: Any) -> None:
            if not others:  # between this one's look and its commit
                others.append([])
                others[0] += publish_nights(other, TABLE, Storage(), uri, NIGHTS)
            append(transaction)

        own(table, about, after_the_other)

    monkeypatch.setattr(iceberg, "_append_once", late)
    publish_nights(catalogue, TABLE, Storage(), uri, NIGHTS)
    assert others == [[*NIGHTS]]
    assert [(run, night) for night, run in NIGHTS.items()] == runs_of(catalogue)
    assert rows_of(catalogue).num_rows == 4 and rows_of(catalogue, f"{TABLE}_nights").num_rows == 2


def _run(folder: Path) -> None:
    publish_nights(open_catalogue(config_at(folder)), TABLE, Storage(), str(folder / "street"), NIGHTS)


@pytest.mark.slow
def test_many_at_once_publish_each_night_once(tmp_path: Path, catalogue: Catalog) -> None:
    two_nights(tmp_path)
    catalogue.create_namespace_if_not_exists("street")
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_run, args=(tmp_path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert any(worker.exitcode == 0 for worker in workers)
    assert [(run, night) for night, run in NIGHTS.items()] == runs_of(catalogue)
    assert rows_of(catalogue).num_rows == 4


def test_what_does_not_fit_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYICEBERG_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"publish.iceberg: catalogue 'nowhere': .*describe it in ~/.pyiceberg.yaml"):
        open_catalogue(IcebergConfig(table=TABLE, catalog="nowhere"))
    with pytest.raises(StorageError, match=r"publish.iceberg: catalogue 'default': ConnectionError"):
        open_catalogue(IcebergConfig(table=TABLE, properties={"type": "rest", "uri": "http://127.0.0.1:9"}))
    for wrong in ("masks", "a b.c", ".x"):
        with pytest.raises(ValidationError):
            IcebergConfig(table=wrong)
    with pytest.raises(ValidationError, match=r"is a secret; put it into ~/\.pyiceberg\.yaml"):
        IcebergConfig(properties={"s3.secret-access-key": "hunter2"})
    monkeypatch.setitem(sys.modules, "pyiceberg.catalog", None)
    with pytest.raises(ConfigError, match=r"pip install 'segjobs\[iceberg\]'"):
        open_catalogue(config_at(tmp_path))


@pytest.mark.slow
def test_in_a_rest_catalogue_and_a_bucket(
    tmp_path: Path, iceberg_server: tuple[StorageConfig, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, address = iceberg_server
    storage, uri = Storage(config), f"s3://segjobs/{tmp_path.name}/street"
    local = Path(two_nights(tmp_path))
    for file in local.rglob("*.*"):
        storage.put_if_absent(f"{uri}/{file.relative_to(local)}", file.read_bytes())
    # As an operator has them, out of every config.
    own = {"CREDENTIAL": "test:test-secret", "S3__ACCESS_KEY_ID": "test", "S3__SECRET_ACCESS_KEY": "test-secret"}
    for name, value in own.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__NIGHTS__{name}", value)
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())  # it reads the environment once, when imported
    properties = {"type": "rest", "uri": address, "warehouse": "tables", "s3.region": "us-east-1"}
    properties["s3.endpoint"] = str(config.s3.endpoint_url)
    where = IcebergConfig(table=TABLE, catalog="nights", properties=properties)
    wait_for(lambda: answers(where))
    first, second = (open_catalogue(where) for _ in range(2))
    late = list[list[str]]()
    own_append = iceberg._append_once

    def after_the_other(table: Any, about: dict[str, str], append: Any) -> None:
        def behind(transaction: Any) -> None:
            if not late:
                late.append([])
                late[0] += publish_nights(second, TABLE, storage, uri, NIGHTS)
            append(transaction)

        own_append(table, about, behind)

    monkeypatch.setattr(iceberg, "_append_once", after_the_other)
    publish_nights(first, TABLE, storage, uri, NIGHTS)
    assert late == [[*NIGHTS]] and [(run, night) for night, run in NIGHTS.items()] == runs_of(first)
    assert publish_nights(second, TABLE, storage, uri, NIGHTS) == []
    assert sorted(rows_of(first)["image_id"].to_pylist()) == ["a", "b", "b", "c"]
    files = [task.file.file_path for task in first.load_table(TABLE).scan().plan_files()]
    assert all(path.startswith(f"{uri}/runs/") for path in files) and len(files) == 4


def answers(config: IcebergConfig) -> bool:
    try:
        open_catalogue(config).list_namespaces()
    except (StorageError, RESTError):
        return False
    return True
