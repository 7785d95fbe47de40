"""Metrics, with their arithmetic by hand, and against scikit-learn and scipy as oracles."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn import metrics as sklearn_metrics

from comodulation.evaluation.scores import (
    ECE_BINS,
    METRICS,
    Predictions,
    balanced_accuracy,
    evaluate_predictions,
    metrics,
)

# Three predictions over three classes; the second is wrong.
PROBABILITIES = [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.05, 0.05, 0.9]]
TARGETS = [0, 1, 2]


def by_bins(confidence, correct, bins=15):
    """Expected calibration error, from its definition: bins ((b - 1) / n, b / n], weights by their share."""
    total = 0.0
    for place in range(bins):
        inside = (confidence > place / bins) & (confidence <= (place + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


def test_by_hand():
    """accuracy 2/3; NLL -(ln 0.7 + ln 0.3 + ln 0.9) / 3 = 0.5552; Brier (0.14 + 0.78 + 0.015) / 3; ECE below."""
    values = metrics(torch.tensor(PROBABILITIES, dtype=torch.float64).log(), torch.tensor(TARGETS))
    assert values["accuracy"] == 2 / 3
    assert values["nll"] == pytest.approx(-(np.log(0.7) + np.log(0.3) + np.log(0.9)) / 3, rel=1e-12)
    # 0.3^2 + 0.2^2 + 0.1^2 = 0.14;  0.5^2 + 0.7^2 + 0.2^2 = 0.78;  0.05^2 + 0.05^2 + 0.1^2 = 0.015
    assert values["brier"] == pytest.approx((0.14 + 0.78 + 0.015) / 3, rel=1e-12)
    # Confidences 0.7, 0.5, 0.9 lie in three bins of width 1/15: gaps 1 - 0.7, 0.5 - 0, 1 - 0.9, each of weight 1/3.
    assert values["ece"] == pytest.approx((0.3 + 0.5 + 0.1) / 3, abs=1e-7)
    assert values["count"] == 3


def test_calibration_within_a_bin():
    """Four predictions of confidence 0.75, three of them right, are perfectly calibrated; all right, they miss by 0.25."""
    logs = torch.tensor([[0.75, 0.25]] * 4, dtype=torch.float64).log()
    assert metrics(logs, torch.tensor([0, 0, 0, 1]))["ece"] == pytest.approx(0, abs=1e-7)
    assert metrics(logs, torch.tensor([0, 0, 0, 0]))["ece"] == pytest.approx(0.25, abs=1e-7)


def test_there_are_fifteen_bins():
    """Confidences 0.60 and 0.66 share the bin (9/15, 10/15] but not a bin of ten: errors that cancel tell the two apart."""
    assert ECE_BINS == 15
    logs = torch.tensor([[0.61, 0.39], [0.66, 0.34]], dtype=torch.float64).log()
    # One bin of accuracy 1/2 and mean confidence 0.635; with ten bins (0.6, 0.7] the same, with twenty bins 0.39 + 0.34.
    assert metrics(logs, torch.tensor([0, 1]))["ece"] == pytest.approx(0.135, abs=1e-7)
    logs = torch.tensor([[0.66, 0.34], [0.68, 0.32]], dtype=torch.float64).log()
    # 10/15 = 0.667 lies between them: |1 - 0.66| / 2 + |0 - 0.68| / 2 = 0.51, where ten bins would give 0.17.
    assert metrics(logs, torch.tensor([0, 1]))["ece"] == pytest.approx(0.51, abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(2, 12), st.integers(0, 10_000), st.floats(0.1, 30))
def test_against_independent_libraries(count, classes, seed, scale):
    rng = np.random.default_rng(seed)
    logits, targets = scale * rng.normal(size=(count, classes)), rng.integers(classes, size=count)
    logs = logits - logsumexp(logits, 1, keepdims=True)
    values = metrics(torch.from_numpy(logs), torch.from_numpy(targets))
    probabilities = np.exp(logs)
    assert values["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(targets, probabilities.argmax(1)))
    assert values["nll"] == pytest.approx(-logs[np.arange(count), targets].clip(min=-100).mean())
    if probabilities.min() > 1e-12:  # smaller ones scikit-learn clips at another place
        assert values["nll"] == pytest.approx(sklearn_metrics.log_loss(targets, probabilities, labels=range(classes)))
    one_hot = np.eye(classes)[targets]
    assert values["brier"] == pytest.approx(((probabilities - one_hot) ** 2).sum(1).mean())
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == targets
    assert values["ece"] == pytest.approx(by_bins(confidence, correct), abs=1e-6)


def test_how_many_predictions_are_looked_at_together_changes_no_bit(monkeypatch):
    torch.manual_seed(0)
    logs, targets = torch.randn(1000, 7).log_softmax(1), torch.randint(7, (1000,))
    whole = metrics(logs, targets)
    monkeypatch.setattr("comodulation.evaluation.scores.BLOCK", 99)
    assert metrics(logs, targets) == whole


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_balanced_accuracy_against_scikit_learn(pairs):
    """Classes that do not occur among the targets count for nothing."""
    said, due = np.array(pairs).T
    value = balanced_accuracy(
        torch.nn.functional.one_hot(torch.from_numpy(said), 4).double().log(), torch.from_numpy(due)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # y_pred contains classes not in y_true
        assert value == pytest.approx(sklearn_metrics.balanced_accuracy_score(due, said))


def test_certain_predictions():
    """A restricted readout gives probability exactly 0 to other classes: finite metrics, a bounded NLL, no warning."""
    logs = torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]])
    values = metrics(logs, torch.tensor([0, 1]))
    assert values == {"accuracy": 0.5, "nll": 50.0, "brier": 1.0, "ece": pytest.approx(0.5, abs=1e-7), "count": 2}


def test_certain_and_nearly_certain_predictions_share_the_last_bin():
    """Confidence 1 has no bin of its own: two wrong at 1 and two right at 0.98 are one bin of the fifteen."""
    logs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.98, 0.02], [0.98, 0.02]], dtype=torch.float64).log()
    # Mean confidence 0.99, accuracy 1/2: 0.49. Apart: |0 - 1| / 2 + |1 - 0.98| / 2 = 0.51.
    assert metrics(logs, torch.tensor([1, 1, 0, 0]))["ece"] == pytest.approx(0.49, abs=1e-6)


def test_probabilities_that_rounding_left_above_one():
    """A log probability of +1e-7, as an average over samples may give, must not be read as a logit."""
    logs = torch.tensor([[1e-7, -40.0], [0.6, 0.4], [0.7, 0.3]])
    logs[1:] = logs[1:].log()
    clean = logs.clamp(max=0)
    targets = torch.tensor([0, 1, 0])
    assert metrics(logs, targets) == pytest.approx(metrics(clean, targets), abs=1e-6)
    assert metrics(logs, targets)["ece"] == pytest.approx((0 + 0.6 + 0.3) / 3, abs=1e-6)
    assert metrics(logs[:1], targets[:1])["nll"] == 0  # and not below


def test_no_predictions():
    with pytest.raises(ValueError, match="no predictions"):
        metrics(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))


def test_tasks_macro_and_worst():
    """Two tasks of unequal size: overall weighs pairs, macro weighs tasks; the third task has no label and is left out."""
    logs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.4, 0.6]], dtype=torch.float64).log()
    targets, tasks = torch.tensor([0, 0, 1, 0]), torch.tensor([0, 0, 0, 2])
    result = evaluate_predictions(Predictions(torch.arange(4), tasks, targets, logs), ["a", "b", "c"])
    assert result["accuracy"] == 0.5
    assert list(result["tasks"]) == ["a", "c"]
    assert result["tasks"]["a"] == {**metrics(logs[:3], targets[:3]), "balanced_accuracy": 0.5, "majority": 2 / 3}
    assert result["tasks"]["c"]["majority"] == 1
    assert (result["majority"], result["macro"]["majority"]) == (3 / 4, pytest.approx(5 / 6))
    assert result["macro"]["balanced_accuracy"] == pytest.approx((1 / 2 + 0) / 2)
    assert result["tasks"]["a"]["accuracy"] == 2 / 3
    assert result["tasks"]["c"]["accuracy"] == 0.0
    assert result["macro"]["accuracy"] == pytest.approx((2 / 3 + 0) / 2)
    # NLL of a: -(2 ln 0.9 + ln 0.1) / 3 = 0.838; of c: -ln 0.4 = 0.916.
    assert result["macro"]["nll"] == pytest.approx((-(2 * np.log(0.9) + np.log(0.1)) / 3 - np.log(0.4)) / 2)
    assert result["worst"]["accuracy"] == {"task": "c", "value": 0.0}
    assert result["worst"]["nll"] == {"task": "c", "value": pytest.approx(-np.log(0.4))}
    # Brier of a: (2 * 0.02 + 1.62) / 3 = 0.553; of c: 0.72. ECE of a: |2/3 - 0.9|; of c: 0.6.
    assert result["worst"]["brier"] == {"task": "c", "value": pytest.approx(0.72)}
    assert result["worst"]["ece"] == {"task": "c", "value": pytest.approx(0.6, abs=1e-7)}
    assert result["count"] == sum(values["count"] for values in result["tasks"].values())
    assert set(METRICS) < set(result)
