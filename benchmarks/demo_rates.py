"""The learning rates of the demo: five candidates for each method, on validation scenes of seeds that the demo does not use.

python benchmarks/demo_rates.py
"""

from __future__ import annotations

from comodulation.studies import fit_seed

CANDIDATES = {
    "hard-sharing": (3e-3, 1e-2, 2e-2, 3e-2, 6e-2),
    "task-bias": (0.1, 0.2, 0.4, 0.8, 1.6),
    "attention": (0.1, 0.2, 0.4, 0.8, 1.6),
    "comodulation": (0.1, 0.2, 0.4, 0.8, 1.6),
}
SEEDS = (100, 101)

if __name__ == "__main__":
    losses: dict[str, list[float]] = {name: [0.0] * 5 for name in CANDIDATES}
    for place in range(5):
        rates = {name: values[place] for name, values in CANDIDATES.items()} | {"base": 0.1, "class-mask": 0.1}
        for seed in SEEDS:
            for name, (_, values) in fit_seed(seed, rates).items():
                if name in losses:
                    losses[name][place] += values["nll"] / len(SEEDS)
    print("validation NLL by learning rate")
    for name, values in losses.items():
        row = "  ".join(f"{rate:g}: {loss:.3f}" for rate, loss in zip(CANDIDATES[name], values, strict=True))
        print(f"{name:14s} {row}   -> {CANDIDATES[name][values.index(min(values))]:g}")
