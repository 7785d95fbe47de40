"""Couplings in closed form: by hand, against scikit-learn, and in other units."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from comodulation.errors import InputError
from comodulation.mathematics import CLOSED_FORMS, closed_form_couplings, informativeness


def activity(size: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated, rectified activity of 5 neurons under three tasks; the last neuron is silent."""
    generator = torch.Generator().manual_seed(seed)
    tasks = torch.arange(size) % 3
    shifts = torch.tensor([[1.0, 0, 0, 0.5], [0, 1, 0, 0.5], [0, 0, 0, 0]], dtype=torch.float64)
    noise = torch.randn(size, 4, generator=generator, dtype=torch.float64)
    noise[:, 2] += noise[:, 0]  # neuron 2 tells nothing by itself, but what of neuron 0 is noise
    h = (2 + shifts[tasks] + 0.5 * noise).clamp(min=0)
    return torch.cat([h, torch.zeros(size, 1, dtype=torch.float64)], 1), tasks


def test_informativeness_by_hand():
    h, tasks = activity()
    found = closed_form_couplings("informativeness", h, tasks, 3)
    mean, own = h.mean(0)[:4], h[tasks == 1].mean(0)[:4]
    torch.testing.assert_close(found[1, :4], ((20 * own + mean) / (21 * mean)).log())
    assert (found[:, 4] == 0).all()
    assert found[0, 0] > 0
    assert found[0, 1] < 0


def test_informativeness_with_few_inputs():
    """Never below -log(n + 1), whatever is silent; 0 without inputs; the log ratio itself for many."""
    means, everything = torch.tensor([[0.0, 2.0], [0.0, 2.0], [0.0, 2.0]]), torch.tensor([1.0, 1.0])
    found = informativeness(means, torch.tensor([0, 5, 10**6]), everything)
    assert (found[0] == 0).all()
    torch.testing.assert_close(found[1, 0], -torch.tensor(6.0).log())
    torch.testing.assert_close(found[2, 1], torch.tensor(2.0).log())


@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_of_every_kind(kind):
    """A neuron's unit does not matter to what is read; a task without inputs and a silent neuron have no coupling; the order of
    inputs does not matter."""
    h, tasks = activity()
    found = closed_form_couplings(kind, h, tasks, 4)
    assert found.shape == (4, 5)
    assert (found[3] == 0).all()
    assert (found[:, 4] == 0).all()
    assert found.isfinite().all()
    units = torch.tensor([1.0, 100.0, 0.01, 3.0, 1.0], dtype=torch.float64)
    scaled = closed_form_couplings(kind, h * units, tasks, 4)
    torch.testing.assert_close(scaled * (units if kind == "discriminant" else 1), found)
    order = torch.randperm(60)
    torch.testing.assert_close(closed_form_couplings(kind, h[order], tasks[order], 4), found)
    assert (closed_form_couplings(kind, torch.zeros(6, 5), tasks[:6], 3) == 0).all()


# What the means of a constant round to is no standard deviation, by which the neuron would be worth more than all others.
@pytest.mark.parametrize("kind", CLOSED_FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_neuron_has_no_coupling(kind, dtype):
    h, tasks = activity()
    h = h.to(dtype)
    without = closed_form_couplings(kind, h[:, :4], tasks, 3)
    h[:, 4] = 0.1
    found = closed_form_couplings(kind, h, tasks, 3)
    assert found[:, 4].abs().max() <= (1e-6 if kind == "informativeness" else 0)
    torch.testing.assert_close(found[:, :4], without)


# Squares of activity leave the range of float32 long before activity does.
@pytest.mark.parametrize("kind", CLOSED_FORMS)
@pytest.mark.parametrize("power", [-80, 80])
def test_at_any_scale(kind, power):
    h, tasks = activity()
    found = closed_form_couplings(kind, h.float(), tasks, 3)
    scaled = closed_form_couplings(kind, h.float() * 2.0**power, tasks, 3)
    torch.testing.assert_close(scaled * (2.0**power if kind == "discriminant" else 1), found)


# Inputs that differ in one direction alone, by which the others would seem to be infinitely telling.
@pytest.mark.parametrize("tasks", [[0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1, 1, 1]])
def test_a_discriminant_of_very_few_inputs(tasks):
    first = torch.rand(2, 6, generator=torch.Generator().manual_seed(0))
    h = torch.cat([first, first + 1])[torch.arange(len(tasks)) % 2 + 2 * torch.tensor(tasks)]
    own = torch.tensor(tasks)
    within = torch.cat([h[own == task] - h[own == task].mean(0) for task in (0, 1)])
    # In units of each neuron's standard deviation, no direction counts more than N + 1 times as much as all do on average.
    found = closed_form_couplings("discriminant", h, own, 2) * within.square().mean(0).sqrt()
    alone = closed_form_couplings("discriminability", h, own, 2)
    assert 0 < found.norm() <= 1.001 * (len(h) + 1) * alone.norm()


def test_discriminability_by_hand():
    h, tasks = activity()
    found = closed_form_couplings("discriminability", h, tasks, 3)[:, :4].numpy()
    h, tasks = h[:, :4].numpy(), tasks.numpy()
    within = np.concatenate([h[tasks == k] - h[tasks == k].mean(0) for k in range(3)])
    for k in range(3):
        expected = (h[tasks == k].mean(0) - h[tasks != k].mean(0)) / np.sqrt((within**2).mean(0))
        np.testing.assert_allclose(found[k], expected)


def test_discriminant_is_that_of_scikit_learn():
    """Of two tasks with many inputs, the direction of scikit-learn's; and not that of neurons by themselves, which correlate."""
    h, tasks = activity(6000)
    rows = tasks < 2
    found = closed_form_couplings("discriminant", h[rows, :4], tasks[rows], 2)[1].numpy()
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(h[rows, :4].numpy(), tasks[rows].numpy()).coef_[0]
    alone = closed_form_couplings("discriminability", h[rows, :4], tasks[rows], 2)[1].numpy()

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert cosine(found, theirs) > 0.999
    assert cosine(alone, theirs) < 0.97


def test_an_unknown_kind():
    with pytest.raises(InputError, match="did you mean 'informativeness'"):
        closed_form_couplings("informativness", torch.ones(2, 2), torch.tensor([0, 1]), 2)
