"""What answers a table's questions: a probe and bags of small networks, weighted question by question, as sure as they may be."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import InputError
from .bag import Bag
from .questions import Questions

MAX_NUMBERS = 2**28  # in the tensors of one part; more is no readout of ours


class Probe(nn.Module):
    """Logistic regression: logits ``(1, B, C)`` of rows ``(B, V)``.

    Args:
        width: number V of features. outputs: number C of them.
        rectified: weigh the positive and the negative part of each feature by themselves: 2 V weights an output.
    """

    def __init__(self, width: int, outputs: int, *, rectified: bool = False) -> None:
        super().__init__()
        self.rectified = rectified
        self.weight = nn.Parameter(torch.zeros(outputs, 2 * width if rectified else width))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, rows: Tensor) -> Tensor:
        rows = torch.cat([rows.relu(), (-rows).relu()], 1) if self.rectified else rows
        return (rows @ self.weight.T + self.bias)[None]


class Readouts(nn.Module):
    """Members that read parts of the same rows, and what each of their answers weighs.

    Args:
        questions: Q of them, with C outputs.
        width: number V of features of a row.
        members: each with the first feature that it reads and the one after the last.
    """

    mean: Tensor
    deviation: Tensor
    weights: Tensor
    temperature: Tensor
    owner: Tensor  # question of each output

    def __init__(self, questions: Questions, width: int, members: Sequence[tuple[Probe | Bag, int, int]]) -> None:
        super().__init__()
        self.questions = questions
        self.members = nn.ModuleList(member for member, _, _ in members)
        self.places = [(start, stop) for _, start, stop in members]
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("weights", torch.full((len(questions.sizes), len(members)), 1 / len(members)))
        self.register_buffer("temperature", torch.ones(len(questions.sizes)))
        self.register_buffer("owner", questions.question, persistent=False)
        self.requires_grad_(False)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows ``(B, V)`` -> logits of every network of every member ``(M, B, C)``, and log weights of each ``(M, Q)``.

        Raises:
            InputError: rows of another width, of a backbone with another map.
        """
        if rows.shape[1] != len(self.mean):
            raise InputError(f"the network reads rows of {len(self.mean)} features, got {rows.shape[1]}")
        standard = (rows - self.mean) / self.deviation
        logits = [
            member(standard[:, start:stop]) for member, (start, stop) in zip(self.members, self.places, strict=True)
        ]
        return torch.cat(logits), self.log_weights()

    def log_weights(self) -> Tensor:
        """Logs of what each network's answers weigh, ``(M, Q)``; the networks of a bag share its weight evenly."""
        sizes = [len(member.first) if isinstance(member, Bag) else 1 for member in self.members]
        return torch.cat([(self.weights[:, place] / size).log().expand(size, -1) for place, size in enumerate(sizes)])

    def combine(self, logits: Tensor, weights: Tensor) -> Tensor:
        """The members' answers as one: log of the weighted mean probability, at the temperature of its question.

        Args:
            logits: ``(M, B, C)``, -inf where an output is not among the answers.
            weights: logs, ``(M, Q)``.

        Returns:
            Logits ``(B, C)``: of binary questions of yes, else normalised within each question.
        """
        shifted = weights[:, None, self.owner]
        yes = torch.logsumexp(self.questions.log_softmax(logits) + shifted, 0)
        temperature = self.temperature[self.owner]
        if self.questions.binary:
            no = torch.logsumexp(self.questions.log_softmax(-logits) + shifted, 0)
            return (yes - no) / temperature
        return self.questions.log_softmax(yes / temperature)

    def alone(self, place: int) -> Readouts:
        """One member as if nothing else had been tried, as sure as it is by itself; it shares the member's parameters.

        Args:
            place: of the member.
        """
        member = self.members[place]
        assert isinstance(member, (Probe, Bag))
        found = Readouts(self.questions, len(self.mean), [(member, *self.places[place])])
        found.mean, found.deviation = self.mean, self.deviation
        return found.to(self.mean.device)

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name; the shapes say what the members are."""
        found = {name: getattr(self, name) for name in ("mean", "deviation", "weights", "temperature")}
        for number, (member, place) in enumerate(zip(self.members, self.places, strict=True)):
            found |= {f"{number}.{name}": value for name, value in member.state_dict().items()}
            found[f"{number}.features"] = torch.tensor(place)
        return found

    @classmethod
    def of_tensors(cls, tensors: dict[str, Tensor], sizes: Sequence[int]) -> Readouts:
        """The inverse of ``tensors``.

        Args:
            tensors: by name. sizes: number of answers of the questions that are left, of which these are the first.

        Raises:
            InputError: tensors that are not those of readouts of such questions.
        """
        made = cls._laid_out_as(tensors, sizes)
        if made is None or not made._take(tensors):
            raise InputError("the adapter is damaged: its tensors are not those of readouts of these tasks")
        return made

    @classmethod
    def _laid_out_as(cls, tensors: dict[str, Tensor], sizes: Sequence[int]) -> Readouts | None:
        """Readouts of the members that tensors are of; None where they are of none."""
        mean, weights = tensors.get("mean"), tensors.get("weights")
        if mean is None or weights is None or mean.ndim != 1 or weights.ndim != 2:
            return None
        if sum(value.numel() for value in tensors.values()) > MAX_NUMBERS or not 0 < len(weights) <= len(sizes):
            return None
        own = tuple(sizes[: len(weights)])
        bias = tensors.get("0.bias")
        binary = bias is not None and bias.ndim > 0 and bias.shape[-1] == len(own) and max(own) <= 2
        questions = Questions((1,) * len(own), True) if binary else Questions(own)
        members: list[tuple[Probe | Bag, int, int]] = []
        while f"{len(members)}.features" in tensors:
            member = _member_of(tensors, len(members), len(mean), questions.num_outputs)
            if member is None:
                return None
            members.append(member)
        return cls(questions, len(mean), members) if members else None

    def _take(self, tensors: dict[str, Tensor]) -> bool:
        """Copy tensors of the same names into one's own; False for those that do not fit, and for values that cannot be."""
        own = self.tensors()
        if own.keys() != tensors.keys():
            return False
        for name, value in own.items():
            given = tensors[name]
            if given.shape != value.shape or given.dtype != value.dtype or not bool(given.isfinite().all()):
                return False
            if not name.endswith("features"):
                value.copy_(given)
        positive = (self.deviation, self.temperature, self.weights.sum(1))
        return all(bool((value > 0).all()) for value in positive) and bool((self.weights >= 0).all())


def _member_of(
    tensors: dict[str, Tensor], number: int, width: int, outputs: int
) -> tuple[Probe | Bag, int, int] | None:
    """A member that tensors are of, by its number, and its part of a row of ``width`` features; None where there is none such."""
    place, first, weight = (tensors.get(f"{number}.{name}") for name in ("features", "first", "weight"))
    if place is None or tuple(place.shape) != (2,) or place.is_floating_point() or place.is_complex():
        return None
    start, stop = place.tolist()
    if not 0 <= start < stop <= width:
        return None
    if first is None:
        rectified = weight is not None and weight.ndim == 2 and weight.shape[1] == 2 * (stop - start)
        return Probe(stop - start, outputs, rectified=rectified), start, stop
    if first.ndim != 3 or 0 in first.shape:
        return None
    return Bag(first.shape[0], stop - start, first.shape[2], outputs), start, stop
