"""Names, options and categories: what is known, what is refused and how it is said."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from segjobs.config import ModelConfig, PostprocessConfig, TilesConfig
from segjobs.errors import ConfigError, ItemError
from segjobs.manifest.schema import VOC_NAMES, make_categories
from segjobs.models.base import VOID, LabelMap
from segjobs.models.description import parse_description
from segjobs.models.encoders import ENCODERS, normalisation
from segjobs.models.registry import build, check_postprocess, check_tiles, resolve, start
from segjobs.models.semantic import SemanticSegmenter
from segjobs.models.table import MODELS, get_spec
from segjobs.models.transfer import why_no_head
from segjobs.models.weights import Weights, published_entry
from segjobs.storage import Storage
from tests.tiny_hf import save_tiny

STORAGE = Storage()


def card_of(name, **settings):
    return resolve(ModelConfig(name=name, weights="none", **settings), STORAGE)


def test_the_table_has_every_documented_name():
    assert list(MODELS) == [
        *("fcn8s_vgg16", "fcn16s_vgg16", "fcn32s_vgg16", "fcn_resnet50", "fcn_resnet101"),
        *("deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"),
        *("unet", "unetplusplus", "deeplabv3plus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "pan", "upernet"),
        *("segformer", "dpt", "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"),
    ]


def test_unknown_names():
    with pytest.raises(ConfigError, match=r"'unett' is no model; did you mean 'unet'"):
        get_spec("unett")
    with pytest.raises(ConfigError, match=r"'yolo' is no model; known: fcn8s_vgg16, .*package\.module:factory"):
        get_spec("yolo")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet", {"encodr": "resnet18"}, "model.options.encodr: no option of unet; known: encoder, decoder_channels"),
        ("unet", {"decoder_channels": 64}, r"decoder_channels: 64: expected a list, such as \[256, 128"),
        ("unet", {"decoder_channels": [64, 32]}, r"decoder_channels: \[64, 32\]: expected 5 counts, coarsest first"),
        ("unet", {"decoder_channels": [64, 32, 16, 8, 0]}, "expected 5 counts"),
        ("unet", {"decoder_channels": [64, 32, 16, 8, 10**12]}, "expected 5 counts.*of 1 to 65536 each"),
        ("fcn8s_vgg16", {"hidden": 10**12}, "model.options.hidden: 1000000000000: expected 1 to 65536"),
        ("lraspp_mobilenet_v3_large", {"aux_loss": True}, "no option of lraspp_mobilenet_v3_large; known: none"),
        ("fcn_resnet50", {"aux_loss": "yes"}, "'yes': expected a bool, such as False"),
        ("maskrcnn_resnet50_fpn", {"box_detections_per_img": 0.5}, "0.5: expected a int, such as 100"),
        ("unet", {"encoder": "resnet19"}, "'resnet19' is no encoder; near it: resnet1"),
    ],
)
def test_options(name, options, message):
    with pytest.raises(ConfigError, match=message):
        card_of(name, options=options)


def test_an_encoder_that_does_not_fit():
    config = ModelConfig(name="unetplusplus", weights="none", options={"encoder": "mit_b0"})
    with pytest.raises(ConfigError, match="'mit_b0' does not fit UnetPlusPlus"):
        build(config, STORAGE, device="cpu")


def test_our_list_of_encoders_is_smps():
    import segmentation_models_pytorch as smp

    assert {name for name in smp.encoders.encoders if not name.startswith("timm-")} == ENCODERS


def test_normalisation_is_our_own_table():
    assert normalisation("resnet34")[0] == (0.485, 0.456, 0.406)
    assert normalisation("xception")[1] == (0.5, 0.5, 0.5)
    assert card_of("unet", options={"encoder": "inceptionv4"}).preprocessing["mean"] == [0.5, 0.5, 0.5]


def test_a_driver_that_resolves_a_model_needs_no_torch(tmp_path):
    script = (
        "import sys\nfrom segjobs.config import ModelConfig\nfrom segjobs.models.registry import resolve\n"
        "from segjobs.storage import Storage\nresolve(ModelConfig(name='unet', weights='none'), Storage())\n"
        "resolve(ModelConfig(name='hf', weights=sys.argv[1]), Storage())\n"
        "assert not {'torch', 'torchvision', 'segmentation_models_pytorch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(save_tiny(tmp_path, "segformer"))], check=True)


@pytest.mark.parametrize("name", [name for name, spec in MODELS.items() if spec.task == "semantic" and spec.published])
def test_published_semantic_weights_are_of_vocs_classes(name):
    names = published_entry(name, MODELS[name].published, "default").meta["categories"]
    assert names == ["__background__", *VOC_NAMES[1:]]


def test_categories():
    voc = card_of("fcn8s_vgg16").categories
    assert (len(voc), voc[0].name, voc[15].name, voc[15].id) == (21, "background", "person", 15)
    coco = card_of("maskrcnn_resnet50_fpn").categories
    assert (len(coco), coco[0].name, coco[0].id, coco[-1].name, coco[-1].id) == (80, "person", 1, "toothbrush", 90)
    for names in (["cat", "dog"], ["__background__", "cat", "dog"]):
        own = card_of("maskrcnn_resnet50_fpn_v2", categories=names).categories
        assert [(c.id, c.name) for c in own] == [(1, "cat"), (2, "dog")]
    with pytest.raises(ConfigError, match="cat: named twice"):
        card_of("unet", categories=["cat", "cat"])
    with pytest.raises(ConfigError, match="name the background too"):
        card_of("unet", categories=["cat"])
    with pytest.raises(ConfigError, match="no class is named"):
        card_of("maskrcnn_resnet50_fpn", categories=["__background__"])


def test_the_digest_is_of_weights_name_options_categories_and_preprocessing():
    base = {"name": "unet", "categories": ["a", "b"], "options": {"encoder": "resnet18"}, "resize": "32x32"}
    variants = [
        {},
        {"seed": 1},
        {"name": "unetplusplus"},
        {"options": {"encoder": "resnet34"}},
        {"categories": ["a", "c"]},
        {"resize": "64x64"},
    ]
    digests = [card_of(**{**base, **variant}).digest for variant in variants]
    assert len(set(digests)) == len(digests)
    assert card_of(**base).digest == digests[0]
    assert card_of("unet").digest == card_of("unet", options={"encoder": "resnet34"}).digest  # the default, spelt out


def test_postprocess_that_does_not_fit():
    many, two = card_of("unet"), card_of("unet", categories=["no", "yes"])
    coco = card_of("maskrcnn_resnet50_fpn")
    check_postprocess(many, PostprocessConfig(classes=["dog"]))
    check_postprocess(two, PostprocessConfig(mask_threshold=0.3, min_confidence=0.2))
    check_postprocess(coco, PostprocessConfig(mask_threshold=0.3, classes=["dog"]))
    with pytest.raises(ConfigError) as caught:
        check_postprocess(many, PostprocessConfig(classes=["dgo", "zzz"], mask_threshold=0.3))
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "postprocess.classes",
        "postprocess.classes",
        "postprocess.mask_threshold",
    ]
    assert "did you mean 'dog'" in caught.value.problems[0]
    assert "known: background, aeroplane" in caught.value.problems[1]
    with pytest.raises(ConfigError, match=r"gives instances; use postprocess.score_threshold"):
        check_postprocess(coco, PostprocessConfig(min_confidence=0.3))
    with pytest.raises(ConfigError) as caught:
        check_postprocess(replace(two, task="panoptic"), PostprocessConfig(min_confidence=0.3, mask_threshold=0.3))
    assert "mask_threshold: unet@" in caught.value.problems[0] and "use model.options" in caught.value.problems[0]
    assert "gives panoptic segments; use postprocess.score_threshold" in caught.value.problems[1]


def own_model(classes=2):
    card = replace(
        card_of("unet"),
        name="own",
        digest="0" * 64,
        categories=make_categories([f"class{i}" for i in range(classes)]),
        preprocessing={"resize": "native", "mean": [0.0] * 3, "std": [1.0] * 3},
    )
    return SemanticSegmenter(torch.nn.Conv2d(3, classes, 1), card)


def test_a_factory_of_the_users():
    config = ModelConfig(name=f"{__name__}:own_model", options={"classes": 3})
    segmenter = build(config, STORAGE, device="cpu", threads=torch.get_num_threads())
    card = resolve(config, STORAGE)
    assert (card.digest, card.options, len(card.categories)) == (segmenter.card.digest, {"classes": 3}, 3)
    assert resolve(ModelConfig(name=f"{__name__}:own_model"), STORAGE).digest != card.digest
    assert segmenter.predict([np.zeros((4, 5, 3), np.uint8)])[0].ids.shape == (4, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "no_such_module:factory"}, "cannot be imported: No module named 'no_such_module'"),
        ({"name": "segjobs.models:factory"}, "cannot be imported: .*no attribute 'factory'"),
        ({"name": ":factory"}, "cannot be imported"),
        ({"name": f"{__name__}:own_model", "options": {"clases": 2}}, "unexpected keyword argument 'clases'"),
        ({"name": "builtins:dict"}, "gave a dict, no Segmenter .*lacks preprocess, forward"),
        ({"name": f"{__name__}:own_model", "weights": "none"}, "model.weights: not passed on"),
    ],
)
def test_a_factory_that_is_none(settings, message):
    with pytest.raises(ConfigError, match=message):
        resolve(ModelConfig(**settings), STORAGE)


def test_padding_to_the_divisor_is_cropped_away_again():
    model = build(ModelConfig(name="unet", weights="none", options={"encoder": "resnet18"}), STORAGE, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    tensor = model.preprocess(image)
    assert tensor.shape == (3, 64, 96)
    assert torch.equal(tensor[:, :40, :70], torch.from_numpy(image).permute(2, 0, 1))
    assert tensor[:, 50, 80].tolist() == [124, 116, 104]
    (output,) = model.forward([tensor])
    expected = output[:, :40, :70].argmax(0).numpy()
    np.testing.assert_array_equal(model.postprocess(output, (40, 70)).ids, expected)


def test_unlabelled_pixels_carry_no_loss():
    model = own_model()
    model.module.train()
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    ids = np.zeros((4, 6), np.uint16)
    ids[:, 3:] = VOID
    whole = model.loss([image], [LabelMap(ids)])
    half = model.loss([image[:, :3].copy()], [LabelMap(ids[:, :3])])
    torch.testing.assert_close(whole, half)
    nothing = model.loss([image], [LabelMap(np.full((4, 6), VOID, np.uint16))])
    assert nothing.item() == 0
    nothing.backward()
    # Images of different sizes share a batch: the mean is over the labelled pixels of both.
    other = np.random.default_rng(1).integers(0, 256, (8, 2, 3), np.uint8)
    both = model.loss([image, other], [LabelMap(ids), LabelMap(np.ones((8, 2), np.uint16))])
    alone = model.loss([other], [LabelMap(np.ones((8, 2), np.uint16))])
    torch.testing.assert_close(both, (12 * whole + 16 * alone) / 28)


def test_a_label_index_that_is_no_class():
    with pytest.raises(ItemError, match=r"label index 7 is no class of the model .0 to 1.") as caught:
        own_model().loss([np.zeros((2, 2, 3), np.uint8)], [LabelMap(np.full((2, 2), 7, np.uint16))])
    assert caught.value.code == "LABEL_VALUE"


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (["ground", "square"], None),
        (["Ground", "SQUARE"], None),
        (["square", "ground"], "the same classes in another order"),
        (["ground", "disc"], "other classes: 'disc' there, 'square' here"),
        (["ground"], "other classes: None there, 'square' here"),
    ],
)
def test_why_a_head_stays_random(known: list[str], reason: str | None) -> None:
    assert why_no_head(known, ["ground", "square"]) == reason


@pytest.mark.parametrize("own", [True, False], ids=["a model directory", "torchvision's"])
def test_the_head_of_the_same_classes_is_kept(tmp_path: Path, own: bool) -> None:
    classes = tuple(replace(one, id=one.id + 7, color=(1, 2, 3)) for one in make_categories(VOC_NAMES))
    card = replace(card_of("lraspp_mobilenet_v3_large"), categories=classes)
    trained, path = start(card, Weights("none", "seed:1"), seed=1, device="cpu")[0].module, tmp_path / "w.safetensors"
    save_file({key: value.contiguous() for key, value in trained.state_dict().items()}, path)
    named = [{"id": n, "name": name.title(), "color": [0, 0, 0]} for n, name in enumerate(VOC_NAMES)]
    saved = {"name": card.name, "task": "semantic", "options": {}, "preprocessing": {}, "categories": named}
    description = parse_description(json.dumps(saved).encode(), "model.json") if own else None
    weights = Weights("out/m" if own else "torchvision:COCO_WITH_VOC_LABELS_V1", "0", path, description)
    again, transfer = start(card, weights, seed=2, device="cpu")
    assert transfer is not None and not transfer.skipped
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in again.module.state_dict().items())


def test_panoptic_tiles_need_an_overlap_and_leave_holes() -> None:
    card = replace(card_of("unet"), task="panoptic")
    with pytest.raises(ConfigError) as caught:
        check_tiles(card, TilesConfig(size=64, overlap=0), PostprocessConfig(fill_holes=True))
    assert [one.split(":")[0] for one in caught.value.problems] == ["postprocess.fill_holes", "tiles.overlap"]
    check_tiles(card, TilesConfig(size=64), PostprocessConfig(min_area_px=9, top_k=3, score_threshold=0.5))
    check_tiles(card, TilesConfig(), PostprocessConfig(fill_holes=True))
