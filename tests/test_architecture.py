"""The house of DESIGN.md, read from the imports: who may use whom, and where Ray and torch stay."""

import ast
import graphlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from segjobs import config as configs
from segjobs.cli import VERBS
from segjobs.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = sorted([*REPOSITORY.glob("segjobs/**/*.py"), *REPOSITORY.glob("flows/*.py")])
CONFIGS = sorted(REPOSITORY.glob("conf/*.yaml"))

_BASE = {"errors", "config", "storage", "redact", "text", "plugins", "narrow"}
_TEAM = {"sources", "labels", "exporters", "models", "metrics", "page"}
MAY_IMPORT = {
    "": {"api", "errors", "manifest", "models", "page", "results"},  # segjobs/__init__.py: the public surface
    "redact": set(),
    "text": set(),
    "narrow": set(),
    "errors": {"redact"},
    "stdout": set(),
    "results": {"errors", "redact", "text"},
    "notify": {"config", "errors", "redact", "text"},
    "completion": {"config"},
    "api": {"config", "errors", "manifest", "notify", "results", "storage", "jobs"},
    "plugins": {"errors"},
    "config": {"errors", "narrow", "redact", "text", "plugins", "config"},
    "storage": {"errors", "config", "storage"},
    "manifest": {*_BASE, "manifest", ""},
    **{name: {*_BASE, "manifest", "", name} for name in _TEAM},
    "labels": {*_BASE, "manifest", "sources", "", "labels"},
    "page": {*_BASE, "manifest", "sources", "metrics", "evaluation", "", "page"},
    "evaluation": {*_BASE, *_TEAM - {"page"}, "manifest", "", "evaluation"},
    "training": {*_BASE, *_TEAM, "manifest", "", "training"},
    "jobs": {*_BASE, *_TEAM, "manifest", "evaluation", "training", "results", "", "jobs"},
    "cli": {"errors", "config", "completion", "stdout", "redact", "results", "text", "jobs", "notify", ""},
    "__main__": {"cli"},
    "flows": {"cli"},
}
TORCH = {"torch", "torchvision", "segmentation_models_pytorch", "timm", "safetensors", "transformers", "onnxruntime"}
TORCH |= {"openvino"}
TORCH_ROOMS = {"models", "training", "jobs/train/worker.py", "jobs/train/output.py", "jobs/bench/plain_script.py"}
TOP_LEVEL = {".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "README.md", "conf", "flows", "pyproject.toml"}
TOP_LEVEL |= {".rayignore", "segjobs", "tests", "uv.lock"}
_STANDS_ON_VERBS = {"bench", "demo", "edits", "nightly", "review"}
_PUBLIC_ALL_THE_SAME = ("_asdict", "_exit")  # of a NamedTuple, and os._exit
_BY_VERB = "data that its verb's test_job.py checks end to end"
_BY_FORMATS = "checked for every format by the folder's tests of formats and of the table"
_BY_CONTRACT = "every model passes test_contract.py and test_parity.py"
_BY_CONFIG = "keys, checked by test_config.py and test_catalogue.py"
TESTED_ELSEWHERE = {
    "__init__.py": "test_api.py",
    "__main__.py": "test_cli.py",
    "models/__init__.py": "test_lean_torch.py",
    "models/passes.py": "models/test_averaging.py and models/test_fusion.py",
    **{
        f"config/{name}.py": _BY_CONFIG
        for name in (
            *(
                "bench",
                "check",
                "collection",
                "contradictions",
                "cut_values",
                "demo",
                "edits",
                "evaluate",
                "examples",
                "export",
                "interpolation",
                "keys",
                "label",
            ),
            *("nightly", "prepare", "report", "review", "sections", "train", "uris"),
        )
    },
    **{f"exporters/{name}.py": _BY_FORMATS for name in ("base", "coco_results", "cvat", "label_studio")},
    "jobs/__init__.py": "jobs/engine/test_ray_data.py",
    "jobs/bench/bare_model.py": _BY_VERB,
    "jobs/bench/plain_script.py": _BY_VERB,
    "jobs/bench/runs.py": _BY_VERB,
    "jobs/demo/job.py": "test_wheel.py",
    "jobs/engine/ray_calls.py": "types of what every job calls",
    **{f"jobs/evaluate/{name}.py": _BY_VERB for name in ("console", "score")},
    **{f"jobs/export/{name}.py": _BY_VERB for name in ("parts", "plan", "summary")},
    "jobs/label/actor.py": "test_predictor.py and test_job.py, whose images kill their workers",
    "jobs/nightly/labelling.py": "jobs/nightly/test_estimate.py",
    "jobs/report/tasks.py": _BY_VERB,
    **{f"jobs/review/{name}.py": _BY_VERB for name in ("candidates", "tasks")},
    "jobs/train/task.py": "a dataclass",
    "jobs/train/worker.py": _BY_VERB,
    "labels/base.py": _BY_FORMATS,
    "labels/match_files.py": "test_binary.py and test_png.py match files",
    **{f"labels/{name}.py": "test_drawn.py" for name in ("cvat", "kaggle", "label_studio", "label_studio_rle", "via")},
    "labels/json_text.py": "test_no_traceback.py",
    "manifest/crash_points.py": "test_collection.py and test_flow_resume.py, which die there",
    "manifest/rows.py": "jobs/engine/test_run.py",
    "manifest/schema.py": "test_parts.py",
    "models/base.py": "a Protocol",
    "sources/tiff.py": "test_image_file.py",
    "sources/tiff_pieces.py": "test_windows.py and test_bands.py, for every layout",
    **{f"models/{name}.py": _BY_CONTRACT for name in ("deeplab", "encoders", "semantic", "unet")},
    "models/onnx_description.py": "test_onnx.py",
    **{f"models/{name}.py": "test_runtimes.py" for name in ("exported", "export_network")},
    **{f"models/{name}.py": "test_runtimes.py" for name in ("runtime_onnx", "runtime_openvino")},
    "models/device_errors.py": "test_batching.py and test_check_prediction.py, whose models run out of memory",
    "models/table.py": "test_registry.py",
    "models/tensors.py": "test_weights.py",
    "page/contents.py": "test_page.py",
    "page/view.py": "test_page.py",
    "results.py": "each verb's test_job.py",
    "sources/left_out.py": "test_images.py",
    "storage/local.py": "test_storage.py, for every store",
    "storage/local_walk.py": "test_images.py, and test_storage.py for every store",
    "storage/rename.py": "test_storage.py",
    "storage/s3_client.py": "test_s3.py",
    "storage/uris.py": "test_storage.py",
    "training/optim.py": "jobs/train/test_job.py",
    "training/validate.py": "jobs/train/test_job.py",
}
"""Modules without a test file of their own, and where they are tested or why they need none."""


def layer_of(path: Path) -> str:
    """``segjobs/manifest/rle.py`` → manifest, ``segjobs/cli.py`` → cli, ``flows/label.py`` → flows."""
    first, *rest = path.relative_to(REPOSITORY).with_suffix("").parts
    return first if first != "segjobs" else "" if rest == ["__init__"] else rest[0]


def imports_of(path: Path, *, for_types: bool = False) -> Iterator[str]:
    """Dotted names that a file imports when it runs, wherever in it the statement stands; and ``for_types`` alone."""
    nodes: list[ast.AST] = [ast.parse(path.read_text(), str(path))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it points"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        nodes += ast.iter_child_nodes(node)


def own_layer(name: str) -> str | None:
    """The layer of an imported dotted name, None for a library."""
    first, *rest = name.split(".")
    if first != "segjobs":
        return None
    return "" if not rest or rest[0].startswith("__") else rest[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_arrows_point_one_way(path: Path) -> None:
    imported = list(imports_of(path))
    allowed = MAY_IMPORT[layer_of(path)]
    wrong = [name for name in imported if (layer := own_layer(name)) is not None and layer not in allowed]
    assert not wrong, f"{layer_of(path)} may import {sorted(allowed)} only"
    libraries = {name.partition(".")[0] for name in imported}
    if layer_of(path) != "jobs":
        assert "ray" not in libraries, "Ray stays in jobs/"
    # The bench's yardstick is what people write without this project: Ray and torch in one script.
    place = path.relative_to(REPOSITORY / path.relative_to(REPOSITORY).parts[0])
    if not {place.parts[0], place.as_posix()} & TORCH_ROOMS:
        assert not libraries & TORCH, "torch stays in models/, training/ and in the worker that trains"
    if layer_of(path) in ("errors", "metrics", "manifest"):
        assert not libraries & {"s3fs", "fsspec", "botocore"}, "storage.py is the one door to files"


def modules() -> dict[str, Path]:
    """Dotted name → file, packages by their own names."""
    names = {}
    for path in SOURCES:
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        if parts[0] == "segjobs":
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def arrows() -> dict[str, set[str]]:
    """Module → the project's modules that it imports, for its types too.

    The version is none of them: it stands in the package whose names are the public surface, above all others.
    """
    known = modules()

    def module_of(name: str) -> str:
        while name and name not in known:
            name = name.rpartition(".")[0]
        return name

    return {
        name: {module_of(one) for one in imports_of(path, for_types=True) if one != "segjobs.__version__"} - {name, ""}
        for name, path in known.items()
    }


def test_no_circles() -> None:
    try:
        graphlib.TopologicalSorter(arrows()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' → '.join(reversed(error.args[1]))}")


def test_the_engine_knows_no_verb_and_verbs_know_no_other() -> None:
    for name, imported in arrows().items():
        if not name.startswith("segjobs.jobs."):
            continue
        verb = name.split(".")[2]
        others = {one.split(".")[2] for one in imported if one.startswith("segjobs.jobs.")} - {verb, "engine"}
        assert not others or verb in _STANDS_ON_VERBS, f"{name} imports {sorted(others)}"


@pytest.mark.parametrize("layer", ["evaluation", "training"])
def test_what_scores_and_what_learns_needs_no_ray(layer: str) -> None:
    for path in REPOSITORY.glob(f"segjobs/{layer}/*.py"):
        assert "ray" not in {name.partition(".")[0] for name in imports_of(path, for_types=True)}, path.name


def private_names_of(path: Path) -> Iterator[str]:
    """Names with a leading underscore that a file takes from elsewhere than its own classes."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if (
            isinstance(node, ast.Attribute)
            and re.fullmatch(r"_[^_]\w*", node.attr)
            and node.attr not in _PUBLIC_ALL_THE_SAME
        ):
            if not isinstance(node.value, ast.Name) or node.value.id not in ("self", "cls"):
                yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (name for name in f"{node.module}.{node.names[0].name}".split(".") if re.match(r"_[^_]", name))


def test_private_names_of_libraries_are_gathered() -> None:
    found = {
        name: sorted({*private_names_of(path)} - {"_private", "_internal", "_raylet"})
        for name, path in modules().items()
    }
    assert {name: names for name, names in found.items() if names} == {
        "segjobs.config.interpolation": ["_resolvers"],  # OmegaConf's, which test_catalogue.py reads through
    }
    inside = [
        name for name, path in modules().items() if {*private_names_of(path)} & {"_private", "_internal", "_raylet"}
    ]
    assert inside == ["segjobs.jobs.engine.ray_private"], "each of its names has a test in test_ray_private.py"


def test_every_module_has_a_test_file_or_a_reason() -> None:
    without = set()
    for path in modules().values():
        place = path.relative_to(REPOSITORY / "segjobs")
        name = place.parent.name if place.stem == "__init__" else place.stem
        does_nothing = len(ast.parse(path.read_text()).body) <= 1  # a docstring
        if not does_nothing and not (REPOSITORY / "tests" / place.parent / f"test_{name}.py").exists():
            without.add(place.as_posix())
    assert sorted(without - TESTED_ELSEWHERE.keys()) == [], "neither a test file nor a reason"
    assert sorted(TESTED_ELSEWHERE.keys() - without) == [], "has a test file, or is no more: no reason is needed"


def test_the_checks_see_what_they_should(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
        "def f():\n    import ray.data\n    from segjobs.jobs import label\n    from segjobs import __version__\n"
    )
    assert set(imports_of(path)) == {"typing.TYPE_CHECKING", "ray.data", "segjobs.jobs.label", "segjobs.__version__"}
    assert "torch" in set(imports_of(path, for_types=True))
    assert [own_layer(name) for name in ("ray.data", "segjobs.jobs.label", "segjobs.__version__")] == [None, "jobs", ""]


def test_help_imports_nothing_that_takes_long() -> None:
    script = """
import contextlib, io, json, sys
import segjobs
from segjobs.cli import main
for words in [[verb, "--help"] for verb in sys.argv[1:]] + [["--help"], ["init", "label"], ["completion", "bash"]]:
    shown = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(shown):
        main(words)
    heavy = {name.partition(".")[0] for name in sys.modules}
    heavy &= {"torch", "torchvision", "ray", "s3fs", "pyarrow", "numpy", "cv2", "PIL", "omegaconf", "yaml", "rich"}
    print(json.dumps([words[0], bool(shown.getvalue()), sorted(heavy)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *VERBS], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    expected = [*VERBS, "--help", "init", "completion"]
    assert done.stdout.splitlines() == [f'["{word}", true, []]' for word in expected]


def test_a_flow_is_its_verb() -> None:
    flows = {path.stem: path.read_text().splitlines() for path in REPOSITORY.glob("flows/*.py")}
    assert flows.keys() == VERBS.keys()
    for name, (_, *lines) in flows.items():
        assert lines == [
            "",
            "import sys",
            "",
            "from segjobs.cli import run_verb",
            "",
            'if __name__ == "__main__":',
            f'    sys.exit(run_verb("{name}"))',
        ]


def test_the_top_level_holds_what_belongs_there() -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: which files belong to the project is not known")
    tracked = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    names = tracked.stdout.rstrip("\0").split("\0")
    assert {name.partition("/")[0] for name in names} <= TOP_LEVEL
    folders = {name.split("/")[1] for name in names if name.startswith("segjobs/") and name.count("/") > 1}
    assert folders == {*_TEAM, "config", "storage", "manifest", "evaluation", "training", "jobs"}


def test_every_dependency_is_locked_by_its_hash() -> None:
    packages = tomllib.loads((REPOSITORY / "uv.lock").read_text())["package"]
    for package in packages:
        if package["source"] == {"editable": "."}:
            continue
        assert set(package["source"]) == {"registry"}, f"{package['name']}: not from a package index"
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
        assert files
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"]) for file in files), package["name"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_loads_and_refuses_unknown_keys(path: Path) -> None:
    first, *_ = path.read_text().splitlines()
    mark, *words = shlex.split(first, comments=False)
    assert (mark, words[0]) == ("#", "segjobs"), "its first line is the command that runs it"
    # Whoever has `segjobs init` print it has it here; in a checkout it is in conf/.
    assert words[2:4] == ["--config", path.name]
    kind = VERBS[words[1]].config
    overrides = words[4:]
    config = configs.load_config(kind, str(path), overrides)
    sections = {name.rpartition(".")[0] for name, _ in configs.iter_fields(kind)} - {"model.options"}
    for section in sorted(sections):
        key = f"{section}.no_such_key".lstrip(".")
        if section and _at(config, section) is None:
            continue
        with pytest.raises(ConfigError, match=rf"{re.escape(key)}: unknown key"):
            configs.load_config(kind, str(path), [*overrides, f"{key}=1"])


def _at(config: object, name: str) -> object:
    for part in name.split("."):
        config = getattr(config, part)
    return config
