"""Methods that train the layers: masks with known shares, roaming with a known course, aggregates with known inner products."""

import itertools
import math
import sys

import pytest
import torch
from lightning_fabric import Fabric

from comodulation.errors import InputError
from comodulation.networks.head import ComodulatedHead
from comodulation.networks.methods.gradient_aggregation import AGGREGATORS
from comodulation.networks.methods.maximum_roaming import roaming_plan
from comodulation.networks.methods.registry import make_method
from comodulation.runs import make_config
from comodulation.tasks import Examples, TaskFamily
from comodulation.training import Inputs, Objective, Progress, TrainingSettings, Venue, predict, train, tune

CLASSES = TaskFamily("classes", ("a", "b", "c"), tuple("tuvwxyz"), ((0, 1), (2, 3, 4), (5, 6)))
BINARY = TaskFamily.from_attributes(("p", "q", "r", "s"))
LAYERS = ("task-routing", "maximum-roaming", "fine-tuning", "gradient-aggregation")
SIZE = 48


def make(name, family=CLASSES, *, encoder=8, decoder=12, seed=0, readout="open", task_bias=False, head=(), **options):
    torch.manual_seed(0)
    built = ComodulatedHead(
        5, family.num_outputs, family.num_tasks, encoder_channels=encoder, decoder_channels=decoder, hidden=16,
        seed=seed, **dict(head),
    )  # fmt: skip
    return make_method(name, built, family, readout, task_bias=task_bias, **options).eval()


def inputs(family, size=SIZE):
    """Features, task and target of each of some inputs; every task has several."""
    features = torch.randn(size, 5, 2, 2, generator=torch.Generator().manual_seed(2))
    task = torch.arange(size) % family.num_tasks
    if family.kind == "classes":
        target = torch.tensor([family.members[k][i % len(family.members[k])] for i, k in enumerate(task.tolist())])
    else:
        target = torch.arange(size) // family.num_tasks % 2
    return features, task, target


# ---- masks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["task-routing", "maximum-roaming"])
@pytest.mark.parametrize(("share", "kept"), [(0.25, (2, 3)), (0.5, (4, 6)), (1.0, (8, 12)), (0.001, (1, 1))])
def test_every_task_keeps_exactly_the_share(name, share, kept):
    method = make(name, **{"sharing" if name == "task-routing" else "share": share})
    for mask, number in zip(method.state().values(), kept, strict=True):
        assert mask.dtype == torch.bool
        assert (mask.sum(1) == number).all()


@pytest.mark.parametrize("name", ["task-routing", "maximum-roaming"])
def test_masks_come_from_the_seed_of_the_head_alone(name):
    """Not from the global generator, which is left alone; another seed gives other masks, and tasks differ."""
    first, other = make(name, encoder=64, decoder=64, seed=3), make(name, encoder=64, decoder=64, seed=4)
    torch.manual_seed(99)
    expected = torch.rand(2)
    torch.manual_seed(99)
    again = make_method(name, first.head, CLASSES)
    assert torch.equal(torch.rand(2), expected)
    for key, mask in first.state().items():
        assert torch.equal(mask, again.state()[key])
        assert not torch.equal(mask, other.state()[key])
        assert not torch.equal(mask[0], mask[1])


@pytest.mark.parametrize("family", [CLASSES, BINARY])
def test_routing_by_hand(family):
    """A masked neuron counts as silent, those that are kept are not rescaled; with all kept it is hard sharing."""
    features, task, _ = inputs(family, 6)
    method = make("task-routing", family, sharing=0.5)
    head = method.head
    for row in range(len(task)):
        activity = head.encode(features[row : row + 1])
        activity[:, ~method.encoder_mask[task[row]]] = 0
        decoded = head.decode(activity)
        decoded[:, ~method.decoder_mask[task[row]]] = 0
        logits = head.read(decoded)
        torch.testing.assert_close(method.head_logits(method.encoded(features), task, None, 0)[0, row], logits[0])
    whole, shared = make("task-routing", family, sharing=1.0), make("hard-sharing", family)
    assert torch.equal(whole(features, task), shared(features, task))


