"""One image followed through a task: the same numbers by another route, and methods with and without a modulator."""

import pytest
import torch

from comodulation import TaskFamily
from comodulation.errors import InputError
from comodulation.evaluation import Predictions, evaluate_predictions
from comodulation.mathematics import decoder_statistics, gauss_hermite, modulate, modulator_noise
from comodulation.networks.controller import coupling
from comodulation.networks.head import ComodulatedHead
from comodulation.networks.methods.inspection import answers, inspect
from comodulation.networks.methods.learned_gains import gains_of
from comodulation.networks.methods.registry import WITH_LAYERS, make_method
from comodulation.runs import describe, make_config, run_report
from comodulation.tasks import task_logits

CLASSES = TaskFamily("classes", ("a", "b", "c"), tuple("uvwxyz"), ((0, 1), (2, 3), (4, 5)))
COLUMNS = TaskFamily.from_columns(["p", "q", "r"], [["a", "b"], ["c", "d"], ["e", "f"]])
BINARY = TaskFamily.from_attributes(["p", "q", "r"])
GRID = torch.linspace(-3, 3, 13, dtype=torch.float64)
SAMPLE = 2**40 + 7


def fitted(name="comodulation", family=CLASSES, *, readout="open", task_bias=False, **modulation):
    """A method with random layers and everything it learns random, in evaluation mode, and the features of one image."""
    torch.manual_seed(0)
    modulation = {**modulation, **WITH_LAYERS[name].modulation}
    head = ComodulatedHead(
        5, family.num_outputs, 3, encoder_channels=8, decoder_channels=12, hidden=16, seed=3, **modulation
    )
    method = make_method(name, head, family, readout, task_bias=task_bias)
    with torch.no_grad():
        for layer in (head.decoder, head.readout):
            for parameter in layer.parameters():
                parameter.mul_(3)  # so that answers depend on the image, as trained ones do
        own = {id(parameter) for layer in head.layers for parameter in layer.parameters()}
        for parameter in method.learnable():
            if id(parameter) not in own:
                parameter.copy_(0.7 * torch.randn(parameter.shape))
    head.task_gains = torch.rand(3, 12) * 2
    return method.eval(), torch.randn(1, 5, 2, 2)


