"""Training what `comodulate` returns: only couplings learn, missing labels count nowhere, and the best epoch is what is left."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import comodulation
from comodulation import comodulate
from comodulation.errors import DivergedError, InputError
from comodulation.training.attached.labelled_batches import Labelled, LabelledBatches
from comodulation.training.attached.losses import binary_loss, classes_loss, settled_loss


def network(outputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 24), nn.ReLU(), nn.Dropout(0.5), nn.Linear(24, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, outputs)
    )  # fmt: skip


X = torch.randn(96, 6, generator=torch.Generator().manual_seed(1))
TASKS = torch.arange(96) % 2
# What a task asks for decides which feature is the answer.
CLASSES = torch.where(TASKS == 0, X[:, :3].argmax(1), X[:, 3:].argmax(1))
TABLE = torch.stack([X[:, :3].argmax(1), X[:, 3:].argmax(1)], 1)


def made(outputs=3, **options):
    return comodulate(network(outputs), encoder="1", decoder="5", num_tasks=2, example=X[:4], **options)


def batches(labels=CLASSES, size=32):
    return [(X[rows], TASKS[rows], labels[rows]) for rows in torch.arange(96).split(size)]


def train(net, loader, **options):
    return comodulation.train(net, loader, **{"epochs": 4, **options})


def couplings(net):
    return net.controller.embedding.weight.detach().clone()


def test_only_couplings_learn_and_gains_are_stored():
    net = made()
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    done = train(net, batches())
    assert all(torch.equal(before[name], value) for name, value in net.model.state_dict().items())
    assert couplings(net).abs().max() > 0.01
    assert not net.training
    assert net.task_gains.std() > 0
    assert [entry["epoch"] for entry in done.history] == [1, 2, 3, 4]
    assert set(done.history[0]) == {"epoch", "loss", "validation", "accuracy", "seconds"}
    assert done.history[-1]["loss"] < done.history[0]["loss"]


def test_the_losses_are_those_of_the_network_that_is_left():
    """By another route: cross-entropy of what the network answers now, task by task."""
    net = made()
    done = train(net, batches(), validation=[(X[:50], TASKS[:50], CLASSES[:50])], epochs=3)
    assert done.best == 1 + min(range(3), key=lambda number: done.history[number]["validation"])
    with torch.no_grad():
        losses = F.cross_entropy(net(X[:50], TASKS[:50]), CLASSES[:50], reduction="none")
        right = net(X[:50], TASKS[:50]).argmax(1) == CLASSES[:50]
    expected = torch.stack([losses[TASKS[:50] == task].mean() for task in (0, 1)])
    torch.testing.assert_close(done.task_losses.float(), expected)
    kept = done.history[done.best - 1]
    assert kept["validation"] == pytest.approx(losses.mean().item(), rel=1e-5)
    assert kept["accuracy"] == pytest.approx(right.float().mean().item())


def test_the_best_epoch_is_kept():
    """Validation labels are the wrong ones: the more is learned the worse, and the first epoch is the best."""
    net = made()
    wrong = [(X, TASKS, (CLASSES + 1) % 3)]
    done = train(net, batches(), validation=wrong, epochs=12, learning_rate=0.25, patience=3)
    assert len(done.history) == done.best + 3 < 12
    again = made()
    states = []
    comodulation.train(
        again, batches(), validation=wrong, epochs=12, learning_rate=0.25, patience=3,
        report=lambda epoch: states.append(couplings(again)),
    )  # fmt: skip
    assert torch.equal(couplings(net), states[done.best - 1])
    assert not torch.equal(couplings(net), states[-1])


def test_equal_seeds_give_equal_bits_whatever_the_caller_draws():
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(X, TABLE), batch_size=32, shuffle=True
    )  # fmt: skip
    found = []
    for noise, seed in ((1, 0), (2, 0), (3, 1)):
        net = made()
        torch.manual_seed(noise)
        state = torch.random.get_rng_state()
        train(net, loader, seed=seed)
        assert torch.equal(state, torch.random.get_rng_state())
        found.append(torch.cat([couplings(net).flatten(), net.task_gains.flatten()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_missing_labels_are_as_if_they_were_not_there():
    """A batch with unlabelled inputs and one without them, where gains are computed input by input: the same bits."""
    labels = torch.where(torch.arange(96) % 4 == 1, -1, CLASSES)
    there = labels >= 0
    few = [
        (X[rows][there[rows]], TASKS[rows][there[rows]], CLASSES[rows][there[rows]])
        for rows in torch.arange(96).split(32)
    ]
    nets = []
    for loader in (batches(labels), batches(labels.double().where(there, math.nan)), few):
        net = made(level="input")
        done = train(net, loader)
        nets.append((couplings(net), done.task_losses))
    assert torch.equal(nets[0][0], nets[1][0])
    torch.testing.assert_close(nets[0], nets[2])


def test_a_batch_without_any_label_changes_nothing_but_the_gains():
    net, other = (made(level="input") for _ in range(2))
    empty = (X[:8], TASKS[:8], torch.full((8,), -1))
    done = train(net, [batches()[0], empty], epochs=1)
    assert all(math.isfinite(value) for value in done.history[0].values())
    assert couplings(net).abs().max() > 0
    with pytest.raises(InputError, match="the validation batches have no labels"):
        train(other, batches(), validation=[empty])


def test_a_label_for_each_task():
    """The table is worth its pairs: validation is over every labelled cell, whatever was drawn for training."""
    table = TABLE.clone()
    table[::3, 1] = -1
    net = made()
    done = train(net, [(X, table)], epochs=6)
    with torch.no_grad():
        losses = torch.stack(
            [F.cross_entropy(net(X, torch.full((96,), k)), TABLE[:, k], reduction="none") for k in (0, 1)], 1
        )
    known = table >= 0
    torch.testing.assert_close(done.task_losses.float(), torch.stack([losses[known[:, k], k].mean() for k in (0, 1)]))
    assert done.history[done.best - 1]["validation"] == pytest.approx(losses[known].mean().item(), rel=1e-5)


def test_tasks_are_drawn_among_those_with_a_label():
    table = torch.tensor([[-1, 1], [0, -1], [1, 0], [-1, -1]]).repeat(500, 1)
    drawn = Labelled(X, None, table).drawn(torch.Generator().manual_seed(0))
    tasks, labels = drawn.tasks.view(-1, 4), drawn.labels.view(-1, 4)
    assert (tasks[:, 0] == 1).all()
    assert (tasks[:, 1] == 0).all()
    for column in (2, 3):  # 500 fair draws: five standard deviations are 56
        assert abs(int(tasks[:, column].sum()) - 250) < 56
    assert (labels[:, 3] == -1).all()
    assert ((labels >= 0)[:, :3]).all()


@pytest.mark.parametrize("own", [False, True])
def test_tasks_of_no_and_yes(own):
    """One output, or an output a task."""
    net = made(2 if own else 1)
    labels = torch.where(TASKS == 0, X[:, 0] > 0, X[:, 1] > 0).float()
    labels[5] = math.nan
    done = train(net, batches(labels), loss="binary" if own else "auto")
    with torch.no_grad():
        logits = net(X, TASKS)
    logits = logits.gather(1, TASKS[:, None])[:, 0] if own else logits[:, 0]
    known = ~labels.isnan()
    expected = F.binary_cross_entropy_with_logits(logits[known], labels[known]).item()
    assert done.history[done.best - 1]["validation"] == pytest.approx(expected, rel=1e-5)


def test_a_loss_of_ones_own_is_trained_by():
    """The same as the one that is there: the same bits. Missing labels are 0 in it, so that it may index with them."""
    labels = torch.where(torch.arange(96) % 5 == 0, -1, CLASSES)

    def loss(outputs, labels, tasks):
        return -outputs.log_softmax(1)[torch.arange(len(labels)), labels]

    nets = made(), made()
    for net, chosen in zip(nets, ("classes", loss), strict=True):
        train(net, batches(labels), loss=chosen)
    torch.testing.assert_close(couplings(nets[0]), couplings(nets[1]))


def test_dictionaries_and_outputs_with_logits():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()

        def forward(self, values, *, scale):
            return {"logits": self.body(values * scale), "other": values}

    scale = torch.ones(96, 1)
    net = comodulate(
        Model(), encoder="body.1", decoder="body.5", num_tasks=2, example={"values": X[:4], "scale": scale[:4]}
    )
    plain = made()
    train(net, [{"values": X, "scale": scale, "task_ids": TASKS, "labels": CLASSES}])
    train(plain, [(X, TASKS, CLASSES)])
    torch.testing.assert_close(couplings(net), couplings(plain))


def test_labels_of_positions():
    """Over the labelled positions of each input, and then over inputs."""
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 1, 2, -1, -1], [1, 1, 1, 1, 1], [-1] * 5, [2, -1, -1, -1, -1]])
    found = classes_loss(logits, labels, torch.zeros(4, dtype=torch.int64))
    each = F.cross_entropy(logits, labels, ignore_index=-1, reduction="none")
    torch.testing.assert_close(found, torch.stack([each[0, :3].mean(), each[1].mean(), torch.tensor(0.0), each[3, 0]]))


@pytest.mark.parametrize(
    ("loader", "options", "message"),
    [
        (iter(batches()), {}, "loader can be read only once"), (3, {}, "loader is 3, expected batches"), ([], {}, "no batches"),
        (batches(), {"validation": iter(batches())}, "validation can be read only once"),
        ([X], {}, r"batch 0 of loader is a tensor \(96, 6\)"), ([{"values": X}], {}, r"batch 0 of loader is a dict, expected"),
        ([(X, TASKS, CLASSES.tolist())], {}, "labels a list of 96, expected a tensor"),
        ([(X, TASKS[:5], CLASSES)], {}, r"task ids a tensor \(5,\)"),
        ([(X, TABLE[:, :1])], {}, r"labels \(96, 1\), expected .* \(B, 2\)"),
        ([(X, TASKS, CLASSES + 1)], {}, "label 3 is no class, expected 0 to 2"),
        ([(X, TASKS, X[:, 0])], {}, "is no class.*to predict numbers pass a loss= of your own"),
        ([(X, TASKS, TABLE)], {}, r"labels \(96, 2\) for logits \(96, 3\)"),
        (batches(), {"loss": "binary"}, r"label 2 is neither 0 nor 1|an output for each task"),
        (batches(), {"loss": "classe"}, "did you mean 'classes'"), (batches(), {"epochs": 0}, "epochs 0 is out of range"),
        (batches(), {"loss": lambda o, y, t: o.sum()}, r"loss returns \(\), expected the loss of each input, \(32,\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_anything_is_trained(loader, options, message):
    net = made()
    with pytest.raises(InputError, match=message) as caught:
        train(net, loader, **options)
    assert "\n" not in str(caught.value)
    assert not couplings(net).any()


def test_a_loss_without_a_gradient_is_refused():
    def frozen(net):
        net.requires_grad_(False)
        train(net, batches())

    def inside(context):
        def use(net):
            with context(net):
                train(net, batches())

        return use

    for use in (
        frozen,
        inside(lambda net: torch.no_grad()),
        inside(lambda net: torch.inference_mode()),
        inside(lambda net: net.disabled()),
        lambda net: train(net, batches(), loss=lambda o, y, t: F.cross_entropy(o.detach(), y, reduction="none")),
    ):
        net = made()
        with pytest.raises(InputError, match="the loss has no gradient"):
            use(net)
        assert not couplings(net).any()


# In uint8, -1 is 255: a class like any other, where there are as many.
def test_unsigned_labels():
    classes = torch.where(TASKS == 0, 255, 3)
    found = []
    for labels in (classes, classes.to(torch.uint8)):
        found.append(train(made(256), [(X, TASKS, labels)]).task_losses)
    assert torch.equal(*found)
    with pytest.raises(InputError, match="label 255 is no class, expected 0 to 2"):
        train(made(), [(X, TASKS, classes.to(torch.uint8))])


def test_other_things_that_are_refused():
    with pytest.raises(InputError, match="net is a Sequential, expected what comodulate"):
        train(network(), batches())
    with pytest.raises(IndexError, match=r"\[0, 1\]"):
        train(made(), [(X, TASKS + 1, CLASSES)])
    with pytest.raises(DivergedError):
        train(made(), batches(), loss=lambda outputs, labels, tasks: outputs.sum(1) * math.nan)
    zeros_and_ones = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(InputError, match="2 tasks, 2 outputs and labels of 0 and 1: say loss='binary'"):
        settled_loss("auto", torch.zeros(4, 2), zeros_and_ones, 2)
    assert settled_loss("auto", torch.zeros(4, 2), zeros_and_ones, 3) == "classes"
    with pytest.raises(InputError, match="the network returns tuple, expected logits"):
        binary_loss((torch.zeros(4),), zeros_and_ones, zeros_and_ones)


def test_observed_networks_keep_exact_gains():
    """After `observe` the gains that are kept are those of the couplings that were learned, whatever the loader's batches are."""
    net = made()
    net.observe([(X, TASKS)])
    done = train(net, batches(size=8), epochs=2)
    kept = net.task_gains.clone()
    assert done.history[0]["validation"] > done.history[-1]["validation"]
    net.response = None
    net.store_task_gains([(X, TASKS)])
    torch.testing.assert_close(kept, net.task_gains, atol=1e-4, rtol=1e-4)


def test_labels_of_positions_are_trained_and_closed_forms_are_not():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(5, 3),
    )  # fmt: skip
    images = torch.randn(96, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    site = {"encoder": "1", "decoder": "3", "num_tasks": 2, "example": images[:4], "labels": "positions"}
    net = comodulate(model, **site)
    train(net, [(images, TASKS, CLASSES)], epochs=2)
    assert couplings(net).abs().max() > 0
    assert net.task_gains is None
    with pytest.raises(InputError, match="couplings='informativeness' are computed"):
        train(comodulate(model, couplings="informativeness", **site), [(images, TASKS, CLASSES)])


def test_a_loader_that_does_not_know_its_length_is_counted():
    class Endless:
        def __iter__(self):
            return iter(batches())

    assert len(LabelledBatches(Endless(), "loader", 2, torch.device("cpu"))) == 3
    nets = made(), made()
    train(nets[0], Endless())
    train(nets[1], batches())
    assert torch.equal(couplings(nets[0]), couplings(nets[1]))
