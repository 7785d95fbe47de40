"""Readouts of the frozen features themselves: logistic regression, and what is best on a table of labels.

No layers of ours lie between: a probe or small networks answer from the features. `linear` is the yardstick that every table of
results has. `auto` weighs it with committees of small networks, by out-of-fold predictions, and takes what those say. What is known
of a task is which outputs belong to it, so the answers are always among these.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..head import ComodulatedHead
from ..readouts import Probe, Questions, Readouts
from .base import Method


class NoLayers(ComodulatedHead):
    """In the place of a head, for methods that read the features themselves: it has no layers to keep."""

    def __init__(self, in_channels: int, num_outputs: int, num_tasks: int, *, seed: int = 0) -> None:
        super().__init__(
            in_channels, num_outputs, num_tasks, encoder_channels=1, decoder_channels=1, hidden=1, kernel_size=1,
            seed=seed,
        )  # fmt: skip

    def pretrained_tensors(self) -> dict[str, Tensor]:
        return {}


class ReadoutMethod(Method):
    """Readouts of features; fitted at once (``training.readouts``), not step by step.

    Args:
        head: in the place of layers. family, readout: as in ``Method``; the readout is always that of the task's own outputs.
    """

    reads = "features"
    paper = "none: what a user would do instead"
    without_layers: ClassVar[bool] = True
    one_process = "it is fitted at once, not step by step"
    kinds_of_members: ClassVar[tuple[str, ...]] = ("probe", "bag")
    measured_by_linear: ClassVar[bool] = False  # whether its best probe alone stands beside it in tables of results

    def build(self) -> None:
        if self.bias is not None:
            raise InputError(f"method {self.name!r} has a bias for each output already; leave task_bias out")
        questions, width = Questions.of(self.family), self.head.feature_mean.numel()
        probe = Probe(width, questions.num_outputs)  # as it is made: before anything is fitted, all answers are alike
        self.fitted = False
        self.parts: Any = nn.ModuleList([Readouts(questions, width, [(probe, 0, width)])])

    def set_parts(self, parts: Iterable[nn.Module]) -> None:
        """Answer by these from now on."""
        self.parts, self.fitted = nn.ModuleList(parts), True

    def encoded(self, inputs: Tensor) -> Tensor:
        """Features ``(B, C, H, W)`` -> logits of all tasks ``(B, N)``; for classes, those of each network ``(B, M C)``."""
        rows = rows_of(inputs)
        if not self.fitted:  # of which the first are looked at, and all alike
            rows = rows[:, : self.head.feature_mean.numel()]
        if self.family.kind != "classes":
            return torch.cat([self._outputs(part, rows) for part in self.parts], -1)
        part: Any = self.parts[0]
        logits, _ = part(rows)
        return logits.movedim(0, 1).flatten(1)

    def _outputs(self, part: Any, rows: Tensor) -> Tensor:
        """Logits of a part's tasks; a binary task that columns of classes were added to has an output of no, too, 0."""
        logits: Tensor = part.combine(*part(rows))
        if part.questions.binary and self.family.kind == "columns":
            logits = torch.stack([torch.zeros_like(logits), logits], -1).flatten(1)
        return logits

    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        if self.family.kind != "classes":
            return inputs[None]
        logits = inputs.unflatten(1, (-1, self.family.num_outputs)).movedim(1, 0)
        own = logits.masked_fill(~self.family.member_mask(task_ids), -torch.inf)
        part: Any = self.parts[0]
        return part.combine(own, part.log_weights())[None]

    def alone(self, place: int) -> ReadoutMethod:
        """The same tasks answered by one member of the first part, at temperature 1: what the method is to be measured by.

        Args:
            place: of the member, among those that were tried.
        """
        found = type(self)(self.head, self.family, self.readout)
        found.parts = nn.ModuleList([self.parts[0].alone(place)])
        return found.eval()

    def num_learnable(self) -> int:
        return sum(value.numel() for value in self.parts.parameters())

    def adapter_identity(self) -> dict[str, Any]:
        return {
            "method": self.name,
            "features": self.head.feature_mean.numel(),
            "family": self.family.to_json(),
        }

    def adapter_tensors(self) -> dict[str, Tensor]:
        return {
            f"part.{number}.{name}": value
            for number, part in enumerate(self.parts)
            for name, value in part.tensors().items()
        }

    def load_adapter_tensors(self, tensors: dict[str, Tensor]) -> None:
        groups: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            first, number, *rest = f"{name}..".split(".", 2)
            if first != "part":
                raise InputError(f"the adapter does not fit method {self.name!r}: it holds {name!r}")
            groups.setdefault(number, {})[rest[0][:-2]] = value
        parts, sizes = [], Questions.of(self.family).sizes
        for place in range(len(groups)):
            part = Readouts.of_tensors(groups.get(str(place), {}), sizes)
            sizes = sizes[len(part.questions.sizes) :]
            parts.append(part)
        if sizes or not parts:
            raise InputError(f"the adapter does not fit method {self.name!r}: {len(sizes)} tasks are without an answer")
        self.set_parts(parts)


class Linear(ReadoutMethod):
    """Logistic regression, multinomial or binary, on pooled features and on the map, weighed by out-of-fold predictions."""

    name = "linear"
    kinds_of_members = ("probe",)


class NearestClassMean(ReadoutMethod):
    """The class whose mean is nearest, in closed form, with probabilities, on pooled features and on the map."""

    name = "nearest-class-mean"
    kinds_of_members = ("means",)


class Committee(ReadoutMethod):
    """Small networks of one hidden layer, one a fold, whose probabilities are averaged."""

    name = "committee"
    kinds_of_members = ("bag",)


class Auto(ReadoutMethod):
    """Probes, committees and the frequencies of the classes, weighted by out-of-fold predictions.

    Where nothing beats the probe, it is the probe.
    """

    name = "auto"
    kinds_of_members = ("probe", "bag", "frequencies")
    measured_by_linear = True


def rows_of(features: Tensor) -> Tensor:
    """Features ``(B, C, H, W)`` as rows ``(B, V)``: means over positions, then the map, where there is more than one position."""
    flat = features.flatten(1)
    return flat if features[0, 0].numel() == 1 else torch.cat([features.mean((-2, -1)), flat], 1)
