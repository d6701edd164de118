"""Networks of the table by other runtimes: the labels of torch's, exported once, checked once, and without torch."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from segjobs.config import LabelConfig, LabellingModelConfig, ModelConfig
from segjobs.errors import ConfigError, ConflictError, StorageError
from segjobs.jobs.label.job import make_job
from segjobs.manifest.collection import processing_of
from segjobs.manifest.manifest import Manifest
from segjobs.manifest.parts import open_run, read_part
from segjobs.manifest.plan import make_plan
from segjobs.manifest.rows import Uncertainty
from segjobs.models import export_network
from segjobs.models.base import LabelMap
from segjobs.models.exported import ExportedSegmenter
from segjobs.models.registry import build, resolve
from segjobs.models.runtimes import Exporting, check_runtime
from segjobs.models.semantic import SemanticSegmenter
from segjobs.models.tensors import save_model
from segjobs.sources.images import list_images
from segjobs.sources.synthetic import draw_scene
from segjobs.storage import Storage
from tests.in_process import label_in_process
from tests.torture.parity import spread

REPOSITORY = Path(__file__).parents[2]
STORAGE = Storage()
CLASSES = [f"class{number}" for number in range(5)]
NAME = "lraspp_mobilenet_v3_large"


def scenes(count: int, size_hw: tuple[int, int]) -> list[np.ndarray]:
    return [draw_scene(3, size_hw, index=index)[0] for index in range(count)]


def plain(name: str = NAME, **settings: Any) -> SemanticSegmenter:
    given = {"name": name, "weights": "none", "categories": CLASSES, "resize": "short:64", **settings}
    segmenter = build(ModelConfig.model_validate(given), STORAGE, device="cpu", threads=1)
    assert isinstance(segmenter, SemanticSegmenter)
    return segmenter


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("SEGJOBS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model directory whose random network says every class somewhere."""
    segmenter = plain()
    tensors = [segmenter.preprocess(image) for image in scenes(4, (64, 96))]
    logits = torch.stack(segmenter.forward(tensors)).transpose(0, 1).flatten(1)
    scale, shift = 3 / logits.std(1), -logits.mean(1)
    heads = [one for one in segmenter.module.modules() if getattr(one, "out_channels", None) == len(CLASSES)]
    with torch.no_grad():
        for number, head in enumerate(heads):
            head.weight *= scale[:, None, None, None]
            head.bias.copy_((head.bias + (shift if number == 0 else 0)) * scale)
    folder = str(tmp_path_factory.mktemp("model"))
    save_model(segmenter, folder, STORAGE)
    return folder


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the child process was asked for; its work is done in this process, which has torch already."""
    asked: list[str] = []

    def work(self: Exporting, task: dict[str, str]) -> None:
        asked.append(next(iter(task)))
        model = self.config.model_dump(mode="json", exclude={"runtime", "precision"})
        export_network.work({**task, "model": model, "storage": {}, "digest": self.card.digest})

    monkeypatch.setattr(Exporting, "_child", work)
    return asked


def config_of(runtime: str, precision: str = "fp32", **settings: Any) -> ModelConfig:
    given = {"name": NAME, "resize": "short:64", "runtime": runtime, "precision": precision, **settings}
    return ModelConfig.model_validate(given)


def exported(config: ModelConfig) -> ExportedSegmenter:
    segmenter = build(config, STORAGE, device="cpu", threads=1, card=resolve(config, STORAGE))
    assert isinstance(segmenter, ExportedSegmenter)
    return segmenter


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_labels_are_torchs(runtime: str, weights: str, cache: Path, tasks: list[str]) -> None:
    ours, theirs = exported(config_of(runtime, weights=weights)), plain(weights=weights, categories=None)
    assert ours.card == theirs.card
    for size_hw, count in (((96, 140), 3), ((150, 110), 1)):
        tensors = [theirs.preprocess(image) for image in scenes(count, size_hw)]
        outputs = ours.forward([tensor.permute(1, 2, 0).numpy() for tensor in tensors])
        for output, other in zip(outputs, theirs.forward(tensors), strict=True):
            assert output.dtype == np.float32
            found, expected = ours.postprocess(output, size_hw), theirs.postprocess(other, size_hw)
            assert len(np.unique(expected.ids)) > 2, "a mask that says something"
            assert (found.ids == expected.ids).mean() >= 0.999
            assert ours.uncertainty(output, size_hw) == pytest.approx(theirs.uncertainty(other, size_hw), abs=1e-4)
            (runs,) = ours.runs([output], [size_hw])
            (others,) = theirs.runs([torch.from_numpy(output)], [size_hw])
            assert runs.starts.tolist() == others.starts.tolist()
            assert runs.values.tolist() == others.values.tolist()


def test_bf16_is_near_and_checked_too(weights: str, cache: Path, tasks: list[str]) -> None:
    """A random network's classes lie so close together that 8 bits do not tell them apart: such a model is refused."""
    exact, rounded = (exported(config_of("openvino", precision, weights=weights)) for precision in ("fp32", "bf16"))
    pixels = np.stack([exact.preprocess(image) for image in scenes(2, (96, 140))])
    expected, found = exact._network(pixels), rounded._network(pixels)
    assert 0 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.2
    with pytest.raises(ConfigError, match=r"model.runtime=openvino: .*at most 5% in bf16; take model.precision=fp32"):
        rounded.forward(list(pixels))


