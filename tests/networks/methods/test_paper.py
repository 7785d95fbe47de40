"""The paper's own method: its formula written out, the same mechanism under the library's name, and what must not change it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from comodulation.errors import InputError
from comodulation.mathematics import decoder_gains, modulator_noise
from comodulation.networks.head import ComodulatedHead
from comodulation.networks.methods.registry import METHODS, make_method
from comodulation.runs import RunConfig, make_config
from comodulation.runs.values import of_method
from comodulation.studies.cells import Row, space
from support.methods import CLASSES

SETTINGS = METHODS["paper"].modulation
FEATURES = torch.randn(12, 5, 2, 2, generator=torch.Generator().manual_seed(3))
TASKS, IDS = torch.arange(12) % 3, torch.arange(12) + 7


def paper(name="paper", kind=torch.float64, **options):
    """A small head with couplings of its own, in evaluation mode, and encoder activity."""
    torch.manual_seed(0)
    head = ComodulatedHead(
        5, 7, 3, encoder_channels=8, decoder_channels=6, hidden=16, seed=4, **{**SETTINGS, **options}
    ).to(kind)
    method = make_method(name, head, CLASSES).eval()
    torch.nn.init.normal_(head.controller.embedding.weight, std=0.8)
    return method, method.prepare(FEATURES.to(kind)).detach()


def written_out(method, h, step=0):
    """The paper's formula in numpy, one image, one sample and one neuron at a time: probabilities and gains."""
    head, m = method.head, method.head.modulation
    noise = modulator_noise(IDS, TASKS, m.num_samples, seed=4, step=step).double().numpy()  # (T, B)
    u = head.controller.embedding.weight.detach().numpy()
    kernel, bias = head.decoder.weight.detach().numpy(), head.decoder.bias.detach().numpy()
    skip = head.decoder_skip.weight[:, :, 0, 0].detach().numpy()
    probabilities, gains = [], []
    for row, task in enumerate(TASKS.tolist()):
        w = [math.exp(value) for value in u[task]]
        activities = []
        for t in range(m.num_samples):
            modulator = m.std * noise[t, row]
            moved = [h[row, n].numpy() * math.exp(modulator * w[n] - m.std**2 * w[n] ** 2 / 2) for n in range(8)]
            padded = np.pad(np.stack(moved), ((0, 0), (1, 1), (1, 1)))
            maps = np.zeros((6, 2, 2))
            for j in range(6):
                for x in range(2):
                    for y in range(2):
                        drive = (padded[:, x : x + 3, y : y + 3] * kernel[j]).sum() + bias[j]
                        maps[j, x, y] = max(0.0, drive + (skip[j] * np.stack(moved)[:, x, y]).sum())
            activities.append(maps.mean((1, 2)))
        seen, values = np.stack(activities), m.std * noise[:, row]
        covariance = np.array([np.cov(values, seen[:, j])[0, 1] for j in range(6)])
        if m.normalizer == "correlation":
            covariance /= values.std(ddof=1) * np.maximum(seen.std(0, ddof=1), 1e-300)
        own = np.clip(covariance, 0, None)
        own = own / own.mean()
        gains.append(1 + m.beta * (own - 1))
        logits = head.readout(torch.tensor(seen * gains[-1])).detach()
        probabilities.append(logits.softmax(-1).mean(0).numpy())
    return np.stack(probabilities), np.stack(gains)


@pytest.mark.parametrize("options", [{}, {"normalizer": "correlation"}, {"beta": 0.6, "std": 0.7}])
def test_it_is_the_paper_s_formula(options):
    """Gains from the very samples that are read; probabilities, not logits, are averaged over them."""
    method, h = paper(**options)
    expected, gains = written_out(method, h)
    assert gains.std(0).max() > 0.05  # each image has its own
    # To 1e-8: the logarithm of the number of samples is taken in float32.
    np.testing.assert_allclose(method.log_probabilities(h, TASKS, IDS).exp().numpy(), expected, rtol=1e-8)
    logs = method(h, TASKS, IDS, 2).log_softmax(-1).logsumexp(0) - math.log(
        8
    )  # the noise of another pass over the data
    np.testing.assert_allclose(logs.exp().detach().numpy(), written_out(method, h, step=2)[0], rtol=1e-9)


