"""Properties of the decoder gains over difficult inputs: what holds at any scale, precision, layout and batch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from comodulation.mathematics.estimators import (
    ESTIMATORS,
    DecoderStatistics,
    average_over_tasks,
    decoder_statistics,
    gauss_hermite,
)
from comodulation.mathematics.gains import SLOPE_LIMIT, check_options, decoder_gains, gains_from_statistics
from comodulation.mathematics.response import task_response
from comodulation.networks import TaskAverages
from support.decoders import DEVICE, OFFERED, STATISTICS, Decode, dense, everything, noise, rand, randn, smooth
from support.properties import holds_for

FLOATS = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16])
SEEDS = st.integers(0, 10**6)
POWERS = st.floats(-15, 15)
OPTIONS = st.sampled_from(OFFERED)
CERTAIN = st.sampled_from([options for options in OFFERED if options[0] != "monte_carlo"])


def named(options: tuple[str, str, str]) -> dict[str, str]:
    return dict(zip(("estimator", "normalizer", "link"), options, strict=True))


def layer(kind: str, neurons: int, decoder: int, scale: float, seed: int, dtype: torch.dtype) -> Decode:
    """A rectified decoder of vectors or maps: silent, constant, without a bias, or with one as large as the activity."""
    weight = randn(decoder, neurons, seed=seed, dtype=dtype) * (kind not in ("silent", "constant"))
    bias = (scale * randn(decoder, seed=seed + 1)).to(dtype) * (kind in ("constant", "biased"))
    return lambda h: torch.relu(torch.einsum("ne...,de->nd...", h, weight) + bias.reshape(-1, *(1,) * (h.ndim - 2)))


# ---- everything that is offered, at every scale ------------------------------------------------------------------------


@holds_for(
    few=120,
    seed=SEEDS,
    options=OPTIONS,
    dtype=FLOATS,
    powers=st.tuples(POWERS, POWERS, POWERS),
    strong=st.booleans(),
    sizes=st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4), st.sampled_from([(), (1, 1), (2, 3)])),
    kind=st.sampled_from(["silent", "constant", "homogeneous", "biased"]),
    nodes=st.sampled_from([2, 5, 20, 100]),
    beta=st.sampled_from([0.0, 0.3, 1.0, 400.0]),
)
def test_gains_are_finite_bounded_and_of_mean_one(
    seed: int,
    options: tuple[str, str, str],
    dtype: torch.dtype,
    powers: tuple[float, float, float],
    strong: bool,
    sizes: tuple[int, int, int, tuple[int, ...]],
    kind: str,
    nodes: int,
    beta: float,
) -> None:
    # Scales of 1e-15 to 1e15 of activity, coupling and sigma, independently or with sigma w near 1; silent neurons,
    # uncoupled rows, one neuron, no input, maps. Overflow included: a gain is a number between its bounds.
    link = options[2]
    batch, neurons, decoder, positions = sizes
    beta = beta if link == "exponential" else min(beta, 1.0)
    scale, strength, std = (10.0**power for power in powers)
    std = 0.5 / strength if strong else std
    if dtype == torch.float16:
        scale = 10.0 ** (powers[0] / 4)
    activity = (scale * rand(batch, neurons, *positions, seed=seed)).to(dtype)
    activity[:, 0] *= seed % 3
    coupling = strength * randn(batch, neurons, seed=seed + 1)
    coupling[:1] *= seed % 2
    coupling = coupling.to(torch.promote_types(dtype, torch.float32)).requires_grad_()
    gains = everything(
        layer(kind, neurons, decoder, scale, seed, dtype), activity, coupling, std,
        beta=beta, num_nodes=nodes, num_samples=16, **named(options),
    )  # fmt: skip
    assert gains.shape == (batch, decoder)
    assert gains.dtype == dtype
    eps, largest = torch.finfo(dtype).eps, torch.finfo(dtype).max
    wide = gains.detach().double()
    assert torch.isfinite(wide).all()
    if link == "rectified":
        torch.testing.assert_close(wide.mean(1), torch.ones_like(wide[:, 0]), rtol=30 * eps, atol=0)
        assert (wide >= 1 - beta - 4 * eps).all()
    else:
        bound = math.exp(min(SLOPE_LIMIT * beta, 709))
        # Rounding of the exponent, up to 4 beta, is a relative error of the gain.
        rounding = 1 + 8 * eps * (1 + SLOPE_LIMIT * beta)
        assert (wide <= min(bound * rounding, largest)).all()
        assert (wide * bound * rounding >= 1).all() or ((wide >= 0).all() and beta > 10)
    if beta == 0 or kind in ("silent", "constant"):
        assert (gains == 1).all()
    # In float16 a gradient of the order of 1 / (activity sigma) leaves the type; so does a gain of exp(1600) in any.
    if dtype != torch.float16 and beta <= 1:
        weights = torch.arange(1.0, decoder + 1, device=DEVICE)
        (gradient,) = torch.autograd.grad((gains.to(coupling.dtype) * weights).sum(), coupling)
        assert torch.isfinite(gradient).all()


@holds_for(
    seed=SEEDS,
    options=OPTIONS,
    dtype=st.sampled_from([torch.float64, torch.float32]),
    power=st.integers(-70, 70),
    positions=st.booleans(),
)
def test_sigma_and_coupling_count_only_through_their_product(
    seed: int, options: tuple[str, str, str], dtype: torch.dtype, power: int, positions: bool
) -> None:
    # Couplings 2^p times as strong with a sigma 2^p times as small are the same modulation: rectified gains to the last
    # bit, for p that take sigma^2 out of the range of float32. The relative slope is in units of 1 / sigma.
    if options[2] == "exponential":
        return
    shape = (3, 5, 2, 2) if positions else (3, 5)
    activity, coupling = rand(*shape, seed=seed, dtype=dtype), randn(3, 5, seed=seed + 1, dtype=dtype)
    decode = layer("biased", 5, 6, 1.0, seed + 2, dtype)
    first = everything(decode, activity, coupling, 0.25, **named(options))
    second = everything(decode, activity, 2.0**power * coupling, 0.25 * 2.0**-power, **named(options))
    assert torch.equal(first, second)


@holds_for(
    seed=SEEDS,
    options=OPTIONS,
    rows=st.lists(st.integers(-50, 50), min_size=3, max_size=3),
    neurons=st.lists(st.integers(-50, 50), min_size=6, max_size=6),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_units_of_activity_cancel(
    seed: int, options: tuple[str, str, str], rows: list[int], neurons: list[int], dtype: torch.dtype
) -> None:
    # Every input and every decoder neuron in a unit of its own (powers of two, from 1e-15 to 1e15), together up to 1e30:
    # the gain is that of the same quantity. `covariance` is in units of decoder activity, and there inputs alone may differ.
    activity, coupling = rand(3, 5, seed=seed, dtype=dtype), randn(3, 5, seed=seed + 1, dtype=dtype)
    decode = layer("homogeneous", 5, 6, 1.0, seed + 2, dtype)
    row_units = 2.0 ** torch.tensor(rows, dtype=dtype, device=DEVICE)[:, None]
    neuron_units = 2.0 ** torch.tensor(neurons, dtype=dtype, device=DEVICE)
    if options[1] == "covariance":
        neuron_units = torch.ones_like(neuron_units)
    plain = everything(decode, activity, coupling, **named(options))
    scaled = everything(lambda h: decode(h) * neuron_units, activity * row_units, coupling, **named(options))
    torch.testing.assert_close(scaled, plain, rtol=20 * torch.finfo(dtype).eps, atol=1e-30)


# ---- batches and layouts -----------------------------------------------------------------------------------------------


@holds_for(
    seed=SEEDS,
    options=CERTAIN,
    order=st.permutations(range(4)),
    others=st.lists(st.sampled_from([0.0, 1e-15, 1.0, 1e15]), min_size=4, max_size=4),
)
def test_the_gain_of_an_input_does_not_depend_on_the_others(
    seed: int, options: tuple[str, str, str], order: list[int], others: list[float]
) -> None:
    # Other inputs may be silent, uncoupled, or 1e15 times as active, in any order.
    activity, coupling, decode = rand(5, 5, seed=seed), randn(5, 5, seed=seed + 1), dense(5, 6, seed=seed + 2)
    alone = everything(decode, activity[4:], coupling[4:], **named(options))
    scales = torch.tensor([*others, 1.0], dtype=torch.float64, device=DEVICE)[:, None]
    place = order[0]
    rows = [*order[:place], 4, *order[place:]]
    batch = everything(decode, (activity * scales)[rows], (coupling * scales.sign())[rows], **named(options))
    torch.testing.assert_close(batch[place], alone[0], rtol=1e-11, atol=1e-11)


@holds_for(seed=SEEDS, options=OPTIONS, layout=st.sampled_from(["row", "position", "channels-last", "strided", "step"]))
def test_memory_layout_is_of_no_account(seed: int, options: tuple[str, str, str], layout: str) -> None:
    # Expanded inputs share one place in memory (stride 0), also with an in-place decoder.
    activity, coupling = rand(3, 4, 5, 2, seed=seed), randn(4, 3, seed=seed + 1).t()
    if layout == "row":
        activity, coupling = activity[:1].expand(3, -1, -1, -1), coupling[:1].expand(3, -1)
    elif layout == "position":
        activity = activity[:, :, :1, :1].expand(-1, -1, 5, 2)
    elif layout == "channels-last":
        activity = activity.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        activity = activity.transpose(2, 3).contiguous().transpose(2, 3)
    else:
        activity = torch.stack([activity, -activity], 1).flatten(0, 1)[::2]
    decode = layer("biased", 4, 6, 1.0, seed, torch.float64)
    copied = everything(decode, activity.clone().contiguous(), coupling.contiguous(), **named(options))
    gains = everything(lambda h: decode(h.mul_(1.0)), activity, coupling, **named(options))
    torch.testing.assert_close(gains, copied, rtol=1e-11, atol=1e-11)


# ---- structure ---------------------------------------------------------------------------------------------------------


@holds_for(seed=SEEDS, options=OPTIONS, share=st.floats(0.01, 0.99))
def test_a_neuron_split_in_two_is_the_same_population(seed: int, options: tuple[str, str, str], share: float) -> None:
    # An encoder neuron's activity divided between two of equal coupling and weights; a silent one beside them.
    activity, coupling, decode = rand(3, 5, seed=seed), randn(3, 5, seed=seed + 1), dense(5, 6, seed=seed + 2)
    split = torch.cat([activity[:, :4], share * activity[:, 4:], (1 - share) * activity[:, 4:], 0 * activity[:, :1]], 1)
    couplings = torch.cat([coupling, coupling[:, 4:], 7 + coupling[:, :1]], 1)
    merged = everything(
        lambda h: decode(torch.cat([h[:, :4], h[:, 4:5] + h[:, 5:6]], 1)), split, couplings, **named(options)
    )
    torch.testing.assert_close(merged, everything(decode, activity, coupling, **named(options)), rtol=1e-9, atol=1e-9)


@holds_for(seed=SEEDS, options=OPTIONS, copies=st.integers(2, 4))
def test_copies_of_all_decoder_neurons_have_the_gains_of_the_originals(
    seed: int, options: tuple[str, str, str], copies: int
) -> None:
    activity, coupling, decode = rand(3, 5, seed=seed), randn(3, 5, seed=seed + 1), dense(5, 6, seed=seed + 2)
    gains = everything(decode, activity, coupling, **named(options))
    several = everything(lambda h: decode(h).repeat(1, copies), activity, coupling, **named(options))
    torch.testing.assert_close(several, gains.repeat(1, copies), rtol=1e-11, atol=1e-11)


# ---- the estimators against one another ----------------------------------------------------------------------------------


@holds_for(many=300, seed=SEEDS, std=st.floats(0.05, 0.5))
def test_steins_lemma(seed: int, std: float) -> None:
    # Cov(m, d) / sigma^2 = E[d'(m)]: the slope against the mean, over the same modulator, of forward-mode derivatives
    # taken at every node. Eighty nodes for a decoder whose curvature they resolve.
    activity, coupling, decode = rand(2, 4, seed=seed), randn(2, 4, seed=seed + 1), smooth(4, 3, seed=seed + 2)
    statistics = decoder_statistics(decode, activity, coupling, std, num_nodes=80)
    nodes, weights = gauss_hermite(80, torch.float64, DEVICE)
    mean_derivative = torch.zeros_like(statistics.slope)
    for x, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        modulated = activity * torch.exp(std * x * coupling - (std * coupling) ** 2 / 2)
        with forward_ad.dual_level():
            decoded = decode(forward_ad.make_dual(modulated, modulated * coupling))
            mean_derivative += weight * forward_ad.unpack_dual(decoded).tangent
    torch.testing.assert_close(statistics.slope, mean_derivative, rtol=1e-6, atol=1e-6)


@holds_for(
    many=300, seed=SEEDS, pair=st.sampled_from([p for p in STATISTICS if p[0] != "correlation"]), beta=st.floats(0.1, 1)
)
def test_quadrature_tends_to_the_derivative(seed: int, pair: tuple[str, str], beta: float) -> None:
    # The error falls with sigma^2, by 16 when sigma is divided by 4; half of that is asked for, above rounding.
    options = {"normalizer": pair[0], "link": pair[1], "beta": beta}
    activity, coupling, decode = rand(3, 5, seed=seed), randn(3, 5, seed=seed + 1), smooth(5, 6, seed=seed + 2)
    limit = everything(decode, activity, coupling, estimator="derivative", **options)
    wide, narrow = (
        (everything(decode, activity, coupling, std, num_nodes=12, **options) - limit).abs().max().item()
        for std in (0.04, 0.01)
    )
    assert narrow < wide / 8 + 1e-9


@holds_for(many=300, seed=SEEDS, std=st.floats(1e-3, 0.3), bias=st.floats(0, 1))
def test_monte_carlo_is_within_its_error_of_quadrature(seed: int, std: float, bias: float) -> None:
    # The standard error from the samples themselves; six of them for the largest of 18 slopes and of 18 means.
    samples = 2000
    activity, coupling = rand(3, 5, seed=seed), randn(3, 5, seed=seed + 1)
    decode = dense(5, 6, bias=bias, seed=seed + 2)
    draws = torch.randn(samples, 3, generator=noise(seed), dtype=torch.float64, device=DEVICE)
    exact = decoder_statistics(decode, activity, coupling, std, num_nodes=100)
    sampled = decoder_statistics(decode, activity, coupling, std, estimator="monte_carlo", draws=draws)
    modulated = activity * torch.exp(std * draws[..., None] * coupling - (std * coupling) ** 2 / 2)
    deviation = decode(modulated.flatten(0, 1)).unflatten(0, (samples, 3)) - exact.mean
    slope_error = (draws[..., None] * deviation / std).std(0) / math.sqrt(samples)
    mean_error = deviation.std(0) / math.sqrt(samples)
    # A hundred nodes miss up to 0.2% of a slope where a kink is in reach, and a share sigma of that of a mean.
    kink = 0.002 * (activity * coupling.abs()).sum(1, keepdim=True) * 3
    assert ((sampled.slope - exact.slope).abs() <= 6 * slope_error + kink).all()
    assert ((sampled.mean - exact.mean).abs() <= 6 * mean_error + std * kink).all()
    assert (slope_error > 0).any()


@holds_for(few=12, many=300, seed=SEEDS, options=OPTIONS, neurons=st.integers(1, 3), silent=st.booleans())
def test_gradients_are_those_of_finite_differences(
    seed: int, options: tuple[str, str, str], neurons: int, silent: bool
) -> None:
    # Along one direction, central differences in float64; one encoder neuron, silent and uncoupled ones.
    activity, decode = rand(2, neurons + 1, seed=seed), smooth(neurons + 1, 3, seed=seed + 1)
    activity[:, 0] *= not silent
    coupling, direction = 0.5 + rand(2, neurons + 1, seed=seed + 2), randn(2, neurons + 1, seed=seed + 3)
    coupling[:, 1] *= seed % 2
    weights, step = randn(2, 3, seed=seed + 4), 1e-5

    def loss(w: Tensor) -> Tensor:
        gains = everything(decode, activity, w, beta=0.8, num_nodes=12, num_samples=12, **named(options))
        return (weights * gains).sum()

    slopes = decoder_statistics(decode, activity, coupling, 0.3, estimator="derivative").slope
    # The rectified link has a kink where a slope is 0.
    assume("rectified" not in options or slopes.abs().min() > 0.05)
    (gradient,) = torch.autograd.grad(loss(coupling.requires_grad_()), coupling)
    with torch.no_grad():
        difference = (loss(coupling + step * direction) - loss(coupling - step * direction)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(difference.item(), rel=1e-4, abs=1e-6)


# ---- gains of a task -----------------------------------------------------------------------------------------------------


@holds_for(
    many=300,
    seed=SEEDS,
    tasks=st.lists(st.integers(0, 3), min_size=1, max_size=9),
    cut=st.integers(0, 9),
    power=POWERS,
    kernel=st.sampled_from([1, 3]),
    skip=st.booleans(),
)
def test_exact_task_gains_are_those_of_averages_over_inputs(
    seed: int, tasks: list[int], cut: int, power: float, kernel: int, skip: bool
) -> None:
    # One pass over batches cut anywhere (empty ones too), one task or several, tasks without inputs, any scale, silent
    # neurons; against the average over inputs of forward-mode derivatives.
    ids = torch.tensor(tasks, device=DEVICE)
    weight = randn(5, 4, kernel, kernel, seed=seed) / 6
    matrix = randn(5, 4, seed=seed + 1) if skip else None
    activity = (10.0**power * randn(len(tasks), 4, 3, 2, seed=seed + 2)).clamp(min=0)
    coupling = randn(4, 4, seed=seed + 3)

    def decode(h: Tensor) -> Tensor:
        drive = F.conv2d(h, weight, padding=kernel // 2)
        return torch.relu(drive if matrix is None else drive + torch.einsum("de,nehw->ndhw", matrix, h))

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for part in (slice(0, cut), slice(cut, None)):
            yield activity[part], decode(activity[part]), ids[part]

    exact = task_response(batches(), 4, weight, matrix).statistics(coupling)
    single = decoder_statistics(decode, activity, coupling[ids], 0.3, estimator="derivative")
    averaged = average_over_tasks(single, ids, 4)
    small = 1e-12 * 10.0**power
    torch.testing.assert_close(exact.slope, averaged.slope, rtol=1e-9, atol=small)
    torch.testing.assert_close(exact.mean, averaged.mean, rtol=1e-9, atol=small)
    for link in ("rectified", "exponential"):
        gains, expected = (gains_from_statistics(s, link=link) for s in (exact, averaged))
        torch.testing.assert_close(gains, expected, rtol=1e-7, atol=1e-7)
        assert (gains[[k not in tasks for k in range(4)]] == 1).all()


class Doubled:
    """Two processes that have the same inputs."""

    def sum(self, values: Tensor) -> Tensor:
        return 2 * values


@holds_for(
    seed=SEEDS,
    tasks=st.lists(st.integers(0, 2), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
    power=st.integers(-100, 100),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_task_averages_at_any_scale_and_in_any_order(
    seed: int, tasks: list[int], order: object, power: int, dtype: torch.dtype
) -> None:
    # Homogeneous to the last bit at scales whose squares leave float32; twice the same inputs are the same average.
    size, unit = len(tasks), 2.0**power
    statistics = DecoderStatistics(
        randn(size, 4, seed=seed, dtype=dtype),
        rand(size, 4, seed=seed + 1, dtype=dtype),
        rand(size, 4, seed=seed + 2, dtype=dtype),
    )
    statistics.deviation[:, 0] = 0
    ids = torch.tensor(tasks, device=DEVICE)
    averaged = average_over_tasks(statistics, ids, 3)
    scaled = average_over_tasks(DecoderStatistics(*(unit * x for x in statistics)), ids, 3)
    for plain, large in zip(averaged, scaled, strict=True):
        assert torch.equal(unit * plain, large)
    shuffled = torch.tensor(order.sample(range(size), size), device=DEVICE)  # type: ignore[attr-defined]
    other = average_over_tasks(DecoderStatistics(*(x[shuffled] for x in statistics)), ids[shuffled], 3)
    twice = average_over_tasks(DecoderStatistics(*(x.repeat(2, 1) for x in statistics)), ids.repeat(2), 3)
    tolerance = 8 * torch.finfo(dtype).eps
    for plain, mixed, doubled in zip(averaged, other, twice, strict=True):
        torch.testing.assert_close(mixed, plain, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(doubled, plain, rtol=tolerance, atol=tolerance)
    # Batch by batch, and by processes that add up what they have: as at once.
    for unscaled, whole in ((1.0, averaged), (unit, scaled)):
        total = TaskAverages(3)
        for part in torch.arange(size, device=DEVICE).split(3):
            total.add(DecoderStatistics(*(unscaled * x[part] for x in statistics)), ids[part])
        for result in (total.result(), total.result(Doubled())):  # type: ignore[arg-type]
            for together, apart in zip(whole, result[0], strict=True):
                assert apart.dtype == dtype
                torch.testing.assert_close(apart / unscaled, together / unscaled, rtol=tolerance, atol=tolerance)
    # One input alone: the average is the input.
    alone = average_over_tasks(DecoderStatistics(*(x[:1] for x in statistics)), ids[:1], 3)
    for value, average in zip(statistics, alone, strict=True):
        torch.testing.assert_close(average[tasks[0]], value[0], rtol=tolerance, atol=0)
    assert not any(average[[k for k in range(3) if k != tasks[0]]].any() for average in alone)


def test_neurons_that_do_not_move_leave_the_gradients_of_a_task_finite() -> None:
    # The root of a variance of 0 has an infinite derivative: alone in its task, beside a neuron that moves, and without inputs.
    deviation = torch.tensor([[0.0, 2.0], [0.0, 0.0]], dtype=torch.float64, device=DEVICE, requires_grad=True)
    statistics = DecoderStatistics(deviation, deviation, deviation)
    averaged = average_over_tasks(statistics, torch.tensor([0, 1], device=DEVICE), 3)
    assert averaged.deviation.tolist() == [[0, 2], [0, 0], [0, 0]]
    (gradient,) = torch.autograd.grad(averaged.deviation.sum(), deviation)
    assert gradient.tolist() == [[0, 1], [0, 0]]


# ---- what is exact -----------------------------------------------------------------------------------------------------


@holds_for(
    many=300,
    seed=SEEDS,
    estimator=st.sampled_from(ESTIMATORS),
    maps=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_rows_that_cannot_covary_are_exactly_one_for_decoders_that_round_by_row(
    seed: int, estimator: str, maps: bool, dtype: torch.dtype
) -> None:
    # As kernels in half precision do: a relative error of 1e-3 that depends on the place in the batch. Rows 0 to 2 are not
    # coupled, coupled through silent neurons only, and silent; row 3 is coupled through one neuron at one position.
    shape = (4, 5, 2, 2) if maps else (4, 5)
    activity, coupling = rand(*shape, seed=seed, dtype=dtype), 0.5 + rand(4, 5, seed=seed + 1, dtype=dtype)
    coupling[0] = 0
    activity[1, :2], coupling[1, 2:] = 0, 0
    activity[2] = 0
    activity[3, 1:], coupling[3, 1:] = 0, 1
    coupling[3, 0] = 1
    if maps:
        activity[3, 0, :, 1] = 0
    decode = layer("homogeneous", 5, 6, 1.0, seed, dtype)

    def rounding(h: Tensor) -> Tensor:
        place = 1 + 1e-3 * torch.sin(torch.arange(len(h), device=DEVICE, dtype=h.dtype))
        return decode(h) * place.reshape(-1, *(1,) * (h.ndim - 1))

    statistics = decoder_statistics(
        rounding, activity, coupling, 0.3, estimator=estimator, num_samples=64, generator=noise()
    )
    assert (statistics.slope[:3] == 0).all()
    assert torch.equal(statistics.slope[3] > 0, statistics.mean[3] > 0)
    gains = everything(rounding, activity, coupling, estimator=estimator, num_samples=64)
    assert (gains[:3] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_derivative_of_integers_is_an_integer(dtype: torch.dtype) -> None:
    # Scaling of the tangent is by powers of two: it costs no bit, whatever the largest coupling.
    weight = torch.tensor([[1.0, -2.0, 3.0], [2.0, 1.0, 0.0]], dtype=dtype, device=DEVICE)
    activity = torch.tensor([[3.0, 1.0, 2.0]], dtype=dtype, device=DEVICE)
    for largest in range(1, 12):
        coupling = torch.tensor([[float(largest), -1.0, largest - 2.0]], device=DEVICE)
        statistics = decoder_statistics(lambda h: h @ weight.T, activity, coupling, 0.3, estimator="derivative")
        wide = (activity * coupling).double() @ weight.double().T
        assert torch.equal(statistics.slope.double(), wide)
        assert torch.equal(statistics.deviation, statistics.slope.abs())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_neurons_that_do_not_move_have_deviation_0(estimator: str) -> None:
    statistics = decoder_statistics(
        lambda h: torch.stack([h[:, 0], 0 * h[:, 0], 0 * h[:, 0] + 2], 1), rand(3, 2), 1 + rand(3, 2, seed=1), 0.3,
        estimator=estimator, generator=noise(),
    )  # fmt: skip
    assert (statistics.deviation[:, 0] > 0).all()
    assert (statistics.deviation[:, 1:].abs() < 1e-14).all()
    assert (statistics.deviation[:, 1] == 0).all()


def test_statistics_take_the_documented_numbers_of_nodes_and_samples() -> None:
    activity, coupling, decode = rand(3, 6), 2 * rand(3, 6, seed=1), smooth(6, 5, seed=2)
    for estimator, options in (("quadrature", {"num_nodes": 5}), ("monte_carlo", {"num_samples": 128})):
        first, second = (
            decoder_statistics(decode, activity, coupling, 0.8, estimator=estimator, generator=noise(), **given)
            for given in ({}, options)
        )
        assert torch.equal(first.slope, second.slope)


@pytest.mark.parametrize(("normalizer", "link"), STATISTICS)
def test_a_decoder_without_neurons_has_no_gains(normalizer: str, link: str) -> None:
    gains = everything(lambda h: h[:, :0], rand(3, 2), rand(3, 2, seed=1), normalizer=normalizer, link=link)
    assert gains.shape == (3, 0)


# ---- what is admitted ----------------------------------------------------------------------------------------------------


def test_the_ends_of_every_range_are_admitted() -> None:
    activity, coupling, decode = rand(2, 3), 0.5 + rand(2, 3, seed=1), dense(3, 4, seed=2)
    for nodes in (2, 100):
        assert torch.isfinite(everything(decode, activity, coupling, num_nodes=nodes)).all()
    assert torch.isfinite(everything(decode, activity, coupling, estimator="monte_carlo", num_samples=2)).all()
    for estimator, normalizer, link in OFFERED:
        check_options(estimator, normalizer, link, 0)
        check_options(estimator, normalizer, link, 1)
    with pytest.raises(ValueError, match="beta must be in"):
        check_options("quadrature", "relative", "exponential", 10**400)  # no float holds it


def test_every_option_reaches_the_gains() -> None:
    # The defaults as documented, and each option another result than its default.
    activity, coupling, weight = rand(3, 6), 2 * rand(3, 6, seed=1), rand(5, 6, seed=2)

    def decode(h: Tensor) -> Tensor:
        return F.softplus(h @ weight.T - 2)  # positive weights, so that all neurons have a gain

    def gains(**options: object) -> Tensor:
        return decoder_gains(decode, activity, coupling, 0.8, generator=noise(), **options)  # type: ignore[arg-type]

    defaults: dict[str, object] = {
        "estimator": "quadrature", "normalizer": "relative", "link": "rectified", "beta": 1.0, "num_nodes": 5
    }  # fmt: skip
    assert torch.equal(gains(), gains(**defaults))
    others: list[dict[str, object]] = [
        {"estimator": "derivative"}, {"estimator": "monte_carlo"}, {"normalizer": "covariance"},
        {"normalizer": "correlation"}, {"link": "exponential"}, {"beta": 0.5}, {"num_nodes": 6},
    ]  # fmt: skip
    results = [gains(), *(gains(**other) for other in others)]
    assert all((a - b).abs().max() > 1e-9 for i, a in enumerate(results) for b in results[:i])
    sampled = gains(estimator="monte_carlo")
    assert torch.equal(sampled, gains(estimator="monte_carlo", num_samples=128))
    assert not torch.equal(sampled, gains(estimator="monte_carlo", num_samples=129))


def test_overflow_of_one_neuron_leaves_the_gradients_of_the_others() -> None:
    # In float16 an activity of 6e4 overflows when modulated: its neuron has no slope, and nobody's gradient is NaN.
    activity = torch.tensor([[6e4, 1.0, 2.0]], dtype=torch.float16, device=DEVICE)
    coupling = torch.tensor([[1.0, 0.5, 2.0]], device=DEVICE, requires_grad=True)
    for normalizer in ("relative", "correlation"):
        gains = decoder_gains(lambda h: h * 1, activity, coupling, 0.3, normalizer=normalizer)
        assert torch.isfinite(gains).all()
        assert gains[0, 0] == 0
        (gradient,) = torch.autograd.grad(
            (gains.float() * torch.tensor([1.0, 2.0, 4.0], device=DEVICE)).sum(), coupling
        )
        assert torch.isfinite(gradient).all()
        assert gradient[0, 1:].abs().min() > 1e-3


def test_the_derivative_of_the_largest_activity_of_float16_is_finite() -> None:
    # The tangent of a coupling just below a power of two is the activity itself, not twice as large.
    activity = torch.tensor([[6e4, 3e4]], dtype=torch.float16, device=DEVICE)
    coupling = torch.tensor([[1.9, 0.95]], device=DEVICE)
    gains = decoder_gains(lambda h: h * 1, activity, coupling, 0.3, estimator="derivative")
    torch.testing.assert_close(
        gains, torch.tensor([[4 / 3, 2 / 3]], dtype=torch.float16, device=DEVICE), rtol=2e-3, atol=0
    )
