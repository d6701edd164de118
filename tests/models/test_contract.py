"""One suite for every model of the table: shapes, the way back, batches, determinism, training.

A new model's test is its line in ``MODELS``, or its line in ``tests/tiny_hf.py``, where a repository of transformers
brings its architecture along. Those that packages bring are held to the same (tests/test_plugins.py).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image

from segjobs.config import (
    ENSEMBLE,
    InputConfig,
    LabellingModelConfig,
    ModelConfig,
    PostprocessConfig,
    TilesConfig,
)
from segjobs.errors import ConfigError, ItemError
from segjobs.jobs.engine.watchdog import Watchdog
from segjobs.jobs.label.decode import Decoding
from segjobs.jobs.label.tiled import Tiler
from segjobs.manifest.rle import decode, paint
from segjobs.models.averaging import AveragingSegmenter
from segjobs.models.base import VOID, GivesLogits, Instances, LabelMap, PanopticMap, tensors_of
from segjobs.models.check_prediction import checked
from segjobs.models.contract import CHECKS, Subject, run_contract
from segjobs.models.postprocess import to_segments
from segjobs.models.registry import build, check_blend, check_tiles, resolve
from segjobs.models.table import MODELS, get_spec
from segjobs.models.tiling import label_map_of
from segjobs.sources.images import list_images
from segjobs.storage import Storage
from tests.tiny_hf import KINDS, UNIVERSAL, save_tiny
from tests.tiny_onnx import save_onnx
from tests.toy_model import Field5

STORAGE = Storage()
CLASSES = ["background", "left", "right"]
HEAVY = {  # each has a lighter sister that runs the same code
    *("fcn16s_vgg16", "fcn32s_vgg16", "fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101"),
    *("unetplusplus", "maskrcnn_resnet50_fpn_v2", "manet", "linknet", "pspnet", "deeplabv3", "upernet", "segformer"),
    *("fpn", "dpt"),
}
LIGHT_OPTIONS = {"encoder": "resnet18", "hidden": 32, "aux_loss": True}
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in MODELS]
UNIVERSAL_TASKS = ["maskformer instance", "mask2former panoptic", "oneformer semantic", "eomt instance"]
REPOSITORIES = [f"hf {kind}" for kind in [*(kind for kind in KINDS if kind not in UNIVERSAL), *UNIVERSAL_TASKS]]


def contract_config(name, **settings):
    options = {key: value for key, value in LIGHT_OPTIONS.items() if key in get_spec(name).options}
    if name == "dpt":
        options["encoder"] = "tu-vit_tiny_patch16_224"
    if get_spec(name).task == "instance":
        # Random heads score every class alike: without a threshold, and with one object, something is found.
        options = {"box_score_thresh": 0.0, "box_detections_per_img": 5}
        categories, resize = CLASSES[1:], "short:32"
    else:
        categories, resize = CLASSES, "64x64"
    return ModelConfig(
        **{"name": name, "weights": "none", "options": options, "categories": categories, "resize": resize, **settings}
    )


def draw(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def as_arrays(prediction):
    if isinstance(prediction, LabelMap):
        return {"ids": prediction.ids, "confidence": prediction.confidence}
    if isinstance(prediction, PanopticMap):
        return {name: getattr(prediction, name) for name in ("ids", "classes", "scores")}
    arrays = {name: getattr(prediction, name) for name in ("classes", "scores", "boxes_xyxy", "corners_xy")}
    return {**arrays, **{f"crop {i}": crop for i, crop in enumerate(prediction.crops)}}


FACTORY = "tests.toy_model:field5"
"""Of the user's own, which the config hands its classes."""
TTA = ["hflip", "scale:0.5", "vflip+scale:1.5"]
SEVERAL = [
    *("tta lraspp_mobilenet_v3_large", "tta unet", "ensemble semantic"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("tta maskrcnn_resnet50_fpn", "ensemble instance")),
]


