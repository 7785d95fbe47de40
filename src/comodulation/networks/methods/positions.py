"""Comodulation of positions: the map is pooled by where the modulator's fluctuation arrives, and not evenly.

Couplings make encoder neurons fluctuate. The share of that fluctuation in what the decoder does at a position is the position's
label, and the readout pools by it (mathematics/positions.py): what stands where the task's neurons are silent is left out, which no
gain of a channel can do. The price is one more convolution an input and task, in prediction too: a label belongs to an input.

Couplings are learned (K E numbers), or computed from the mean activity of inputs of each task (mathematics/couplings.py), with
nothing learned. They label best where a training input shows what its task asks for and nothing else.

Weights are of two kinds. ``one``: one position shows what is asked for, and they compete. ``each``: several do, as the words of a
message do, and each weighs as much as it is likely to, whatever the others say.
"""

from __future__ import annotations

from typing import ClassVar, get_args

import torch
from torch import Tensor, nn

from ...errors import InputError, choose
from ...mathematics import (
    CLOSED_FORMS,
    DecoderStatistics,
    closed_form_couplings,
    derived_seed,
    position_labels,
    some_of_each,
)
from ..controller import coupling
from ..position_weights import LEARNED, Calibration, Weights, gains_by_labels
from .base import Batches, Method

CALIBRATION_INPUTS = 40  # of each task, by which the strength of closed-form couplings is found


class Positions(Method):
    """Weights of positions, computed from couplings; neurons have no gains.

    Args:
        head, family, readout, task_bias: as in ``Method``.
        couplings: ``learned``, or a closed form, computed when the method observes its training inputs: ``informativeness``,
            ``discriminability`` or ``discriminant``.
        strength: beta of learned couplings. That of a closed form is found from the labels of its inputs, task by task: of whole
            inputs for weights of kind ``one``, of their positions for ``each``.
        weights: ``one`` or ``each``; the latter needs couplings in closed form.

    Raises:
        InputError: options that are unknown or out of range, or do not go together; a closed form with a controller that is no
            embedding.
    """

    name = "positions"
    paper = "none: labels of positions by the modulator of arXiv 2311.15053 (2023)"
    options: ClassVar[dict[str, object]] = {"couplings": LEARNED, "strength": 10.0, "weights": "one"}
    default_learning_rate = 0.25
    couplings: str
    strength: float
    weights: str
    strengths: Tensor
    middles: Tensor | None

    def build(self) -> None:
        head, strength = self.head, self.strength
        choose(self.couplings, (LEARNED, *CLOSED_FORMS), "couplings")
        choose(self.weights, get_args(Weights), "weights")
        if self.weights == "each" and self.couplings == LEARNED:
            raise InputError(
                f"weights 'each' need couplings in closed form, whose inputs tell how likely a position is; take couplings="
                f"{next(iter(CLOSED_FORMS))!r}, or weights='one'"
            )
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1e6:
            raise InputError(f"strength {strength!r} is out of range, expected a number from 0 to 1e6")
        if self.couplings != LEARNED:
            head.controller.check_rows(self.couplings)
        self.register_buffer("strengths", head.decoder.weight.new_full((head.num_tasks,), strength))
        self.register_buffer("middles", torch.zeros_like(self.strengths) if self.weights == "each" else None)

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        decoded, statistics = self._positions(inputs, self.head.controller(task_ids))
        strengths = self.strengths.index_select(0, task_ids)
        middles = None if self.middles is None else self.middles.index_select(0, task_ids)
        gains = gains_by_labels(position_labels(statistics), strengths, middles).to(decoded.dtype)
        return self.head.read(decoded * gains.unflatten(1, decoded.shape[2:])[:, None])[None]

    def own_parameters(self) -> list[nn.Parameter]:
        return list(self.head.controller.parameters()) if self.couplings == LEARNED else []

    @torch.no_grad()
    def observe(self, batches: Batches, *, shared: bool = False) -> None:
        if self.couplings == LEARNED:
            return
        if shared:
            raise InputError(
                f"couplings {self.couplings!r} tell a task's inputs from others', but every task has the same ones; take "
                "couplings='learned'"
            )
        rows: list[Tensor] = []
        tasks: list[Tensor] = []

        def seen() -> Batches:
            for activity, own in batches:
                rows.append(activity.mean((-2, -1)))
                tasks.append(own)
                yield activity, own

        number, processes = self.head.num_tasks, self.head.processes
        few, own = some_of_each(seen(), number, CALIBRATION_INPUTS, derived_seed(self.head.seed, "strength"))
        embedding = self.head.controller.embedding
        assert embedding is not None
        rows_of_all, tasks_of_all = (processes.join(torch.cat(parts)) for parts in (rows, tasks))
        embedding.weight.copy_(closed_form_couplings(self.couplings, rows_of_all, tasks_of_all, number))
        found = Calibration(number, self.weights)
        found.add([self._positions(few, row.expand(len(few), -1))[1] for row in embedding.weight], own)
        strengths, middles = found.result(processes)
        self.strengths.copy_(strengths)
        if self.middles is not None and middles is not None:
            self.middles.copy_(middles)

    def state(self) -> dict[str, Tensor]:
        middles = {} if self.middles is None else {"middles": self.middles}
        return {**super().state(), "strengths": self.strengths, **middles}

    def adapter_tensors(self) -> dict[str, Tensor]:
        return {f"head.controller.{name}": value for name, value in self.head.controller.state_dict().items()} | (
            super().adapter_tensors()
        )

    def _positions(self, inputs: Tensor, u: Tensor) -> tuple[Tensor, DecoderStatistics]:
        """Decoder activity ``(B, D, H, W)``, and statistics of its positions, fields ``(B, H W)``."""
        return self.head.position_statistics(inputs, coupling(u, self.head.modulation.link))
