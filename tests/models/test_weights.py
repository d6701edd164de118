"""Weights by URI: every way in, every way it can be wrong, and a saved model loaded by a fresh process."""

import hashlib
import http.server
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

from segjobs.config import ModelConfig
from segjobs.errors import ConfigError, ConflictError, StorageError, WeightsError
from segjobs.models import weights as weights_module
from segjobs.models.registry import build, resolve
from segjobs.models.tensors import load_into, read_tensors, save_model
from segjobs.models.weights import locate
from segjobs.storage import Storage

STORAGE = Storage()
NAME = "lraspp_mobilenet_v3_large"
CLASSES = ["background", "cat", "dog"]


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGJOBS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))


def tiny_config(weights="none", **settings):
    return ModelConfig(name=NAME, weights=str(weights), resize="64x64", **settings)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)


@pytest.fixture(scope="module")
def random_model():
    return build(tiny_config(categories=CLASSES, seed=3), STORAGE, device="cpu")


@pytest.fixture
def state(random_model):
    return {key: value.contiguous().clone() for key, value in random_model.module.state_dict().items()}


def test_a_saved_model_is_bit_identical_in_a_fresh_process(random_model, image, tmp_path):
    uri = str(tmp_path / "model")
    sha256 = save_model(random_model, uri, STORAGE, extra={"epochs": 5})
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    assert description["epochs"] == 5
    assert description["sha256"] == sha256
    assert [c["name"] for c in description["categories"]] == CLASSES
    config = ModelConfig(name=NAME, weights=uri)  # categories and resize come from model.json
    script = (
        "import sys, hashlib, numpy as np\n"
        "from segjobs.config import ModelConfig\n"
        "from segjobs.models.registry import build\n"
        "from segjobs.storage import Storage\n"
        "model = build(ModelConfig.model_validate_json(sys.argv[1]), Storage(), device='cpu')\n"
        "image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)\n"
        "out = model.forward([model.preprocess(image)])[0].numpy().tobytes()\n"
        "print(hashlib.sha256(out).hexdigest(), model.card.digest)\n"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", script, config.model_dump_json()], capture_output=True, text=True, check=True
    )
    logits = random_model.forward([random_model.preprocess(image)])[0].numpy().tobytes()
    card = resolve(config, STORAGE)
    assert fresh.stdout.split() == [hashlib.sha256(logits).hexdigest(), card.digest]
    assert card.categories == random_model.card.categories
    assert card.preprocessing == random_model.card.preprocessing
    # Saving the same model again changes nothing; another one is refused.
    assert save_model(random_model, uri, STORAGE, extra={"epochs": 5}) == sha256
    other = build(tiny_config(categories=CLASSES, seed=4), STORAGE, device="cpu")
    with pytest.raises(ConflictError, match="another model is there"):
        save_model(other, uri, STORAGE)