def test_masked_neurons_do_not_learn_from_the_task():
    """The gradient of a task reaches no weight of a decoder neuron that its mask silences, and some of the others."""
    features, task, target = inputs(CLASSES)
    method = make("task-routing", sharing=0.5, head={"residual": False})
    rows = task == 1
    method.loss(features[rows], task[rows], target[rows]).backward()
    reached = method.head.decoder.weight.grad.abs().sum((1, 2, 3)) > 0
    assert not reached[~method.decoder_mask[1]].any()
    assert reached[method.decoder_mask[1]].any()


# ---- roaming ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("units", "active"), [(10, 6), (7, 1), (5, 5), (32, 31)])
def test_roaming_visits_every_unit_exactly_once(units, active):
    """Of every task the number of active units is constant, one is exchanged per update, none comes back, none is left out."""
    arrival, departure = roaming_plan(4, units, active, torch.Generator().manual_seed(1))
    updates = units - active
    course = torch.stack([(arrival <= done) & (done < departure) for done in range(updates + 1)])
    assert (course.sum(2) == active).all()
    changes = course[1:] ^ course[:-1]
    assert (changes.sum(2) == 2).all()
    assert (course[1:] & ~course[:-1]).sum(2).eq(1).all()
    assert course.any(0).all()
    starts = course[0].long() + (course[1:] & ~course[:-1]).sum(0)
    assert (starts == 1).all()
    later = (arrival <= updates + 5) & (updates + 5 < departure)
    assert torch.equal(later, course[-1])


def test_who_leaves_is_drawn_and_not_the_oldest():
    """Over many tasks, the unit that has just come leaves at the next update about as often as any other: 1 in 4."""
    arrival, departure = roaming_plan(2000, 12, 4, torch.Generator().manual_seed(0))
    newcomer = (arrival == 1) & (departure == 2)
    assert newcomer.sum() / 2000 == pytest.approx(1 / 4, abs=4 * math.sqrt(3 / 16 / 2000))


def test_masks_at_a_step_are_a_function_of_the_step():
    """Whatever was asked before; interval 0 ends half-way, another where its steps say."""
    one, two = make("maximum-roaming", share=0.5), make("maximum-roaming", share=0.5)
    one.after_step(90, 100)
    for steps in (0, 7, 33, 50):
        assert all(torch.equal(a, b) for a, b in zip(one.masks_at(steps, 100), two.masks_at(steps, 100), strict=True))
    encoder = [two.masks_at(steps, 100)[0] for steps in range(101)]
    assert all(torch.equal(a, b) for a, b in zip(two.masks_at(0, 100), two.state().values(), strict=True))
    assert [bool((a != b).any()) for a, b in itertools.pairwise(encoder)].count(True) == 4
    assert not torch.equal(encoder[49], encoder[50])
    assert all(torch.equal(mask, encoder[50]) for mask in encoder[50:])
    slow = make("maximum-roaming", share=0.5, interval=10)
    changed = [s for s in range(1, 101) if not torch.equal(slow.masks_at(s, 100)[0], slow.masks_at(s - 1, 100)[0])]
    assert changed == [10, 20, 30, 40]  # 8 encoder neurons, 4 active
    assert slow.masks_at(59, 100)[1].ne(slow.masks_at(60, 100)[1]).any()  # 12 decoder neurons, 6 active
    assert torch.equal(slow.masks_at(60, 100)[1], slow.masks_at(100, 100)[1])


# ---- in training --------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


class Stopping(Progress):
    def __init__(self, after=None):
        self.after = after

    def epoch(self, what, epoch):
        if epoch.number == self.after:
            raise Stop


class Rows:
    """Features of made images, as ``Features`` gives them."""

    key, shape = "made", (5, 2, 2)

    def __init__(self, features):
        self.features = features

    def rows(self, rows):
        return self.features[rows]


