"""Weights files as people have them, which load, and hostile ones: one line with the file and the mend."""

import argparse
import collections
import contextlib
import functools
import io
import json
import struct
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from omegaconf import OmegaConf
from torch import nn

from segjobs.errors import WeightsError
from segjobs.models.tensors import load_into
from segjobs.models.weights_file import read_tensors

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
State = dict[str, torch.Tensor]


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def state() -> State:
    torch.manual_seed(0)
    # Sixteenths: as exact in half precision.
    return {
        key: torch.randint(0, 16, value.shape) / 16 if value.is_floating_point() else value
        for key, value in network().state_dict().items()
    }


def prefixed(prefix: str) -> State:
    return {prefix + key: value for key, value in state().items()}


def cast(dtype: torch.dtype) -> State:
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in state().items()}


def torch_file(content: object, *, old: bool = False) -> bytes:
    data = io.BytesIO()
    torch.save(content, data, _use_new_zipfile_serialization=not old)
    return data.getvalue()


def zipped(
    *, change: Callable[[str, bytes], bytes | None] = lambda _, content: content, deflate: bool = False
) -> bytes:
    """A torch file whose entries are other ones (None: left out), or deflated."""
    data = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(torch_file(state()))) as old,
        zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED) as new,
    ):
        for name in old.namelist():
            if (content := change(name, old.read(name))) is not None:
                new.writestr(name, content)
    return data.getvalue()


def with_pickle(pickled: bytes) -> bytes:
    return zipped(change=lambda name, content: pickled if name.endswith("data.pkl") else content)