def several(name, *kind, folder):
    """A model with views of the image, or an ensemble; of networks that meet at different resolutions."""
    if name == "tta":
        return LabellingModelConfig.model_validate({**contract_config(*kind).model_dump(), "tta": TTA})
    if kind == ("instance",):
        hf = {"name": "hf", "weights": str(save_tiny(folder, "maskformer")), "options": {"task": "instance"}}
        names = {"categories": ["right", "background", "left"]}  # another order than the network's own
        members = [{**hf, "tta": ["hflip"]}, {**hf, **names}]
    else:
        onnx = {"name": "onnx", "weights": str(save_onnx(folder)), "categories": ["Right", "background", "left"]}
        members = [contract_config("lraspp_mobilenet_v3_large").model_dump(), {**onnx, "tta": ["hflip"]}]
        members.append({"name": FACTORY, "categories": CLASSES, "tta": ["vflip"]})
    return LabellingModelConfig.model_validate({"name": ENSEMBLE, "models": members})


@pytest.fixture(scope="module", params=[*NAMES, *REPOSITORIES, "onnx", "smp", "factory", *SEVERAL])
def config(request, tmp_path_factory):
    name, *kind = request.param.split()
    if name in ("tta", "ensemble"):
        return several(name, *kind, folder=tmp_path_factory.mktemp("several"))
    if name == "factory":
        return ModelConfig(name=FACTORY, categories=CLASSES)
    if name == "onnx":
        return ModelConfig(name=name, weights=str(save_onnx(tmp_path_factory.mktemp("exported"), resize="64x64")))
    if name == "smp":
        folder = tmp_path_factory.mktemp("saved")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = smp.FPN("resnet18", encoder_weights=None, classes=len(CLASSES))
        made.save_pretrained(folder)
        return ModelConfig(name=name, weights=str(folder), categories=CLASSES, resize="64x64")
    if not kind:
        return contract_config(name)
    options = {"task": kind[1], **({} if kind[1] == "semantic" else {"threshold": 0.1})} if kind[1:] else {}
    folder = save_tiny(tmp_path_factory.mktemp("repository"), kind[0])
    return ModelConfig(name=name, weights=str(folder), options=options)


@pytest.fixture(scope="module")
def model(config):
    return build(config, STORAGE, device="cpu")


def test_card_is_the_one_that_the_driver_resolves(model, config):
    assert resolve(config, STORAGE) == model.card
    assert not model.module.training


@pytest.mark.parametrize("size_hw", [(50, 70), (1, 1), (97, 33)])
def test_way_back_to_the_original_size(model, size_hw):
    image = draw(*size_hw)
    before = image.copy()
    prediction = checked(model.predict([image])[0], model.card, size_hw)
    np.testing.assert_array_equal(image, before)
    if isinstance(prediction, LabelMap):
        assert prediction.ids.shape == prediction.confidence.shape == size_hw
        assert prediction.ids.dtype == np.uint16
        assert prediction.ids.max() < len(CLASSES)
        assert prediction.confidence.dtype == np.float32
        # Between cells that disagree, the winner of the logits may have less than 1/3 of the probability.
        assert 0 <= prediction.confidence.min() <= prediction.confidence.max() <= 1
    elif isinstance(prediction, Instances):
        assert prediction.size_hw == size_hw
        assert (np.diff(prediction.scores) <= 0).all()
        assert set(prediction.classes.tolist()) <= set(range(len(model.card.categories)))
        for crop, (left, top) in zip(prediction.crops, prediction.corners_xy.tolist(), strict=True):
            assert crop.dtype == np.float32
            assert min(left, top) >= 0
            assert top + crop.shape[0] <= size_hw[0]
            assert left + crop.shape[1] <= size_hw[1]
    segments, _ = to_segments(prediction, model.card.categories, PostprocessConfig())
    masks = [decode(segment.counts, size_hw) for segment in segments]
    if isinstance(prediction, LabelMap):
        assert (np.sum(masks, axis=0) == 1).all()
    if isinstance(prediction, PanopticMap):
        assert np.array_equal(np.sum(masks, axis=0), prediction.ids != VOID)


