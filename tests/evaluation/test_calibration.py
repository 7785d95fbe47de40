"""Calibration against known answers: predictors that are calibrated, or wrong by a known temperature, by construction."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from comodulation.evaluation.calibration import (
    PRIOR_ANSWERS,
    apply_temperature,
    fit_temperature,
    perfect_ece,
    reliability,
    stored_temperature,
)
from comodulation.evaluation.scores import Predictions, evaluate_predictions, metrics


def predictor(count: int, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random log-probabilities ``(count, classes)`` and targets drawn from them: calibrated."""
    generator = torch.Generator().manual_seed(seed)
    logs = (1.5 * torch.randn(count, classes, generator=generator, dtype=torch.float64)).log_softmax(1)
    return logs, torch.multinomial(logs.exp(), 1, generator=generator)[:, 0]


def test_reliability_by_hand():
    """Two bins: 0.4 (a hit) below 0.5; 0.6, 0.9 (a hit) above."""
    logs = torch.tensor([[0.4, 0.3, 0.3], [0.6, 0.4, 0.0], [0.05, 0.9, 0.05]], dtype=torch.float64).log()
    r = reliability(logs, torch.tensor([0, 1, 1]), bins=2)
    assert r.count.tolist() == [1, 2]
    assert r.confidence.tolist() == pytest.approx([0.4, 0.75])
    assert r.accuracy.tolist() == [1, 0.5]


def test_reliability_gives_the_ece_of_evaluation_and_scipys_wilson_interval():
    logs, targets = predictor(500)
    logs[0] = torch.tensor([0.0] + [-math.inf] * 4)  # confidence 1 belongs to the last bin
    r = reliability(logs, targets)
    gap = np.nansum(r.count * np.abs(r.accuracy - r.confidence)) / 500
    assert gap == pytest.approx(metrics(logs, targets)["ece"])
    assert r.count.sum() == 500
    for count, accuracy, low, high in zip(r.count, r.accuracy, r.low, r.high, strict=True):
        if count:
            interval = stats.binomtest(round(count * accuracy), count).proportion_ci(method="wilson")
            assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert np.isnan(r.accuracy[r.count == 0]).all()


def test_perfect_ece_of_one_prediction_by_hand():
    """Confidence 0.8: gap 0.2 with probability 0.8, gap 0.8 with probability 0.2; mean 0.32."""
    e = perfect_ece(torch.tensor([[0.8, 0.2]]).log(), draws=4000)
    assert e.mean == pytest.approx(0.32, abs=4 * 0.24 / math.sqrt(4000))
    assert e.high == pytest.approx(0.8)


def test_perfect_ece_is_that_of_calibrated_predictors():
    """Mean over 200 sets of real targets within 4 standard errors; 95% quantile exceeded by about 5%."""
    logs, _ = predictor(300)
    generator = torch.Generator().manual_seed(1)
    sets = [torch.multinomial(logs.exp(), 1, generator=generator)[:, 0] for _ in range(200)]
    shown = np.array([metrics(logs, targets)["ece"] for targets in sets])
    e = perfect_ece(logs, draws=2000)
    assert abs(shown.mean() - e.mean) < 4 * shown.std() / math.sqrt(200)
    assert abs((shown > e.high).mean() - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 200)


def test_perfect_ece_over_tasks_is_that_of_the_macro_mean():
    logs, _ = predictor(300)
    task = torch.arange(300) % 7 // 3  # tasks 0, 1, 2 of different sizes
    generator = torch.Generator().manual_seed(2)
    shown = []
    for _ in range(100):
        targets = torch.multinomial(logs.exp(), 1, generator=generator)[:, 0]
        result = evaluate_predictions(Predictions(torch.arange(300), task, targets, logs), ["a", "b", "c"])
        shown.append(result["macro"]["ece"])
    by_task, pooled = perfect_ece(logs, task), perfect_ece(logs)
    assert abs(np.mean(shown) - by_task.mean) < 4 * np.std(shown) / math.sqrt(100)
    assert by_task.mean > 1.2 * pooled.mean  # fewer predictions a bin, more bias


def test_ece_of_a_wrong_predictor_is_beyond_chance_and_temperature_mends_it():
    logs, targets = predictor(5000)
    sharp = apply_temperature(logs, 1 / 2)
    chance = perfect_ece(sharp, draws=200)
    assert metrics(sharp, targets)["ece"] > 3 * chance.high
    mended = apply_temperature(sharp, fit_temperature(sharp, targets))
    assert metrics(mended, targets)["ece"] < 2 * perfect_ece(mended, draws=200).mean


def test_temperature_of_a_calibrated_predictor_is_one():
    """Over 20 sets: on average within 4 standard errors of 1, so without bias at M = 2000."""
    fitted = [fit_temperature(*predictor(2000, seed=seed)) for seed in range(20)]
    assert abs(np.mean(fitted) - 1) < 4 * np.std(fitted) / math.sqrt(20)
    assert np.std(fitted) < 0.05


def test_temperature_follows_the_logits_and_ignores_their_constants():
    """Three times too sure: T is 3 to what 20,000 answers leave of the prior; a constant a row changes nothing."""
    logs, targets = predictor(20_000)
    fitted = fit_temperature(logs, targets)
    assert fit_temperature(3 * logs, targets) == pytest.approx(3 * fitted, rel=0.005)
    assert fit_temperature(logs + torch.randn(20_000, 1), targets) == pytest.approx(fitted, rel=1e-5)