def test_a_models_directory_takes_its_own_name_and_as_many_categories(random_model, tmp_path):
    uri = str(tmp_path / "model")
    save_model(random_model, uri, STORAGE)
    with pytest.raises(ConfigError, match=f"model.name is 'unet', but .* holds a '{NAME}'"):
        resolve(ModelConfig(name="unet", weights=uri), STORAGE)
    with pytest.raises(ConfigError, match=r"names 2 classes, .* has 3"):
        resolve(ModelConfig(name=NAME, weights=uri, categories=["a", "b"]), STORAGE)
    renamed = resolve(ModelConfig(name=NAME, weights=uri, categories=["a", "b", "c"]), STORAGE)
    assert [c.name for c in renamed.categories] == ["a", "b", "c"]
    assert renamed.digest != resolve(ModelConfig(name=NAME, weights=uri), STORAGE).digest


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "model", "module."])
def test_bare_files(suffix, wrapped, state, random_model, tmp_path):
    path = tmp_path / f"weights{suffix}"
    if wrapped == "module.":
        state = {f"module.{key}": value for key, value in state.items()}
    if suffix == ".safetensors":
        if wrapped != "plain":
            pytest.skip("a .safetensors file holds a plain state dict")
        safetensors.torch.save_file(state, path)
    else:
        torch.save({wrapped: state, "epoch": 3} if wrapped in ("state_dict", "model") else state, path)
    config = tiny_config(path, categories=CLASSES, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    loaded = build(config, STORAGE, device="cpu")
    for key, value in random_model.module.state_dict().items():
        assert torch.equal(loaded.module.state_dict()[key], value), key
    assert loaded.card == resolve(config, STORAGE)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("how", ["torch.save", "pickle"])
def test_a_malicious_pickle_is_refused_and_not_run(how, tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "evil.pth"
    if how == "torch.save":
        torch.save({"state_dict": Evil(trace)}, path)
    else:
        path.write_bytes(pickle.dumps(Evil(trace), protocol=2))
    with pytest.raises(WeightsError, match=r"evil\.pth: holds more than tensors.*is not run"):
        build(tiny_config(path), STORAGE, device="cpu")
    assert not trace.exists()
    with path.open("rb") as file:
        if how == "pickle":  # the proof that the file does what it says
            pickle.load(file)  # noqa: S301
            assert trace.exists()


class Evaluating:
    """Its pickle calls ``builtins.eval``, without a name that looks like the system's."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return eval, (f"open({str(self.path)!r}, 'w').close()",)


class Importing(torch.nn.Linear):
    """A whole module, as people save them: loading it would import its class."""


def _in_a_zip(path, trace):
    torch.save({"w": torch.zeros(2)}, path)
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in entries.items():
            new.writestr(name, pickle.dumps(Evil(trace), protocol=2) if name.endswith("data.pkl") else content)


MALICIOUS = {
    "eval": lambda path, trace: torch.save(Evaluating(trace), path),
    "legacy": lambda path, trace: torch.save([Evil(trace)], path, _use_new_zipfile_serialization=False),
    "beside tensors": lambda path, trace: torch.save({"w": torch.zeros(2), "x": {"y": [Evaluating(trace)]}}, path),
    "in the place of data.pkl": _in_a_zip,
    "key": lambda path, trace: path.write_bytes(
        b'c__builtin__\neval\n(S\'open("%b", "w")\'\ntR.' % str(trace).encode()
    ),
    "whole module": lambda path, trace: torch.save(Importing(1, 1), path),
    "tar": lambda path, trace: _tarred(path, pickle.dumps(Evil(trace), protocol=2)),
    "script": lambda path, trace: torch.jit.save(torch.jit.script(torch.nn.ReLU()), str(path)),
    "named safetensors": lambda path, trace: path.write_bytes(pickle.dumps(Evil(trace))),
    "safetensors of a huge header": lambda path, trace: path.write_bytes(b"\xff" * 7 + b"\x7f{}"),
}


def _tarred(path, content):
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("how", MALICIOUS)
def test_nothing_but_tensors_is_read(how, tmp_path):
    trace, path = tmp_path / "trace", tmp_path / ("evil.safetensors" if "safetensors" in how else "evil.pth")
    MALICIOUS[how](path, trace)
    with pytest.raises(
        WeightsError,
        match=r"evil\.(pth|safetensors): (holds more than tensors|not readable as weights|an archive of TorchScript)",
    ):
        read_tensors(path)
    assert not trace.exists()


def test_tensors_that_do_not_fit_are_named(state, tmp_path):
    path = tmp_path / "weights.safetensors"
    with_aux = {**state, "aux_classifier.0.weight": torch.zeros(2)}
    safetensors.torch.save_file(with_aux, path)
    build(tiny_config(path, categories=CLASSES), STORAGE, device="cpu")  # a needless auxiliary head is left out

    with pytest.raises(
        WeightsError, match=r"4 of another shape: classifier\.\S+ \(3,.*instead of \(2,.*number of model.categories"
    ):
        build(tiny_config(path, categories=["no", "yes"]), STORAGE, device="cpu")

    key = "classifier.low_classifier.weight"
    broken = {("other.weight" if k == key else k): v for k, v in state.items()}
    safetensors.torch.save_file(broken, path)
    with pytest.raises(WeightsError, match=rf"1 missing: {key}; 1 unexpected: other.weight"):
        build(tiny_config(path, categories=CLASSES), STORAGE, device="cpu")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", b"", "not readable as weights"),
        ("w.safetensors", b"\xff" * 64, "not readable as weights"),
        ("w.pth", b"", "not readable as weights"),
        ("w.pth", b"not a pickle", "no file of torch.save, or a damaged one"),
    ],
)
def test_damaged_files(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        build(tiny_config(path), STORAGE, device="cpu")


def test_a_truncated_checkpoint(state, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(WeightsError, match="not readable as weights"):
        build(tiny_config(path), STORAGE, device="cpu")


def test_something_else_than_a_state_dict(tmp_path):
    path = tmp_path / "w.pth"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(WeightsError, match=r"expected a state dict .* found list"):
        read_tensors(path)


def test_missing_weights(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere\.pth: no such weights file"):
        resolve(tiny_config(tmp_path / "nowhere.pth"), STORAGE)
    with pytest.raises(WeightsError, match=r"no model\.json there; expected a model directory"):
        resolve(tiny_config(tmp_path), STORAGE)
    with pytest.raises(WeightsError, match=r"no model\.json there"):
        resolve(tiny_config("defualt"), STORAGE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"no model description of segjobs: Invalid JSON.*; mend it, or save"),
        ("[]", "no model description"),
        ('{"name": "x"}', "no model description of segjobs: options: Field required, and 2 more; "),
    ],
)
def test_a_damaged_model_json(text, message, random_model, tmp_path):
    save_model(random_model, str(tmp_path), STORAGE)
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        resolve(tiny_config(tmp_path), STORAGE)


def test_another_digest_than_expected(random_model, tmp_path):
    save_model(random_model, str(tmp_path), STORAGE)
    with pytest.raises(WeightsError, match=r"weights is [0-9a-f]{64}, but model\.sha256 says 0{64}: damaged"):
        resolve(tiny_config(tmp_path, sha256="0" * 64), STORAGE)
    tensors = tmp_path / "model.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(WeightsError, match=r"but model\.json says"):
        resolve(tiny_config(tmp_path), STORAGE)


def test_published_weights_by_name():
    with pytest.raises(WeightsError, match="no such weights for fcn_resnet50; it has COCO_WITH_VOC_LABELS_V1"):
        resolve(ModelConfig(name="fcn_resnet50", weights="torchvision:COCO_WITH_VOC_LABELS_V2"), STORAGE)
    for weights in ("default", "torchvision:COCO_V1"):
        with pytest.raises(WeightsError, match=r"no published weights for unet; give model.weights=<model directory>"):
            resolve(ModelConfig(name="unet", weights=weights), STORAGE)


@pytest.fixture
def web(tmp_path):
    """A folder and the URL at which a real HTTP server gives it; the list of paths that were asked for."""
    folder, asked = tmp_path / "web", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_a_download_happens_once_and_is_checked(web, tmp_path):
    folder, url, asked = web
    data = b"weights" * 1000
    name = f"net-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(data)
    paths = [None] * 4

    def fetch(index):
        paths[index] = weights_module._fetch_published(f"{url}/{name}")

    threads = [threading.Thread(target=fetch, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [f"/{name}"]
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == data

    (folder / "net-00000000.pth").write_bytes(data)
    with pytest.raises(WeightsError, match="cannot be fetched: invalid hash"):
        weights_module._fetch_published(f"{url}/net-00000000.pth")
    with pytest.raises(WeightsError, match=r"cannot be fetched: .*404.*put the file at .*net-11111111\.pth"):
        weights_module._fetch_published(f"{url}/net-11111111.pth")
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_an_unreachable_server():
    with pytest.raises(WeightsError, match=r"cannot be fetched.*Connection refused"):
        weights_module._fetch_published("http://127.0.0.1:9/net-00000000.pth")


def test_a_cache_that_cannot_be_written_serves_what_it_has(tmp_path, monkeypatch):
    def download(path):
        path.write_bytes(b"weights")

    kept = weights_module.cached("key", "w.pth", download)
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("nothing is made"))
    assert weights_module.cached("key", "w.pth", download) == kept
    monkeypatch.undo()
    monkeypatch.setenv("SEGJOBS_CACHE", "/proc/nowhere")
    with pytest.raises(StorageError, match=r"^/proc/nowhere/\S+: weights cannot be kept there.*; set SEGJOBS_CACHE"):
        weights_module.cached("key", "w.pth", download)


def test_no_home_folder_for_a_cache(monkeypatch):
    monkeypatch.delenv("SEGJOBS_CACHE")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as without HOME, of a user without a name
    with pytest.raises(StorageError, match=r"^no home folder is known .*; set SEGJOBS_CACHE to a writable folder$"):
        weights_module.cached("key", "w.pth", lambda _: None)


def test_published_weights_in_the_hub_cache_are_used_in_place(tmp_path, state):
    # Without internet: a seeded checkpoint under the published name, of torchvision's own keys.
    entry = torchvision.models.get_model_weights(NAME).DEFAULT
    path = tmp_path / "hub" / "checkpoints" / Path(entry.url).name
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.get_model(NAME, weights=None, weights_backbone=None).state_dict(), path)
    card = resolve(ModelConfig(name=NAME), STORAGE)
    assert (card.weights, card.licence) == ("torchvision:COCO_WITH_VOC_LABELS_V1", "BSD-3-Clause")
    assert (len(card.categories), card.categories[0].name, card.categories[12].name) == (21, "background", "dog")
    assert card.preprocessing["resize"] == "short:520"
    assert build(ModelConfig(name=NAME), STORAGE, device="cpu").card == card
    with pytest.raises(ConfigError, match="names 3 classes, torchvision:COCO_WITH_VOC_LABELS_V1 has 21"):
        resolve(ModelConfig(name=NAME, categories=CLASSES), STORAGE)


@pytest.mark.parametrize("uri", ["hf://org", "hf://org/repo", "hf://org/repo/file@rev", "hf:///repo@main"])
def test_hub_uris_need_a_revision(uri):
    with pytest.raises(WeightsError, match=r"expected hf://org/repo@revision"):
        resolve(tiny_config(uri), STORAGE)


def test_the_hub_without_internet():
    script = (
        "from segjobs.config import ModelConfig\n"
        "from segjobs.models.registry import resolve\n"
        "from segjobs.storage import Storage\n"
        "resolve(ModelConfig(name='unet', weights='hf://org/repo@main'), Storage())\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": os.environ["SEGJOBS_CACHE"]}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert "WeightsError: hf://org/repo@main: cannot be fetched" in run.stderr


def test_a_hub_repository_in_the_cache(random_model, tmp_path, monkeypatch):
    # The layout that huggingface_hub keeps on disk, as after an earlier download.
    revision = "a" * 40
    snapshot = tmp_path / "hf" / "models--org--repo" / "snapshots" / revision
    save_model(random_model, str(snapshot), STORAGE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for uri in (f"hf://org/repo@{revision}", f"hf://org/repo@{revision}/model.safetensors"):
        found = locate(tiny_config(uri), None, STORAGE)
        assert found.path is not None
        assert found.path.name == "model.safetensors"
        assert (found.description is None) == uri.endswith(".safetensors")


@pytest.mark.slow
def test_a_model_directory_on_s3(s3_server, random_model, image, tmp_path):
    storage, uri = Storage(s3_server), "s3://segjobs/models/lraspp"
    save_model(random_model, uri, storage)
    config = ModelConfig(name=NAME, weights=uri)
    loaded = build(config, storage, device="cpu")
    assert loaded.card == resolve(config, storage)
    np.testing.assert_array_equal(loaded.predict([image])[0].ids, random_model.predict([image])[0].ids)
    (cached,) = (tmp_path / "cache").rglob("model.safetensors")
    (fetched_at,) = {cached.stat().st_mtime_ns}
    resolve(config, storage)
    assert cached.stat().st_mtime_ns == fetched_at  # once per node
    os.truncate(cached, 1000)
    with pytest.raises(WeightsError, match=r"has 1000 of its \d+ bytes: remove it"):
        resolve(config, storage)
    with pytest.raises(WeightsError, match="no such weights file"):
        resolve(ModelConfig(name=NAME, weights="s3://segjobs/models/other.pth"), storage)


def test_batch_counters_of_frozen_norms_are_left_out(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(torch.nn.BatchNorm2d(4).state_dict(), path)
    load_into(torchvision.ops.FrozenBatchNorm2d(4), path, "w.pth")
