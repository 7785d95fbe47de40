"""A network recorded like cortex: the estimators find the couplings and slopes that are known of it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from comodulation import ComodulatedHead
from comodulation.errors import InputError
from comodulation.mathematics import decoder_statistics
from comodulation.networks import coupling
from comodulation.networks.methods import WITH_LAYERS, make_method
from comodulation.neuro.analysis import analyse_recording, comparison_table
from comodulation.neuro.figures import comparison_figure
from comodulation.neuro.recorded_network import record_network
from comodulation.report import svg
from comodulation.tasks import TaskFamily


@pytest.fixture(scope="module")
def head():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = ComodulatedHead(
            12, 4, 3, encoder_channels=16, decoder_channels=16, hidden=8, link="exponential", std=0.5
        ).freeze()
        with torch.no_grad():
            for parameter in head.controller.parameters():
                parameter.copy_(torch.rand_like(parameter))
            for parameter in head.controller.parameters():
                parameter[1] = 0  # a task that couples nothing
    return head


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 12, 2, 2, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def recording(head, images):
    return record_network(head, images, [0, 1, 0, 1], 0, control=1, repeats=40, mean_count=20.0)


def test_what_is_recorded(recording, head, images):
    assert (recording.trials, recording.bins) == (2 * 4 * 40, 5)
    assert recording.areas == ("decoder", "encoder")
    assert recording.contexts == ("control", "task")
    assert set(recording.target) == {"0", "1"}
    encoder = recording.in_area("encoder")
    assert encoder.counts.mean() == pytest.approx(20, rel=0.05)
    # The mean count of every neuron to every image is its activity, which modulation leaves as it is.
    activity = head.encode(images).mean((-2, -1)).numpy()
    alive = activity.mean(0) > 1e-3 * activity.mean(0).max()
    shown = np.stack([encoder.counts[encoder.condition == f"image {image}"].mean((0, 1)) for image in range(4)])
    scaled = activity[:, alive] / activity[:, alive].mean()
    np.testing.assert_allclose(shown, 20 * scaled, atol=0.12 * 20 * scaled.max() / 4, rtol=0.12)


# Two routes: couplings and relative slopes that are known of the network, and what the estimators of cortex make of its spikes.
def test_couplings_and_slopes_are_found(recording, head, images):
    found = analyse_recording(
        recording.active(), upstream="encoder", downstream="decoder", task="task", control="control", rates_by_bin=False,
        resamples=100,
    )  # fmt: skip
    std, activity = head.modulation.std, head.encode(images)
    alive = {
        "encoder": activity.mean((-2, -1)), "decoder": head.decode(activity).mean((-2, -1)),
    }  # fmt: skip
    kept = {name: (values.mean(0) > 1e-3 * values.mean()).numpy() for name, values in alive.items()}
    w = std * coupling(head.controller(torch.tensor([0])), head.modulation.link)
    truth = w[0].detach().numpy()[kept["encoder"]]
    assert len(truth) == len(found.upstream.coupling)
    assert np.corrcoef(found.upstream.coupling, truth)[0, 1] > 0.95
    np.testing.assert_allclose(found.upstream.coupling, truth, atol=0.08)
    statistics = decoder_statistics(head.decode, activity, w.expand(4, -1) / std, std, estimator="quadrature")
    slope = (std * statistics.slope.mean(0) / statistics.mean.mean(0)).detach().numpy()[kept["decoder"]]
    assert len(slope) == len(found.downstream.coupling)
    assert np.corrcoef(found.downstream.coupling, slope)[0, 1] > 0.9
    # The control's task couples nothing: its modulation is gone.
    assert found.upstream.fall.low > 0
    assert found.upstream.fall.control < 0.15 * found.upstream.fall.task
    table = comparison_table([found])
    assert {"statistic", "network"} == set(table[0])
    assert "network" in svg(comparison_figure([found]))


def test_seed_and_number_of_neurons(head, images):
    a, b, c = (
        record_network(head, images, [0, 1, 0, 1], 2, repeats=10, most_neurons=5, seed=s).counts for s in (3, 3, 4)
    )
    assert a.shape == (40, 5, 10)
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


# Their controllers are untrained, or are gains that no modulator moves: what would be recorded is no coupling.
@pytest.mark.parametrize("name", WITH_LAYERS)
def test_methods_without_couplings_are_refused(head, images, name):
    family = TaskFamily("classes", ("a", "b", "c"), tuple("pqrs"), ((0, 1), (2, 3), (0, 3)))
    own = copy.deepcopy(head)
    own.modulation = replace(own.modulation, **WITH_LAYERS[name].modulation)
    method = make_method(name, own, family)
    if name in ("comodulation", "paper"):
        assert record_network(method, images, [0, 1, 0, 1], 0, repeats=10).trials == 40
        return
    with pytest.raises(
        InputError, match=f"method '{name}' has no couplings to a modulator; record a run of comodulation"
    ):
        record_network(method, images, [0, 1, 0, 1], 0)


def test_bad_input(head, images):
    def refused(message, labels=(0, 1, 0, 1), task=0, features=images, **options):
        with pytest.raises(InputError, match=message):
            record_network(head, features, labels, task, **options)

    refused("4 images and 2 labels", labels=(0, 1))
    refused("tasks are 0 to 2, got 3", task=3)
    refused("tasks are 0 to 2, got -1", control=-1)
    refused("another task, got 1 for both", task=1, control=1)
    refused("repeats must be a whole number of at least 10", repeats=9)
    refused("mean_count", mean_count=0.0)
