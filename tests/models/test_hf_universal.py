"""transformers' universal networks with their own processors beside ours, from an image to its masks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from segjobs.config import ModelConfig
from segjobs.errors import WeightsError
from segjobs.models.hf_files import open_repository
from segjobs.models.hf_universal import task_tokens
from segjobs.models.registry import build
from segjobs.storage import Storage
from tests.tiny_hf import SIZE, UNIVERSAL, save_tiny

STORAGE = Storage()
SIZES = [(50, 70), (96, 60)]
by_kind = pytest.mark.parametrize("kind", UNIVERSAL)
EDGES = {"shortest_edge": 48, "longest_edge": 80}


def configured(folder: Path, task: str, **options: Any) -> ModelConfig:
    return ModelConfig(name="hf", weights=str(folder), options={"task": task, **options})


def ours(folder: Path, task: str, **options: Any) -> Any:
    return build(configured(folder, task, **options), STORAGE, device="cpu")


def draw(size_hw: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)


def theirs(folder: Path, kind: str, task: str) -> Callable[[np.ndarray], tuple[Any, Any]]:
    """Image → their image processor, and their network's output for it."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    processor.class_info_file = ""
    network = transformers.AutoModelForUniversalSegmentation.from_pretrained(folder).eval()
    tokens = {}
    if kind == "oneformer":
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        found = tokenizer([f"the task is {task}"], padding="max_length", max_length=9, truncation=True)
        tokens["task_inputs"] = torch.tensor(found["input_ids"]) * torch.tensor(found["attention_mask"])

    def run(image: np.ndarray) -> tuple[Any, Any]:
        given = processor(image, return_tensors="pt", **({"task_inputs": [task]} if kind == "oneformer" else {}))
        masks = {name: given[name] for name in ("pixel_mask",) if name in given}
        with torch.no_grad():
            output = network(pixel_values=given["pixel_values"], **masks, **tokens)
        output.patch_offsets = given.get("patch_offsets") or []
        return processor, output

    return run


@by_kind
def test_semantic(tmp_path: Path, kind: str) -> None:
    eomt = {"size": {"shortest_edge": SIZE, "longest_edge": None}, "do_split_image": True, "do_pad": False}
    folder = save_tiny(tmp_path, kind, **(eomt if kind == "eomt" else {"size": EDGES}))
    run, model = theirs(folder, kind, "semantic"), ours(folder, "semantic")
    for size_hw in SIZES:
        processor, output = run(draw(size_hw))
        (expected,) = processor.post_process_semantic_segmentation(output, target_sizes=[size_hw])
        assert (model.predict([draw(size_hw)])[0].ids == expected.numpy()).mean() > 0.99


@by_kind
def test_panoptic(tmp_path: Path, kind: str) -> None:
    folder = save_tiny(tmp_path, kind, **({} if kind == "eomt" else {"size": EDGES}))
    more = {} if kind == "eomt" else {"label_ids_to_fuse": set()}
    settings = {"threshold": 0.1, "mask_threshold": 0.3, "overlap_mask_area_threshold": 0.1}
    run, model = theirs(folder, kind, "panoptic"), ours(folder, "panoptic", **settings)
    for size_hw in SIZES:
        processor, output = run(draw(size_hw))
        (expected,) = processor.post_process_panoptic_segmentation(output, target_sizes=[size_hw], **settings, **more)
        found = model.predict([draw(size_hw)])[0]
        assert found.classes.tolist() == [info["label_id"] for info in expected["segments_info"]]
        assert len(found.classes) > 0
        np.testing.assert_allclose(found.scores, [info["score"] for info in expected["segments_info"]], atol=1e-3)
        for number, info in enumerate(expected["segments_info"]):
            assert ((found.ids == number) == (expected["segmentation"].numpy() == info["id"])).mean() > 0.99


@by_kind
def test_instance(tmp_path: Path, kind: str) -> None:
    size_hw = SIZES[0]
    folder = save_tiny(tmp_path, kind, **({} if kind == "eomt" else {"size": EDGES}))
    processor, output = theirs(folder, kind, "instance")(draw(size_hw))
    more = {"overlap_mask_area_threshold": 0.8} if kind == "oneformer" else {}
    (expected,) = processor.post_process_instance_segmentation(output, threshold=0.1, target_sizes=[size_hw], **more)
    found = ours(folder, "instance", threshold=0.1).predict([draw(size_hw)])[0]
    scores = sorted((info["score"] for info in expected["segments_info"]), reverse=True)
    assert scores
    np.testing.assert_allclose(found.scores, scores, atol=1e-3)


def test_a_size_of_ones_own(tmp_path: Path) -> None:
    config = configured(save_tiny(tmp_path, "mask2former"), "panoptic", threshold=0.1)
    model = build(config.model_copy(update={"resize": "short:32"}), STORAGE, device="cpu")
    assert model.preprocess(draw((50, 70))).shape == (3, 32, 44)
    assert model.predict([draw((50, 70))])[0].ids.shape == (50, 70)


def test_what_stuff_and_options_do(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "maskformer")
    settings = {"threshold": 0.1, "overlap_mask_area_threshold": 0.0}
    apart = ours(folder, "panoptic", **settings).predict([draw((50, 70))])[0]
    model = ours(folder, "panoptic", stuff=["background", "left", "right"], **settings)
    fused = model.predict([draw((50, 70))])[0]
    assert len(fused.classes) == len(set(apart.classes.tolist())) < len(apart.classes)
    assert {one.isthing for one in model.card.categories} == {False}


def test_the_task_as_a_network_of_texts_reads_it(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "oneformer")
    repository = open_repository(configured(folder, "semantic"), STORAGE, tokenizer_of="oneformer")
    # Its start, "the" as one token, "t", "a", "s", "k" with its word's end, "i", "s" with its, and its end, after nine.
    expected = [[52, 55, 19, 0, 18, 36, 8, 44, 53]]
    assert task_tokens(repository, "semantic").tolist() == expected
    path = folder / "tokenizer.json"
    model = json.loads(path.read_text())["model"]
    path.unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n")
    again = open_repository(configured(folder, "semantic"), STORAGE, tokenizer_of="oneformer")
    assert task_tokens(again, "semantic").tolist() == expected
    (folder / "vocab.json").unlink()
    lacking = open_repository(configured(folder, "semantic"), STORAGE, tokenizer_of="oneformer")
    with pytest.raises(WeightsError, match=r"OneFormer reads its task, and 'vocab\.json' of its tokenizer is missing"):
        task_tokens(lacking, "semantic")
    path.write_text("{")
    damaged = open_repository(configured(folder, "semantic"), STORAGE, tokenizer_of="oneformer")
    with pytest.raises(WeightsError, match="the tokenizer cannot be read"):
        task_tokens(damaged, "semantic")
