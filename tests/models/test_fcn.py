"""FCN on VGG-16: the bilinear kernel by hand, and scores that lie exactly over their pixels."""

import pytest
import torch
import torch.nn.functional as F

from segjobs.models.fcn import FCN, bilinear_kernel


def test_bilinear_kernel_by_hand():
    # Centres of 2x upsampled pixels lie 1/4 and 3/4 cells away: weights 3/4 and 1/4.
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    torch.testing.assert_close(bilinear_kernel(2), line[:, None] * line[None, :])
    assert bilinear_kernel(32).shape == (64, 64)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_a_fresh_transposed_convolution_is_bilinear_interpolation(factor):
    network = FCN(3, stride=32 if factor == 32 else 8, hidden=4)
    layer = network.upscore if factor == network.upscore.stride[0] else FCN(3, stride=16, hidden=4).upscore
    layer = network.upscore2 if factor == 2 else layer
    score = torch.rand(1, 3, 5, 6)
    up = layer(score)
    assert up.shape == (1, 3, 5 * factor, 6 * factor)
    inner = (..., slice(factor, -factor), slice(factor, -factor))  # at the frame, the convolution sees zeros outside
    plain = F.interpolate(score, scale_factor=factor, mode="bilinear", align_corners=False)
    torch.testing.assert_close(up[inner], plain[inner])


@pytest.fixture(scope="module", params=[8, 16, 32])
def network(request):
    torch.manual_seed(0)
    network = FCN(3, stride=request.param, hidden=4).double().eval()
    with torch.no_grad():
        for layer in (network.score_pool4, network.score_pool3):
            if layer is not None:
                layer.weight.normal_(std=0.1)
    return network


def test_output_is_aligned_with_the_input(network):
    """Mirroring image and kernels mirrors the output: any shift between the scores, or to the pixels, would not."""
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        straight = network(image)
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.copy_(parameter.flip(-1, -2))
        mirrored = network(image.flip(-1, -2)).flip(-1, -2)
    assert straight.shape == (1, 3, 64, 96)
    assert straight.std() > 0
    torch.testing.assert_close(mirrored, straight)


def test_a_shift_by_one_coarse_cell_shifts_the_output(network):
    image = torch.zeros(1, 3, 32 * 17, 32, dtype=torch.float64)
    image[:, :, 32 * 8 : 32 * 8 + 20] = torch.rand(3, 20, 32, dtype=torch.float64)
    with torch.no_grad():
        here, there = network(image), network(image.roll(32, dims=2))
    middle = slice(32 * 7, 32 * 10)  # what the frame reaches through 404 pixels of receptive field is left out
    shifted = slice(middle.start + 32, middle.stop + 32)
    assert here[:, :, middle].std() > 0
    torch.testing.assert_close(there[:, :, shifted], here[:, :, middle], rtol=1e-6, atol=1e-9)