@pytest.mark.parametrize("size_hw", [(30_000, 10), (10, 30_000)])
def test_a_strip_is_predicted_or_refused_as_too_large(model, size_hw):
    """Never resized to what no memory holds: at short:520 it would be 1.5 million pixels long."""
    try:
        (prediction,) = model.predict([draw(*size_hw)])
    except ItemError as error:
        assert error.code == "TOO_LARGE"
        return
    checked(prediction, model.card, size_hw)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Two images that tiles of 48 pixels cut, and one that a tile covers."""
    folder = tmp_path_factory.mktemp("scene")
    for name, size_hw in (("a", (100, 70)), ("b", (2, 200)), ("c", (48, 48))):
        Image.fromarray(draw(*size_hw)).save(folder / f"{name}.png")
    return sorted(list_images(STORAGE, InputConfig(uri=str(folder))), key=lambda item: item.path)


def tiled(model, item, batch_size=8, **tiles):
    """The image's segments and its confidence, tile by tile."""
    settings = TilesConfig(**{"size": 48, "overlap": 0.5, "above_pixels": 0, **tiles})
    check_tiles(model.card, settings, PostprocessConfig())
    check_blend(model, settings)
    decoding = Decoding(STORAGE, 10**6, 1, 600.0, 0)
    with ThreadPoolExecutor(1) as device, Watchdog(600.0, print) as watchdog:
        tiler = Tiler(model, decoding, settings, PostprocessConfig(), batch_size, device, False, watchdog)
        found = tiler.label(item)
    return found.segments, found.confidence


def modes_of(model):
    """Every tile mode that the model has."""
    if model.card.task != "semantic":
        return [{"merge": merge} for merge in ("smaller", "union")]
    blends = ("gaussian", "linear", "none") if isinstance(model, GivesLogits) else ("none",)
    return [{"blend": blend} for blend in blends]


def agreement(segments, others, size_hw):
    """The share of pixels of one class in both."""
    maps = [paint([(one.category_id, one.counts) for one in side], size_hw) for side in (segments, others)]
    return (maps[0] == maps[1]).mean()


def test_tiles_of_every_mode(model, scene):
    """They cover the image; twice the same; a batch of 1 gives what one of N does; one tile is the whole image."""
    (large, line, small), semantic = scene, model.card.task == "semantic"
    first, *others = modes_of(model)
    segments, confidence = tiled(model, large, **first)
    assert (segments, confidence) == tiled(model, large, **first)
    alone, _ = tiled(model, large, batch_size=1, **first)
    if not semantic:
        assert len(alone) == len(segments)
    for item, size_hw, mode in ((large, (100, 70), first), *((line, (2, 200), mode) for mode in others)):
        found = segments if item is large else tiled(model, item, **mode)[0]
        assert all(segment.size_hw == size_hw for segment in found)
        if semantic:
            assert (np.sum([decode(one.counts, size_hw) for one in found], axis=0) == 1).all()
        elif model.card.task == "panoptic":
            assert np.sum([decode(one.counts, size_hw) for one in found], axis=0).max(initial=0) <= 1
    if semantic:
        assert agreement(segments, alone, (100, 70)) > 0.99 and 0 <= confidence <= 1
        whole = to_segments(model.predict([draw(48, 48)])[0], model.card.categories, PostprocessConfig())[0]
        assert agreement(tiled(model, small, **first)[0], whole, (48, 48)) > 0.99


