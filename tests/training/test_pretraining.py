"""Pretraining: the loss of columns, with labels missing; what a training leaves, interrupted or not."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from torch.nn import functional as F

from comodulation.data import Partition
from comodulation.data.features import Features
from comodulation.networks import ComodulatedHead
from comodulation.networks.methods import make_method
from comodulation.runs import make_config
from comodulation.tasks import TaskFamily
from comodulation.training.loop import Venue
from comodulation.training.pretraining import Pretraining, pretrain, pretraining_targets
from comodulation.training.progress import Silent

MIXED = TaskFamily.from_columns(["striped", "size"], [("no", "yes"), ("s", "m", "l")])


class Fixed(torch.nn.Module):
    """A head whose logits are given."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, features, mode):
        return self.values


def head_of(family):
    torch.manual_seed(0)
    return ComodulatedHead(
        4, family.num_outputs, family.num_tasks, encoder_channels=6, decoder_channels=5, hidden=8
    ).eval()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 2)), min_size=1, max_size=12))
def test_columns_against_the_base_method_pair_by_pair(rows):
    """Two routes: the joint loss of a batch of images, and the base network's loss on the labelled (image, task) pairs."""
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    head = head_of(MIXED)
    features = torch.randn(len(rows), 4, 2, 2, generator=torch.Generator().manual_seed(1))
    joint = Pretraining(head, MIXED).loss(features, pretraining_targets(MIXED, columns))
    examples = MIXED.examples(columns)
    if not len(examples):
        assert float(joint.detach()) == 0
        return
    base = make_method("base", head, MIXED)
    pairs = base.loss(base.prepare(features[examples.image]), examples.task, examples.target)
    torch.testing.assert_close(joint, pairs)


def test_two_classes_are_a_binary_task():
    """A column of no and yes whose logits are (0, z) has the loss of an attribute with logit z."""
    family, faces = TaskFamily.from_columns(["p"], [("no", "yes")]), TaskFamily.from_attributes(["p"])
    labels = [np.array([0, 1, 1, -1])]
    logits = torch.tensor([[0.0, 1.5], [0.0, -2.0], [0.0, 0.3], [0.0, 9.0]])

    columns = Pretraining(Fixed(logits), family).loss(torch.zeros(4), pretraining_targets(family, labels))
    binary = Pretraining(Fixed(logits[:, 1:])).loss(torch.zeros(4), pretraining_targets(faces, labels))
    torch.testing.assert_close(columns, binary)


def test_missing_labels_have_no_gradient():
    """What is said of an image under a task it has no label for does not matter."""
    targets = pretraining_targets(MIXED, [np.array([1, -1]), np.array([-1, 2])])
    assert targets.tolist() == [[1, -1], [-1, 4]]
    logits = torch.zeros(2, 5, requires_grad=True)
    loss = Pretraining(Fixed(logits), MIXED).loss(torch.zeros(2), targets)
    assert float(loss.detach()) == pytest.approx((math.log(2) + math.log(3)) / 2)
    loss.backward()
    assert (logits.grad[0, 2:] == 0).all()
    assert (logits.grad[1, :2] == 0).all()
    expected = (F.one_hot(torch.tensor(2), 3) - 1 / 3) / -2
    torch.testing.assert_close(logits.grad[1, 2:], expected)


class Stop(Exception):
    pass


class Stopping(Silent):
    def __init__(self, after=None):
        self.after = after

    def epoch(self, what, epoch):
        if epoch.number == self.after:
            raise Stop


def pretrained(checkpoint=None, stop_after=None, **options):
    """A head pretrained on made features of four classes with much noise, its history, and the validation images."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 120)
    values = (rng.normal(size=(120, 5, 2, 2)) + 0.2 * labels[:, None, None, None]).astype(np.float16)
    features, rows = Features(values, (), "made"), torch.arange(120)
    torch.manual_seed(1)
    head = ComodulatedHead(5, 4, 2, encoder_channels=6, decoder_channels=6, hidden=32, **options)
    config = make_config(
        {"data": "made", "group": "g", "label": "l",
         "pretraining": {"epochs": 6, "learning_rate": 0.03, "batch_size": 8}}
    )  # fmt: skip
    parts, targets = Partition(rows[:80], rows[80:], rows[:0], rows[:0]), torch.from_numpy(labels)
    fabric = Fabric(accelerator="cpu", devices=1)
    venue = Venue(fabric, Stopping(stop_after), checkpoint, "made")
    history = pretrain(head, features, targets, parts, config.pretraining, venue, seed=config.seed)
    return head.eval(), history, (features.rows(rows[80:]), targets[80:])


@pytest.mark.parametrize("options", [{}, {"batch_norm": True}, {"batch_norm": True, "depth": 2}], ids=str)
def test_interrupted_and_resumed_equals_uninterrupted(options, tmp_path):
    """The same bits of everything that an adapter belongs to."""
    whole, expected, _ = pretrained(**options)
    for stop in (1, 3):
        with pytest.raises(Stop):
            pretrained(tmp_path / "c.safetensors", stop, **options)
    resumed, history, _ = pretrained(tmp_path / "c.safetensors", **options)
    assert [entry["nll"] for entry in history] == [entry["nll"] for entry in expected]
    assert resumed.fingerprint() == whole.fingerprint()


def test_what_is_left_answers_as_the_best_epoch_did():
    """With the running statistics that it had."""
    head, history, (features, targets) = pretrained(batch_norm=True)
    losses = [entry["nll"] for entry in history]
    assert min(losses) < losses[-1]  # else the last epoch is what any training leaves
    with torch.no_grad():
        assert float(F.cross_entropy(head(features, mode="base"), targets)) == pytest.approx(min(losses), abs=1e-5)
