"""How neurons of another area follow a modulator that was estimated upstream.

Given the upstream counts, m is (nearly) normal with the posterior mean mu_b and standard deviation s_b, so that a downstream
neuron with log gain v m - v^2 / 2 has the expected count

    exp(beta_c + v mu_b + v^2 (s_b^2 - 1) / 2):

the uncertainty of m neither hides in the slope (it would, were mu taken for m) nor makes the rate depend on v. The slope v
solves the Poisson score equation, with the rates beta_c of each group in closed form; its error comes from the scatter of the
scores over trials (sandwich), because what the upstream area does not tell of m is left as shared noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .checks import Floats
from .counts import Groups, check_active
from .latent import LARGEST_COUPLING, ModulatorFit

NEWTON_STEPS = 50


@dataclass(frozen=True)
class Following:
    """Couplings of downstream neurons to the upstream modulator.

    Attributes:
        coupling: log gain per standard deviation of the modulator, ``(D,)``.
        coupling_error: its standard error, ``(D,)``; that of the modulator's own couplings is not in it.
    """

    coupling: Floats
    coupling_error: Floats


def follow_modulator(
    fit: ModulatorFit, counts: NDArray[np.integer], condition: NDArray[np.generic], *, rates_by_bin: bool = True
) -> Following:
    """Couplings of other neurons, recorded in the same bins, to a fitted modulator.

    Args:
        fit: of the upstream neurons. counts: of the others, ``(R, T, D)``. condition, rates_by_bin: as for ``fit_modulator``.

    Raises:
        InputError: other trials or bins than those of the fit, silent neurons, and what ``Groups`` refuses.
    """
    groups = Groups.of(counts, condition, by_bin=rates_by_bin)
    if (groups.trials, groups.bins) != fit.modulator.shape:
        raise InputError(
            f"the modulator was fitted to {fit.modulator.shape[0]} trials of {fit.modulator.shape[1]} bins, the counts have "
            f"{groups.trials} of {groups.bins}"
        )
    check_active(groups.totals.sum(0))
    return follow_groups(fit, groups)


def follow_groups(fit: ModulatorFit, groups: Groups) -> Following:
    """``follow_modulator`` of counts that are grouped and checked."""
    mean, spare = fit.modulator.ravel()[:, None], fit.modulator_error.ravel()[:, None] ** 2 - 1
    coupling = np.zeros(groups.neurons)
    for _ in range(NEWTON_STEPS):
        expected, deviation = _expected(groups, coupling, mean, spare)
        slope = (deviation * (groups.counts - expected)).sum(0)
        information = (expected * deviation**2).sum(0)
        # A neuron whose spikes all lie in trials that were left out tells nothing, and keeps its coupling of 0.
        step = np.clip(np.divide(slope, information, out=np.zeros_like(slope), where=information > 0), -0.5, 0.5)
        coupling = np.clip(coupling + step, -LARGEST_COUPLING, LARGEST_COUPLING)
        if np.abs(step).max() < 1e-9:
            break
    expected, deviation = _expected(groups, coupling, mean, spare)
    scores = np.zeros((groups.trials, groups.neurons))
    np.add.at(scores, groups.trial, deviation * (groups.counts - expected))
    meat = (scores**2).sum(0) * groups.trials / (groups.trials - 1)
    information = (expected * deviation**2).sum(0)
    unknown = np.full_like(information, np.nan)
    return Following(coupling, np.divide(np.sqrt(meat), information, out=unknown, where=information > 0))


def _expected(groups: Groups, coupling: Floats, mean: Floats, spare: Floats) -> tuple[Floats, Floats]:
    """Expected counts ``(B, D)`` at the best rates, and the regressor's deviation from its weighted mean in the group."""
    relative = np.exp(coupling * mean + coupling**2 * spare / 2)
    in_group = groups.sum_by_group(relative)
    expected = relative * (groups.totals / in_group)[groups.index]
    regressor = mean + coupling * spare
    centre = groups.sum_by_group(relative * regressor) / in_group
    return expected, regressor - centre[groups.index]
