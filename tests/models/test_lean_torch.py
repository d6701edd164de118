"""Networks are built, run and trained without torch's compiler; who compiles has it all the same."""

import subprocess
import sys

import pytest

LEAN = """
import sys
import segjobs.models
import torch, torchvision
import segmentation_models_pytorch as smp

images = torch.rand(2, 3, 64, 64)
network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
optimiser = torch.optim.AdamW(network.parameters())
optimiser.zero_grad()
network(images)["out"].mean().backward()
optimiser.step()
smp.Unet("resnet18", encoder_weights=None, classes=3)(images)
print("sympy" in sys.modules)

from torchvision.ops.roi_align import is_compile_supported
seen = []
compiled = torch.compile(lambda x: x.sin() + 1, backend=lambda graph, _: seen.append(graph) or graph.forward)
assert torch.equal(compiled(images), images.sin() + 1) and seen
assert is_compile_supported("cpu") in (True, False)
import torch._dynamo.config
print("sympy" in sys.modules, torch._dynamo.__file__ == sys.modules["torch._dynamo"].__file__)
"""


@pytest.mark.slow
def test_the_compiler_is_imported_once_somebody_compiles() -> None:
    done = subprocess.run([sys.executable, "-c", LEAN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["False", "True True"]
