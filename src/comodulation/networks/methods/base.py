"""The interface of a method: a way to adapt a pretrained, frozen head to a family of tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError, choose
from ...mathematics import Modulation
from ...processes import Share
from ...tasks import Readout, TaskFamily, task_logits
from ...tensors import copy_checked
from ..head import ComodulatedHead
from ..layers import taking

Batches = Iterable[tuple[Tensor, Tensor]]  # of (what the method reads, task ids (B,))


class Method(nn.Module, ABC):
    """Logits of a head under a task, and what is learned to get them.

    A subclass says what it adds: ``head_logits`` (the rest of the pipeline is shared), ``own_parameters``, and, where it
    needs them, ``build`` (make them), ``observe`` (see the training inputs before training), ``settle`` (fix what evaluation
    needs after training), ``gradients`` and ``after_step`` (train otherwise than by the gradient of the loss alone). The head's
    layers are frozen unless ``trains_layers``.

    What lies before the first thing a method changes is computed once for all epochs. ``reads`` says where that is:
    ``features`` of the backbone ``(B, C, H, W)``, ``activity`` of the encoder ``(B, E, H, W)``, or ``decoded``, the pooled
    activity of the decoder ``(B, D)`` (a gain of a decoder neuron is the same before and after pooling).

    Args:
        head: pretrained; changed only by methods with ``trains_layers``.
        family: the tasks.
        readout: ``open`` or ``restricted``; see ``task_logits``.
        task_bias: learn, besides, a bias per task and output: ``(K, C)``; ``(K,)`` for binary tasks, and ``(C,)`` for columns,
            whose outputs each belong to one task. Any method can be
            combined with this cheap rival; with the other, the class mask, every method is what it is in the restricted
            readout.
        **options: the method's own, each an attribute afterwards; see ``options``.

    Raises:
        InputError: tasks of a kind that the method is not for; an option that is unknown or out of range.
        ValueError: a head with other tasks or outputs than the family.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    trains_layers: ClassVar[bool] = False
    reads: ClassVar[str] = "activity"
    kinds: ClassVar[tuple[str, ...]] = ("classes", "binary", "columns")
    # The method's own, by name, with their defaults.
    options: ClassVar[dict[str, object]] = {}
    # Fields of ``Modulation`` that a run of the method has otherwise than their defaults.
    modulation: ClassVar[dict[str, Any]] = {}
    default_learning_rate: ClassVar[float] = 0.06
    has_bias: ClassVar[bool] = False  # whether a task bias is learned in any case
    without_layers: ClassVar[bool] = False  # whether it answers from the features themselves
    one_process: ClassVar[str] = ""  # why it cannot be trained by several processes

    def __init__(
        self,
        head: ComodulatedHead,
        family: TaskFamily,
        readout: Readout = "open",
        *,
        task_bias: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        for option in options:
            choose(option, self.options, f"option of method {self.name!r};")
        if family.kind not in self.kinds:
            raise InputError(f"method {self.name!r} is for tasks of kind {', '.join(self.kinds)}, got {family.kind}")
        if (head.num_tasks, head.num_outputs) != (family.num_tasks, family.num_outputs):
            raise ValueError(
                f"the head has {head.num_tasks} tasks and {head.num_outputs} outputs, the family {family.num_tasks} and "
                f"{family.num_outputs}"
            )
        self.head, self.family, self.readout = head, family, readout
        shape = {
            "classes": (family.num_tasks, family.num_outputs), "binary": (family.num_tasks,),
            "columns": (family.num_outputs,),
        }[family.kind]  # fmt: skip
        self.bias = nn.Parameter(torch.zeros(shape)) if task_bias or self.has_bias else None
        if not self.trains_layers:
            head.freeze()
        for name, value in {**self.options, **options}.items():
            setattr(self, name, value)
        self.build()

    def build(self) -> None:
        """Make what the method adds to the head, once that, the family and the options are there. Nothing by default.

        Raises:
            InputError: an option out of range.
        """

    @classmethod
    def check_modulation(cls, given: Modulation) -> None:
        """Raise InputError for a mechanism that is not the method's. Any will do by default."""

    @abstractmethod
    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        """Logits ``(T, B, C)`` from what is ``encoded``, before bias and mask; T = 1 unless sampled."""

    def own_parameters(self) -> list[nn.Parameter]:
        """What the method itself learns. Nothing by default."""
        return []

    def learnable(self) -> list[nn.Parameter]:
        """The parameters that fine-tuning trains: the method's own, the task bias, and outputs that came with added tasks."""
        bias = [] if self.bias is None else [self.bias]
        return [*self.own_parameters(), *bias, *self.head.added_outputs()]

    def rate_factors(self) -> list[float]:
        """Learning rate of each learnable parameter, as a multiple of the training's."""
        return [1.0] * len(self.learnable())

    def state(self) -> dict[str, Tensor]:
        """Buffers that belong to the adapted network without being learned, by name; changed in place.

        By default none, or, of a method that trains the layers, their running statistics.
        """
        buffers = self.head.layer_buffers() if self.trains_layers else {}
        return {f"head.{name}": buffer for name, buffer in buffers.items()}

    def prepare(self, features: Tensor) -> Tensor:
        """What the method reads, from features ``(B, C, H, W)``."""
        if self.reads == "features":
            return features
        activity = self.head.encode(features)
        return activity if self.reads == "activity" else self.head.decode(activity).mean((-2, -1))

    def encoded(self, inputs: Tensor) -> Tensor:
        """What all tasks of an input have in common, from what the method reads: the encoder's activity ``(B, E, H, W)``, or
        what lies behind it where the method reads that."""
        return self.head.encode(inputs) if self.reads == "features" else inputs

    def observe(self, batches: Batches, *, shared: bool = False) -> None:
        """See the training inputs once before training; ``shared`` as in ``ComodulatedHead.observe``."""

    def settle(self, batches: Batches) -> None:
        """Fix, after training or before validation, what evaluation must not compute from its own batch."""

    def gradients(self, module: Any, fabric: Any, batch: tuple[Any, ...]) -> Tensor:
        """Leave a batch's gradients on the learnable parameters; return its loss. ``module`` is the method, as Fabric set it up."""
        loss = module.loss(*batch)
        fabric.backward(loss)
        return loss

    def after_step(self, steps: int, total: int) -> None:
        """Called in training after each step: how many are done, of how many."""

    def forward(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None = None, step: int = 0) -> Tensor:
        """Logits the task decides by: ``(T, B, C)`` for classes and columns, ``(T, B, 2)`` for binary tasks."""
        return self.decide(self.encoded(inputs), task_ids, sample_ids, step)

    def decide(self, encoded: Tensor, task_ids: Tensor, sample_ids: Tensor | None = None, step: int = 0) -> Tensor:
        """As ``forward``, from what is ``encoded``."""
        return self.finish(self.head_logits(encoded, task_ids, sample_ids, step), task_ids)

    def finish(self, logits: Tensor, task_ids: Tensor) -> Tensor:
        """The head's logits ``(..., B, C)`` with task bias and mask: what the task decides by."""
        if self.bias is not None:
            bias = self.bias[None] if self.family.kind == "columns" else self.bias.index_select(0, task_ids)
            logits = logits + (bias if bias.ndim == 2 else bias[:, None])
        return task_logits(self.family, logits, task_ids, self.readout)

    def loss(
        self,
        inputs: Tensor,
        task_ids: Tensor,
        targets: Tensor,
        sample_ids: Tensor | None = None,
        step: int = 0,
        weights: Tensor | None = None,
        share: Share | None = None,
    ) -> Tensor:
        """Mean negative log likelihood over inputs, and over modulator samples where there are several.

        With ``weights`` ``(B,)``, each input's counts so many times; they are not made to add up to the batch's size, so that an
        input weighs the same in whichever batch it comes. With ``share``, the inputs are those rows of a batch, and the loss is
        their part of its mean.
        """
        with taking(share, self.head):
            logits = self(inputs, task_ids, sample_ids, step)
        samples, answers = len(logits), targets.repeat(len(logits))
        if share is None and weights is None:
            return F.cross_entropy(logits.flatten(0, 1), answers)
        losses = F.cross_entropy(logits.flatten(0, 1), answers, reduction="none")
        if weights is not None:
            losses = losses * weights.repeat(samples)
        return losses.mean() if share is None else losses.sum() / (share.total * samples)

    @torch.no_grad()
    def log_probabilities(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None = None) -> Tensor:
        """Log of the predicted probabilities, averaged over modulator samples as probabilities: ``(B, C)`` or ``(B, 2)``."""
        return self.decided(self.encoded(inputs), task_ids, sample_ids)

    @torch.no_grad()
    def decided(self, encoded: Tensor, task_ids: Tensor, sample_ids: Tensor | None = None) -> Tensor:
        """As ``log_probabilities``, from what is ``encoded``."""
        logs = self._normalised(self.decide(encoded, task_ids, sample_ids))
        return logs[0] if len(logs) == 1 else logs.logsumexp(0) - torch.tensor(float(len(logs))).log()

    def _normalised(self, logits: Tensor) -> Tensor:
        """Log probabilities from logits ``(T, B, C)``. Outputs that came with added columns are normalised by themselves, so that
        a task's answer has the bits that it had without them."""
        sizes = self.head.added_output_sizes() if self.family.kind == "columns" else ()
        if not sizes:
            return logits.log_softmax(-1)
        # A sum of two, of no and yes, has the same bits among any number of zeros.
        first, later = logits.shape[-1] - sum(sizes) - self.head.paired_outputs(), list(sizes)
        while later and self.head.paired_outputs() > first:
            first += later.pop(0)
        widths = [width for width in (logits.shape[-1] - sum(later), *later) if width]
        normalised = []
        for part in logits.split(widths, -1):
            others = part.isneginf().all(-1, keepdim=True)  # than the outputs of the task that is asked
            normalised.append(part.masked_fill(others, 0).log_softmax(-1).masked_fill(others, -torch.inf))
        return torch.cat(normalised, -1)

    def num_learnable(self) -> int:
        return sum(parameter.numel() for parameter in self.learnable())

    def adapter_identity(self) -> dict[str, Any]:
        """What an adapter and the method it is loaded into must agree in."""
        # A method that trains the layers replaces them, so its adapter belongs to their shape, not to their values.
        layers = {"head": ""} if self.trains_layers else {}
        return {**self.head.adapter_identity(), **layers, "method": self.name, "family": self.family.to_json()}

    def adapter_tensors(self) -> dict[str, Tensor]:
        """What distinguishes the adapted network from its pretrained head, by name."""
        names = {id(parameter) for parameter in self.learnable()}
        learned = {name: parameter.detach() for name, parameter in self.named_parameters() if id(parameter) in names}
        return learned | self.state()

    def load_adapter_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``adapter_tensors``. Raises InputError for missing, unknown, misshapen or non-finite tensors."""
        own = self.adapter_tensors()
        copy_checked(own, tensors, f"method {self.name!r}")