def test_tiles_out_of_memory_are_halved(model, scene, monkeypatch):
    """A device that holds one tile gives what one that holds eight does, and one that holds none a row."""
    if model.card.task != "semantic":
        return
    mode, forward = modes_of(model)[-1], model.forward
    expected, _ = tiled(model, scene[0], **mode)
    most = 1

    def short(batch):
        if len(batch) > most:
            raise torch.OutOfMemoryError("no room")
        return forward(batch)

    monkeypatch.setattr(model, "forward", short)
    assert agreement(tiled(model, scene[0], **mode)[0], expected, (100, 70)) > 0.99
    most = 0
    with pytest.raises(ItemError) as caught:
        tiled(model, scene[0], **mode)
    assert caught.value.code == "GPU_OOM"


def test_prepared_tensors(model):
    tensor, *others = tensors_of(model.preprocess(draw(50, 70)))
    assert {one.dtype for one in (tensor, *others)} <= {torch.uint8, torch.float32}
    if model.card.name == ENSEMBLE:
        return  # each member's own
    assert tensor.dtype == torch.uint8
    side = max(64, get_spec(model.card.name).least) if model.card.name in MODELS else 64
    resized = model.same_size_batches and "resize" in model.card.preprocessing
    assert tensor.shape == ((3, side, side) if resized else (3, 50, 70))


def test_batch_of_one_equals_batch_of_three(model):
    images = [draw(50, 70, seed) for seed in range(3)]
    tensors = [model.preprocess(image) for image in images]
    together = model.forward(tensors)
    for tensor, output in zip(tensors, together, strict=True):
        (alone,) = model.forward([tensor])
        one, many = model.postprocess(alone, (50, 70)), model.postprocess(output, (50, 70))
        # Convolutions of another batch size sum in another order: values agree to 1e-3, labels but for near ties.
        if isinstance(alone, torch.Tensor):
            torch.testing.assert_close(alone, output, rtol=1e-3, atol=1e-3 * float(alone.abs().max()))
        if not isinstance(one, Instances):
            assert (one.ids == many.ids).mean() > 0.99
        if not isinstance(one, LabelMap):
            np.testing.assert_allclose(one.scores, many.scores, atol=1e-3)


def test_logits_for_tiles_are_those_that_the_label_map_is_made_of(model):
    assert isinstance(model, GivesLogits) or model.card.task == "instance"
    if model.card.task != "semantic":
        return
    (output,) = model.forward([model.preprocess(draw(50, 70))])
    logits = model.logits(output, (50, 70))
    assert (logits.dtype, tuple(logits.shape)) == (torch.float32, (len(CLASSES), 50, 70))
    assert np.array_equal(label_map_of(logits).ids, model.postprocess(output, (50, 70)).ids)
    if isinstance(model, AveragingSegmenter | Field5):
        return  # see test_averaging.py; an own model's numbers are looked at when they are made a row
    of_queries = isinstance(output, list)
    bad = [replace(one, masks=one.masks * torch.nan) for one in output] if of_queries else output * torch.nan
    with pytest.raises(ItemError, match="NaN or infinity"):
        model.logits(bad, (50, 70))


def test_same_input_same_output(model):
    images = [draw(50, 70), draw(60, 40)]
    for first, second in zip(model.predict(images), model.predict(images), strict=True):
        for name, array in as_arrays(first).items():
            np.testing.assert_array_equal(array, as_arrays(second)[name], err_msg=name)


def test_a_network_is_the_same_each_time_and_random_weights_come_from_the_seed_alone(model, config):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = build(config, STORAGE, device="cpu")
    assert torch.equal(torch.rand(1), expected), "building must not draw from the caller's generator"
    for key, value in model.module.state_dict().items():
        assert torch.equal(again.module.state_dict()[key], value), key
    if model.card.name == ENSEMBLE:
        return  # its members have seeds
    other = resolve(config.model_copy(update={"seed": 1}), STORAGE)
    assert (other.digest != model.card.digest) is (config.weights == "none")


