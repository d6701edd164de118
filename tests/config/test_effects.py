"""Every key of every job: it changes what a result is compared by, or it is listed as one that cannot."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from segjobs import config as configs
from segjobs.config import EvaluateConfig, effective, iter_fields, later
from segjobs.config.effects import BY_CONTENT, DESPITE, WITHOUT_EFFECT, listed
from segjobs.evaluation.entries import open_evaluation
from segjobs.evaluation.inputs import count_settings
from segjobs.jobs.export.plan import make_plan as export_plan
from segjobs.jobs.export.plan import make_setting
from segjobs.jobs.label.job import make_job as label_job
from segjobs.jobs.prepare.job import _job as prepare_job
from segjobs.jobs.prepare.job import _Set
from segjobs.jobs.report.job import _settings as report_settings
from segjobs.jobs.train.job import _identity as train_identity
from segjobs.labels.base import Labels
from segjobs.manifest.parts import open_run
from segjobs.manifest.plan import make_plan
from segjobs.manifest.schema import ModelCard
from segjobs.storage import Storage
from tests.made import TRUTH, manifest

KINDS: dict[str, type[BaseModel]] = {verb: getattr(configs, f"{verb.title()}Config") for verb in BY_CONTENT}
GIVEN: dict[str, dict[str, Any]] = {
    "label": {"input": {"uri": "i"}, "output": {"uri": "o"}, "model": {"name": "unet"}},
    "prepare": {"input": {"uri": "i"}, "output": {"uri": "o"}, "labels": {"format": "png", "uri": "l"}},
    "train": {"data": {"uri": "d"}, "output": {"uri": "o"}, "model": {"name": "unet"}},
    "evaluate": {"predictions": {"uri": "p"}, "truth": {"uri": "t"}, "output": {"uri": "o"}},
    "report": {"predictions": {"uri": "p"}, "output": {"uri": "o"}},
    "export": {"manifest": {"uri": "m"}, "format": "png", "output": {"uri": "o"}},
}
CARD = ModelCard("unet", "semantic", TRUTH, "d" * 64, "none")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    return manifest(tmp_path_factory.mktemp("made") / "run", {"a": ["sr"]})


def of_label(config: Any, made: str) -> Any:
    return label_job(config, make_plan([], config.shard), CARD).identity


def of_prepare(config: Any, made: str) -> Any:
    labels = Labels("semantic", TRUTH, [], lambda text, size_hw: pytest.fail("not read"), "digest")
    plan = make_plan([], config.shard)
    return prepare_job(config.model_copy(update={"classes": {}}), labels, _Set("", "o", plan, [])).identity | {
        "classes": config.classes
    }


def of_train(config: Any, made: str) -> Any:
    run = open_run(Storage(), made)
    source = SimpleNamespace(config=config.data, run=run)
    weights = SimpleNamespace(sha256="0")
    start: Any = SimpleNamespace(categories=[], sources=[source], validation=None, card=CARD, weights=weights)
    return train_identity(config, start, None)


def of_evaluate(config: Any, made: str) -> Any:
    sides = {"predictions": {"uri": made}, "truth": {"uri": made}, "output": {"uri": "o"}}
    opened = open_evaluation(EvaluateConfig.model_validate(sides), Storage())
    (entry,) = opened.entries
    entry = replace(entry, inputs=entry.inputs.model_copy(update={"counts": count_settings(config)}))
    return replace(opened, config=config, entries=(entry,)).identity.by_key()


def of_report(config: Any, made: str) -> Any:
    return report_settings(config)


def of_export(config: Any, made: str) -> Any:
    run = open_run(Storage(), made)
    setting = make_setting(configs.ExportConfig.model_validate(GIVEN["export"]), run)
    return export_plan(config, run, setting, None)


IDENTITIES: dict[str, Callable[[Any, str], Any]] = {
    "label": of_label,
    "prepare": of_prepare,
    "train": of_train,
    "evaluate": of_evaluate,
    "report": of_report,
    "export": of_export,
}


def another(annotation: Any, value: Any) -> Any:
    """A value of the type that is not ``value``."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return "else"
    if origin is Literal:
        return next(one for one in inner if one != value)
    if origin is tuple:
        return tuple(another(one, None) for one in inner)
    if origin is list:
        return [another(inner[0], None)] if not value else []
    if origin is dict:
        return {"else": another(inner[1], None)} if not value else {}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_construct(uri="else")
    if inner:  # a union, or Annotated
        return another(next(one for one in inner if one is not type(None) and get_args(one) != (value,)), value)
    if annotation is bool:
        return not value
    if annotation is str:
        return f"{value}else"
    number = value if isinstance(value, int | float) else 0
    return number / 2 + 0.13 if annotation is float else number + 1