@pytest.mark.parametrize("family", [CLASSES, BINARY, COLUMNS], ids=["classes", "binary", "columns"])
@pytest.mark.parametrize("name", WITH_LAYERS)
def test_all_tasks_at_once_are_the_tasks_one_by_one(name, family):
    """One batch of the decoder gives what `log_probabilities` gives for each task by itself, in any order of tasks."""
    if family.kind not in WITH_LAYERS[name].kinds:
        return
    method, features = fitted(name, family, encoder="stochastic")
    inputs = method.prepare(features)
    order = torch.tensor([2, 0, 1, 2])
    together = answers(method, features, order, SAMPLE)
    for row, task in enumerate(order):
        alone = method.log_probabilities(inputs, task[None], torch.tensor([SAMPLE])).exp()
        torch.testing.assert_close(together[row], alone[0], atol=1e-6, rtol=1e-5)
        seen = inspect(method, features, int(task), GRID, SAMPLE)
        torch.testing.assert_close(seen.answer, alone[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(together.sum(1), torch.ones(4))


OPTIONS = [
    {}, {"after_gain": True}, {"encoder": "none"}, {"link": "rectified"}, {"level": "input"},
    {"link": "rectified", "normalizer": "correlation", "estimator": "quadrature", "level": "input"},
]  # fmt: skip


@pytest.mark.parametrize("readout", ["open", "restricted"])
@pytest.mark.parametrize("family", [CLASSES, BINARY, COLUMNS], ids=["classes", "binary", "columns"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_modulator_that_hardly_moves_gives_the_trained_operating_point(options, family, readout):
    """With sigma going to 0 every factor goes to 1, and the answer to what the method predicts, bias and mask included."""
    method, features = fitted("comodulation", family, readout=readout, task_bias=True, std=1e-5, **options)
    inputs = method.prepare(features)
    for task in range(3):
        seen = inspect(method, features, task, GRID, SAMPLE)
        predicted = method.log_probabilities(inputs, torch.tensor([task]), torch.tensor([SAMPLE])).exp()
        torch.testing.assert_close(seen.modulated.factors, torch.ones(13, 8), atol=2e-4, rtol=0)
        torch.testing.assert_close(seen.modulated.probabilities, predicted.expand(13, -1), atol=2e-4, rtol=0)


@pytest.mark.parametrize("family", [CLASSES, BINARY, COLUMNS], ids=["classes", "binary", "columns"])
def test_a_stochastic_encoder_predicts_the_mean_over_its_samples(family):
    """The values that the noise of this image and task takes, put in by hand: their mean is the method's prediction."""
    method, features = fitted("comodulation", family, task_bias=True, encoder="stochastic", std=0.5, num_samples=9)
    inputs = method.prepare(features)
    for task in range(3):
        ids = torch.tensor([SAMPLE]), torch.tensor([task])
        draws = modulator_noise(*ids, 9, seed=3)[:, 0]
        seen = inspect(method, features, task, draws.double(), SAMPLE)
        predicted = method.log_probabilities(inputs, ids[1], ids[0]).exp()[0]
        torch.testing.assert_close(seen.modulated.probabilities.mean(0), predicted, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(seen.answer, predicted)
        assert seen.modulated.probabilities.std(0).max() > 1e-3  # the samples do differ


@pytest.mark.parametrize("after_gain", [False, True])
@pytest.mark.parametrize("link", ["exponential", "rectified"])
def test_decoder_activity_at_the_nodes_gives_the_statistics_of_the_gains(link, after_gain):
    """Gauss-Hermite sums of the activity shown are slope and mean that `decoder_statistics` computes by itself."""
    method, features = fitted(link=link, after_gain=after_gain, std=0.4)
    head, inputs = method.head, method.prepare(features)
    nodes, weights = gauss_hermite(7, torch.float64, torch.device("cpu"))
    for task in range(3):
        seen = inspect(method, features, task, nodes, SAMPLE).modulated
        u = head.controller(torch.tensor([task]))
        at = inputs * u.exp()[:, :, None, None] if after_gain else inputs
        expected = decoder_statistics(
            head.decode, at.detach(), coupling(u, link).detach(), 0.4, estimator="quadrature", num_nodes=7
        )
        activity = seen.decoder_activity.double()
        mean = weights @ activity
        slope = (weights * nodes) @ (activity - mean) / 0.4
        torch.testing.assert_close(mean, expected.mean[0].double(), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(slope, expected.slope[0].double(), atol=1e-5, rtol=1e-4)


def test_the_slope_shown_is_the_derivative_of_the_activity_shown():
    """At m = 0, where a small sigma leaves the factor's mean alone: a difference of activities over a difference of m."""
    method, features = fitted(std=1e-3)
    seen = inspect(method, features, 1, torch.tensor([-1.0, 1.0]), SAMPLE).modulated
    activity = seen.decoder_activity.double()
    torch.testing.assert_close((activity[1] - activity[0]) / 2e-3, seen.slope.double(), atol=5e-3, rtol=5e-3)


def test_factors_and_answers_by_the_formulas():
    """The definition written out: exp(m w - sigma^2 w^2 / 2), and the layers called one after the other."""
    method, features = fitted(std=0.3)
    head, inputs = method.head, method.prepare(features)
    seen = inspect(method, features, 2, GRID, SAMPLE)
    u = head.controller(torch.tensor([2]))[0].detach()
    torch.testing.assert_close(seen.modulated.coupling, u)
    torch.testing.assert_close(seen.encoder_gains, u.exp())
    torch.testing.assert_close(seen.decoder_gains, head.task_gains[2])
    for place, deviation in enumerate(GRID.tolist()):
        m = 0.3 * deviation
        torch.testing.assert_close(seen.modulated.factors[place], torch.exp(m * u - 0.09 * u**2 / 2))
        modulated = modulate(inputs * u.exp()[None, :, None, None], u[None], torch.tensor([m]), 0.3)
        logits = head.read(head.decode(modulated) * head.task_gains[2][None, :, None, None])
        expected = task_logits(CLASSES, logits, torch.tensor([2])).softmax(-1)[0]
        torch.testing.assert_close(seen.modulated.probabilities[place], expected, atol=1e-6, rtol=1e-5)


def test_an_uncoupled_task_does_not_feel_the_modulator():
    method, features = fitted()
    with torch.no_grad():
        method.head.controller.embedding.weight[1] = 0
    method.head.task_gains = torch.rand(3, 12) * 2  # of these couplings
    seen = inspect(method, features, 1, GRID, SAMPLE)
    assert (seen.modulated.factors == 1).all()
    assert (seen.modulated.slope == 0).all()
    for values in (seen.modulated.decoder_activity, seen.modulated.probabilities):
        torch.testing.assert_close(values, values[:1].expand_as(values), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["comodulation", "attention", "class-mask"])
def test_temperature_changes_confidence_and_no_order(name):
    """A temperature of 1 changes nothing; above 1 the answer is less sure and the same; it reaches the modulated ones too."""
    method, features = fitted(name)
    plain, one, warm = (inspect(method, features, 0, GRID, SAMPLE, temperature) for temperature in (1.0, 1, 2.5))
    torch.testing.assert_close(plain.answer, one.answer)
    assert (warm.answer.argsort() == plain.answer.argsort()).all()
    assert warm.answer.max() < plain.answer.max()
    if name == "comodulation":
        raised = plain.modulated.probabilities ** (1 / 2.5)
        torch.testing.assert_close(warm.modulated.probabilities, raised / raised.sum(1, keepdim=True))


# Which gains a method has: that scaling the encoder or decoder by them is what the task does is checked by prediction below.
ENCODER = {"attention", "ia3", "fine-tuning", "task-routing", "maximum-roaming", "comodulation"}
DECODER = {"decoder-gains", "ia3", "fine-tuning", "film", "task-routing", "maximum-roaming", "comodulation", "paper"}


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in WITH_LAYERS), ("comodulation", {"encoder": "none", "training_encoder": "gain"})],
    ids=str,
)
def test_the_gains_shown_are_those_the_task_multiplies_by(name, options):
    """The untouched layers with these gains put in by hand predict what the method predicts (FiLM: and its shift)."""
    method, features = fitted(name, **options)
    head = method.head
    seen = inspect(method, features, 1, GRID, SAMPLE)
    assert (seen.encoder_gains is not None) == (name in ENCODER and not options)
    assert (seen.decoder_gains is not None) == (name in DECODER)
    assert (seen.modulated is not None) == (name in ("comodulation", "paper"))
    if name in ("class-mask", "local-mask", "film", "positions", "paper"):
        return  # masks of outputs, a gain inside the rectification, gains of positions, gains of fluctuating activity
    encoder = torch.ones(8) if seen.encoder_gains is None else seen.encoder_gains
    decoder = torch.ones(12) if seen.decoder_gains is None else seen.decoder_gains
    with torch.no_grad():
        activity = head.encode(features) * encoder[:, None, None]
        logits = head.read(head.decode(activity) * decoder[:, None, None])
        logits = logits if method.bias is None else logits + method.bias[1]
    torch.testing.assert_close(seen.answer, logits.softmax(-1)[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in WITH_LAYERS), *(("comodulation", {"encoder": kind}) for kind in ("none", "stochastic"))],
    ids=str,
)
def test_the_gains_of_all_tasks_are_those_of_each(name, options):
    """What is stored and drawn of a method is what is shown of one image, and no more; a run has a page in any case."""
    method, features = fitted(name, **options)
    found = gains_of(method)
    assert ("coupling" in found) == (name in ("comodulation", "paper"))
    for task in range(3):
        seen = inspect(method, features, task, GRID, SAMPLE)
        for place, shown in (("encoder", seen.encoder_gains), ("decoder", seen.decoder_gains)):
            of_inputs = (name, place) == ("paper", "decoder")  # a gain of each input is none of the task's
            assert (place in found) == (shown is not None and not of_inputs)
            assert place not in found or torch.equal(found[place][task], shown)
    config = make_config({"data": "made", "group": "g", "label": "l", "method": name})
    examples = Predictions(
        torch.arange(6), torch.arange(3).repeat(2), torch.tensor([0, 2, 4, 1, 3, 5]), torch.full((6, 6), 1 / 6).log()
    )
    result = {"test": evaluate_predictions(examples, CLASSES.tasks), "learnable_parameters": method.num_learnable()}
    assert ("Gain of each neuron" in run_report(config, CLASSES, method, result)) == (
        name in ("attention", "comodulation", "paper")
    )


def test_gains_of_each_input_are_of_no_task():
    assert set(gains_of(fitted(level="input")[0])) == {"encoder", "coupling"}


def test_film_gains_scale_the_drive():
    """FiLM without shifts is the untouched network with its decoder's weights multiplied by the gains shown."""
    method, features = fitted("film")
    head, inputs = method.head, method.prepare(features)
    with torch.no_grad():
        method.shift.zero_()
        seen = inspect(method, features, 1, GRID, SAMPLE)
        for layer in (head.decoder, head.decoder_skip):
            layer.weight.mul_(seen.decoder_gains[:, None, None, None])
        head.decoder.bias.mul_(seen.decoder_gains)
        expected = head.read(head.decode(inputs)).softmax(-1)[0]
    torch.testing.assert_close(seen.answer, expected, atol=1e-6, rtol=1e-5)


def test_what_cannot_be_looked_at_is_refused():
    method, features = fitted()
    with pytest.raises(InputError, match="expected one image, got 2"):
        inspect(method, features.expand(2, -1, -1, -1), 0, GRID, SAMPLE)
    with pytest.raises(InputError, match="finite"):
        inspect(method, features, 0, torch.tensor([0.0, float("nan")]), SAMPLE)


def test_words():
    """Own classes in falling order; the prediction may be of another task in the open readout."""
    probabilities = torch.tensor([0.1, 0.2, 0.05, 0.15, 0.5, 0.0])
    told = describe(CLASSES, 1, probabilities)
    assert told["prediction"] == "y"
    assert told["confidence"] == 0.5
    assert list(told["probabilities"]) == ["x", "w"]
    assert describe(BINARY, 2, torch.tensor([0.25, 0.75])) == {
        "prediction": "yes", "confidence": 0.75, "probabilities": {"yes": 0.75, "no": 0.25},
    }  # fmt: skip
