"""Decoder gains: rows without coupling, symmetries, gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from comodulation.mathematics.estimators import ESTIMATORS
from support.decoders import DEVICE, OFFERED, dense, everything, rand, randn, residual, smooth

# ---- rows without any coupling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("estimator", "normalizer", "link"), OFFERED)
def test_uncoupled_rows_are_exactly_one_with_finite_gradients(
    estimator: str, normalizer: str, link: str, dtype: torch.dtype
) -> None:
    # Row 0 is not coupled, row 1 only through silent neurons, row 2 is silent altogether, row 3 is an ordinary one.
    for decode, shape in ((dense(37, 50, dtype), (4, 37)), (residual(12, dtype), (4, 12, 3, 5))):
        activity = rand(*shape, dtype=dtype)
        activity[1, :5] = 0
        activity[2] = 0
        coupling = randn(*shape[:2], seed=1, dtype=torch.float32 if dtype.itemsize == 2 else dtype)
        coupling[0] = 0
        coupling[1, 5:] = 0
        coupling.requires_grad_()
        gains = everything(decode, activity, coupling, estimator=estimator, normalizer=normalizer, link=link)
        assert (gains[:3] == 1).all()
        assert (gains[3] - 1).abs().max() > 0.1
        (gains * randn(*gains.shape, seed=2, dtype=dtype)).sum().backward()
        assert coupling.grad is not None
        assert torch.isfinite(coupling.grad).all()
        assert coupling.grad[3].any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_exponential_link_has_a_gradient_at_zero_coupling(estimator: str) -> None:
    # A controller starts there. The gradient is that of a row with a coupling next to zero.
    activity, decode = rand(1, 6), dense(6, 5)
    slopes = []
    for start in (0.0, 1e-4):
        coupling = torch.full((1, 6), start, dtype=torch.float64, device=DEVICE, requires_grad=True)
        gains = everything(decode, activity, coupling, estimator=estimator, link="exponential")
        slopes.append(torch.autograd.grad((gains * randn(5, seed=2)).sum(), coupling)[0])
    assert slopes[0].abs().max() > 0.1
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("estimator", "normalizer", "link"), OFFERED)
def test_where_no_slope_is_positive_the_rectified_gains_are_one(estimator: str, normalizer: str, link: str) -> None:
    # Positive weights and negative couplings: modulation lowers every decoder neuron, or leaves it silent.
    weight = rand(9, 6)
    weight[4:] *= -1
    coupling = (-rand(3, 6, seed=1)).requires_grad_()
    gains = everything(
        lambda h: torch.relu(h @ weight.T), rand(3, 6, seed=2), coupling,
        estimator=estimator, normalizer=normalizer, link=link,
    )  # fmt: skip
    gains.sum().backward()
    assert coupling.grad is not None
    assert torch.isfinite(coupling.grad).all()
    assert (gains[:, 4:] == 1).all()  # silent neurons
    assert (gains[:, :4] == 1).all() if link == "rectified" else (gains[:, :4] < 1).all()


# ---- symmetries ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-15, 1e-6, 3.0, 1e6, 1e15])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalizer", ["relative", "covariance"])
def test_small_noise_gains_do_not_depend_on_the_scale_of_the_coupling(
    normalizer: str, dtype: torch.dtype, scale: float
) -> None:
    activity, decode = rand(3, 12, 4, 4, dtype=dtype), residual(12, dtype)
    coupling = rand(3, 12, seed=1, dtype=torch.promote_types(dtype, torch.float32))
    options = {"estimator": "derivative", "normalizer": normalizer}
    expected = everything(decode, activity, coupling, **options)
    # The tangent is rounded to the activity's precision; a gain is a quotient of sums of such values.
    rounding = 16 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        everything(decode, activity, scale * coupling, **options), expected, rtol=rounding, atol=2 * rounding
    )


@pytest.mark.parametrize("normalizer", ["relative", "covariance", "correlation"])
def test_small_noise_quadrature_does_not_depend_on_the_scale_of_the_coupling(normalizer: str) -> None:
    activity, coupling, decode = rand(3, 6), rand(3, 6, seed=1), smooth(6, 5)
    first, second = (everything(decode, activity, c * coupling, 1e-4, normalizer=normalizer) for c in (1, 10))
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)  # of order (10 sigma w)^2
    assert (first - 1).abs().max() > 0.05


@pytest.mark.parametrize("scale", [1e-15, 1e-7, 1e7, 1e15])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("estimator", "normalizer", "link"), OFFERED)
def test_gains_of_a_homogeneous_decoder_do_not_depend_on_the_scale_of_activity(
    estimator: str, normalizer: str, link: str, dtype: torch.dtype, scale: float
) -> None:
    weight = randn(9, 6, dtype=dtype)
    activity, coupling = rand(3, 6, seed=1, dtype=dtype), randn(3, 6, seed=2, dtype=dtype)
    coupling = torch.where(coupling > 1, 0, coupling).requires_grad_()
    results = []
    for factor in (1.0, scale):
        gains = everything(
            lambda h: torch.relu(h @ weight.T), factor * activity, coupling,
            estimator=estimator, normalizer=normalizer, link=link,
        )  # fmt: skip
        results.append((gains, *torch.autograd.grad(gains.square().sum(), coupling)))
    tolerance = 1e3 * torch.finfo(dtype).eps
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)


@given(seed=st.integers(0, 10**6), combination=st.sampled_from(OFFERED), order=st.permutations(range(7)))
@settings(max_examples=40, deadline=None)
def test_equivariant_to_permutations_of_decoder_neurons(
    seed: int, combination: tuple[str, str, str], order: list[int]
) -> None:
    estimator, normalizer, link = combination
    activity, coupling, decode = rand(2, 5, seed=seed), randn(2, 5, seed=seed + 1), dense(5, 7, seed=seed + 2)
    options = {"estimator": estimator, "normalizer": normalizer, "link": link, "beta": 0.6}
    gains = everything(decode, activity, coupling, **options)
    permuted = everything(lambda h: decode(h)[:, order], activity, coupling, **options)
    torch.testing.assert_close(permuted, gains[:, order], rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 10**6), combination=st.sampled_from(OFFERED), order=st.permutations(range(5)))
@settings(max_examples=40, deadline=None)
def test_invariant_to_permutations_of_encoder_neurons(
    seed: int, combination: tuple[str, str, str], order: list[int]
) -> None:
    estimator, normalizer, link = combination
    activity, coupling, decode = rand(2, 5, seed=seed), randn(2, 5, seed=seed + 1), dense(5, 7, seed=seed + 2)
    back = torch.tensor(order).argsort()
    options = {"estimator": estimator, "normalizer": normalizer, "link": link}
    gains = everything(decode, activity, coupling, **options)
    permuted = everything(lambda h: decode(h[:, back]), activity[:, order], coupling[:, order], **options)
    torch.testing.assert_close(permuted, gains, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("estimator", "normalizer", "link"), [c for c in OFFERED if c[0] != "monte_carlo"])
def test_a_row_alone_equals_the_row_in_a_batch(estimator: str, normalizer: str, link: str, dtype: torch.dtype) -> None:
    # A matrix product may sum in another order for another number of rows: eps of the activity, over sigma = 0.3.
    for decode, shape in ((dense(40, 30, dtype), (9, 40)), (residual(12, dtype), (9, 12, 4, 4))):
        activity, coupling = rand(*shape, dtype=dtype), randn(*shape[:2], seed=1, dtype=dtype)
        coupling[3] = 0
        options = {"estimator": estimator, "normalizer": normalizer, "link": link}
        batch = everything(decode, activity, coupling, **options)
        alone = torch.cat([everything(decode, activity[b : b + 1], coupling[b : b + 1], **options) for b in range(9)])
        tolerance = 300 * torch.finfo(dtype).eps
        torch.testing.assert_close(alone, batch, rtol=tolerance, atol=tolerance)


# ---- gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("estimator", "normalizer", "link"), OFFERED)
def test_gradients_against_finite_differences(estimator: str, normalizer: str, link: str) -> None:
    activity, decode = rand(2, 3), smooth(3, 4)
    coupling = (0.5 + rand(2, 3, seed=1)).requires_grad_()
    options = {"estimator": estimator, "normalizer": normalizer, "link": link, "beta": 0.8, "num_samples": 8}
    assert torch.autograd.gradcheck(lambda w: everything(decode, activity, w, **options), [coupling])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_of_a_convolutional_decoder_and_its_kernel(estimator: str) -> None:
    # Away from its kinks the rectified decoder is smooth too; pretraining may want the gradient of the kernel.
    activity, coupling = 0.5 + rand(1, 2, 2, 2), (0.5 + rand(1, 2, seed=1)).requires_grad_()
    kernel = (0.1 + rand(2, 2, 3, 3, seed=2)).requires_grad_()

    def gains(w: Tensor, k: Tensor) -> Tensor:
        return everything(
            lambda h: torch.relu(F.conv2d(h, k, padding=1)), activity, w, estimator=estimator, num_samples=6
        )

    assert torch.autograd.gradcheck(gains, [coupling, kernel])