def test_temperature_zeroes_the_derivative():
    """The expected log-probability equals the weighted mean of the targets' and of what the network itself expects."""
    logs, targets = predictor(30)
    scaled = apply_temperature(logs, fit_temperature(logs, targets)).exp()
    expected = float((scaled * logs).sum(1).mean())
    own, itself = float(logs.gather(1, targets[:, None]).sum()), float((logs.exp() * logs).sum(1).mean())
    assert expected == pytest.approx((own + PRIOR_ANSWERS * itself) / (30 + PRIOR_ANSWERS), abs=1e-9)


def test_temperature_has_the_lowest_nll_of_the_answers_and_the_foretold_ones():
    """By search over a grid, not by the derivative."""
    logs, targets = predictor(12, classes=3, seed=4)
    grid = np.exp(np.linspace(-2, 2, 4001))
    losses = [
        float(-cooled.gather(1, targets[:, None]).sum() - PRIOR_ANSWERS * (logs.exp() * cooled).sum(1).mean())
        for cooled in (apply_temperature(logs, float(temperature)) for temperature in grid)
    ]
    assert fit_temperature(logs, targets) == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)


@pytest.mark.parametrize("number", [4, 10, 1000])
@pytest.mark.parametrize("hits", [0.0, 0.5, 1.0])
def test_a_temperature_says_what_succession_says(number, hits):
    """Equal answers of two classes at confidence c: served is (hits + 10 c) / (number + 10), Laplace's rule of succession."""
    confidence, right = 0.8, round(hits * number)
    logs = torch.tensor([[confidence, 1 - confidence]], dtype=torch.float64).log().repeat(number, 1)
    targets = torch.tensor([0] * right + [1] * (number - right))
    expected = (right + PRIOR_ANSWERS * confidence) / (number + PRIOR_ANSWERS)
    if expected <= 1 / (1 + 0.25 ** (1 / 20)):  # lower than the highest temperature makes it; none turns an answer over
        with pytest.raises(ValueError, match="no temperature"):
            fit_temperature(logs, targets)
        return
    assert float(apply_temperature(logs, fit_temperature(logs, targets))[0].exp()[0]) == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("number", [2, 8, 40])
def test_few_answers_do_no_harm(number, seed):
    """Validation answers that happen all to be right or wrong: new images' NLL stays below 1.5 times what it was."""
    logs, targets = predictor(4000, classes=2, seed=seed)
    right = logs.argmax(1) == targets
    for rows in (right.nonzero()[:number, 0], (~right).nonzero()[:number, 0]):
        try:
            temperature = fit_temperature(logs[rows], targets[rows])
        except ValueError:  # none
            continue
        before, after = (metrics(each, targets)["nll"] for each in (logs, apply_temperature(logs, temperature)))
        assert after < 1.5 * before


def test_where_nothing_can_be_told_the_temperature_is_one():
    assert fit_temperature(torch.zeros(6, 3).log_softmax(1), torch.tensor([0, 1, 2, 0, 0, 0])) == 1
    certain = torch.tensor([[0.0, -math.inf]]).repeat(5, 1)
    assert fit_temperature(certain, torch.zeros(5, dtype=torch.int64)) == 1


def test_a_temperature_at_the_end_of_the_range_is_none():
    """As the first release stored it where all answers were right; what lies inside is believed."""
    ends = (0.05, 0.05000001, 20.0, 19.9999, 1e6, 0.0, -1.0, math.nan, None, "2")
    assert [stored_temperature({"temperature": value}) for value in ends] == [None] * len(ends)
    assert stored_temperature({}) is None
    assert stored_temperature({"temperature": 0.3}) == 0.3


def test_masked_classes_stay_masked():
    logs, targets = predictor(1000, classes=3)
    masked = torch.cat([logs, torch.full((1000, 4), -math.inf, dtype=torch.float64)], 1)
    fitted = fit_temperature(masked, targets)
    assert fitted == pytest.approx(fit_temperature(logs, targets), rel=1e-6)
    cooled = apply_temperature(masked, fitted)
    assert bool((cooled[:, 3:] == -math.inf).all())
    torch.testing.assert_close(cooled[:, :3], apply_temperature(logs, fitted))
    assert math.isfinite(perfect_ece(masked, draws=10).mean)


def test_temperature_keeps_dtype_and_argmax():
    logs = predictor(100)[0].float()
    cooled = apply_temperature(logs, 1.7)
    assert cooled.dtype == torch.float32
    assert torch.equal(cooled.argmax(1), logs.argmax(1))
    torch.testing.assert_close(cooled.exp().sum(1), torch.ones(100))


def test_errors_name_what_was_given():
    logs, targets = torch.tensor([[0.0, -math.inf]] * 3), torch.tensor([0, 1, 1])
    with pytest.raises(ValueError, match="got 2 of 3"):
        fit_temperature(logs, targets)
    with pytest.raises(ValueError, match="got 2 of 6"):
        reliability(torch.where(logs.isinf() & (targets == 1)[:, None], math.nan, logs), targets)
    with pytest.raises(ValueError, match="no predictions"):
        perfect_ece(logs[:0])
    with pytest.raises(ValueError, match="got 0"):
        apply_temperature(logs, 0)
