"""The options of the mechanism, checked when they are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import choose
from .estimators import Estimator, EstimatorName, estimator_named
from .gains import Link, Normalizer, check_options
from .modulator import check_std

EncoderMode = Literal["gain", "none", "stochastic"]
Level = Literal["task", "input"]
Response = Literal["task", "shared"]


@dataclass(frozen=True)
class Modulation:
    """How a task modulates the head. Names as in ``comodulation.decoder_gains``.

    Attributes:
        std: standard deviation sigma of the modulator.
        estimator, normalizer, link, beta, num_nodes, num_samples: as in ``decoder_gains``.
        level: `task` (one gain per task, from statistics averaged over its inputs) or `input` (one per input).
        encoder: what the encoder does while the decoder has its gains: `gain` (multiplied by exp(u)), `none`
            (unmodulated), or `stochastic` (modulated by ``num_samples`` draws; probabilities are averaged).
        training_encoder: the same while training; None means as ``encoder``.
        after_gain: take the decoder's statistics at the encoder activity after its task gain exp(u), not before it.
        response: how decoder neurons answer to couplings, for exact gains of level `task`: found for each `task` over its own
            inputs, or `shared`: once over those of all tasks, and kept. The gains of any couplings then follow from the couplings
            alone, without inputs: those of a task added later, and of a task vector. For a head, with estimator `derivative`.

    Raises:
        ValueError: unknown names, combinations that are not offered, numbers out of range.
    """

    std: float = 0.3
    estimator: EstimatorName = "derivative"
    normalizer: Normalizer = "relative"
    link: Link = "exponential"
    level: Level = "task"
    beta: float = 1.0
    encoder: EncoderMode = "gain"
    training_encoder: EncoderMode | None = None
    after_gain: bool = False
    num_nodes: int = 5
    num_samples: int = 16
    response: Response = "task"

    def __post_init__(self) -> None:
        check_std(self.std)
        estimator_named(self.estimator, self.num_nodes, self.num_samples)  # refuses what makes none
        check_options(self.estimator, self.normalizer, self.link, self.beta)
        choose(self.level, get_args(Level), "level")
        choose(self.encoder, get_args(EncoderMode), "encoder")
        choose(self.encoder_in(training=True), get_args(EncoderMode), "training_encoder")
        choose(self.response, get_args(Response), "response")
        if self.response == "shared" and (self.level != "task" or self.estimator != "derivative" or self.after_gain):
            raise ValueError(
                "response 'shared' needs level 'task', estimator 'derivative' and after_gain False, where gains are linear in the "
                f"couplings before the link; got {self.level!r}, {self.estimator!r} and {self.after_gain!r}"
            )

    @property
    def estimation(self) -> Estimator:
        """The estimator, with its parameters."""
        return estimator_named(self.estimator, self.num_nodes, self.num_samples)

    def identity(self) -> dict[str, object]:
        """Fields by name; the later ones only where they are used, so that adapters written before there were any load for ever."""
        return {name: value for name, value in vars(self).items() if name != "response" or value != "task"}

    def encoder_in(self, training: bool) -> EncoderMode:
        """What the encoder does, in training or in evaluation."""
        return (self.training_encoder or self.encoder) if training else self.encoder
