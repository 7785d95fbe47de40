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

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError, choose
from ...mathematics import (
    CLOSED_FORMS,
    calibrated_middle,
    calibrated_strength,
    closed_form_couplings,
    derived_seed,
    log_posteriors,
    position_gains,
    position_labels,
    some_of_each,
)
from ..controller import coupling
from .base import Batches, Method

LEARNED = "learned"
ONE, EACH = "one", "each"
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
    options: ClassVar[dict[str, object]] = {"couplings": LEARNED, "strength": 10.0, "weights": ONE}
    default_learning_rate = 0.25
    couplings: str
    strength: float
    weights: str
    strengths: Tensor
    middles: Tensor | None

    def build(self) -> None:
        head, strength = self.head, self.strength
        choose(self.couplings, (LEARNED, *CLOSED_FORMS), "couplings")
        choose(self.weights, (ONE, EACH), "weights")
        if self.weights == EACH and self.couplings == LEARNED:
            raise InputError(
                f"weights {EACH!r} need couplings in closed form, whose inputs tell how likely a position is; take couplings="
                f"{next(iter(CLOSED_FORMS))!r}, or weights={ONE!r}"
            )
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1e6:
            raise InputError(f"strength {strength!r} is out of range, expected a number from 0 to 1e6")
        if self.couplings != LEARNED:
            head.controller.check_rows(self.couplings)
        self.register_buffer("strengths", head.decoder.weight.new_full((head.num_tasks,), strength))
        self.register_buffer("middles", torch.zeros_like(self.strengths) if self.weights == EACH else None)

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        decoded, labels = self._labelled(inputs, self.head.controller(task_ids))
        strengths = self.strengths.index_select(0, task_ids)
        if self.middles is None:
            gains = position_gains(labels, strengths)
        else:
            gains = position_gains(log_posteriors(labels, strengths, self.middles.index_select(0, task_ids)))
        gains = gains.to(decoded.dtype)
        return self.head.read(decoded * gains.unflatten(1, decoded.shape[2:])[:, None])[None]

    def labels(self, inputs: Tensor, task_ids: Tensor) -> Tensor:
        """Label of every position of inputs ``(B, E, H, W)`` under tasks ``(B,)``: ``(B, H, W)``."""
        return self._labelled(inputs, self.head.controller(task_ids))[1].unflatten(1, inputs.shape[2:])

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
        found = closed_form_couplings(
            self.couplings, processes.join(torch.cat(rows)), processes.join(torch.cat(tasks)), number
        )
        embedding.weight.copy_(found)
        if self.middles is not None:  # a position of a task's inputs is one that shows what it asks for
            named = torch.arange(number, device=few.device)
            by_place = torch.stack([self.labels(few, task.expand(len(few))).flatten(1) for task in named], -1)
            own = own.repeat_interleave(by_place.shape[1])
            labels = by_place.flatten(0, 1)
        else:
            labels = torch.stack([self._label_of_input(few, row.expand(len(few), -1)) for row in embedding.weight], 1)
        labels, known = processes.join(labels), F.one_hot(processes.join(own), number).bool()
        self.strengths.copy_(calibrated_strength(labels, known))
        if self.middles is not None:
            self.middles.copy_(calibrated_middle(labels, known))

    def state(self) -> dict[str, Tensor]:
        middles = {} if self.middles is None else {"middles": self.middles}
        return {**super().state(), "strengths": self.strengths, **middles}

    def adapter_tensors(self) -> dict[str, Tensor]:
        return {f"head.controller.{name}": value for name, value in self.head.controller.state_dict().items()} | (
            super().adapter_tensors()
        )

    def _labelled(self, inputs: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Decoder activity ``(B, D, H, W)`` and labels of its positions ``(B, H W)``."""
        decoded, statistics = self.head.position_statistics(inputs, coupling(u, self.head.modulation.link))
        return decoded, position_labels(statistics)

    def _label_of_input(self, inputs: Tensor, u: Tensor) -> Tensor:
        """The label of all positions taken together, ``(B,)``."""
        _, statistics = self.head.position_statistics(inputs, coupling(u, self.head.modulation.link))
        whole = statistics._replace(
            slope=statistics.slope.sum(1, keepdim=True), mean=statistics.mean.sum(1, keepdim=True)
        )
        return position_labels(whole)[:, 0]
