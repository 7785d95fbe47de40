"""The primary task of columns: the mean of their cross-entropies over the labels that are there."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from comodulation.head import ComodulatedHead
from comodulation.methods import make_method
from comodulation.pretraining import Pretraining, pretraining_targets
from comodulation.tasks import TaskFamily

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