def header(text: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


class AttributeDict(dict[str, object]):
    """As Lightning keeps hyper_parameters."""


def lightning(**hyper_parameters: object) -> bytes:
    """A checkpoint of Lightning's Trainer: the module's tensors beside a loss's and a metric's, and its settings."""
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.5",
        "state_dict": {**prefixed("model."), "loss.weight": torch.ones(4), "val_iou.confmat": torch.zeros(2, 2)},
        "loops": {},
        "callbacks": {"ModelCheckpoint{'monitor': 'iou'}": {"best_model_score": torch.tensor(0.5), "dirpath": "x"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}],
        "hparams_name": "kwargs",
        "hyper_parameters": AttributeDict(hyper_parameters),
    }
    module = types.ModuleType("lightning.fabric.utilities.data")
    module.AttributeDict = AttributeDict  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttributeDict, "__module__", module.__name__)
        for name in ("lightning", "lightning.fabric", "lightning.fabric.utilities"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setitem(sys.modules, module.__name__, module)
        return torch_file(content)


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def of_settings() -> bytes:
    counts: collections.defaultdict[str, list[int]] = collections.defaultdict(list)
    counts["a"].append(1)
    return lightning(
        root=Path("data"),
        loss=nn.CrossEntropyLoss(),
        optimiser=functools.partial(torch.optim.Adam, lr=1e-3),
        best=np.float64(0.5),
        curve=np.ones(3),
        config=OmegaConf.create({"model": {"encoders": ["resnet18"]}}),
        counts=counts,
    )


LEGAL: dict[str, Callable[[], bytes]] = {
    "plain.pth": lambda: torch_file(state()),
    "old.pt": lambda: torch_file(state(), old=True),
    "plain.safetensors": lambda: safetensors.torch.save(state()),
    "lightning.ckpt": lambda: torch_file({"state_dict": prefixed("model."), "epoch": 1, "loops": {}}),
    "settings.ckpt": of_settings,
    "compiled.pth": lambda: torch_file(prefixed("module._orig_mod.")),
    "averaged.pth": lambda: torch_file({**prefixed("module."), "n_averaged": torch.tensor(5)}),
    "student.ckpt": lambda: torch_file({"state_dict": {**prefixed("model."), **prefixed("ema_model.module.")}}),
    "timm.pth.tar": lambda: torch_file({"epoch": 1, "state_dict_ema": state(), "args": argparse.Namespace(p=Path())}),
    "shadow.pth": lambda: torch_file({"ema": {"decay": 0.9, "shadow": state()}, "history": np.ones(2)}),
    "parallel.pth": lambda: torch_file({"model_state_dict": prefixed("module."), "optimizer": {"state": {}}}),
    "both.pth": lambda: torch_file({"model": prefixed("module.model.net."), "step": 2}),
    "reference.pth": lambda: torch_file({"model": state(), "optimizer": {}, "args": argparse.Namespace(lr=1)}),
    "ema.pth": lambda: torch_file({"ema": {"module": state()}, "best": 0.5}),
    "first.pth": lambda: torch_file({"model_ema": cast(torch.int8), "model": state()}),
    "own_name.pth": lambda: torch_file({"my_net": state(), "epoch": 4}),
    "half.pth": lambda: torch_file(cast(torch.float16)),
    "bfloat.safetensors": lambda: safetensors.torch.save(cast(torch.bfloat16)),
    "double.pth": lambda: torch_file(cast(torch.float64)),
    "parameters.pth": lambda: torch_file(
        {key: nn.Parameter(value) if value.is_floating_point() else value for key, value in state().items()}
    ),
    "deflated.pth": lambda: zipped(deflate=True),
}


@pytest.mark.parametrize("name", LEGAL)
def test_weights_as_people_have_them(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(LEGAL[name]())
    module = network()
    load_into(module, path, name)
    wanted = state()
    assert all(torch.equal(value, wanted[key]) for key, value in module.state_dict().items())


ENTRY = '{"dtype": "F32", "shape": [1], "data_offsets": [%d, %d]}'
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty.safetensors": (lambda: b"", "header too small"),
    "empty.pth": (lambda: b"", "EOFError"),
    "list.safetensors": (lambda: header(b"[]"), "invalid JSON in header"),
    "nothing.safetensors": (lambda: header(b"{}"), "found nothing"),
    "deep.safetensors": (lambda: header(b'{"a":' * 10**5), "recursion limit exceeded"),
    "long_header.safetensors": (lambda: struct.pack("<Q", 2**62) + b"{}", "header too large"),
    "negative.safetensors": (
        lambda: header(json.dumps({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}).encode(), b"0" * 4),
        "invalid value",
    ),
    "twice.safetensors": (
        lambda: header(f'{{"a": {ENTRY % (0, 4)}, "a": {ENTRY % (4, 8)}}}'.encode(), b"0" * 8),
        "invalid offset",
    ),
    "torch_file.safetensors": (lambda: torch_file(state()), "header too large"),
    "lfs.pth": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "run git lfs pull"),
    "page.pth": (lambda: b"\n<!DOCTYPE html>", "a page of the web"),
    "zeros.pth": (lambda: b"\0" * 1000, "not readable as weights"),
    "list.pth": (lambda: torch_file([torch.zeros(1)]), "found list"),
    "number.pth": (lambda: torch_file(5), "found int"),
    "nothing.pth": (lambda: torch_file({}), "found nothing"),
    "integer_keys.pth": (lambda: torch_file(dict(enumerate(state().values()))), r"found the keys 0 \(Tensor\)"),
    "one_integer_key.pth": (lambda: torch_file({**state(), 5: torch.zeros(1)}), r"found the keys 5 \(Tensor\);"),
    "epoch_inside.pth": (lambda: torch_file({**state(), "epoch": 3}), r"found the keys 'epoch' \(int\);"),
    "two_nets.pth": (lambda: torch_file({"a": state(), "b": state()}), r"found the keys 'a' \(dict\), 'b' \(dict\);"),
    "wrapped_list.pth": (lambda: torch_file({"state_dict": [1]}), r"found the keys 'state_dict' \(list\)"),
    "arrays.pth": (lambda: torch_file({"a": np.zeros(2)}), r"holds more than tensors \(numpy\.\S*_reconstruct\)"),
    "module.pth": (lambda: torch_file(network()), r"holds more than tensors \(torch\.nn\.\S*Sequential\)"),
    "cut.pth": (lambda: torch_file(state())[:-10], "File is not a zip file"),
    "no_pickle.pth": (
        lambda: zipped(change=lambda name, content: None if name.endswith("data.pkl") else content),
        "file not found",
    ),
    "no_data.pth": (lambda: zipped(change=lambda name, content: None if "/data/" in name else content), "not found"),
    "short_data.pth": (
        lambda: zipped(change=lambda name, content: content[:1] if "/data/" in name else content),
        "record size",
    ),
    "byteorder.pth": (
        lambda: zipped(change=lambda name, content: b"middle" if "byteorder" in name else content),
        "Unknown endianness",
    ),
    "bomb.pth": (
        lambda: zipped(deflate=True, change=lambda name, c: b"\0" * (65 << 20) if name.endswith("data/0") else c),
        r"\d+ bytes that unpack to 68\d{6}, where torch stores tensors as they are",
    ),
    "half_a_character.pth": (lambda: with_pickle(b"\x80\x02X\x01\x00\x00\x00\xff."), "not readable as weights"),
}  # fmt: skip
PICKLES = {
    "pops_nothing": b"\x80\x02.",
    "asks_for_what_is_not_there": b"\x80\x02h\x05.",
    "appends_nothing": b"\x80\x02]a.",
    "sets_nothing": b"\x80\x02}K\x01s.",
    "calls_without_arguments": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "calls_with_others": b"\x80\x02ctorch\nSize\nK\x01\x85R.",
    "stores_a_number": b"\x80\x02K\x01Q.",
    "ends_in_a_text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "nests": b"\x80\x02" + b"]" * 10**4 + b"a" * (10**4 - 1) + b".",
    "asks_for_memory": b"\x80\x02c__builtin__\nbytearray\n\x8a\x07\0\0\0\0\0\0\x40\x85R.",
    "holds_itself": b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.",
}
HOSTILE |= {f"{name}.pth": (lambda pickled=pickled: with_pickle(pickled), "") for name, pickled in PICKLES.items()}
HOSTILE |= {f"{name}.pt": (lambda pickled=pickled: pickled, "") for name, pickled in PICKLES.items()}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_line(name: str, tmp_path: Path) -> None:
    make, words = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(WeightsError, match=words) as caught:
        read_tensors(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "; " in text
    assert text.isprintable()
    assert len(text) < len(str(path)) + 400


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (cast(torch.int8), r"6 not to be used: 0\.weight \(int8 instead of float32\)"),
        ({key: value * float("nan") for key, value in state().items()}, r"not to be used: 0\.weight \(NaN"),
        ({"0.weight": torch.zeros(1).expand(1 << 40)}, r"1 of another shape: 0\.weight \(1099511627776,\) instead of"),
        (
            {key.replace("1.", "norm."): value for key, value in state().items()},
            r"4 perhaps under another name: norm\.weight \(4,\) → 1\.weight, ",
        ),
    ],
)
def test_what_does_not_fit_is_told(content: State, words: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=words):
        load_into(network(), path, "w.pth")


