"""What fine-tuning shows a method before it trains, and how it weighs examples of rare classes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from sklearn.utils.class_weight import compute_class_weight

from comodulation.data.features import Features
from comodulation.evaluation import balanced_accuracy
from comodulation.networks import ComodulatedHead
from comodulation.networks.methods import make_method
from comodulation.runs import RunConfig
from comodulation.tasks import TaskFamily
from comodulation.training.inputs import Inputs
from comodulation.training.loop import TrainingSettings, Venue
from comodulation.training.tuning import class_weights, predict, tune

FAMILY = TaskFamily.from_attributes(("p", "q", "r"))


@pytest.mark.parametrize("missing", [False, True])
def test_images_with_all_labels_are_seen_once(missing):
    """The task response is that of every (image, task) pair, whether labels are missing or not."""
    rng = np.random.default_rng(0)
    columns = [rng.integers(2, size=12) for _ in FAMILY.tasks]
    if missing:
        columns[1][3:7] = -1
    examples = FAMILY.examples(columns)
    torch.manual_seed(0)
    head = ComodulatedHead(4, 3, 3, encoder_channels=6, decoder_channels=5, hidden=8)
    method = make_method("comodulation", head, FAMILY)
    features = Features(rng.random((12, 4, 2, 2)).astype(np.float16), (), "test")
    inputs = Inputs(method, features, examples.image.unique())
    config = RunConfig(data="d", attributes=FAMILY.tasks, tuning=TrainingSettings(epochs=1))
    tune_on(method, inputs, examples, config)
    found = head.response
    head.observe([(inputs.rows(examples.image), examples.task)])
    torch.testing.assert_close(found.jacobian, head.response.jacobian)
    torch.testing.assert_close(found.mean, head.response.mean)
    assert torch.equal(found.jacobian[0], found.jacobian[1]) != missing


# ---- imbalance ----

MIXED = TaskFamily.from_columns(["striped", "size"], [("no", "yes"), ("s", "m", "l")])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 2)), min_size=1, max_size=40))
def test_class_weights_make_classes_weigh_the_same(rows):
    """Within each task: mean weight 1 over its examples, and the same total for every class that occurs; scikit-learn agrees."""
    examples = MIXED.examples([np.array(column) for column in zip(*rows, strict=True)])
    weights = class_weights(MIXED, examples)
    assert weights.shape == (2, 5)
    for task, group in enumerate(MIXED.members):
        targets = examples.target[examples.task == task]
        if not len(targets):
            assert (weights[task] == 0).all()
            continue
        own = weights[task, targets]
        assert float(own.mean()) == pytest.approx(1)
        totals = [float(own[targets == output].sum()) for output in group if bool((targets == output).any())]
        assert totals == pytest.approx([len(targets) / len(totals)] * len(totals))
        present = targets.unique().numpy()
        oracle = compute_class_weight("balanced", classes=present, y=targets.numpy())
        assert weights[task, present].tolist() == pytest.approx(oracle.tolist())
        assert float(weights[task].sum()) == pytest.approx(oracle.sum())


def tune_on(method, inputs, examples, config):
    """Train and validate on the same examples."""
    fabric = Fabric(accelerator="cpu", devices=1)
    return tune(
        method, inputs, examples, examples, config.tuning, Venue(fabric), seed=config.seed, balance=config.balance
    )  # fmt: skip


def fitted_bias(balance, targets, readings):
    """A task bias alone, trained on examples of which nothing can be seen: it learns the prior the loss implies."""
    family = TaskFamily.from_columns(["size"], [("s", "m", "l")])
    examples = family.examples([targets])
    torch.manual_seed(0)
    head = ComodulatedHead(4, 3, 1, encoder_channels=6, decoder_channels=5, hidden=8)
    method = make_method("task-bias", head, family)
    features = Features(np.zeros((len(targets), 4, 2, 2), np.float16), (), "test")
    inputs = Inputs(method, features, examples.image.unique())
    config = RunConfig(
        data="d", tasks=("size",), balance=balance,
        tuning=TrainingSettings(epochs=300, learning_rate=0.2, batch_size=len(targets)),
    )  # fmt: skip
    history = tune_on(method, inputs, examples, config)
    readings.append(history[-1]["nll"])
    return predict(method, inputs, examples).log_probabilities[0].exp(), class_weights(family, examples)[0]


def test_balance_predicts_as_if_classes_were_equally_common():
    """From blank images the plain loss learns the frequencies 8 : 3 : 1, the balanced one equal probabilities.

    The two differ by the weights, p * w normalised, which is what the docstring of ``class_weights`` says of calibration; and
    the NLL that chooses the epoch is that of the balanced prior, ln 3.
    """
    targets, readings = np.array([0] * 64 + [1] * 24 + [2] * 8), []
    plain, weights = fitted_bias("none", targets, readings)
    balanced, _ = fitted_bias("classes", targets, readings)
    torch.testing.assert_close(plain, torch.tensor([8, 3, 1]) / 12, rtol=0, atol=5e-3)
    torch.testing.assert_close(balanced, torch.full((3,), 1 / 3), rtol=0, atol=5e-3)
    shifted = plain * weights
    torch.testing.assert_close(balanced, shifted / shifted.sum(), rtol=0, atol=1e-2)
    entropy = -sum(p * np.log(p) for p in (8 / 12, 3 / 12, 1 / 12))
    assert readings == pytest.approx([entropy, np.log(3)], abs=1e-3)


def test_balance_finds_the_rare_class():
    """Two overlapping Gaussians, 19 to 1: weighted, a gain method says the rare one more, and is right for more classes."""
    rng = np.random.default_rng(0)
    targets = (np.arange(400) % 20 == 0).astype(np.int64)
    features = Features(
        (rng.normal(0, 1, (400, 4, 2, 2)) + targets[:, None, None, None]).astype(np.float16), (), "test"
    )
    family = TaskFamily.from_attributes(("rare",))
    examples = family.examples([targets])
    results = {}
    for balance in ("none", "classes"):
        torch.manual_seed(0)
        head = ComodulatedHead(4, 1, 1, encoder_channels=8, decoder_channels=8, hidden=8)
        method = make_method("fine-tuning", head, family)
        inputs = Inputs(method, features, examples.image.unique())
        config = RunConfig(
            data="d", attributes=("rare",), balance=balance,
            tuning=TrainingSettings(epochs=15, learning_rate=3e-3, batch_size=100),
        )  # fmt: skip
        tune_on(method, inputs, examples, config)
        found = predict(method, inputs, examples)
        said = found.log_probabilities.argmax(1).sum()
        results[balance] = int(said), balanced_accuracy(found.log_probabilities, found.target)
    assert results["classes"][0] > results["none"][0]
    assert results["classes"][1] > results["none"][1]
