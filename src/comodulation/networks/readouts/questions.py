"""What is asked of a row of features: blocks of outputs, each with a softmax of its own, or outputs with a sigmoid each.

A question is what a label column asks. Its answer is one of the outputs of its block; for a binary question, yes or no by one
output. A family of classes within groups asks one question, of all classes; which of them belong to a row's group is masked later.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from ...tasks import Examples, TaskFamily


@dataclass(frozen=True)
class Questions:
    """Q questions, whose outputs follow each other.

    Attributes:
        sizes: number of outputs of each question; 1 for each binary one.
        binary: whether every question is answered by a sigmoid.
    """

    sizes: tuple[int, ...]
    binary: bool = False

    @classmethod
    def of(cls, family: TaskFamily) -> Questions:
        """The questions that a family asks of every image."""
        if family.kind == "classes":
            return cls((family.num_outputs,))
        return cls(tuple(map(len, family.members)), family.kind == "binary")

    @property
    def num_outputs(self) -> int:
        return sum(self.sizes)

    @cached_property
    def first(self) -> Tensor:
        """First output of each question, int64 ``(Q,)``."""
        return torch.tensor([0, *self.sizes]).cumsum(0)[:-1]

    @cached_property
    def question(self) -> Tensor:
        """Question of each output, int64 ``(C,)``."""
        return torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))

    @cached_property
    def _alike(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Questions of equal size, and their outputs ``(q, size)``: so that many columns cost few operations."""
        found = []
        for size in sorted(set(self.sizes)):
            own = torch.tensor([number for number, other in enumerate(self.sizes) if other == size])
            found.append((own, self.first[own][:, None] + torch.arange(size)))
        return tuple(found)

    def log_softmax(self, logits: Tensor) -> Tensor:
        """Logits ``(..., C)`` -> log-probabilities ``(..., C)``, each block normalised; for binary questions of yes."""
        if self.binary:
            return F.logsigmoid(logits)
        if len(self.sizes) == 1:
            return logits.log_softmax(-1)
        result = torch.empty_like(logits)
        for _, outputs in self._alike:
            result[..., outputs.flatten()] = logits[..., outputs].log_softmax(-1).flatten(-2)
        return result

    def losses(self, logits: Tensor, answers: Tensor) -> Tensor:
        """Negative log-likelihood of each answer.

        Args:
            logits: ``(..., B, C)``.
            answers: place of the answer within its question, -1 where it is missing, int64 ``(..., B, Q)``.

        Returns:
            ``(..., B, Q)``, 0 where the answer is missing.
        """
        known = answers >= 0
        places = answers.clamp(min=0)
        if self.binary:
            return (F.softplus(logits) - places * logits) * known
        if len(self.sizes) == 1:
            return (logits.logsumexp(-1, keepdim=True) - logits.gather(-1, places)) * known
        normaliser = torch.empty_like(answers, dtype=logits.dtype)
        for own, outputs in self._alike:
            normaliser[..., own] = logits[..., outputs].logsumexp(-1)
        return (normaliser - logits.gather(-1, places + self.first)) * known

    def losses_and_slopes(self, logits: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """The losses and their derivatives by the logits: predicted probabilities minus given answers.

        Args:
            logits: ``(B, C)``. answers: as in ``losses``, ``(B, Q)``.

        Returns:
            ``(B, Q)`` as ``losses``, and ``(B, C)``, 0 for the outputs of a question whose answer is missing.
        """
        known = answers >= 0
        places = answers.clamp(min=0)
        if self.binary:
            slopes = (logits.sigmoid() - places) * known
            return (F.softplus(logits) - places * logits) * known, slopes
        logs, given = self.log_softmax(logits), places + self.first
        slopes = logs.exp().scatter_add_(-1, given, logs.new_full((), -1).expand(given.shape))
        counted = known if len(self.sizes) == 1 else known[:, self.question]
        return -logs.gather(-1, given) * known, slopes * counted

    def answers(self, family: TaskFamily, examples: Examples, images: Tensor) -> Tensor:
        """Answers of some images to every question, -1 where they are missing.

        Args:
            family: whose questions these are.
            examples: labelled pairs.
            images: row numbers, sorted, ``(n,)``; all images of the examples are among them.

        Returns:
            int64 ``(n, Q)``.
        """
        table = torch.full((len(images), len(self.sizes)), -1)
        row = torch.searchsorted(images, examples.image)
        if family.kind == "classes":
            table[row, 0] = examples.target
        else:
            first = torch.zeros_like(self.first) if self.binary else self.first
            table[row, examples.task] = examples.target - first[examples.task]
        return table
