"""Speed and error of the gain estimators on a residual convolutional decoder.

    python benchmarks/estimators.py

Quadrature (five nodes) against Monte Carlo (128 samples): time of one call, and largest and mean error of a gain against
100,000 samples, at sigma 0.1, 0.3 and 0.6, rectified link, normaliser `relative`, level input. Errors are over 32 draws of
the 128 samples, so that chance does not decide the comparison.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from comodulation.mathematics import DecoderStatistics, decoder_gains, gains_from_statistics, modulate

INPUTS, ENCODER, DECODER, SIDE = 64, 64, 64, 4
REFERRED = 8  # inputs whose gains are compared with the 100,000 samples


def make_decoder() -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """d = relu(K * h + b + h), activity and coupling, random with the moments a trained head has."""
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(DECODER, ENCODER, 3, 3, generator=generator) / (9 * ENCODER) ** 0.5
    bias = 0.1 * torch.randn(DECODER, generator=generator)
    activity = torch.randn(INPUTS, ENCODER, SIDE, SIDE, generator=generator).relu()
    coupling = torch.exp(0.7 * torch.randn(INPUTS, ENCODER, generator=generator))

    def decode(h: Tensor) -> Tensor:
        return (torch.nn.functional.conv2d(h, kernel, bias, padding=1) + h).relu()

    return decode, activity, coupling


def reference(
    decode: Callable[[Tensor], Tensor], activity: Tensor, coupling: Tensor, std: float, samples: int
) -> Tensor:
    """Gains from many samples, accumulated in float64 so that memory stays flat."""
    generator = torch.Generator().manual_seed(1)
    sums = [torch.zeros(len(activity), DECODER, dtype=torch.float64) for _ in range(2)]
    total, squares, done = (
        torch.zeros(len(activity), dtype=torch.float64),
        torch.zeros(len(activity), dtype=torch.float64),
        0,
    )
    while done < samples:
        m = std * torch.randn(100, len(activity), generator=generator)
        d = decode(modulate(activity, coupling, m, std).flatten(0, 1)).mean((2, 3)).unflatten(0, m.shape).double()
        sums[0] += d.sum(0)
        sums[1] += (m.double()[..., None] * d).sum(0)
        total += m.double().sum(0)
        squares += m.double().square().sum(0)
        done += 100
    mean = sums[0] / done
    slope = (sums[1] / done - (total / done)[:, None] * mean) / std**2
    return gains_from_statistics(DecoderStatistics(slope, mean, slope.abs())).float()


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Fastest of several calls."""
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


@torch.no_grad()
def main() -> None:
    decode, activity, coupling = make_decoder()
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; B {INPUTS}, E = D {ENCODER}, {SIDE}x{SIDE} maps"
    )
    print(
        "| sigma | 128 samples, ms | 5 nodes, ms | ratio | derivative, ms | mean error: 128 samples | 5 nodes | derivative |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for std in (0.1, 0.3, 0.6):
        few, pattern = activity[:REFERRED], coupling[:REFERRED]
        exact = reference(decode, few, pattern, std, 100_000)

        def gains(
            estimator: str, h: Tensor, w: Tensor, generator: torch.Generator | None = None, std: float = std
        ) -> Tensor:
            return decoder_gains(decode, h, w, std, estimator=estimator, generator=generator)

        sampled = torch.stack(
            [gains("monte_carlo", few, pattern, torch.Generator().manual_seed(100 + seed)) for seed in range(32)]
        )
        errors = {
            "monte_carlo": (sampled - exact).abs(),
            "quadrature": (gains("quadrature", few, pattern) - exact).abs(),
            "derivative": (gains("derivative", few, pattern) - exact).abs(),
        }
        times = {
            name: seconds(lambda name=name: gains(name, activity, coupling), 5 if name == "monte_carlo" else 30)
            for name in errors
        }
        cells = [f"{1e3 * times['monte_carlo']:.0f}", f"{1e3 * times['quadrature']:.1f}"]
        cells += [f"{times['monte_carlo'] / times['quadrature']:.1f}", f"{1e3 * times['derivative']:.1f}"]
        cells += [f"{error.mean():.5f}" for error in errors.values()]
        print(f"| {std} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