def tuned(method, checkpoint=None, *, stop_after=None, epochs=6):
    """A method after ``tune`` on made images, its history and its predictions."""
    features, task, target = inputs(method.family)
    images = torch.arange(SIZE)
    examples, validation = Examples(images[:36], task[:36], target[:36]), Examples(images[36:], task[36:], target[36:])
    config = make_config(
        {"data": "made", "group": "g", "label": "l",
         "tuning": {"epochs": epochs, "learning_rate": 0.003, "batch_size": 12}}
    )  # fmt: skip
    given = Inputs(method, Rows(features), images)
    fabric = Fabric(accelerator="cpu", devices=1)
    venue = Venue(fabric, Stopping(stop_after), checkpoint, "made")
    history = tune(method, given, examples, validation, config.tuning, venue, seed=config.seed, balance=config.balance)
    return history, predict(method, given, validation).log_probabilities


@pytest.mark.parametrize("family", [CLASSES, BINARY], ids=["classes", "binary"])
@pytest.mark.parametrize(("name", "batch_norm"), [*((name, False) for name in LAYERS), ("maximum-roaming", True)])
def test_interrupted_and_resumed_equals_uninterrupted(name, batch_norm, family, tmp_path):
    """Dropout, roaming, running statistics and all: the same bits of layers, masks and predictions."""
    head = {"batch_norm": batch_norm}
    whole, resumed = make(name, family, head=head), make(name, family, head=head)
    history, expected = tuned(whole)
    for stop in (1, 2):
        with pytest.raises(Stop):
            tuned(make(name, family, head=head), tmp_path / "c.safetensors", stop_after=stop)
    again, logs = tuned(resumed, tmp_path / "c.safetensors")
    assert [entry["nll"] for entry in again] == [entry["nll"] for entry in history]
    assert torch.equal(logs, expected)
    tensors = resumed.adapter_tensors()
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in whole.adapter_tensors().items())
    assert history[-1]["loss"] < history[0]["loss"]


def test_tuning_roams_and_aggregates():
    """After it the masks are those of its best epoch, three steps each, by then others than the first; the aggregate counts."""
    roaming = make("maximum-roaming", share=0.25)
    history, _ = tuned(roaming)
    best = min(history, key=lambda entry: entry["nll"])["epoch"]
    expected = roaming.masks_at(3 * best, 18)
    assert all(torch.equal(mask, then) for mask, then in zip(roaming.state().values(), expected, strict=True))
    assert not torch.equal(roaming.encoder_mask, roaming.masks_at(0, 18)[0])
    aggregated, shared = make("gradient-aggregation"), make("hard-sharing")
    assert [entry["nll"] for entry in tuned(aggregated)[0]] != [entry["nll"] for entry in tuned(shared)[0]]


@pytest.mark.parametrize("resume", [False, True])
def test_the_best_epoch_keeps_its_masks_and_statistics(resume, tmp_path):
    """Validation is best after the second epoch, in the midst of roaming: what is left answers as it did then."""
    options = {"share": 0.5, "interval": 2, "decoder": 16, "head": {"batch_norm": True}}
    features, task, target = inputs(CLASSES)
    scores, seen, said = [3.0, 1.0, 2.0, 4.0], [], []

    def run(method, checkpoint):
        def validate():
            seen.append({key: tensor.clone() for key, tensor in method.adapter_tensors().items()})
            said.append(method.log_probabilities(features, task))
            return {"nll": scores[len(seen) - 1]}

        objective = Objective(
            method.name,
            method,
            [(parameter, 1.0) for parameter in method.learnable()],
            lambda epoch, generator: (
                (features[rows], task[rows], target[rows]) for rows in torch.arange(48).split(12)
            ),
            4,
            validate,
            after_step=lambda steps: method.after_step(steps, 16),
            state=list(method.state().values()),
        )
        venue = Venue(Fabric(accelerator="cpu", devices=1), checkpoint=checkpoint)
        train(objective, TrainingSettings(epochs=4, learning_rate=0.003), venue, seed=0)
        return method.adapter_tensors(), method.eval().log_probabilities(features, task)

    path = tmp_path / "c.safetensors"
    left, answers = run(make("maximum-roaming", **options), path)
    if resume:  # nothing is left to train: all comes from the checkpoint
        left, answers = run(make("maximum-roaming", **options), path)
    assert len(seen) == 4
    assert all(torch.equal(tensor, seen[1][key]) for key, tensor in left.items())
    assert torch.equal(answers, said[1])
    assert torch.equal(left["decoder_mask"], make("maximum-roaming", **options).masks_at(8, 16)[1])
    assert not torch.equal(left["decoder_mask"], seen[3]["decoder_mask"])


