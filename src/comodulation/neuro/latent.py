"""A shared modulator and the couplings to it, estimated from spike counts alone.

Poisson latent model: in bin b, of condition (and place in the trial) c, neuron n has the count

    k_bn ~ Poisson(exp(beta_cn + w_n m_b - w_n^2 / 2)),   m_b ~ N(0, 1) independent,

the population model of ``population.py`` with sigma absorbed into the couplings, so that w_n is the standard deviation of
the neuron's log gain and exp(beta) its mean rate. Rates and couplings maximise the marginal likelihood

    sum_b log int N(m; 0, 1) prod_n Poisson(k_bn | m) dm.

m is one number, so the integral is a sum over a fixed grid: the trapezoid rule, whose error for a nearly Gaussian integrand of
standard deviation s at spacing h is about 2 exp(-2 pi^2 s^2 / h^2). The grid is made so fine that h <= s for every bin (error
below 1e-8); value and gradient are then those of one smooth function, and the information matrix is exact (Louis 1982).

Sources: the model of Haimerl et al. (NeurIPS 2019), fitted to cortex in Haimerl et al. (Nature Communications 14:7879, 2023) with
a linear dynamical system as prior for m; here bins are independent. Louis, "Finding the observed information matrix when
using the EM algorithm" (Journal of the Royal Statistical Society B 44, 1982). docs/neuro.md, section 4.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ..errors import InputError, choose
from .checks import Floats, Integers
from .counts import Groups, check_active

REACH = 8.0  # the grid's, in standard deviations of the prior
COARSEST, FINEST = 0.25, 0.004  # spacing of the grid
LARGEST_COUPLING = 4.0  # log gain of 4 sd: beyond, a neuron is a burst detector and the likelihood flat
ERRORS = ("model", "trials")


@dataclass(frozen=True)
class ModulatorFit:
    """What was estimated. R trials of T bins, N neurons, G groups of bins with rates of their own.

    Attributes:
        coupling: standard deviation of each neuron's log gain, with the sign that makes the sum positive, ``(N,)``.
        coupling_covariance: of these estimates, ``(N, N)``; nan where the data do not determine them.
        rates: mean spikes a bin, ``(G, N)``. group: of each bin, ``(R, T)``.
        modulator: posterior mean in each bin, in units of its standard deviation, ``(R, T)``.
        modulator_error: posterior standard deviation, ``(R, T)``; 1 where nothing is known. The mean of m over
            the n bins of a group is taken up by their rates: this 1/n of its variance is not in it.
        log_likelihood: of the counts, in nats. independent: the same without a modulator (couplings 0).
        converged: whether the optimiser said so.
    """

    coupling: Floats
    coupling_covariance: Floats
    rates: Floats
    group: Integers
    modulator: Floats
    modulator_error: Floats
    log_likelihood: float
    independent: float
    converged: bool

    @property
    def coupling_error(self) -> Floats:
        """Standard error of each coupling, ``(N,)``."""
        with np.errstate(invalid="ignore"):
            return np.sqrt(np.diag(self.coupling_covariance))

    @property
    def gain_in_bits(self) -> float:
        """Log-likelihood over that without a modulator, in bits a bin. Fitted, hence never much below 0."""
        return (self.log_likelihood - self.independent) / math.log(2) / self.modulator.size


def fit_modulator(
    counts: NDArray[np.integer],
    condition: NDArray[np.generic],
    *,
    rates_by_bin: bool = True,
    errors: str = "model",
    iterations: int = 500,
) -> ModulatorFit:
    """Fit couplings, rates and modulator.

    Args:
        counts: spikes, ``(R, T, N)``. condition: of each trial, ``(R,)``: trials of one condition share their rates.
        rates_by_bin: whether rates differ also between bins. The response to a stimulus rises and falls in all neurons
            together; without this, it is taken for the modulator.
        errors: of couplings, from the ``model`` (observed information; bins independent), or from the scatter over ``trials``
            (sandwich; right also where the modulator outlasts a bin or neurons are not quite Poisson; needs several times as
            many trials as neurons).
        iterations: at most, of the optimiser.

    Raises:
        InputError: too few trials or neurons, silent neurons, and what else ``Groups`` refuses; with the number needed.
    """
    choose(errors, ERRORS, "errors")
    groups = Groups.of(counts, condition, by_bin=rates_by_bin)
    check_active(groups.totals.sum(0))
    if errors == "trials" and groups.trials <= 2 * groups.neurons:
        raise InputError(
            f"errors from the scatter over trials need more than {2 * groups.neurons} trials for {groups.neurons} neurons, "
            f"got {groups.trials}; take errors='model'"
        )
    return fit_groups(groups, errors=errors, iterations=iterations)


def fit_groups(groups: Groups, *, errors: str = "model", iterations: int = 500) -> ModulatorFit:
    """``fit_modulator`` of counts that are grouped and checked."""
    model = _Model(groups, COARSEST)
    start = groups.log_means()
    coupling = initial_coupling(groups)
    solved = None
    for _ in range(6):
        solved = _maximise(model, coupling, start, iterations)
        coupling, start = model.unpack(solved.x)
        finest = model.narrowest(coupling, start)
        if model.spacing <= finest or model.spacing <= FINEST:
            break
        model = _Model(groups, max(FINEST, 0.7 * finest))
    assert solved is not None
    if not solved.success:
        warnings.warn(f"the couplings are not quite at the maximum: {solved.message}", stacklevel=2)
    sign = 1.0 if coupling.sum() >= 0 else -1.0
    mean, error = model.posterior(coupling, start)
    covariance = model.covariance(coupling, start, errors)
    return ModulatorFit(
        coupling=sign * coupling,
        coupling_covariance=covariance,
        rates=np.exp(start),
        group=groups.of_bins(),
        modulator=sign * groups.by_trial(mean),
        modulator_error=groups.by_trial(error),
        log_likelihood=-float(solved.fun) + groups.constant,
        independent=groups.independent_log_likelihood(),
        converged=bool(solved.success),
    )


def initial_coupling(groups: Groups) -> Floats:
    """Couplings from second moments, ``(N,)``: E[k k'] / (E[k] E[k']) = exp(w w') under the model, whose log has rank 1."""
    product = np.log1p(np.clip(groups.gain_covariance(), -0.9, None))
    np.fill_diagonal(product, np.clip(np.diag(product), 0, None))
    values, vectors = np.linalg.eigh(product)
    found = vectors[:, -1] * math.sqrt(max(values[-1], 0.01))
    return np.clip(found if found.sum() >= 0 else -found, -1.5, 1.5)


class _Model:
    """The marginal likelihood on one grid, and its derivatives. Parameters: w ``(N,)``, beta ``(G, N)``."""

    def __init__(self, groups: Groups, spacing: float) -> None:
        self.groups, self.spacing = groups, spacing
        self.grid = np.arange(-math.ceil(REACH / spacing), math.ceil(REACH / spacing) + 1) * spacing
        self.log_prior = -(self.grid**2) / 2 - math.log(math.sqrt(2 * math.pi) / spacing)

    def unpack(self, parameters: Floats) -> tuple[Floats, Floats]:
        neurons = self.groups.neurons
        return parameters[:neurons], np.where(self.groups.silent, -np.inf, parameters[neurons:].reshape(-1, neurons))

    def rates(self, w: Floats, beta: Floats) -> Floats:
        """Expected counts of each group at each point of the grid, ``(G, Q, N)``."""
        return np.exp(beta[:, None] + (self.grid[:, None] * w - w**2 / 2))

    def joint(self, w: Floats, beta: Floats, rates: Floats) -> Floats:
        """log p(k_b, m_q) without the factorials, ``(B, Q)``."""
        groups = self.groups
        finite = np.where(groups.silent, 0, beta)
        constant = np.einsum("bn,bn->b", groups.counts, finite[groups.index] - w**2 / 2)
        expected = rates.sum(2) - self.log_prior
        return np.multiply.outer(groups.counts @ w, self.grid) + constant[:, None] - expected[groups.index]

    def weights(self, w: Floats, beta: Floats, rates: Floats) -> tuple[Floats, Floats]:
        """Posterior over the grid ``(B, Q)``, and the log-likelihood of each bin ``(B,)``."""
        joint = self.joint(w, beta, rates)
        top = joint.max(1, keepdims=True)
        np.exp(joint - top, out=joint)
        total = joint.sum(1, keepdims=True)
        joint /= total
        return joint, (top + np.log(total))[:, 0]

    def negative(self, parameters: Floats) -> tuple[float, Floats]:
        """Minus the log-likelihood, and its gradient, for the optimiser."""
        w, beta = self.unpack(parameters)
        groups, rates = self.groups, self.rates(w, beta)
        posterior, likelihood = self.weights(w, beta, rates)
        held = groups.sum_by_group(posterior)
        mean = posterior @ self.grid
        # Fisher's identity: the gradient is the posterior mean of the gradient that would hold if m were known.
        by_rate = groups.totals - np.einsum("gq,gqn->gn", held, rates)
        by_coupling = mean @ groups.counts - w * groups.totals.sum(0)
        weighted = held[:, :, None] * rates
        by_coupling -= np.einsum("q,gqn->n", self.grid, weighted) - w * weighted.sum((0, 1))
        return -float(likelihood.sum()), -np.concatenate([by_coupling, np.where(groups.silent, 0, by_rate).ravel()])

    def posterior(self, w: Floats, beta: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the modulator in each bin, ``(B,)``."""
        weights, _ = self.weights(w, beta, self.rates(w, beta))
        mean = weights @ self.grid
        return mean, np.sqrt(np.clip(weights @ self.grid**2 - mean**2, 0, None))

    def narrowest(self, w: Floats, beta: Floats) -> float:
        """The smallest posterior standard deviation over bins, from the curvature at its mean (a grid too coarse hides it)."""
        mean, _ = self.posterior(w, beta)
        rates = np.exp(beta[self.groups.index] + mean[:, None] * w - w**2 / 2)
        return float((1 / np.sqrt(1 + rates @ w**2)).min())

    def covariance(self, w: Floats, beta: Floats, errors: str) -> Floats:
        """Of the couplings' estimates, rates estimated too, ``(N, N)``; group by group, whose rates meet only in w."""
        groups, rates = self.groups, self.rates(w, beta)
        posterior, _ = self.weights(w, beta, rates)
        deviation = self.grid[:, None] - w
        information = np.zeros((groups.neurons, groups.neurons))
        scores = np.zeros((groups.trials, groups.neurons))
        for group in range(len(groups.totals)):
            rows = np.flatnonzero(groups.index == group)
            kept = ~groups.silent[group]
            r, k, rho = posterior[rows], groups.counts[rows][:, kept].astype(float), rates[group][:, kept]
            held, f = r.sum(0), deviation[:, kept] * rho
            mean, mean_rho, mean_f = r @ self.grid, r @ rho, r @ f
            variance = r @ self.grid**2 - mean**2
            m_rho = r @ (self.grid[:, None] * rho) - mean[:, None] * mean_rho
            m_f = r @ (self.grid[:, None] * f) - mean[:, None] * mean_f
            # What would be known if m were, minus the scatter of the score over the posterior of m.
            bb = np.diag(held @ rho) - _scatter(rho, rho, held, mean_rho, mean_rho)
            bw = np.diag(held @ f) - _scatter(rho, f, held, mean_rho, mean_f) + m_rho.T @ k
            ww = np.diag(k.sum(0) - held @ rho + held @ (deviation[:, kept] * f))
            ww -= (k * variance[:, None]).T @ k - k.T @ m_f - m_f.T @ k + _scatter(f, f, held, mean_f, mean_f)
            through = np.linalg.pinv(bb, hermitian=True) @ bw
            information[np.ix_(kept, kept)] += ww - bw.T @ through
            score = (mean[:, None] - w[kept]) * k - mean_f - (k - mean_rho) @ through
            added = np.zeros((len(rows), groups.neurons))
            added[:, kept] = score
            np.add.at(scores, groups.trial[rows], added)
        finite = bool(np.isfinite(information).all())
        if not finite or np.linalg.eigvalsh(information)[0] <= 1e-9 * np.abs(information).max():
            return np.full_like(information, np.nan)
        inverse = np.asarray(np.linalg.inv(information), float)
        if errors == "model":
            return inverse
        sandwich: Floats = inverse @ (scores.T @ scores * groups.trials / (groups.trials - 1)) @ inverse
        return sandwich


def _maximise(model: _Model, coupling: Floats, beta: Floats, iterations: int):  # type: ignore[no-untyped-def]
    neurons = len(coupling)
    finite = np.where(model.groups.silent, 0.0, beta)
    bounds = [(-LARGEST_COUPLING, LARGEST_COUPLING)] * neurons + [(-30.0, 30.0)] * finite.size
    return minimize(
        model.negative, np.concatenate([coupling, finite.ravel()]), jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 1e-12, "gtol": 1e-4, "maxcor": 30},
    )  # fmt: skip


def _scatter(a: Floats, b: Floats, held: Floats, mean_a: Floats, mean_b: Floats) -> Floats:
    """Posterior covariances of two functions of m, ``(Q, N)`` each, summed over bins: ``(N, N)``."""
    return (a * held[:, None]).T @ b - mean_a.T @ mean_b
