"""Answers for balanced accuracy and F1: what is optimal where probabilities are right, and what is better where data are real."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from comodulation.evaluation import (
    DECISION_METRICS,
    Predictions,
    decide,
    decision_score,
    evaluate_predictions,
    find_offsets,
    yes_from,
)


def calibrated(number, classes, rare, seed=0):
    """Probabilities ``(M, C)`` of which the first classes are frequent, and labels that are drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (number, classes)) - rare * np.arange(classes)
    p = torch.from_numpy(logits).softmax(1)
    return p.log(), torch.multinomial(p, 1, generator=torch.Generator().manual_seed(seed))[:, 0]


# ---- optimal where probabilities are right ----


def test_the_threshold_of_f1_is_half_of_the_best_f1():
    logs, labels = calibrated(60_000, 2, 2.5)
    offsets = find_offsets(logs, labels, "f1", binary=True)
    best = decision_score("f1", labels, decide(logs, offsets), binary=True)
    assert yes_from(offsets) == pytest.approx(best / 2, abs=0.015)
    assert best > decision_score("f1", labels, logs.argmax(1), binary=True) + 0.02


def test_the_threshold_of_balanced_accuracy_is_the_share_of_yes():
    logs, labels = calibrated(60_000, 2, 2.5)
    assert yes_from(find_offsets(logs, labels, "balanced_accuracy", binary=True)) == pytest.approx(
        float(labels.double().mean()), abs=0.02
    )


def test_offsets_of_balanced_accuracy_are_the_logarithms_of_the_shares():
    logs, labels = calibrated(20_000, 5, 1.0)
    offsets = find_offsets(logs, labels, "balanced_accuracy", binary=False)
    share = labels.bincount().double() / len(labels)
    assert offsets.numpy() == pytest.approx(-(share / share.max()).log().numpy(), rel=0.12, abs=0.05)


def test_no_other_offsets_of_a_binary_task_do_better_on_expected_counts():
    """The threshold against every other one, by an independent count on labels alone, with the expected half taken away."""
    logs, labels = calibrated(4_000, 2, 1.5, seed=3)
    for metric, score in (("f1", f1_score), ("balanced_accuracy", balanced_accuracy_score)):
        offsets = find_offsets(logs, labels, metric, binary=True)
        found = score(labels.numpy(), decide(logs, offsets).numpy())
        grid = [score(labels.numpy(), (logs[:, 1].exp() >= t).long().numpy()) for t in np.linspace(0.01, 0.99, 99)]
        assert found > max(grid) - 0.01
        assert found == pytest.approx(decision_score(metric, labels, decide(logs, offsets), binary=True))


# ---- what does not change ----


@pytest.mark.parametrize("binary", [True, False])
def test_accuracy_answers_the_most_probable(binary):
    logs, labels = calibrated(500, 2 if binary else 4, 1.0)
    assert not find_offsets(logs, labels, "accuracy", binary=binary).any()
    assert torch.equal(decide(logs, torch.zeros(logs.shape[1])), logs.argmax(1))


@pytest.mark.parametrize("metric", DECISION_METRICS)
def test_a_task_with_one_class_of_labels_is_left_alone(metric):
    logs, _ = calibrated(50, 3, 1.0)
    assert not find_offsets(logs, torch.ones(50, dtype=torch.int64), metric, binary=False).any()
    assert not find_offsets(logs[:, :2].log_softmax(1), torch.zeros(50, dtype=torch.int64), metric, binary=True).any()


@pytest.mark.parametrize("metric", DECISION_METRICS[1:])
@pytest.mark.parametrize("binary", [True, False])
def test_degenerate_probabilities(metric, binary):
    """All alike, or certain: offsets are numbers, and certain answers stay."""
    classes = 2 if binary else 3
    labels = torch.tensor([0, 1] * 20)
    even = torch.full((40, classes), 1 / classes).log()
    assert find_offsets(even, labels, metric, binary=binary).isfinite().all()
    sure = torch.full((40, classes), 0.0).scatter(1, labels[:, None], 1.0).log()
    offsets = find_offsets(sure, labels, metric, binary=binary)
    assert offsets.isfinite().all()
    assert torch.equal(decide(sure, offsets), labels)


def test_scores_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    given = torch.from_numpy(labels), torch.from_numpy(answers)
    assert decision_score("f1", *given, binary=False) == pytest.approx(f1_score(labels, answers, average="macro"))
    assert decision_score("balanced_accuracy", *given, binary=False) == pytest.approx(
        balanced_accuracy_score(labels, answers)
    )
    assert decision_score("accuracy", *given, binary=False) == pytest.approx((labels == answers).mean())
    assert decision_score("f1", given[0] % 2, given[1] % 2, binary=True) == pytest.approx(
        f1_score(labels % 2, answers % 2)
    )


def test_metrics_of_decided_answers():
    """Accuracy and confidence are the answer's; NLL and Brier score are the probabilities'."""
    logs, labels = calibrated(400, 3, 1.0)
    zeros, answers = torch.zeros(400, dtype=torch.int64), decide(logs, torch.tensor([0.0, 1.0, 2.0]))
    plain = evaluate_predictions(Predictions(zeros, zeros, labels, logs), ["t"])
    other = evaluate_predictions(Predictions(zeros, zeros, labels, logs, answers), ["t"])
    assert (other["nll"], other["brier"]) == (plain["nll"], plain["brier"])
    assert other["accuracy"] == pytest.approx(float((answers == labels).double().mean()))
    assert other["tasks"]["t"]["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, answers))
    same = evaluate_predictions(Predictions(zeros, zeros, labels, logs, logs.argmax(1)), ["t"])
    assert same == plain


# ---- real data ----


@pytest.fixture(scope="module")
def draws():
    """Ten draws of digits with few eights, seen through three columns of pixels: answers out of fold and to a test half."""
    images, names = load_digits(return_X_y=True)
    rows = np.flatnonzero(names != 8)
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        kept = rng.permutation(np.concatenate([rows, rng.choice(np.flatnonzero(names == 8), 80, replace=False)]))
        x, y = images[kept].reshape(-1, 8, 8)[:, :, 2:5].reshape(len(kept), -1) / 16, names[kept] == 8
        half = len(kept) // 2
        model = LogisticRegression(C=1.0, max_iter=500)
        fold = StratifiedKFold(5, shuffle=True, random_state=seed)
        unseen = cross_val_predict(model, x[:half], y[:half], cv=fold, method="predict_log_proba")
        tested = model.fit(x[:half], y[:half]).predict_log_proba(x[half:])
        labels = (torch.from_numpy(part.astype(np.int64)) for part in (y[:half], y[half:]))
        found.append((torch.from_numpy(unseen), torch.from_numpy(tested), *labels))
    return found


@pytest.mark.parametrize(("metric", "gain"), [("f1", 0.1), ("balanced_accuracy", 0.1)])
def test_a_rare_class_is_answered_better_than_from_a_half_on(draws, metric, gain):
    """On images that taught neither network nor threshold: better in the mean by ``gain``, and in nine draws of ten."""
    gains = []
    for unseen, tested, known, labels in draws:
        offsets = find_offsets(unseen, known, metric, binary=True)
        scores = [
            decision_score(metric, labels, said, binary=True) for said in (decide(tested, offsets), tested.argmax(1))
        ]
        gains.append(scores[0] - scores[1])
    assert np.mean(gains) > gain
    assert np.sum(np.array(gains) > 0) >= 9