def test_roaming_completes_in_a_training():
    """By default, however few the steps: afterwards every task's masks are the last ones."""
    method = make("maximum-roaming", encoder=64, decoder=64, share=0.25)
    last = method.masks_at(1, 1)
    features, task, target = inputs(CLASSES)
    for steps in range(1, 7):
        method.loss(features, task, target)
        method.after_step(steps, 6)
    assert all(torch.equal(mask, end) for mask, end in zip(method.state().values(), last, strict=True))


def test_learning_rate_factors_are_applied():
    """After one AdamW step, which moves every parameter by its learning rate: layers by one, gains and biases by a hundred."""
    method = make("fine-tuning", gain_rate=100.0)
    assert len(method.rate_factors()) == len(method.learnable())
    before = [parameter.detach().clone() for parameter in method.learnable()]
    features, task, target = inputs(CLASSES)
    objective = Objective(
        method.name,
        method,
        list(zip(method.learnable(), method.rate_factors(), strict=True)),
        lambda epoch, generator: [(features, task, target)],
        1,
        lambda: {"nll": 1.0},
    )
    settings = TrainingSettings(epochs=1, learning_rate=1e-4, warmup=0.0)
    train(objective, settings, Venue(Fabric(accelerator="cpu", devices=1)), seed=0)
    moved = [float((new.detach() - old).abs().max()) for new, old in zip(method.learnable(), before, strict=True)]
    layers = sum(1 for layer in method.head.layers for _ in layer.parameters())
    assert moved[:layers] == pytest.approx([1e-4] * layers, rel=1e-2)
    assert moved[layers:] == pytest.approx([1e-2] * 3, rel=1e-2)
    assert method.bias is not None


@pytest.mark.parametrize("name", LAYERS)
def test_the_restricted_readout_never_leaves_the_group(name):
    method = make(name, readout="restricted")
    tuned(method, epochs=1)
    features, task, _ = inputs(CLASSES)
    probabilities = method.log_probabilities(features, task).exp()
    assert (probabilities[~CLASSES.member_mask()[task]] == 0).all()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(task)))


# ---- aggregated gradients -----------------------------------------------------------------------------------------


def plain(method, batch):
    """The gradient of the mean loss, as one vector."""
    parts = torch.autograd.grad(method.loss(*batch), method.own_parameters())
    return torch.cat([part.flatten() for part in parts])


def aggregated(method, batch):
    loss = method.gradients(method, None, batch)
    return loss, torch.cat([parameter.grad.flatten() for parameter in method.own_parameters()])


def of_tasks(method, batch):
    """The gradient of each task's mean loss, one by one: ``(K, P)``."""
    return torch.stack([plain(method, [x[batch[1] == k] for x in batch]) for k in batch[1].unique()])