@pytest.mark.parametrize("name", ["plain.pth", "old.pt", "plain.safetensors"])
def test_flipped_bits_and_missing_ends(name: str, tmp_path: Path) -> None:
    """Without a digest a flip in the numbers cannot be told; but nothing except WeightsError comes out."""
    path = tmp_path / name
    whole = LEGAL[name]()
    draw = np.random.default_rng(0)
    for end in draw.choice(len(whole), 12, replace=False).tolist():
        path.write_bytes(whole[:end])
        with pytest.raises(WeightsError, match=rf"^{path}: [^\n]*; "):
            load_into(network(), path, name)
    for bit in draw.choice(8 * len(whole), 60, replace=False).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with contextlib.suppress(WeightsError):
            load_into(network(), path, name)


def test_what_stands_beside_tensors_is_not_run_whatever_its_name(tmp_path: Path) -> None:
    """A name of a known library is no licence: its function is never called."""
    path, touched = tmp_path / "a.pth", tmp_path / "touched"
    path.write_bytes(torch_file({"state_dict": state(), "history": Calls(torch.save, 1, str(touched))}))
    assert read_tensors(path).keys() == state().keys()
    assert not touched.exists()
    path.write_bytes(torch_file({"state_dict": state(), "history": Calls(contextlib.suppress)}))
    with pytest.raises(WeightsError, match=r"holds more than tensors \(contextlib.suppress\), which is not run"):
        read_tensors(path)
    path.write_bytes(torch_file(network()))
    with pytest.raises(
        WeightsError, match=r"more than tensors \(torch.nn.modules.container.Sequential\), which is not run"
    ):
        read_tensors(path)


def test_what_lies_beside_a_model_is_left_out_only_where_the_model_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for content, words in (
        ({**prefixed("model."), "model.2.weight": torch.ones(1)}, "1 unexpected: 2.weight"),
        ({**state(), "loss.weight": torch.ones(1)}, "1 unexpected: loss.weight"),
        (
            {**{key: value for key, value in prefixed("model.").items() if "bias" not in key}, "loss": torch.ones(4)},
            r"2 missing: 0.bias, 1.bias; 1 unexpected: loss; 2 perhaps under another name: loss \(4,\) → 0.bias, loss",
        ),
    ):
        path.write_bytes(torch_file(content))
        with pytest.raises(WeightsError, match=words):
            load_into(network(), path, "a.pth")
