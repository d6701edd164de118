"""A collection that is listed is listed in the version that it has then, and named with it."""

from pathlib import Path

from segjobs.config import LabelConfig
from segjobs.jobs.engine.listing import pinned
from segjobs.storage import Storage
from tests.collections_made import commit


def config_of(uri: str) -> LabelConfig:
    return LabelConfig.model_validate({"input": {"uri": uri}, "output": {"uri": "/out"}, "model": {"name": "unet"}})


def test_a_collection_is_named_with_its_version(tmp_path: Path) -> None:
    storage, uri = Storage(), str(tmp_path / "street")
    commit(storage, uri, {"a": ["sr"]}, app_id="one")
    commit(storage, uri, {"b": ["sr"]}, app_id="two", day=2)
    assert pinned(config_of(uri), storage).input.uri == f"{uri}@2"
    for other in (f"{uri}@1", str(tmp_path), f"{tmp_path}/list.txt", "s3://bucket/photos@7"):
        assert pinned(config_of(other), storage) == config_of(other)
