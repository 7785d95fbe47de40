"""One matrix product over a small map equals the convolution, and so do its gradients."""

import pytest
import torch
from torch.nn import functional as F

from comodulation.mathematics.convolution import FEW_ROWS, convolve, dense_matrix, is_small
from comodulation.networks import ComodulatedHead


@pytest.mark.parametrize(
    ("height", "width", "size"), [(2, 2, 3), (1, 1, 3), (2, 4, 3), (1, 3, 3), (4, 5, 5), (1, 1, 7)]
)
def test_a_small_map_as_a_matrix_is_the_convolution(height, width, size):
    assert is_small(height, width, size)
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(7, 5, size, size, dtype=torch.float64, generator=generator).requires_grad_()
    maps = torch.randn(FEW_ROWS, 5, height, width, dtype=torch.float64, generator=generator).requires_grad_()
    ours, theirs = convolve(maps, kernel), F.conv2d(maps, kernel, padding=size // 2)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(convolve(maps, kernel, dense_matrix(kernel, height, width)), ours)
    torch.testing.assert_close(convolve(maps[:3], kernel), ours[:3])
    for own, other in zip(
        torch.autograd.grad(ours.sin().sum(), (maps, kernel)),
        torch.autograd.grad(theirs.sin().sum(), (maps, kernel)),
        strict=True,
    ):
        torch.testing.assert_close(own, other)


def test_larger_maps_and_pointwise_kernels_are_convolved():
    maps, kernel = torch.randn(2, 4, 3, 3), torch.randn(6, 4, 3, 3)
    assert not is_small(3, 3, 3)
    assert torch.equal(convolve(maps, kernel), F.conv2d(maps, kernel, padding=1))
    assert torch.equal(convolve(maps, kernel[:, :, :1, :1]), F.conv2d(maps, kernel[:, :, :1, :1]))


def test_a_frozen_head_notices_that_its_layers_have_changed():
    head = ComodulatedHead(4, 5, 2, encoder_channels=6, decoder_channels=6).eval().freeze()
    features = torch.rand(3, 4, 2, 2)
    before = head(features, mode="base")
    with torch.no_grad():
        head.decoder.weight.mul_(-1)
    changed = head(features, mode="base")
    assert not torch.equal(before, changed)
    fresh = ComodulatedHead(4, 5, 2, encoder_channels=6, decoder_channels=6).eval().freeze()
    fresh.load_state_dict(head.state_dict())
    assert torch.equal(fresh(features, mode="base"), changed)
