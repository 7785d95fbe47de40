"""Optimizers without torch's compiler take the same steps. That they import none of it, tests/runs/test_readouts.py sees."""

import pytest
import torch

from comodulation.training.optimizers import LBFGS, AdamW


@pytest.mark.parametrize(("ours", "theirs"), [(AdamW, torch.optim.AdamW), (LBFGS, torch.optim.LBFGS)])
def test_steps_are_those_of_torch(ours, theirs):
    torch.manual_seed(0)
    target, found = torch.randn(5, dtype=torch.float64), []
    for kind in (ours, theirs):
        values = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        solver = kind([values], lr=0.1)

        def loss():
            solver.zero_grad()  # noqa: B023
            value = (values - target).pow(2).mul(torch.arange(1, 6)).sum()  # noqa: B023
            value.backward()
            return value

        for _ in range(5):
            solver.step(loss)
        again = kind([values.detach().clone().requires_grad_()], lr=0.5)
        again.load_state_dict(solver.state_dict())
        assert again.param_groups[0]["lr"] == 0.1
        found.append(values.detach())
    assert torch.equal(*found)
    assert not torch.equal(found[0], torch.zeros(5))