def test_images_are_resized_as_torchs(weights: str, cache: Path, tasks: list[str]) -> None:
    ours, theirs = exported(config_of("onnxruntime", weights=weights)), plain(weights=weights, categories=None)
    for image in scenes(3, (200, 300)):
        np.testing.assert_array_equal(ours.preprocess(image), theirs.preprocess(image).permute(1, 2, 0).numpy())


def test_a_network_of_a_divisor_sees_what_it_sees_in_torch() -> None:
    network = plain("unet", options={"encoder": "resnet18"}, resize="native")
    other = ExportedSegmenter(lambda pixels: np.zeros((1, 5, 64, 96), np.float32), network.card, divisor=32)
    for image in scenes(2, (50, 70)):
        np.testing.assert_array_equal(other.preprocess(image), network.preprocess(image).permute(1, 2, 0).numpy())
    assert other.predict(scenes(1, (50, 70)))[0].ids.shape == (50, 70)


def test_it_is_exported_and_checked_once_on_a_node(
    weights: str, tmp_path: Path, tasks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGJOBS_CACHE", str(tmp_path))
    for _ in range(2):
        segmenter = exported(config_of("onnxruntime", weights=weights))
        for _ in range(2):
            segmenter.predict(scenes(1, (70, 90)))
    assert tasks == ["export", "compare"]
    exported(config_of("openvino", weights=weights)).predict(scenes(1, (70, 90)))
    assert tasks == ["export", "compare", "compare"], "one network, checked for each runtime"


def damaged(path: Path, how: str) -> None:
    content = path.read_bytes()
    half = len(content) // 2
    if how == "truncated":
        path.write_bytes(content[:half])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "another byte":
        path.write_bytes(content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :])
    else:
        path.with_name("net.sha256").unlink()


def test_a_network_that_was_damaged_in_the_cache_is_exported_anew(
    weights: str, tmp_path: Path, tasks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGJOBS_CACHE", str(tmp_path))
    pixels = scenes(1, (64, 96))
    first = exported(config_of("onnxruntime", weights=weights)).forward(pixels)
    assert tasks == ["export", "compare"]
    (path,) = tmp_path.rglob("net.onnx")
    for how in ("truncated", "empty", "another byte", "without digest"):
        damaged(path, how)
        tasks.clear()
        for _ in range(2):
            np.testing.assert_array_equal(exported(config_of("onnxruntime", weights=weights)).forward(pixels), first)
        assert tasks == ["export"], how
    assert sorted(one.name for one in path.parent.iterdir()) == ["lock", "net.onnx", "net.sha256"]


def test_actors_that_begin_together_export_once(
    weights: str, tmp_path: Path, tasks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for the first one's file, by a lock that processes share as threads do."""
    monkeypatch.setenv("SEGJOBS_CACHE", str(tmp_path))
    config = config_of("onnxruntime", weights=weights)
    together, pixels = Barrier(4), scenes(1, (64, 96))

    def actor() -> list[np.ndarray]:
        together.wait()
        return exported(config).forward(pixels)

    with ThreadPoolExecutor(4) as pool:
        outputs = [future.result() for future in [pool.submit(actor) for _ in range(4)]]
    assert sorted(tasks) == ["compare", "export"]
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])