def changed(config: BaseModel, key: str, field: Any) -> BaseModel:
    name, _, rest = key.partition(".")
    inner = getattr(config, name)
    value = changed(inner, rest, field) if rest else another(field.annotation, inner)
    return config.model_copy(update={name: value})


@pytest.mark.parametrize("verb", KINDS)
def test_every_key_is_compared_or_listed_as_one_that_cannot_change_the_result(verb: str, made: str) -> None:
    kind, identity = KINDS[verb], IDENTITIES[verb]
    config = kind.model_validate(GIVEN[verb])
    same = identity(config, made)
    wrong = []
    for key, field in iter_fields(kind):
        if "." in key and getattr(config, key.partition(".")[0]) is None:
            assert listed(verb, key), f"{verb} {key}: a section that may be absent names something"
            continue
        if verb == "export" and key.split(".")[0] in ("yolo", "label_studio"):
            continue  # another format's: refused with this one
        differs = identity(changed(config, key, field), made) != same
        if differs == listed(verb, key):
            wrong.append(f"{key}: {'listed, but compared' if differs else 'neither compared nor listed'}")
    assert wrong == []


def test_the_tables_name_keys_that_there_are() -> None:
    keys = {verb: [key for key, _ in iter_fields(kind)] for verb, kind in KINDS.items()}
    every = [key for some in keys.values() for key in some]
    assert [one for one in WITHOUT_EFFECT if not any(f"{key}.".startswith(f"{one}.") for key in every)] == []
    for verb, table in BY_CONTENT.items():
        assert [one for one in table if not any(f"{key}.".startswith(f"{one}.") for key in keys[verb])] == [], verb
    assert all(key in keys[verb] for key, verbs in DESPITE.items() for verb in verbs)


def test_a_key_that_came_later_is_compared_where_it_is_not_at_its_default() -> None:
    config = configs.LabelConfig.model_validate({**GIVEN["label"], "storage": {"max_item_bytes": 5}})
    assert later(config, "storage.max_item_bytes", "shard.images") == {"storage.max_item_bytes": 5}
    assert effective("label", config)["storage.max_item_bytes"] == 5 and "shard.images" not in effective(
        "label", config
    )


def test_how_label_pngs_are_read_is_part_of_what_was_scored(tmp_path: Path) -> None:
    """Other void ids, other counts: neither the report nor the parts of an unfinished evaluation are taken."""
    from PIL import Image

    truth = manifest(tmp_path / "truth", {"a": ["sr"]})
    (tmp_path / "masks").mkdir()
    Image.new("L", (2, 1), 3).save(tmp_path / "masks" / "a.png")

    def opened(**predictions: Any) -> Any:
        about = {"uri": str(tmp_path / "masks"), "format": "png", **predictions}
        config = {"predictions": about, "truth": {"uri": truth}, "output": {"uri": "o"}}
        return open_evaluation(EvaluateConfig.model_validate(config), Storage())

    plain = opened()
    for other in (opened(void_ids=[3]), opened(ids=[1, 3, 4, 5]), opened(suffix="")):
        same = other.config == plain.config
        assert (other.identity == plain.identity) is same
        assert (other.entries[0].inputs == plain.entries[0].inputs) is same
