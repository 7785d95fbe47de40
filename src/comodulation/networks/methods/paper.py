"""The paper's own mechanism, under a name of its own: comodulation by samples of the modulator.

T samples m_t ~ N(0, sigma^2) multiply the encoder; decoder neuron j has for each image the gain [Cov_t(m_t, d_j(m_t))]_+, divided
by its mean over neurons; the same T fluctuating activities, with their gains, are read, and the T probabilities averaged. Couplings
are w = exp(u). Option: the correlation in place of the covariance, and the average over a task's images in place of each image's
own (``normalizer``, ``level``). docs/paper.md goes through the paper point by point.

`comodulation` is what this library makes of it: exact gains in place of samples, one a task, and no noise in what is read.
Source: arXiv 2311.15053 (2023).
"""

from __future__ import annotations

from typing import Any, ClassVar

from ...errors import InputError
from ...mathematics import Modulation
from .comodulation import Comodulation

NORMALIZERS = ("covariance", "correlation")


class Paper(Comodulation):
    """Encoder and decoder fluctuate with a sampled modulator; each image's decoder gains are its covariances with the samples.

    Raises:
        InputError: a head whose mechanism is another one.
    """

    name = "paper"
    paper = "arXiv 2311.15053 (2023), as it is there"
    modulation: ClassVar[dict[str, Any]] = {
        "estimator": "monte_carlo", "normalizer": "covariance", "link": "rectified", "level": "input", "encoder": "stochastic",
        "num_samples": 8,
    }  # fmt: skip

    def build(self) -> None:
        self.check_modulation(self.head.modulation)

    @classmethod
    def check_modulation(cls, given: Modulation) -> None:
        wanted: dict[str, tuple[Any, ...]] = {
            name: (cls.modulation[name],) for name in ("estimator", "link", "encoder")
        }
        wanted |= {"normalizer": NORMALIZERS, "training_encoder": (None, "stochastic"), "after_gain": (False,)}
        for name, allowed in wanted.items():
            if getattr(given, name) not in allowed:
                raise InputError(
                    f"method 'paper' has {name} {' or '.join(map(str, allowed))}, got {getattr(given, name)}; method "
                    f"'comodulation' takes any, and a head for this one is built with **METHODS['paper'].modulation"
                )
