"""A head that begins at the probe answers as scikit-learn's logistic regression does, and training never leaves it worse."""

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from sklearn.linear_model import LogisticRegression

from comodulation.data import Partition
from comodulation.data.features import Features
from comodulation.networks import ComodulatedHead
from comodulation.networks.readouts import Questions
from comodulation.processes import Processes
from comodulation.tasks import TaskFamily
from comodulation.training import TrainingSettings, Venue, pretrain, pretraining, pretraining_targets
from comodulation.training.pretraining import channel_moments
from comodulation.training.probe_start import begin_at_probe

ROWS = torch.arange(400)
PARTS = Partition(ROWS[:300], ROWS[300:], ROWS[:0], ROWS[:0])


def images(classes=3):
    """Features of noisy classes, on maps whose positions differ."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, len(ROWS))
    centres = rng.normal(size=(classes, 6))
    values = rng.normal(size=(len(ROWS), 6, 2, 2)) * 2 + centres[labels][:, :, None, None] + 3
    return Features(values.astype(np.float32), (), "made"), labels


def begun(features, answers, questions, **options):
    torch.manual_seed(0)
    head = ComodulatedHead(6, questions.num_outputs, 2, start="probe", **options)
    head.standardize(*channel_moments(features, PARTS.pretraining))
    nll = begin_at_probe(head, features, answers, questions, PARTS, 0)
    return head.eval(), nll


@pytest.mark.parametrize(
    "options",
    [{}, {"residual": False}, {"kernel_size": 3}, {"depth": 3}, {"encoder_skip": 0.4, "decoder_skip": 0.7, "depth": 2}],
    ids=str,
)
def test_it_is_logistic_regression_on_pooled_features_whatever_the_layers_are(options):
    """scikit-learn's, at the strength that the head chose: found from its own weights by the first-order condition."""
    features, labels = images()
    head, nll = begun(
        features,
        torch.from_numpy(labels)[:, None],
        Questions((3,)),
        kernel_size=options.pop("kernel_size", 1),
        **options,
    )
    pooled = features.array.mean((2, 3))
    mean, std = pooled[:300].mean(0), pooled[:300].std(0)
    x = (pooled - mean) / std
    found = head(features.rows(ROWS), mode="base").softmax(-1).numpy(force=True)
    strengths = [10.0 ** (power / 2) for power in range(2, -11, -1)]
    fitted = [
        LogisticRegression(C=1 / (300 * s), tol=1e-8, max_iter=5000).fit(x[:300], labels[:300]) for s in strengths
    ]
    given = [one.predict_proba(x[300:])[np.arange(100), labels[300:]] for one in fitted]
    # Half an answer of a hundred is taken to have been wrong.
    best = int(np.argmin([-np.log(own).mean() - 0.5 / 100 * np.log(1 - own).mean() for own in given]))
    np.testing.assert_allclose(found, fitted[best].predict_proba(x), atol=1e-3)
    assert nll == pytest.approx(-np.log(given[best]).mean(), abs=1e-3)


def test_every_task_mode_begins_at_the_probe_too():
    """Before any controller has learned, gains are 1: nothing of the probe is lost to the neurons that are modulated."""
    features, labels = images()
    head, _ = begun(features, torch.from_numpy(labels)[:, None], Questions((3,)), kernel_size=1, link="exponential")
    rows = features.rows(ROWS[:9])
    base = head(rows, mode="base")
    for mode in ("attention", "comodulation"):
        assert torch.equal(head(rows, torch.zeros(9, dtype=torch.int64), mode), base)
    assert float(base.detach().std()) > 0.1


@pytest.mark.parametrize("kind", ["classes", "columns", "binary"])
def test_pretraining_is_never_left_worse_than_the_probe(kind):
    """With a learning rate that destroys the layers, the probe is kept, bit for bit; with a good one, an epoch is better."""
    features, labels = images(4)
    if kind == "classes":
        family = TaskFamily.from_groups(labels // 2, labels, ["a", "b"], list("abcd"))
        targets = pretraining_targets(family, [labels // 2, labels])
    elif kind == "columns":
        family = TaskFamily.from_columns(["one", "two"], [["x", "y"], list("abcd")])
        columns = [np.where(labels == 3, -1, labels // 2).clip(max=1), labels]
        targets = pretraining_targets(family, columns)
    else:
        family = TaskFamily.from_attributes(["one", "two"])
        targets = pretraining_targets(family, [labels % 2, labels // 2])
    fabric = Fabric(accelerator="cpu", devices=1)
    found = {}
    for rate in (1e-9, 30.0):
        torch.manual_seed(0)
        head = ComodulatedHead(6, family.num_outputs, 2, start="probe", kernel_size=1, feature_dropout=0.0, dropout=0.0)
        settings = TrainingSettings(epochs=2, learning_rate=rate)
        history = pretrain(head, features, targets, PARTS, settings, Venue(fabric), family, seed=0)
        found[rate] = head.eval()(features.rows(ROWS), mode="base"), min(entry["nll"] for entry in history)
    assert found[30.0][1] > found[1e-9][1] + 0.01
    torch.testing.assert_close(found[30.0][0], found[1e-9][0], atol=1e-4, rtol=1e-4)


def test_heads_that_begin_at_random_have_no_probe_and_unknown_starts_are_refused():
    with pytest.raises(ValueError, match="start='probe'"):
        ComodulatedHead(6, 3, 2).set_probe(torch.zeros(3, 6), torch.zeros(3))
    with pytest.raises(ValueError, match="start"):
        ComodulatedHead(6, 3, 2, start="prob")


def test_what_decides_which_epoch_is_kept_is_the_first_process_s(monkeypatch):
    """Two machines may differ in the last bit of the probe's NLL: each would keep the parameters of another epoch."""
    agreed = []
    monkeypatch.setattr(Processes, "agree", lambda self, value: agreed.append(value) or value)
    monkeypatch.setattr(pretraining, "begin_at_probe", lambda *given: 0.125)
    features, labels = images()
    head = ComodulatedHead(6, 3, 2, start="probe", kernel_size=1)
    venue = Venue(Fabric(accelerator="cpu", devices=1))
    pretrain(head, features, torch.from_numpy(labels), PARTS, TrainingSettings(epochs=1), venue, seed=0)
    assert 0.125 in agreed