def test_gains_from_samples_are_those_of_the_public_function():
    """By another route: `decoder_gains` with estimator monte_carlo comes to the same as samples become many."""
    method, h = paper(num_samples=20_000)
    seen = []
    method.head.readout.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    method(h[:1], TASKS[:1], IDS[:1])
    modulated, _ = method.head._modulated(h[:1], method.head.controller(TASKS[:1]), TASKS[:1], IDS[:1], 0)
    plain = method.head.decode(modulated[:, 0]).mean((-2, -1))
    active = plain[0] > 1e-3
    gains = (seen[0][0, 0] / plain[0])[active]
    w = method.head.controller(TASKS[:1]).exp()
    exact = decoder_gains(method.head.decode, h[:1], w, 0.3, normalizer="covariance", num_nodes=40)[0, active]
    torch.testing.assert_close(gains.detach(), exact.detach(), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("level", ["input", "task"])
@pytest.mark.parametrize("training", [False, True])
def test_it_is_comodulation_with_its_settings(level, training):
    """The same bits, in training and in evaluation, from the same options under the other name."""
    (one, h), (other, _) = paper(level=level), paper("comodulation", level=level)
    for method in (one, other):
        method.train(training)
        if not training:
            method.settle([(h, TASKS)])
    assert torch.equal(one(h, TASKS, IDS, 3), other(h, TASKS, IDS, 3))
    losses = [method.loss(h, TASKS, TASKS, IDS) for method in (one, other)]
    (a,), (b,) = (
        torch.autograd.grad(loss, method.own_parameters()) for loss, method in zip(losses, (one, other), strict=True)
    )
    assert torch.equal(a, b)
    assert bool(a.abs().sum() > 0)


def test_averaged_gains_are_stored_and_the_same_for_all_images():
    method, h = paper(level="task")
    with pytest.raises(InputError, match="task_gains"):
        method.load_adapter_tensors(method.adapter_tensors())
    method.settle([(h, TASKS)])
    assert method.head.task_gains.shape == (3, 6)
    torch.testing.assert_close(method.head.task_gains.mean(1), torch.ones(3, dtype=torch.float64))
    alone = method.log_probabilities(h[:1], TASKS[:1], IDS[:1])
    torch.testing.assert_close(alone, method.log_probabilities(h, TASKS, IDS)[:1])


def test_an_image_does_not_depend_on_its_batch():
    """Neither on the others nor on its place; on its identity it does."""
    method, h = paper()
    whole = method.log_probabilities(h, TASKS, IDS)
    order = torch.tensor([5, 0, 11])
    torch.testing.assert_close(method.log_probabilities(h[order], TASKS[order], IDS[order]), whole[order])
    assert not torch.allclose(method.log_probabilities(h, TASKS, IDS + 100), whole)


def test_scaled_couplings_change_nothing_as_noise_vanishes():
    """Rectified gains of mean 1: in the small-noise limit w and 3 w label alike."""
    method, h = paper(std=1e-5)
    before = method.log_probabilities(h, TASKS, IDS)
    with torch.no_grad():
        method.head.controller.embedding.weight.add_(math.log(3))
    torch.testing.assert_close(method.log_probabilities(h, TASKS, IDS), before, rtol=1e-3, atol=1e-3)


def test_decoder_neurons_may_be_reordered():
    method, h = paper()
    whole = method.log_probabilities(h, TASKS, IDS)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    head = method.head
    with torch.no_grad():
        for parameter in (head.decoder.weight, head.decoder.bias, head.decoder_skip.weight):
            parameter.copy_(parameter[order])
        head.readout[1].weight.copy_(head.readout[1].weight[:, order])
    head._matrices.clear()
    torch.testing.assert_close(method.log_probabilities(h, TASKS, IDS), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"link": "exponential", "normalizer": "relative"}, "link rectified, got exponential"),
        ({"estimator": "derivative"}, "estimator monte_carlo, got derivative"),
        ({"normalizer": "relative"}, "normalizer covariance or correlation, got relative"),
        ({"encoder": "gain"}, "encoder stochastic, got gain"),
        ({"training_encoder": "none"}, "training_encoder None or stochastic, got none"),
        ({"after_gain": True}, "after_gain False, got True"),
    ],
)
def test_another_mechanism_is_refused(options, message):
    """On a head, and in a configuration before anything is computed."""
    with pytest.raises(InputError, match=message):
        paper(**options)
    given = {**SETTINGS, **options}
    with pytest.raises(InputError, match=message):
        make_config({"data": "d", "group": "g", "label": "l", "method": "paper", "modulation": given})


def test_a_run_has_its_settings_and_another_method_its_own():
    config = make_config({"data": "d", "group": "g", "label": "l", "method": "paper", "modulation": {"std": 0.5}})
    assert vars(config.modulation).items() >= {**SETTINGS, "std": 0.5}.items()
    assert RunConfig.model_validate(config.model_dump()) == config
    for name in ("comodulation", "attention"):
        other = make_config(of_method(config.model_dump(), name))
        assert other.modulation == replace(make_config({"data": "d", "tasks": ("t",)}).modulation, std=0.5)
        assert make_config(of_method(other.model_dump(), "paper")).modulation == config.modulation


def test_it_is_a_row_with_a_search_of_its_own():
    shared = make_config({"data": "d", "group": "g", "label": "l", "method": "comodulation"})
    assert set(space(Row("paper"))) == {"learning_rate", "weight_decay", "std", "beta"}
    own = Row.parse("paper level=task normalizer=correlation").configure(shared, {"std": 0.7, "learning_rate": 0.2})
    expected = {**SETTINGS, "level": "task", "normalizer": "correlation", "std": 0.7}
    assert vars(own.modulation).items() >= expected.items()
    assert Row("attention").configure(shared, {}).modulation == shared.modulation
