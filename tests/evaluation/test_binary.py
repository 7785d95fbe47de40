"""Metrics of binary tasks: by hand, against scikit-learn, and where they are undefined."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from comodulation.errors import InputError
from comodulation.evaluation.binary import BINARY_METRICS, binary_metrics, evaluate_binary, relative_improvement
from comodulation.evaluation.scores import Predictions


def logs(said):
    """Log-probabilities ``(M, 2)`` that say yes where ``said`` is 1."""
    yes = torch.tensor([0.9 if value else 0.2 for value in said], dtype=torch.float64)
    return torch.stack([1 - yes, yes], 1).log()


def test_by_hand():
    """Of four yes three are found (recall 3/4), among five said (precision 3/5); of six no four are kept."""
    targets = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    values = binary_metrics(logs([1, 1, 1, 0, 1, 1, 0, 0, 0, 0]), torch.tensor(targets))
    assert values["accuracy"] == 7 / 10
    assert values["balanced_accuracy"] == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert (values["precision"], values["recall"]) == (3 / 5, 3 / 4)
    assert values["f1"] == pytest.approx(2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4))
    assert (values["count"], values["positives"]) == (10, 4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_against_scikit_learn(pairs):
    """Where a metric is defined it is scikit-learn's (zero_division=0); it is nan exactly where a class is absent."""
    said, due = np.array(pairs).T
    values = binary_metrics(logs(said), torch.from_numpy(due))
    assert values["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(due, said))
    if due.any():
        for name in ("precision", "recall", "f1"):
            oracle = getattr(sklearn_metrics, f"{name}_score")(due, said, zero_division=0)
            assert values[name] == pytest.approx(oracle)
    else:
        assert all(math.isnan(values[name]) for name in ("precision", "recall", "f1"))
    if 0 < due.sum() < len(due):
        assert values["balanced_accuracy"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(due, said))
    else:
        assert math.isnan(values["balanced_accuracy"])


def test_no_predicted_yes_is_zero_and_no_yes_at_all_is_nan():
    values = binary_metrics(logs([0, 0, 0]), torch.tensor([1, 0, 0]))
    assert [values[name] for name in ("precision", "recall", "f1", "balanced_accuracy")] == [0, 0, 0, 0.5]
    values = binary_metrics(logs([1, 0, 0]), torch.tensor([0, 0, 0]))
    assert values["accuracy"] == 2 / 3
    assert all(math.isnan(values[name]) for name in ("precision", "recall", "f1", "balanced_accuracy"))
    values = binary_metrics(logs([1, 0]), torch.tensor([1, 1]))
    assert (values["precision"], values["recall"]) == (1, 0.5)
    assert math.isnan(values["balanced_accuracy"])


def test_equal_probabilities_are_a_no():
    """As argmax has it, by which ``evaluation.metrics`` counts accuracy."""
    even = torch.full((2, 2), 0.5).log()
    assert binary_metrics(even, torch.tensor([0, 1]))["recall"] == 0


def test_exchanging_yes_and_no():
    """Balanced accuracy and accuracy do not know which answer is called yes; precision does."""
    rng = np.random.default_rng(0)
    said, due = rng.integers(0, 2, (2, 50))
    there, back = (binary_metrics(logs(a), torch.from_numpy(b)) for a, b in ((said, due), (1 - said, 1 - due)))
    assert there["accuracy"] == back["accuracy"]
    assert there["balanced_accuracy"] == pytest.approx(back["balanced_accuracy"])
    assert there["precision"] != back["precision"]


def test_what_cannot_be_evaluated():
    with pytest.raises(ValueError, match="no predictions to evaluate"):
        binary_metrics(torch.empty(0, 2), torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"log-probabilities \(2, 3\), expected \(2, 2\)"):
        binary_metrics(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="targets of a binary task are 0 or 1"):
        binary_metrics(torch.zeros(2, 2), torch.tensor([0, -1]))


def predictions(rows):
    """Rows of task, prediction and target."""
    task, said, due = torch.tensor(rows).T
    return Predictions(torch.arange(len(rows)), task, due, logs(said.tolist()))


ROWS = [
    (0, 1, 1),
    (0, 0, 1),
    (0, 0, 0),
    (1, 1, 1),
    (1, 1, 0),
    (2, 0, 0),
    (2, 1, 0),
]  # task 2 has no yes, task 3 no label
TASKS = ("hat", "hair", "beard", "nose")


def test_tasks_means_and_groups():
    """A mean is over the tasks where the metric is defined, and says of how many."""
    result = evaluate_binary(predictions(ROWS), TASKS, {"head": ("hat", "hair"), "face": ("beard", "nose")})
    assert list(result["tasks"]) == ["hat", "hair", "beard"]
    assert result["tasks"]["hat"]["recall"] == 0.5
    macro = result["macro"]
    assert macro["accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3)
    assert macro["precision"] == pytest.approx((1 + 1 / 2) / 2)
    assert macro["recall"] == pytest.approx((1 / 2 + 1) / 2)
    assert macro["counted"] == dict(accuracy=3, balanced_accuracy=2, precision=2, recall=2, f1=2)
    assert result["groups"]["head"]["accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    face = result["groups"]["face"]
    assert (face["accuracy"], face["counted"]["accuracy"], face["counted"]["f1"]) == (0.5, 1, 0)
    assert math.isnan(face["f1"])


def test_macro_is_scikit_learns_mean_over_columns():
    """A full table of labels is a multilabel problem: ``average="macro"`` over its columns."""
    rng = np.random.default_rng(1)
    due, said = rng.integers(0, 2, (2, 40, 5))
    image, task = (torch.from_numpy(place.ravel()) for place in np.indices(due.shape))
    given_ = Predictions(image, task, torch.from_numpy(due.ravel()), logs(said.ravel()))
    macro = evaluate_binary(given_, tuple("abcde"))["macro"]
    for name in ("precision", "recall", "f1"):
        with warnings.catch_warnings():
            oracle = getattr(sklearn_metrics, f"{name}_score")(due, said, average="macro", zero_division=0)
        assert macro[name] == pytest.approx(oracle)


def test_a_single_group_of_all_tasks_is_macro():
    result = evaluate_binary(predictions(ROWS), TASKS, {"all": TASKS})
    for name in BINARY_METRICS:
        assert result["groups"]["all"][name] == pytest.approx(result["macro"][name])


def test_groups_of_unknown_tasks_and_no_predictions():
    with pytest.raises(InputError, match="unknown task 'hats'; did you mean 'hat'"):
        evaluate_binary(predictions(ROWS), TASKS, {"head": ("hats",)})
    with pytest.raises(ValueError, match="no predictions to evaluate"):
        evaluate_binary(predictions(ROWS[:1]).__class__(*[torch.empty(0)] * 3, torch.empty(0, 2)), TASKS)


def test_relative_improvement():
    """(0.6 - 0.5) / 0.5 = 0.2 and (0.4 - 0.8) / 0.8 = -0.5: their mean is -0.15, not the ratio of the means."""
    result = relative_improvement({"a": 0.6, "b": 0.4}, {"a": 0.5, "b": 0.8})
    assert result.mean == pytest.approx(-0.15)
    assert (result.counted, result.ignored) == (2, ())


def test_relative_improvement_leaves_out_what_has_no_ratio():
    hard = {"a": 0.5, "zero": 0.0, "unknown": math.nan, "lost": 0.5}
    result = relative_improvement({"a": 0.75, "zero": 0.3, "unknown": 0.4, "lost": math.nan}, hard)
    assert (result.mean, result.counted, result.ignored) == (0.5, 1, ("zero", "unknown", "lost"))
    nothing = relative_improvement({"a": 0.3}, {"a": 0.0})
    assert math.isnan(nothing.mean)
    assert (nothing.counted, nothing.ignored) == (0, ("a",))
    with pytest.raises(ValueError, match="different tasks cannot be compared; only on one side: b"):
        relative_improvement({"a": 0.5}, {"a": 0.5, "b": 0.5})
