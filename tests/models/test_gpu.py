"""What the same model does on a GPU: masks, precision, memory. Skipped where there is none."""

import numpy as np
import pytest
import torch

from segjobs.config import LossConfig, ModelConfig
from segjobs.errors import ItemError
from segjobs.models.base import Instances, LabelMap
from segjobs.models.batching import beside_the_network, forward_in_halves, launch, predict, set_aside
from segjobs.models.registry import build
from segjobs.models.table import MODELS
from segjobs.sources.synthetic import draw_scene
from segjobs.storage import Storage

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

CLASSES = ["background", "left", "right"]
SIZE_HW = (150, 200)
MB = 2**20


def on(device, name="unet", precision="fp32", **settings):
    """A model of random weights, the same on every device."""
    encoder = "tu-vit_tiny_patch16_224" if name == "dpt" else "resnet18"
    options = {"encoder": encoder} if "encoder" in MODELS[name].options else {}
    categories, resize = CLASSES, "128x160"
    if MODELS[name].task == "instance":
        options = {"box_score_thresh": 0.0, "box_detections_per_img": 5}
        categories, resize = CLASSES[1:], "short:128"
    given = {"name": name, "weights": "none", "options": options, "categories": categories, "resize": resize}
    return build(ModelConfig(**{**given, **settings}), Storage(), device=device, precision=precision)


def scenes(count, size_hw=SIZE_HW):
    return [draw_scene(3, size_hw, index=index)[0] for index in range(count)]


def error(output, reference):
    """Relative, of the whole tensor. By torch's default a GPU computes float32 convolutions in TF32, with 10 bits."""
    difference = output.float().cpu() - reference
    return float(difference.norm() / reference.norm())


@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_labels_as_the_cpu_does(name, monkeypatch):
    """In float32 proper: a deep network of random weights makes much of TF32's rounding."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    images = scenes(3)
    for ours, theirs in zip(on("cuda", name).predict(images), on("cpu", name).predict(images), strict=True):
        if isinstance(theirs, LabelMap):
            assert isinstance(ours, LabelMap)
            alike = ours.ids == theirs.ids
            assert alike.mean() > 0.99
            assert (np.abs(ours.confidence - theirs.confidence)[alike] < 0.01).mean() > 0.99
        else:
            assert isinstance(ours, Instances)
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=0.01)


@pytest.mark.parametrize(("precision", "most"), [("fp32", 3e-3), ("fp16", 1e-2), ("bf16", 5e-2)])
@pytest.mark.parametrize("name", ["unet", "deeplabv3_resnet50", "lraspp_mobilenet_v3_large"])
def test_precision(name, precision, most):
    exact, rounded = on("cpu", name), on("cuda", name, precision)
    tensors = [exact.preprocess(image) for image in scenes(4)]
    for ours, reference in zip(rounded.forward(tensors), exact.forward(tensors), strict=True):
        assert 0 < error(ours, reference) < most


def test_restored_on_the_gpu_and_on_the_cpu():
    model = on("cuda")
    (output,) = model.forward([model.preprocess(scenes(1)[0])])
    ours, theirs = model.postprocess(output, SIZE_HW), model.postprocess(output.cpu(), SIZE_HW)
    assert (ours.ids == theirs.ids).mean() > 0.9999, "but for ties"
    np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-5)


def test_outputs_beside_the_next_batch_are_those_of_one_after_the_other():
    model = on("cuda", "fcn_resnet50")
    images = scenes(24)
    expected = predict(model, images, batch_size=8)
    batches = [[model.preprocess(image) for image in images[start : start + 8]] for start in (0, 8, 16)] * 10
    flights = [launch(model, batches[0])]
    for number, batch in enumerate([*batches[1:], None]):
        if batch:
            flights.append(launch(model, batch))
        flights[number].wait()
        with beside_the_network(model):
            found = [model.postprocess(output, SIZE_HW) for output in flights[number].outputs]
        for ours, theirs in zip(found, expected[number % 3 * 8 :], strict=False):
            np.testing.assert_array_equal(ours.ids, theirs.ids)


def test_a_batch_that_does_not_fit_is_halved(little_memory):
    model = on("cuda", resize="512x512")
    tensors = [model.preprocess(image) for image in scenes(32)]
    with pytest.raises(torch.OutOfMemoryError):
        model.forward(tensors)
    for output, tensor in zip(forward_in_halves(model, tensors), tensors, strict=True):
        (alone,) = model.forward([tensor])
        assert error(output, alone.cpu()) < 3e-3


def test_an_image_that_does_not_fit_alone_is_named_and_the_others_go_on(little_memory):
    model = on("cuda", resize="native")
    small, large = scenes(1)[0], np.zeros((6016, 8000, 3), np.uint8)
    (failed,) = forward_in_halves(model, [model.preprocess(large)])
    assert isinstance(failed, ItemError)
    assert failed.code == "GPU_OOM"
    assert "8000x6016 pixels do not fit on the device alone: CUDA out of memory. Tried" in failed.message
    (output,) = forward_in_halves(model, [model.preprocess(small)])
    assert isinstance(output, torch.Tensor)


def test_logits_that_do_not_fit_upsampled_go_the_cpu_s_way(little_memory):
    model = on("cuda", categories=[str(number) for number in range(40)])
    (output,) = model.forward([model.preprocess(scenes(1)[0])])
    taken = torch.empty(500 * MB, dtype=torch.uint8, device="cuda")
    label_map = model.postprocess(output, (1500, 2000))
    del taken
    assert (label_map.ids == model.postprocess(output, (1500, 2000)).ids).mean() > 0.999


def test_a_model_set_aside_leaves_the_memory_to_others():
    from concurrent.futures import ThreadPoolExecutor

    model = on("cuda", "fcn_resnet50")
    (before,) = model.predict(scenes(1))
    held = torch.cuda.memory_allocated()
    with ThreadPoolExecutor(1) as device, set_aside(model, device):
        assert torch.cuda.memory_allocated() < held - 100 * MB
    np.testing.assert_array_equal(before.ids, model.predict(scenes(1))[0].ids)


@pytest.mark.parametrize("name", ["unet", "deeplabv3_mobilenet_v3_large", "maskrcnn_resnet50_fpn"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_steps_lower_the_loss(name, precision):
    model = on("cuda", name, precision, options={})
    images = scenes(4)
    if MODELS[name].task == "instance":
        square = np.ones((60, 80), np.float32)
        truth = Instances(
            SIZE_HW, np.array([1]), np.ones(1), np.array([[20.0, 30, 100, 90]]), [square], np.array([[20, 30]])
        )
    else:
        ids = np.zeros(SIZE_HW, np.uint16)
        ids[30:90, 20:100] = 1
        truth = LabelMap(ids, np.ones(SIZE_HW, np.float32))
    model.set_loss(LossConfig())
    model.module.train()
    optimiser = torch.optim.AdamW(model.module.parameters(), lr=1e-4)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss = model.loss(images, [truth] * 4)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