@pytest.mark.parametrize(
    "config",
    [
        *("lraspp_mobilenet_v3_large", "onnx", "factory", "tta lraspp_mobilenet_v3_large", "ensemble semantic"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("maskrcnn_resnet50_fpn", "hf mask2former panoptic")),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("tta maskrcnn_resnet50_fpn", "ensemble instance")),
    ],
    indirect=True,
)
def test_what_a_user_can_try_holds(model, config):
    findings = list(run_contract(Subject(model, "cpu", lambda: build(config, STORAGE, device="cpu"))))
    assert [found.check for found in findings] == list(CHECKS)
    assert [(found.check, found.fault) for found in findings if found.fault] == []


def test_nan_is_a_failed_item(model):
    tensors = [model.preprocess(draw(50, 70))]
    parameter = next(iter(model.module.parameters()), None)
    if parameter is None:
        return  # an exported network's numbers are its own: see test_onnx_network.py
    kept = parameter.detach().clone()
    try:
        with torch.no_grad():
            parameter.fill_(float("nan"))
        (output,) = model.forward(tensors)
        with pytest.raises(ItemError) as caught:
            model.postprocess(output, (50, 70))
        assert caught.value.code == "NON_FINITE"
    finally:
        with torch.no_grad():
            parameter.copy_(kept)


def two_halves(task):
    """Two images of which the left and the right half differ, and their targets; a stripe is unlabelled."""
    images, targets = [], []
    for height, width in ((64, 64), (50, 70)):
        middle = width // 2
        image = np.full((height, width, 3), (40, 80, 160), np.uint8)
        image[:, middle:] = (220, 180, 30)
        ids = np.ones((height, width), np.uint16)
        ids[:, middle:] = 2
        ids[:3] = VOID
        boxes = np.array([[0, 0, middle, height], [middle, 0, width, height], [5, 5, 5, 9]], np.float32)
        crops = [np.ones((height, middle), np.float32), np.ones((height, width - middle), np.float32), np.ones((4, 1))]
        corners = np.array([[0, 0], [middle, 0], [5, 5]], np.int32)
        instances = Instances(
            (height, width), np.array([0, 1, 1]), np.ones(3, np.float32), boxes, crops, corners
        )  # the third has no width: no training target
        images.append(image)
        targets.append(instances if task == "instance" else LabelMap(ids))
    return images, targets


def test_training_lowers_the_loss(model, config):
    trained = build(config, STORAGE, device="cpu")
    if config.name == "onnx":
        return  # it cannot learn, and train takes none
    if config.name == FACTORY:
        return  # nothing to learn; the guide's factory is trained in tests/jobs/train/test_job.py
    if getattr(config, "tta", ()) or config.name == ENSEMBLE:
        with pytest.raises(ConfigError, match="several passes are not trained together"):
            trained.loss(*two_halves("semantic"))
        return
    if "task" in config.options:
        with pytest.raises(ConfigError, match="a network of queries is not trained by segjobs"):
            trained.loss(*two_halves("semantic"))
        return
    trained.module.train()
    if model.card.task == "instance":
        # 512 regions of each image are drawn for its loss: of photographs, not of 32 pixels.
        trained.module.roi_heads.fg_bg_sampler.batch_size_per_image = 32
    torch.manual_seed(0)
    images, targets = two_halves(model.card.task)
    optimizer = torch.optim.Adam(trained.module.parameters(), lr=1e-4)
    losses = []
    for _ in range(3):
        loss = trained.loss(images, targets)
        assert loss.ndim == 0
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert min(losses[-2:]) < losses[0], losses


def test_a_target_of_another_size_or_kind(model):
    several = "tta" in model.card.preprocessing or model.card.name == ENSEMBLE
    if "task" in model.card.options or several or isinstance(model, Field5):
        return  # takes none
    images, targets = two_halves(model.card.task)
    other = two_halves("semantic" if model.card.task == "instance" else "instance")[1]
    for wrong in (targets[::-1], other):
        with pytest.raises(ItemError) as caught:
            model.loss(images, wrong)
        assert caught.value.code == "LABEL_SHAPE"
