"""The fall of modulation in a control: no more often decided than it says where there is none, found where there is one."""

import numpy as np
import pytest

from comodulation.errors import InputError
from comodulation.neuro.counts import Groups
from comodulation.neuro.downstream import follow_groups
from comodulation.neuro.fall import Couplings, couplings_without, kept_trials, modulation_fall
from comodulation.neuro.latent import fit_groups


def context(rng, coupling, neurons, lasting, trials=60, bins=3):
    """Couplings, errors and couplings without blocks of the first ``neurons``, and of the others downstream."""
    m = rng.standard_normal((trials, 1 if lasting else bins, 1)) * np.ones((trials, bins, 1))
    counts = rng.poisson(4 * np.exp(m * coupling - coupling**2 / 2))
    parts = [Groups.of(part, np.arange(trials) % 2, by_bin=False) for part in np.split(counts, [neurons], axis=2)]
    fit = fit_groups(parts[0])
    followed, without = follow_groups(fit, parts[1]), couplings_without(*parts)
    found = zip((fit, followed), without, strict=True)
    return [Couplings(one.coupling, one.coupling_error, left) for one, left in found]


# Two contexts that are the same: a change is decided in 5% of recordings, upstream and downstream, also where the modulator lasts a
# trial. All couplings share the sample of the modulator; an interval over neurons, which does not see it, decides in most.
@pytest.mark.parametrize("lasting", [False, True])
def test_no_change_is_decided_where_there_is_none(lasting):
    decided, z = np.zeros(2, int), []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        coupling = rng.uniform(0.2, 0.5, 20)
        contexts = [context(rng, coupling, 12, lasting) for _ in range(2)]
        falls = [modulation_fall(a, b) for a, b in zip(*contexts, strict=True)]
        decided += [fall.decided for fall in falls]
        z.append([fall.difference / fall.error for fall in falls])
    assert decided.max() <= 3  # of 15, at 5%: more once in 180
    assert 0.5 < np.std(z) < 1.5  # and not by errors that are far too large


# Of blocks, which leave a tenth of each condition's trials out once each: the statistic's arithmetic by hand.
def test_fall_by_hand():
    w, error = np.full(8, 0.5), np.full(8, 0.3)
    without = np.sqrt(0.25 + 0.01 * np.tile([[-1.0], [1.0]], (5, 8)))  # w^2 scatters by 0.01: variance 9 * 0.0001
    fall = modulation_fall(Couplings(w, error, without), Couplings(error, error, without))
    assert (fall.task, fall.control, fall.difference) == pytest.approx((0.16, 0.0, 0.16))
    assert fall.error == pytest.approx(np.sqrt(2 * 9 * 0.0001))
    # Two equal variances of 9 degrees of freedom each have 18 together: Student's t, 2.101.
    assert (fall.low, fall.high) == pytest.approx((0.16 - 2.101 * fall.error, 0.16 + 2.101 * fall.error), abs=1e-4)
    assert 0.001 < fall.p < 0.002
    assert fall.decided


def test_blocks_leave_out_every_trial_once_and_some_of_each_condition():
    condition = np.repeat([0, 1, 2], [10, 13, 30])[np.random.default_rng(0).permutation(53)]
    groups = Groups.of(np.ones((53, 2, 4), int), condition, by_bin=True)
    kept = np.array(kept_trials(groups))
    assert kept.shape == (10, 53)
    assert ((~kept).sum(0) == 1).all()
    for number, trials in ((0, 10), (1, 13), (2, 30)):
        assert set((~kept[:, condition == number]).sum(1)) <= {trials // 10, -(-trials // 10)}
    part = groups.with_trials(kept[0])
    again = Groups.of(np.ones((kept[0].sum(), 2, 4), int), np.repeat("a", kept[0].sum()), by_bin=False)
    assert (part.trials, part.bins, part.neurons) == (again.trials, 2, 4)
    np.testing.assert_array_equal(part.means, 1)
    assert part.sizes.sum() == 2 * kept[0].sum()


# As few trials a condition as are allowed, and a neuron all of whose spikes lie in one trial: refits without it go on.
def test_the_fewest_trials_and_a_neuron_of_one_trial():
    rng = np.random.default_rng(0)
    counts = rng.poisson(4.0, (40, 3, 18))
    for neuron in (0, 17):
        counts[:, :, neuron] = 0
        counts[0, 0, neuron] = 40
    groups = [Groups.of(part, np.arange(40) % 4, by_bin=False) for part in np.split(counts, 2, axis=2)]
    above, below = couplings_without(*groups)
    assert above.shape == below.shape == (10, 9)
    assert np.isfinite(above).all()
    assert np.isfinite(below).all()


def test_bad_input():
    w, without = np.ones(8), np.ones((10, 8))
    with pytest.raises(InputError, match="the same neurons, got 8, 9"):
        modulation_fall(Couplings(w, w, without), Couplings(np.ones(9), np.ones(9), np.ones((10, 9))))
    with pytest.raises(InputError, match="at least 8 neurons, got 5"):
        modulation_fall(*2 * [Couplings(w[:5], w[:5], without[:, :5])])
    with pytest.raises(InputError, match="do not determine 8 of 8 couplings of the control"):
        modulation_fall(Couplings(w, w, without), Couplings(w, np.full(8, np.nan), without))