def test_a_cache_that_cannot_be_written(
    weights: str, tmp_path: Path, tasks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEGJOBS_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"cannot be kept there: .*set SEGJOBS_CACHE to a writable folder"):
        exported(config_of("onnxruntime", weights=weights))
    assert tasks == []


def test_what_its_runtime_cannot_load_is_one_line(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGJOBS_CACHE", str(tmp_path))
    monkeypatch.setattr(Exporting, "_child", lambda self, task: Path(task["export"]).write_bytes(b"no network"))
    for runtime in ("onnxruntime", "openvino"):
        with pytest.raises(
            ConfigError, match=rf"runtime={runtime}: {NAME}\S+ cannot be loaded: .*; take model.runtime=torch"
        ):
            exported(config_of(runtime, weights=weights))


def test_runs_of_two_runtimes_do_not_mix(weights: str, cache: Path, tasks: list[str], tmp_path: Path) -> None:
    """Neither in one output, nor as masks of a collection that are up to date."""
    ways = [("torch", "fp32"), ("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("compile", "fp32")]
    identities = []
    for runtime, precision in ways:
        given = labelling(tmp_path, weights, "out")
        given["model"] |= {"runtime": runtime, "precision": precision}
        config = LabelConfig.model_validate(given)
        plan = make_plan(list_images(STORAGE, config.input), config.shard)
        identities.append(make_job(config, plan, resolve(config.model, STORAGE)))
    assert len({one.run_id for one in identities}) == len(ways)
    assert len({processing_of(one.identity) for one in identities}) == len(ways)
    label_in_process(LabelConfig.model_validate(labelling(tmp_path, weights, "torch")))
    other = {**labelling(tmp_path, weights, "onnxruntime"), "output": {"uri": str(tmp_path / "torch")}}
    with pytest.raises(ConflictError, match=r"model\.runtime"):
        label_in_process(LabelConfig.model_validate(other))


def test_labels_that_are_not_torchs_stop_the_job(
    weights: str, cache: Path, tasks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("onnxruntime", weights=weights)
    segmenter = exported(config)
    network = segmenter._network
    segmenter._network = lambda pixels: np.roll(network(pixels), 1, axis=1)  # each class is called the next one
    monkeypatch.setenv("SEGJOBS_CACHE", str(tmp_path))
    message = (
        r"model.runtime=onnxruntime: lraspp\S+ gives 100.00% of the pixels of the first 2 image\(s\) another class"
    )
    for _ in range(2):  # nothing of it was noted
        with pytest.raises(ConfigError, match=f"{message}.*at most 0.1% in fp32; take model.runtime=torch"):
            segmenter.forward([segmenter.preprocess(image) for image in scenes(2, (70, 90))])


def test_other_weights_than_the_job_began_with(weights: str, tmp_path: Path) -> None:
    request = {"export": str(tmp_path / "net"), "model": {"name": NAME, "weights": weights}, "storage": {}}
    with pytest.raises(Exception, match="other weights than the job began with; run it again"):
        export_network.work({**request, "digest": "0" * 64})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "maskrcnn_resnet50_fpn"},
            "maskrcnn_resnet50_fpn gives instances, and semantic models alone are exported or compiled; "
            "drop model.runtime$",
        ),
        ({"name": "hf"}, "hf brings a network of its own.*drop model.runtime"),
        ({"name": "smp"}, "smp brings a network of its own.*drop model.runtime"),
        ({"name": "onnx"}, "onnx brings a network of its own.*drop model.runtime"),
        ({"name": "tests.toy_model:build"}, "tests.toy_model:build brings a network of its own.*drop model.runtime"),
        (
            {"tta": ["hflip"]},
            "the views of model.tta are averaged by torch, as torch computes them; drop model.runtime",
        ),
    ],
)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "compile"])
def test_what_no_other_runtime_computes(runtime: str, settings: dict[str, Any], message: str) -> None:
    config = LabellingModelConfig.model_validate({"name": NAME, **settings, "runtime": runtime})
    with pytest.raises(ConfigError, match=f"model.runtime={runtime}: {message}"):
        check_runtime(config)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "compile"])
