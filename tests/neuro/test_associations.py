"""Statistics of cortex on recordings whose truth is known: dimensions and associations, found and not found."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from comodulation.errors import InputError
from comodulation.neuro import associations as statistics
from comodulation.neuro.analysis import analyse_recording, comparison_table
from comodulation.neuro.associations import (
    association,
    informativeness,
    partial_correlation,
    rank_correlation,
    shared_dimensions,
)
from comodulation.neuro.counts import Groups
from comodulation.neuro.figures import comparison_figure, recording_figure
from comodulation.neuro.recording import Recording
from comodulation.report import SUBDUED, svg
from support.neuro_simulation import modulated_counts, two_areas

FAST = {"splits": 10, "shuffles": 0}


def grouped(counts, condition):
    return Groups.of(counts, condition, by_bin=False)


# The moment estimator takes Poisson noise out exactly: relative gains have covariance exp(w w') - 1.
def test_gain_covariance_against_its_formula():
    s = modulated_counts(trials=6000, neurons=6, rate=3.0)
    expected = np.expm1(np.outer(s.coupling, s.coupling))
    np.testing.assert_allclose(grouped(s.counts, s.condition).gain_covariance(), expected, atol=0.12, rtol=0.15)


# One dimension is found to be one, whatever the noise of single neurons; factor analysis says less, as its docstring says.
@pytest.mark.parametrize("private", [0.0, 0.6])
def test_one_dimension_is_one(private):
    s = modulated_counts(trials=300, neurons=24, strength=0.3, private=private)
    found = shared_dimensions(grouped(s.counts, s.condition), **FAST)
    assert found.share == pytest.approx(1, abs=0.08)
    assert found.fitted_share < found.share
    assert 0.01 < found.error < 0.1
    # In units of a neuron's variance, |w|^2 of the standardised counts: of each neuron, the part of its variance that is shared.
    gain = np.expm1(s.coupling**2) * (s.rates**2).mean(0)
    total = s.rates.mean(0) + (s.rates**2).mean(0) * (np.exp(s.coupling**2 + private**2) - 1)
    assert found.shared == pytest.approx((gain / total).mean(), rel=0.2)


# Two orthogonal dimensions of equal strength: half each.
def test_two_dimensions_are_two():
    rng = np.random.default_rng(0)
    loadings = 0.4 * np.stack([np.ones(24), np.tile([-1.0, 1.0], 12)])
    log_gain = rng.standard_normal((400, 5, 2)) @ loadings - 0.16
    found = shared_dimensions(grouped(rng.poisson(2 * np.exp(log_gain)), np.zeros(400)), **FAST)
    assert found.share == pytest.approx(0.5, abs=0.1)
    assert found.spectrum[2:].max() < 0.1 * found.spectrum[1]


# Nothing shared: about nothing is found, and said to be chance; what each neuron does for itself is not shared.
def test_private_noise_is_not_shared():
    s = modulated_counts(trials=200, neurons=20, strength=0.0, private=0.6)
    found = shared_dimensions(grouped(s.counts, s.condition), splits=10, shuffles=60)
    assert abs(found.shared) < 0.01
    assert found.p > 0.05
    shared = modulated_counts(trials=200, neurons=20, strength=0.3)
    assert shared_dimensions(grouped(shared.counts, shared.condition), splits=5, shuffles=60).p < 0.05


# Where nothing is shared, p is uniform: 5% of recordings have p <= 0.05, and a fifth each lies below 0.2 and above 0.8. A null of
# fewer halvings than the found value is wider than it: p then crowds in the middle. Where a neuron's own gain lasts a trial, bins
# are not independent, and a null that takes them for it is narrower: p then crowds near 0.
@pytest.mark.parametrize(("lasting", "bins"), [(0.0, 2), (1.0, 10)])
def test_p_of_the_first_dimension_is_uniform_under_the_null(monkeypatch, lasting, bins):
    monkeypatch.setattr(statistics, "_fitted_share", lambda *_: 0.0)  # slow, and not what is asked
    found = []
    for seed in range(80):
        rng, condition = np.random.default_rng(seed), np.arange(40) % 2
        gain = np.exp(lasting * rng.standard_normal((40, 1, 8)) - lasting**2 / 2)
        counts = rng.poisson((2 + condition[:, None, None]) * gain * np.ones((40, bins, 8)))
        options = {"dimensions": 1, "splits": 10, "shuffles": 19, "seed": seed}
        found.append(shared_dimensions(grouped(counts, condition), **options).p)
    p = np.array(found)
    assert (p <= 0.05).sum() <= 10
    assert 24 <= ((p <= 0.2) | (p > 0.8)).sum() <= 43  # of 80: 32 with a standard deviation of 4.4


# The standard error is the scatter over recordings, or (a jackknife) somewhat more. With few halves, the choice of halves makes
# much of the share: it is the same for all recordings here, and must not enter their error (which would then be twice the scatter).
def test_the_error_of_the_share_is_its_scatter_over_recordings(monkeypatch):
    monkeypatch.setattr(statistics, "_fitted_share", lambda *_: 0.0)
    loadings = np.stack([np.linspace(0.1, 0.7, 24), np.tile([-0.35, 0.35], 12)])
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        log_gain = rng.standard_normal((120, 5, 2)) @ loadings - (loadings**2).sum(0) / 2
        groups = grouped(rng.poisson(2 * np.exp(log_gain)), np.zeros(120))
        found.append(shared_dimensions(groups, splits=2, shuffles=0))
    scatter = np.std([d.share for d in found], ddof=1)
    assert 0.7 * scatter < np.mean([d.error for d in found]) < 1.7 * scatter


def test_rank_correlations_against_scipy():
    rng = np.random.default_rng(0)
    x, y, z = rng.integers(0, 6, (3, 40)).astype(float)
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    ranks = np.stack([stats.rankdata(v) for v in (x, y, z)])
    left = [r - np.polyval(np.polyfit(ranks[2], r, 1), ranks[2]) for r in ranks[:2]]
    assert partial_correlation(x, y, z) == pytest.approx(np.corrcoef(left)[0, 1])
    assert rank_correlation(np.ones(4), np.arange(4.0)) == 0


# Both couplings and d' may follow activity, and nothing else.
def test_activity_held_fixed_undoes_what_activity_explains():
    rng = np.random.default_rng(0)
    activity = rng.random(200)
    x, y = activity + 0.1 * rng.standard_normal((2, 200))
    found = association(x, y, activity, resamples=200)
    assert found.spearman > 0.8
    assert abs(found.partial) < 0.2


# Under the null, p is uniform and the 95% interval holds 0 as often as it says; with 60 repetitions, roughly.
def test_intervals_and_p_under_the_null():
    rng = np.random.default_rng(0)
    found = [association(*rng.standard_normal((3, 25)), resamples=150) for _ in range(60)]
    assert sum(a.p < 0.05 for a in found) <= 9
    assert sum(a.decided for a in found) <= 11


@pytest.fixture(scope="module")
def analysed():
    recording, coupling = two_areas()
    found = analyse_recording(recording, upstream="V1", downstream="MT", task="task", control="control", resamples=300)
    return recording, coupling, found


# Everything that was put into the simulated recording is found in it, in both areas.
def test_a_targeted_modulator_is_found_upstream_and_downstream(analysed):
    recording, coupling, found = analysed
    assert found.dimensions.p < 0.05
    for part, truth in ((found.upstream, coupling[:24]), (found.downstream, coupling[24:])):
        assert part.association.low > 0.2
        assert part.association.p < 0.05
        assert part.fall.low > 0
        # 0.3 of the coupling in the control: 0.09 of the variance.
        assert part.fall.task == pytest.approx((truth**2).mean(), rel=0.35)
        assert part.fall.control < 0.25 * part.fall.task
    np.testing.assert_array_equal(found.upstream.dprime, informativeness(recording.in_context("task").in_area("V1")))


def test_what_is_told_and_drawn(analysed):
    _, _, found = analysed
    said = found.verdict()
    assert len(said) == 5
    assert "lies in one dimension" in said[0]
    assert said[1].startswith("More informative V1 neurons")
    assert "falls" in said[2]
    rows = {row["statistic"]: row for row in found.rows()}
    assert rows["coupling against informativeness, downstream"]["value"] == found.downstream.association.spearman
    assert len(rows) == len(found.rows())
    table = comparison_table([found])
    assert table[0]["simulated"].startswith(f"{found.dimensions.share:.2f} [")
    with pytest.raises(InputError, match="different names, got 'simulated' 2 times"):
        comparison_table([found, found])
    for figure in (recording_figure(found), comparison_figure([found, found])):
        assert svg(figure).startswith("<svg")


# A control for the method: couplings that have nothing to do with informativeness, and the same modulation in both contexts.
def test_an_untargeted_modulator_that_does_not_fall_is_not_found_to():
    recording, _ = two_areas(seed=4, control=1.0, targeted=False)
    found = analyse_recording(recording, upstream="V1", downstream="MT", task="task", control="control", resamples=300)
    assert found.dimensions.p < 0.05
    assert not found.upstream.association.decided
    assert not found.upstream.fall.decided
    assert "does not decidedly change" in " ".join(found.verdict())


# Couplings to nothing can still be ranked, and one in twenty of such rankings is "decided"; nothing may be said or drawn of it.
def test_without_sharing_nothing_is_said_of_couplings(analysed):
    s = modulated_counts(trials=60, neurons=12, strength=0.0, rate=2.0)
    found = analyse_recording(Recording.of(s.counts, s.condition), resamples=100)
    assert found.downstream is None
    assert found.dimensions.p > 0.05
    _, _, decided = analysed
    found = replace(decided, dimensions=replace(decided.dimensions, p=found.dimensions.p))
    (said,) = found.verdict()
    assert "mean nothing" in said
    assert found.rows()[4:] == decided.rows()[4:]  # the numbers stay
    drawn = {one: {line.get_color() for axis in comparison_figure([one_of]).axes for line in axis.lines[1:]}
             for one, one_of in (("decided", decided), ("not", found))}  # fmt: skip
    assert drawn["not"] == {SUBDUED}
    assert SUBDUED not in drawn["decided"]


# No modulator at all, and rates that follow the choice, which agrees with the stimulus in three trials of four: with the stimulus
# as condition, what the choice does to rates would be the modulator, and coupling would be informativeness.
def test_a_target_that_is_no_function_of_the_condition_is_refused():
    rng = np.random.default_rng(0)
    stimulus = np.arange(120) % 2
    choice = np.where(rng.random(120) < 0.75, stimulus, 1 - stimulus)
    preference = rng.uniform(0, 0.8, 12)
    counts = rng.poisson(3 * np.exp((choice[:, None, None] - 0.5) * preference) * np.ones((120, 5, 12)))
    with pytest.raises(
        InputError, match=r"condition '0' have several targets.*name the target's column as a condition"
    ):
        analyse_recording(Recording.of(counts, stimulus, target=choice), resamples=10)
    both = [f"{s}, {c}" for s, c in zip(stimulus, choice, strict=True)]
    assert not analyse_recording(Recording.of(counts, both, target=choice), resamples=10).dimensions.found
    # Of the control too, whose couplings are compared.
    twice = Recording.of(
        np.tile(counts, (2, 1, 1)), both + stimulus.astype(str).tolist(), target=np.tile(choice, 2),
        context=np.repeat(["task", "control"], 120),
    )  # fmt: skip
    with pytest.raises(InputError, match="several targets"):
        analyse_recording(twice, task="task", control="control", resamples=10)


def test_bad_input():
    recording, _ = two_areas(trials=40)

    def refused(message, given=recording, **options):
        with pytest.raises(InputError, match=message):
            analyse_recording(given, resamples=10, **options)

    refused("upstream must name the area.*MT, V1")
    refused("unknown area 'V2'; did you mean 'V1'", upstream="V2")
    refused("unknown area", upstream="V1", downstream="LIP")
    refused("different areas", upstream="V1", downstream="V1")
    refused("did you mean 'control'", upstream="V1", task="task", control="controls")
    refused("control is compared with another context", upstream="V1", control="control")
    refused("at least 8 neurons", recording.with_neurons(np.arange(5)), upstream="V1")
    silent = recording.with_neurons(np.arange(20))
    silent.counts[:, :, 3] = 0
    refused("1 of 20 neurons fire fewer than 25 spikes.*Recording.active", silent, upstream="V1")
