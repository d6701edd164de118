"""Test-time augmentation and ensembles in a run: its identity, its footer, its tiles, a night that is stale by them."""

import json
from pathlib import Path
from typing import Any

import pytest

from segjobs.config import LabelConfig, LabellingModelConfig, load_config
from segjobs.errors import ConflictError
from segjobs.jobs.label.predictor import Settings
from segjobs.manifest.parts import footer_of, open_run
from segjobs.models.registry import resolve
from tests.in_process import label_in_process
from tests.jobs.label.test_job import picture, rows_of, save
from tests.jobs.label.test_predictor import STORAGE, items_of
from tests.jobs.label.test_tiled import check_same, drawn, scene, tiled, whole
from tests.jobs.label.test_tiled import rows_of as predicted
from tests.jobs.nightly.test_job import draw, night

FIELD = "tests.toy_model:field5"
ENSEMBLE = (
    f"models=[{{name: {FIELD}, options: {{classes: 3}}}}, {{name: {FIELD}, options: {{classes: 3}}, tta: [vflip]}}]"
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(5):  # two sizes by turns, of which none fits another's batch
        save(tmp_path / "photos" / f"{number}.png", picture(number, ((12, 16), (16, 12))[number % 2]))
    return tmp_path / "photos"


def config_of(photos: Path, output: Path, *words: str) -> LabelConfig:
    return load_config(LabelConfig, None, [f"input={photos}", f"output={output}", "compute.actors=1", *words])


def test_views_and_ensembles_are_other_runs_by_name(photos: Path, tmp_path: Path) -> None:
    plain, seen, both = ([f"model={FIELD}"], [f"model={FIELD}", "model.tta=[hflip]"], [ENSEMBLE])
    labels = []
    for number, words in enumerate((plain, seen, both)):
        config = config_of(photos, tmp_path / f"run{number}", *words)
        assert label_in_process(config).failures == {}
        labels.append({row["model"] for row in rows_of(tmp_path / f"run{number}")})
    assert [len(names) for names in labels] == [1, 1, 1] and len(set.union(*labels)) == 3
    assert labels[2].pop().startswith("ensemble@")
    footer = footer_of(open_run(STORAGE, str(tmp_path / "run2")))
    assert footer.model is not None
    members = footer.model["options"]["models"]
    assert [one["preprocessing"].get("tta") for one in members] == [None, ["vflip"]]
    assert [one.name for one in footer.categories] == ["class 0", "class 1", "class 2"]
    with pytest.raises(ConflictError):
        label_in_process(config_of(photos, tmp_path / "run0", f"model={FIELD}", "model.tta=[hflip]"))
    text = json.dumps(json.loads((tmp_path / "run1" / "run.json").read_text())["config"]["model"])
    assert '"tta": ["hflip"]' in text


@pytest.mark.parametrize("blend", ["gaussian", "none"])
def test_each_tile_is_seen_in_every_view_and_the_whole_images_masks_come_out(tmp_path: Path, blend: str) -> None:
    scene(tmp_path / "a.tif", drawn(1, (100, 75)))
    scene(tmp_path / "b.tif", drawn(2, (33, 90)))

    def seen(settings: Settings) -> Settings:
        config = LabellingModelConfig.model_validate({**settings.model.model_dump(), "tta": ["hflip", "vflip"]})
        return Settings(**{**vars(settings), "model": config, "card": resolve(config, STORAGE)})

    items = items_of(tmp_path)
    rows, others = predicted(seen(tiled(blend)), items), predicted(seen(whole()), items)
    for row, other in zip(rows, others, strict=True):
        check_same(row, other)
    assert predicted(tiled(blend), items)[0]["segments"] != rows[0]["segments"]


def test_a_night_is_stale_by_an_ensemble(tmp_path: Path) -> None:
    for number in range(3):
        draw(tmp_path, f"{number}.png", number)
    model: dict[str, Any] = {"name": FIELD, "options": {"classes": 3}}
    assert night(tmp_path, model=model).counts == {"new": 3}
    assert night(tmp_path, model=model).counts == {"same": 3}
    members = [model, {**model, "tta": ["hflip"]}]
    ensemble = {"name": "ensemble", "models": members}
    assert night(tmp_path, model=ensemble, stale="relabel").counts == {"stale": 3}
    assert night(tmp_path, model=ensemble, stale="relabel").counts == {"same": 3}
    assert night(tmp_path, model={**ensemble, "models": members[::-1]}).counts == {"stale_kept": 3}
