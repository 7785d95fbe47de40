"""The 2019 paper's known answers, with intervals over populations; and what is told of them."""

from dataclasses import replace

import numpy as np
import pytest

from comodulation.errors import InputError
from comodulation.neuro.decoders import MAXIMUM_LIKELIHOOD
from comodulation.neuro.experiment import DECODERS, PopulationSettings, accuracies, population_study
from comodulation.neuro.figures import population_figure
from comodulation.neuro.population import draw_population
from comodulation.report.figures import svg
from comodulation.statistics import paired_difference

SETTINGS = PopulationSettings(
    learning_trials=(10, 30, 300), strengths=(0.03, 0.5, 2.0), trials=30, seeds=(0, 1, 2, 3), test_trials=1000
)


@pytest.fixture(scope="module")
def study():
    return population_study(SETTINGS)


# Tens of trials: within two points of maximum likelihood, where regression is not and needs many times as many.
def test_modulator_guided_decoding_is_near_optimal_after_tens_of_trials(study):
    ideal, guided, learned = (study.learning[name] for name in (MAXIMUM_LIKELIHOOD, "modulator-guided", "regression"))
    assert paired_difference(ideal[:, 1], guided[:, 1]).mean < 0.02
    assert paired_difference(guided[:, 1], learned[:, 1]).low > 0
    assert guided[:, 1].mean() > learned[:, 2].mean() - 0.01
    assert study.trials_needed("modulator-guided") <= 30 < study.trials_needed("regression")


# Signs alone, or with rates for sizes, do not tell informative neurons from others, however many trials there are.
def test_without_the_label_more_trials_do_not_help(study):
    for name in ("rate-guided", "sign-only"):
        assert paired_difference(study.learning["modulator-guided"][:, 2], study.learning[name][:, 2]).low > 0.1
        assert study.trials_needed(name) is None


# The trade-off: encoding is harmed throughout, decoding helped at first.
def test_strength_harms_encoding_and_helps_decoding_so_that_accuracy_peaks(study):
    ideal, guided = study.strength[MAXIMUM_LIKELIHOOD], study.strength["modulator-guided"]
    assert paired_difference(ideal[:, 0], ideal[:, 2]).low > 0.01
    strength, weakest, strongest = study.peak()
    assert strength == 0.5
    assert weakest.low > 0.1
    assert strongest.mean > 0.1
    assert (guided[:, 1] > guided[:, 2]).all()


# The label is what helps: the same couplings on other neurons guide to the wrong ones.
def test_couplings_of_the_wrong_neurons_do_not_help():
    population = draw_population(200, 20, np.random.default_rng(0))
    astray = replace(population, coupling=np.roll(population.coupling, 50))
    right, wrong = (
        accuracies(p, SETTINGS, 0.5, (30,), np.random.default_rng(1))["modulator-guided"][0]
        for p in (population, astray)
    )
    assert right > wrong + 0.15


def test_no_decoder_beats_maximum_likelihood(study):
    for table in (study.learning, study.strength):
        for name in DECODERS:
            # Of 1,000 test trials, the same ones: 2 points are more than three standard errors of the difference.
            assert (table[name] <= table[MAXIMUM_LIKELIHOOD] + 0.02).all(), name


def test_what_is_told_and_drawn(study):
    first, second = study.verdict()
    assert "needs 30 training trials" in first or "needs 10 training trials" in first
    assert "sigma 0.5" in second
    rows = study.rows()
    assert len(rows) == len(DECODERS) * 4 * (3 + 3)
    wanted = [r["accuracy"] for r in rows if (r["curve"], r["decoder"], r["trials"]) == ("learning", "regression", 300)]
    np.testing.assert_array_equal(wanted, study.learning["regression"][:, 2])
    assert svg(population_figure(study)) == svg(population_figure(study))


def test_the_same_seeds_give_the_same_numbers():
    short = replace(
        SETTINGS, seeds=(0, 1), learning_trials=(4,), strengths=(0.5,), test_trials=50, neurons=20, informative=4
    )
    done = []
    a, b = population_study(short, lambda *progress: done.append(progress)), population_study(short)
    assert a.rows() == b.rows()
    assert done == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": (1, 1)}, "at least 2 different seeds"), ({"strengths": (0.0, 1.0)}, "strength"),
        ({"strengths": ()}, "at least one strength"), ({"trials": 1}, "training trials"), ({"bins": 0}, "bins"),
        ({"informative": 7}, "even"),
    ],
)  # fmt: skip
def test_bad_settings(change, message):
    with pytest.raises(InputError, match=message):
        replace(SETTINGS, **change)