def tied(factor):
    """One set of inputs under two tasks, whose losses pull the same way (1) or opposite ways (-1)."""
    features, _, _ = inputs(CLASSES, 10)
    task = torch.arange(2).repeat_interleave(10)
    target = torch.zeros(10, dtype=torch.int64)
    return features.repeat(2, 1, 1, 1), task, torch.cat([target, target if factor > 0 else target + 1])


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_two_tasks_with_the_same_data_have_the_plain_gradient(aggregator):
    """Up to the aggregator's scale, which Adam does not see; the mean, UPGrad and MGDA have no other scale."""
    method, batch = make("gradient-aggregation", aggregator=aggregator), tied(1)
    loss, gradient = aggregated(method, batch)
    expected = plain(method, batch)
    torch.testing.assert_close(loss, method.loss(*batch).detach())
    torch.testing.assert_close(gradient / gradient.norm(), expected / expected.norm(), rtol=1e-3, atol=1e-5)
    if aggregator in ("mean", "upgrad", "mgda"):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


def test_upgrad_never_goes_against_a_task():
    """Where one task is solved and another wants other answers to the same inputs, the plain gradient goes against the first."""
    method, batch = make("gradient-aggregation"), tied(-1)
    agreed = tied(1)
    optimizer = torch.optim.Adam(method.learnable(), 0.01)
    for _ in range(20):
        optimizer.zero_grad()
        method.loss(*agreed).backward()
        optimizer.step()
    tasks = of_tasks(method, batch)
    assert float((tasks @ tasks.mean(0)).min()) < 0
    products = tasks @ aggregated(method, batch)[1]
    assert float(products.min()) >= -1e-4 * float(tasks.norm(dim=1).max()) ** 2
    assert float(products.max()) > 0


@pytest.mark.parametrize("family", [CLASSES, BINARY], ids=["classes", "binary"])
def test_the_mean_of_task_gradients_by_hand(family):
    """Tasks of unequal size weigh the same; a task bias is not aggregated and has the gradient of the mean loss."""
    features, task, target = inputs(family)
    rows = torch.cat([(task == 0).nonzero()[:2, 0], (task > 0).nonzero()[:, 0]])
    batch = features[rows], task[rows], target[rows]
    method = make("gradient-aggregation", family, aggregator="mean", task_bias=True)
    loss, gradient = aggregated(method, batch)
    torch.testing.assert_close(gradient, of_tasks(method, batch).mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss, method.loss(*batch).detach())
    (expected,) = torch.autograd.grad(method.loss(*batch), [method.bias])
    torch.testing.assert_close(method.bias.grad, expected)


def test_a_batch_of_one_task_has_its_gradient():
    features, task, target = inputs(CLASSES)
    batch = tuple(x[task == 2] for x in (features, task, target))
    method = make("gradient-aggregation")
    torch.testing.assert_close(aggregated(method, batch)[1], plain(method, batch), rtol=1e-3, atol=1e-6)


def test_without_torchjd_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(InputError, match=r"pip install 'comodulation\[aggregation\]'"):
        make("gradient-aggregation")


# ---- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("task-routing", {"sharing": 0}, "sharing 0 is out of range, expected a number above 0 and at most 1"),
        ("task-routing", {"sharing": 1.5}, "sharing 1.5 is out of range"),
        ("task-routing", {"sharing": math.nan}, "sharing nan is out of range"),
        ("task-routing", {"sharing": "half"}, "sharing 'half' is out of range"),
        ("task-routing", {"share": 0.5}, "did you mean 'sharing'"),
        ("maximum-roaming", {"share": -0.1}, "share -0.1 is out of range"),
        ("maximum-roaming", {"interval": -1}, "interval -1 is out of range, expected a whole number of steps"),
        ("maximum-roaming", {"interval": 2.5}, "interval 2.5 is out of range"),
        ("fine-tuning", {"gain_rate": 0.0}, "gain_rate 0.0 is out of range, expected a positive finite number"),
        ("fine-tuning", {"gain_rate": math.inf}, "gain_rate inf is out of range"),
        ("gradient-aggregation", {"aggregator": "upgrade"}, "unknown aggregator 'upgrade'; did you mean 'upgrad'?"),
    ],
)
def test_options_out_of_range(name, options, message):
    with pytest.raises(InputError) as error:
        make(name, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
