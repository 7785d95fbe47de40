"""Calibration against known answers: predictors that are calibrated, or wrong by a known temperature, by construction."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from comodulation.analysis.calibration import apply_temperature, fit_temperature, perfect_ece, reliability
from comodulation.evaluation import Predictions, evaluate_predictions, metrics


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


def test_temperature_scales_with_the_logits_and_ignores_their_constants():
    logs, targets = predictor(1000)
    fitted = fit_temperature(logs, targets)
    assert fit_temperature(3 * logs, targets) == pytest.approx(3 * fitted, rel=1e-5)
    assert fit_temperature(logs + torch.randn(1000, 1), targets) == pytest.approx(fitted, rel=1e-5)


def test_temperature_zeroes_the_derivative():
    """At the minimum over 1 / T the expected logit equals the targets' mean logit."""
    logs, targets = predictor(1000)
    scaled = apply_temperature(logs, fit_temperature(logs, targets)).exp()
    expected = (scaled * logs).sum(1).mean()
    assert float(expected) == pytest.approx(float(logs.gather(1, targets[:, None]).mean()), abs=1e-6)


def test_masked_classes_stay_masked():
    logs, targets = predictor(1000, classes=3)
    masked = torch.cat([logs, torch.full((1000, 4), -math.inf, dtype=torch.float64)], 1)
    fitted = fit_temperature(masked, targets)
    assert fitted == pytest.approx(fit_temperature(logs, targets), rel=1e-6)
    cooled = apply_temperature(masked, fitted)
    assert bool((cooled[:, 3:] == -math.inf).all())
    torch.testing.assert_close(cooled[:, :3], apply_temperature(logs, fitted))
    assert math.isfinite(perfect_ece(masked, draws=10).mean)


@pytest.mark.parametrize(("hit", "end"), [(True, 0.05), (False, 20.0)])
def test_always_right_and_always_wrong_give_the_ends_of_the_range(hit, end):
    """Moderate logits: without a minimum inside, the NLL falls towards one end."""
    logs = torch.tensor([[0.6, 0.4]]).log().repeat(10, 1)
    targets = torch.full((10,), 0 if hit else 1)
    assert fit_temperature(logs, targets) == pytest.approx(end)


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