def test_nor_the_models_of_an_ensemble(runtime: str) -> None:
    members = [{"name": NAME, "weights": "none"}, {"name": "unet", "weights": "none", "runtime": runtime}]
    config = LabellingModelConfig.model_validate({"name": "ensemble", "models": members})
    with pytest.raises(
        ConfigError, match=f"model.runtime={runtime}: the models of an ensemble are averaged by .*; drop model.runtime"
    ):
        check_runtime(config)


def test_a_runtime_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"model.runtime=onnxruntime: .*pip install 'segjobs\[onnx\]' on every node"):
        resolve(config_of("onnxruntime", weights="none"), STORAGE)


@pytest.mark.parametrize(("device", "precision"), [("cuda", "fp32"), ("cpu", "bf16")])
def test_an_exported_network_computes_on_cpus(device: str, precision: str) -> None:
    with pytest.raises(ConfigError, match=r"it computes on CPUs.*compute.gpus_per_actor=0"):
        build(config_of("onnxruntime", weights="none"), STORAGE, device=device, precision=precision)


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "compile"])
def test_bf16_is_openvinos(runtime: str) -> None:
    with pytest.raises(ValidationError, match=f"bf16 is for model.runtime=openvino, not {runtime}"):
        config_of(runtime, "bf16")


_LABEL = """
import json, sys
from segjobs.config import LabelConfig
from tests.in_process import label_in_process

done = label_in_process(LabelConfig.model_validate(json.loads(sys.argv[1])))
print(json.dumps([done.ok, sorted({name.partition(".")[0] for name in sys.modules} & {"torchvision", "onnxruntime"}),
                  hasattr(sys.modules.get("torch"), "nn")]))
"""


def labelling(folder: Path, weights: str, runtime: str, **settings: Any) -> dict[str, Any]:
    """The config of a job of three images."""
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    for number, image in enumerate(scenes(3, (70, 90))):
        Image.fromarray(image).save(photos / f"{number}.png")
    return {
        "input": {"uri": str(photos)},
        "output": {"uri": str(folder / runtime)},
        "model": {"name": NAME, "weights": weights, "resize": "short:64", "runtime": runtime},
        **settings,
    }


