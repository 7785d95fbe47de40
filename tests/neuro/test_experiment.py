"""The 2019 paper's known answers, with intervals over populations; and what is told of them."""

import re
from dataclasses import replace

import numpy as np
import pytest

from comodulation.errors import InputError
from comodulation.evaluation import paired_difference
from comodulation.neuro.decoders import MAXIMUM_LIKELIHOOD
from comodulation.neuro.experiment import DECODERS, PopulationSettings, PopulationStudy, accuracies, population_study
from comodulation.neuro.figures import population_figure
from comodulation.neuro.population import draw_population
from comodulation.neuro.report import write_population
from comodulation.report import svg

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


def with_accuracies(study, guided, learned, ideal):
    """A study of two points: of each decoder, accuracies of the four seeds at the first; at the last all are right."""
    ends = {MAXIMUM_LIKELIHOOD: np.ones(4), "modulator-guided": guided, "regression": learned}
    settings = replace(study.settings, learning_trials=(10, 30), strengths=(0.1, 1.0, 2.0))
    table = {name: np.stack([values, np.ones(4)], 1) for name, values in ends.items()}
    strength = {name: np.stack([np.full(4, 0.6), np.full(4, 0.9), np.full(4, 0.6)], 1) for name in ends}
    strength[MAXIMUM_LIKELIHOOD] = np.stack([np.full(4, 0.9), np.full(4, 0.9), ideal], 1)
    return PopulationStudy(settings, table, strength)


def on_page(study, folder, claim):
    """The verdict that the report gives a claim."""
    write_population(study, folder, "")
    page = (folder / "report.html").read_text()
    return re.search(rf'<strong>([^<]*)</strong></p><h3 id="claim-{claim}-name"', page)[1]


# The three answers of an interval: above 0, around it, below it. Only the first makes a claim hold, in words and on the page.
@pytest.mark.parametrize(
    ("guided", "learned", "said", "verdict"),
    [
        ([0.97, 0.98, 0.97, 0.96], [0.8, 0.81, 0.8, 0.79], "it is 17.0 points [17.0, 17.0] ahead.", "holds"),
        (
            [1.0, 1.0, 1.0, 0.9],
            [0.95, 0.95, 0.5, 0.96],
            "it cannot be told which is ahead (13.5 points [",
            "cannot be told",
        ),
        (
            [0.8, 0.8, 0.8, 0.8],
            [0.9, 0.9, 0.9, 0.9],
            "with 30 trials it cannot be told which is ahead (0.0",
            "cannot be told",
        ),
        (
            [0.96, 0.96, 0.96, 0.96],
            [0.98, 0.98, 0.98, 0.98],
            "it is behind, by 2.0 points [2.0, 2.0].",
            "does not hold",
        ),
    ],
)
def test_labels_hold_only_where_the_lead_is_decided(study, tmp_path, guided, learned, said, verdict):
    made = with_accuracies(study, np.array(guided), np.array(learned), np.full(4, 0.8))
    assert said in made.verdict()[0]
    assert on_page(made, tmp_path, 1) == verdict


@pytest.mark.parametrize(
    ("ideal", "said", "verdict"),
    [
        ([0.8, 0.81, 0.8, 0.81], "The ideal decoder loses 9.5 points [", "holds"),
        (
            [0.7, 0.95, 0.8, 1.0],
            "Whether the ideal decoder loses from sigma 0.1 to 2 cannot be told (3.8 points [",
            "cannot be told",
        ),
        ([0.95, 0.96, 0.95, 0.96], "The ideal decoder gains 5.5 points [", "does not hold"),
    ],
)
def test_the_trade_off_holds_only_where_the_harm_is_decided(study, tmp_path, ideal, said, verdict):
    made = with_accuracies(study, np.full(4, 0.97), np.full(4, 0.8), np.array(ideal))
    assert made.verdict()[1].startswith(said)
    assert "peaks in between" in made.verdict()[1]
    assert on_page(made, tmp_path, 2) == verdict


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


# Refused before anything is drawn: a population of that size would not fit into memory either.
@pytest.mark.parametrize("changes", [{"neurons": 10**12}, {"neurons": 20_000}, {"neurons": 200, "bins": 10**6}])
def test_populations_larger_than_memory(changes):
    with pytest.raises(InputError, match=r"neurons must be at most \d+ for \d+ counts each, got"):
        PopulationSettings(**changes)
