"""A package that brings a model, a label format and an export format by name: held to what ours are held to."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from segjobs.config import ExportConfig, LabelsConfig, PrepareConfig, load_config
from segjobs.errors import ConfigError
from segjobs.exporters.table import get_exporter
from segjobs.labels.table import get_adapter
from segjobs.models.registry import build
from segjobs.models.table import get_spec
from segjobs.plugins import installed
from segjobs.storage import Storage
from tests.exporters.test_table import test_what_a_writer_gives as check_writer
from tests.labels.test_table import (
    test_an_adapter_answers_for_each_image_and_its_reader_does_not_grow as check_adapter,
)
from tests.models import test_contract as contract

PACKAGE = """
from torch import nn
from segjobs.exporters.base import Exporter, Document, Series, Written, to_json
from segjobs.labels.png import png_labels
from segjobs.models.table import ModelSpec

def tiny(options, num_classes):
    width = options["width"]
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, num_classes, 1))

TINY = ModelSpec("semantic", ("acme_segjobs:tiny",), {"width": 4}, "native", 1)

def areas(image, setting):
    return Written(len(image.segments), records=(to_json([image.image_id, [one.area for one in image.segments]]),))

AREAS = Exporter(areas, lambda setting: [Document("areas.json", series=(Series("records", "[", ",", "]"),))])
NO_MODEL = "a text"
"""
ENTRY_POINTS = """
[segjobs.models]
acme_tiny = acme_segjobs:TINY
acme_gone = acme_segjobs:GONE
acme_text = acme_segjobs:NO_MODEL
unet = acme_segjobs:TINY

[segjobs.labels]
acme_png = segjobs.labels.png:png_labels

[segjobs.exporters]
acme_areas = acme_segjobs:AREAS
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As pip would leave it: a module, and its dist-info."""
    site = tmp_path / "site-packages"
    about = site / "acme_segjobs-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "acme_segjobs.py").write_text(PACKAGE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-segjobs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("acme_segjobs", None)


def test_its_model_passes_the_contract_of_ours() -> None:
    config = contract.contract_config("acme_tiny")
    model = build(config, Storage(), device="cpu")
    assert isinstance(model.module[0], torch.nn.Conv2d)
    contract.test_card_is_the_one_that_the_driver_resolves(model, config)
    for size_hw in ((50, 70), (1, 1)):
        contract.test_way_back_to_the_original_size(model, size_hw)
    contract.test_prepared_tensors(model)
    contract.test_batch_of_one_equals_batch_of_three(model)
    contract.test_same_input_same_output(model)
    contract.test_a_network_is_the_same_each_time_and_random_weights_come_from_the_seed_alone(model, config)
    contract.test_nan_is_a_failed_item(model)
    contract.test_training_lowers_the_loss(model, config)
    contract.test_a_target_of_another_size_or_kind(model)


def test_its_formats_pass_the_contracts_of_ours(tmp_path: Path) -> None:
    check_adapter("acme_png", tmp_path)
    check_writer("acme_areas")


def test_configs_take_its_names_beside_ours() -> None:
    assert installed("segjobs.labels") == ["acme_png"]
    words = ["input.uri=a", "labels.uri=b", "output.uri=c"]
    assert (
        load_config(PrepareConfig, None, [*words, "labels.format=acme_png", "labels.threshold=3"]).labels.threshold == 3
    )
    with pytest.raises(ConfigError, match=r"labels\.format: 'acme_pgn' does not fit; did you mean 'acme_png'\?"):
        load_config(PrepareConfig, None, [*words, "labels.format=acme_pgn"])
    assert LabelsConfig(format="png", uri="x").format == "png"
    export = {"manifest": {"uri": "m"}, "output": {"uri": "o"}, "format": "acme_areas"}
    assert get_exporter(ExportConfig.model_validate(export).format).folder is None
    assert get_adapter("acme_png") is get_adapter("png")


def test_ours_stay_ours_and_what_is_wrong_is_a_line() -> None:
    assert get_spec("unet").builder == ("unet.unet",)
    with pytest.raises(ConfigError, match=r"model\.name 'acme_tinny' is no model; did you mean 'acme_tiny'"):
        get_spec("acme_tinny")
    with pytest.raises(
        ConfigError, match=r"'acme_gone' in segjobs\.models is acme_segjobs:GONE, which cannot be imported"
    ):
        get_spec("acme_gone")
    with pytest.raises(
        ConfigError, match=r"'acme_text' in segjobs\.models is acme_segjobs:NO_MODEL, a str; expected a"
    ):
        get_spec("acme_text")


def test_two_packages_with_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "other" / "other-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[segjobs.models]\nacme_tiny = other:TINY\n")
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    both = "acme_segjobs:TINY, other:TINY"
    with pytest.raises(
        ConfigError, match=rf"'acme_tiny' stands for several things in segjobs\.models: {both}; uninstall one"
    ):
        get_spec("acme_tiny")