def labelled_in_a_process(config: dict[str, Any]) -> list[Any]:
    """Images labelled in a new process: how many, what it imported of two libraries, and whether it has torch."""
    command = [sys.executable, "-c", _LABEL, json.dumps(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_who_labels_by_an_exported_network_imports_no_torch(
    weights: str, cache: Path, tasks: list[str], tmp_path: Path
) -> None:
    segmenter = exported(config_of("onnxruntime", weights=weights))
    segmenter.predict(scenes(1, (70, 90)))  # now the cache holds the network and that it was checked
    assert labelled_in_a_process(labelling(tmp_path, weights, "onnxruntime")) == [3, ["onnxruntime"], False]


def test_nor_does_who_labels_in_tiles(weights: str, cache: Path, tasks: list[str], tmp_path: Path) -> None:
    """Logits are blended as torch's are: the same masks, and how unsure the model is of them."""
    settings = {"tiles": {"size": 64, "overlap": 0.5}, "uncertainty": True}
    exported(config_of("onnxruntime", weights=weights)).predict(scenes(1, (70, 90)))
    assert labelled_in_a_process(labelling(tmp_path, weights, "onnxruntime", **settings)) == [3, ["onnxruntime"], False]
    label_in_process(LabelConfig.model_validate(labelling(tmp_path, weights, "torch", **settings)))
    check_same(tmp_path / "onnxruntime", tmp_path / "torch")


def check_same(folder: Path, other: Path) -> None:
    """Two runs' masks, but for near ties, and how unsure the model is of them."""
    for ours, theirs in zip(*(Manifest(STORAGE, str(run)) for run in (folder, other)), strict=True):
        assert len(theirs.segments) > 2, "a mask that says something"
        assert (ours.label_map() == theirs.label_map()).mean() >= 0.999
    (ours, theirs) = (open_run(STORAGE, str(run)) for run in (folder, other))
    for row, expected in zip(
        *(read_part(STORAGE, run, run.parts[0]).to_pylist() for run in (ours, theirs)), strict=True
    ):
        unsure = [row[name] for name in Uncertainty._fields]
        assert unsure == pytest.approx([expected[name] for name in Uncertainty._fields], abs=1e-3)
        assert 0 < row["margin_worst"] < row["margin"] < row["entropy_worst"] < 1


@pytest.mark.slow
def test_a_child_process_exports_and_compares(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGJOBS_CACHE", str(tmp_path / "cache"))
    assert labelled_in_a_process(labelling(tmp_path, weights, "onnxruntime")) == [3, ["onnxruntime"], False]
    checks = [json.loads(path.read_text()) for path in (tmp_path / "cache").rglob("check.json")]
    assert [one["other"] <= 0.001 for one in checks] == [True]


@pytest.mark.slow
def test_a_child_process_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGJOBS_CACHE", str(tmp_path))
    config = config_of(
        "onnxruntime", name="pspnet", weights="none", categories=CLASSES, options={"encoder": "resnet18"}
    )
    with pytest.raises(
        ConfigError, match=r"runtime=onnxruntime: pspnet.* cannot be exported: .*; take model.runtime=torch"
    ):
        exported(config)


TABLE = ["fcn8s_vgg16", "fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_mobilenet_v3_large", NAME, "unet"]
TABLE += ["unetplusplus", "deeplabv3plus", "linknet", "fpn", "manet"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_every_network_that_is_said_to_be_exported(
    name: str, tmp_path: Path, tasks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its logits, and the masks of made images, of which a network of random weights says several classes."""
    monkeypatch.setenv("SEGJOBS_CACHE", str(tmp_path))
    options = {"hidden": 16} if "vgg" in name else {} if "_" in name else {"encoder": "resnet18"}
    theirs = plain(name=name, options=options, resize="native")
    spread(theirs, scenes(2, (160, 192)))
    save_model(theirs, str(tmp_path / "model"), STORAGE)
    images, expected = scenes(2, (150, 190)), list[LabelMap]()
    for one in theirs.predict(images):
        assert isinstance(one, LabelMap)
        assert len(np.unique(one.ids)) > 2, "a mask that says something"
        expected.append(one)
    batches = [[theirs.preprocess(one) for one in scenes(*of)] for of in ((2, (96, 128)), (1, (160, 96)))]
    logits = [theirs.forward(tensors) for tensors in batches]
    for runtime in ("onnxruntime", "openvino"):
        ours = exported(config_of(runtime, name=name, weights=str(tmp_path / "model"), resize="native"))
        for one, other in zip(ours.predict(images), expected, strict=True):
            assert isinstance(one, LabelMap)
            assert (one.ids == other.ids).mean() >= 0.999
        for tensors, others in zip(batches, logits, strict=True):
            outputs = ours.forward([tensor.permute(1, 2, 0).numpy() for tensor in tensors])
            for output, other in zip(outputs, others, strict=True):
                np.testing.assert_allclose(output, other.numpy(), atol=1e-3 * float(other.abs().max()))
