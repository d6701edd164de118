"""What others build on: the names and signatures of ``import segjobs``, and that the import costs nothing."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import segjobs

SIGNATURES = {
    "prepare": "(*, input=None, labels=None, output=None, config=None, **keys)",
    "train": "(*, data=None, validation=None, model=None, output=None, config=None, **keys)",
    "label": "(*, input=None, model=None, output=None, config=None, **keys)",
    "nightly": "(*, input=None, model=None, collection=None, config=None, **keys)",
    "edits": "(*, collection=None, labels=None, config=None, **keys)",
    "review": "(*, collection=None, config=None, **keys)",
    "evaluate": "(*, predictions=None, truth=None, baseline=None, output=None, config=None, **keys)",
    "report": "(*, evaluation=None, predictions=None, truth=None, output=None, config=None, **keys)",
    "export": "(*, manifest=None, format=None, output=None, config=None, **keys)",
    "open_manifest": "(uri, *, storage=None)",
    "read_rows": "(uri, *, columns=None, storage=None)",
    "draw_row": "(row, categories, *, image=None, storage=None, style='overlay')",
}
MEMBERS = {
    "Manifest": {"storage", "uri", "task", "categories", "counts", "failures", "to_arrow", "to_pandas"},
    "Row": {"columns", "categories", "task", "image_id", "ok", "size_hw", "segments", "mask", "label_map"}
    | {"get", "items", "keys", "values"},
    "Segmenter": {"card", "module", "same_size_batches", "preprocess", "forward", "postprocess", "predict", "set_loss"}
    | {"loss"},
    "LabelMap": {"ids", "confidence"},
    "Instances": {"size_hw", "classes", "scores", "boxes_xyxy", "crops", "corners_xy"},
    "Category": {"id", "name", "color", "isthing"},
    "ModelCard": {"name", "task", "categories", "digest", "weights", "options", "preprocessing", "licence", "label"},
    "RunResult": {"uri", "run_id", "images", "ok", "failed", "failures", "segments", "already_done", "seconds"}
    | {"stage_seconds", "gpus", "exit_code", "text"},
    "PrepareResult": {"manifests", "images", "ok", "failed", "failures", "exit_code", "text"},
    "TrainResult": {"uri", "steps", "seconds", "score", "exit_code", "text"},
    "NightlyResult": {"uri", "night", "version", "counts", "run", "failures", "gate", "page", "exit_code", "text"},
    "EditsResult": {"uri", "version", "new", "run", "counts", "failures", "exit_code", "text"},
    "ReviewResult": {"uri", "review", "folder", "images", "left_out", "files", "exit_code", "text"},
    "EvaluateResult": {"uri", "images", "scores", "gate", "exit_code", "text"},
    "ReportResult": {"uri", "bytes", "exit_code", "text"},
    "ExportResult": {"uri", "format", "images", "ok", "failed", "failures", "segments", "losses", "seconds"}
    | {"exit_code", "text"},
}
ERRORS = {"SegjobsError", "ConfigError", "StorageError", "WeightsError", "ManifestError", "ConflictError"}
ERRORS |= {"ClusterError", "TrainingError", "ItemError"}


def bare(signature: inspect.Signature) -> str:
    """Names, kinds and defaults, without annotations."""
    parameters = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def test_the_names() -> None:
    assert set(segjobs.__all__) == {*SIGNATURES, *MEMBERS, *ERRORS, "ExitCode", "__version__"}
    assert set(segjobs.__all__) <= set(dir(segjobs))
    with pytest.raises(AttributeError, match="module 'segjobs' has no attribute 'lable'"):
        segjobs.lable  # noqa: B018
    assert (Path(segjobs.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signatures(name: str) -> None:
    function: Callable[..., object] = getattr(segjobs, name)
    assert bare(inspect.signature(function)) == SIGNATURES[name]
    assert "Raises" in inspect.getdoc(function) or name == "read_rows", "the errors are part of it"


@pytest.mark.parametrize("name", MEMBERS)
def test_the_members(name: str) -> None:
    kind = getattr(segjobs, name)
    own = {one for one in dir(kind) if not one.startswith("_")} | set(getattr(kind, "__annotations__", {}))
    own |= {field.name for field in fields(kind)} if is_dataclass(kind) else set()
    own |= {"storage"} if name == "Manifest" else set()  # set when it is made
    assert own == MEMBERS[name]


def test_the_errors_are_one_tree() -> None:
    for name in ERRORS:
        assert issubclass(getattr(segjobs, name), segjobs.SegjobsError)
    assert {code.name: int(code) for code in segjobs.ExitCode} == {
        "DONE": 0,
        "BUG": 1,
        "USAGE": 2,
        "TOO_MANY_FAILED": 3,
        "GATE_MISSED": 4,
        "STOPPED": 75,
    }


def test_verbs_keep_their_names_beside_the_modules_of_their_jobs() -> None:
    import segjobs.jobs.report.job  # imports what draws the page

    assert all(callable(getattr(segjobs, name)) for name in SIGNATURES)


def test_the_import_brings_nothing_heavy() -> None:
    script = """
import json, sys
import segjobs
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules} - before - {"segjobs"})))
"""
    before = "import sys\nbefore = {name.partition('.')[0] for name in sys.modules} | sys.stdlib_module_names\n"
    shown = subprocess.check_output([sys.executable, "-c", before + script], text=True)
    assert json.loads(shown) == []
