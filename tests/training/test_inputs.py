"""Rows put together from parts."""

import pytest
import torch

from comodulation.training.inputs import filled


@pytest.mark.parametrize("sizes", [[3], [2, 2, 1], [0], [0, 4, 0]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_as_joined(sizes, dtype):
    parts = [torch.arange(2 * size, dtype=dtype).view(size, 2) for size in sizes]
    whole = filled(iter(parts), sum(sizes))
    assert whole.dtype == dtype
    assert whole.equal(torch.cat(parts))


def test_gradients_reach_the_parts():
    parts = [torch.ones(2, 3, requires_grad=True), torch.ones(1, 3, requires_grad=True)]
    (filled(parts, 3) * torch.arange(3.0)[:, None]).sum().backward()
    assert [part.grad[:, 0].tolist() for part in parts] == [[0, 1], [2]]


def test_more_or_fewer_rows_than_said():
    with pytest.raises((AssertionError, RuntimeError)):
        filled([torch.ones(2)], 3)
    with pytest.raises((AssertionError, RuntimeError)):
        filled([torch.ones(2), torch.ones(2)], 3)
