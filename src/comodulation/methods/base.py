"""The interface of a method: a way to adapt a pretrained, frozen head to a family of tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..head import ComodulatedHead
from ..tasks import TaskFamily, task_logits

Batches = Iterable[tuple[Tensor, Tensor]]  # of (what the method reads, task ids (B,))
READS = ("features", "activity", "decoded")


class Method(nn.Module, ABC):
    """Logits of a head under a task, and what is learned to get them.

    A subclass says what it adds: ``head_logits`` (the rest of the pipeline is shared), ``own_parameters``, and, where it
    needs them, ``observe`` (see the training inputs before training), ``settle`` (fix what evaluation needs after
    training), ``gradients`` and ``after_step`` (train otherwise than by the gradient of the loss alone). The head's layers
    are frozen unless ``trains_layers``.

    What lies before the first thing a method changes is computed once for all epochs. ``reads`` says where that is:
    ``features`` of the backbone ``(B, C, H, W)``, ``activity`` of the encoder ``(B, E, H, W)``, or ``decoded``, the pooled
    activity of the decoder ``(B, D)`` (a gain of a decoder neuron is the same before and after pooling).

    Args:
        head: pretrained; changed only by methods with ``trains_layers``.
        family: the tasks.
        readout: ``open`` or ``restricted``; see ``task_logits``.
        task_bias: learn, besides, a bias per task and output: ``(K, C)``, or ``(K,)`` for binary tasks. Any method can be
            combined with this cheap rival; with the other, the class mask, every method is what it is in the restricted
            readout.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    trains_layers: ClassVar[bool] = False
    reads: ClassVar[str] = "activity"
    kinds: ClassVar[tuple[str, ...]] = ("classes", "binary")
    options: ClassVar[dict[str, object]] = {}  # the method's own, by name, with their defaults
    default_learning_rate: ClassVar[float] = 0.06

    def __init__(
        self, head: ComodulatedHead, family: TaskFamily, readout: str = "open", *, task_bias: bool = False
    ) -> None:
        super().__init__()
        if family.kind not in self.kinds:
            raise InputError(f"method {self.name!r} is for tasks of kind {', '.join(self.kinds)}, got {family.kind}")
        if (head.num_tasks, head.num_outputs) != (family.num_tasks, family.num_outputs):
            raise ValueError(
                f"the head has {head.num_tasks} tasks and {head.num_outputs} outputs, the family {family.num_tasks} and "
                f"{family.num_outputs}"
            )
        self.head, self.family, self.readout = head, family, readout
        shape = (family.num_tasks, family.num_outputs) if family.kind == "classes" else (family.num_tasks,)
        self.bias = nn.Parameter(torch.zeros(shape)) if task_bias else None
        if not self.trains_layers:
            head.freeze()

    @abstractmethod
    def head_logits(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None, step: int) -> Tensor:
        """Logits ``(T, B, C)`` from what the method reads, before bias and mask; T = 1 unless sampled."""

    def own_parameters(self) -> list[nn.Parameter]:
        """What the method itself learns. Nothing by default."""
        return []

    def learnable(self) -> list[nn.Parameter]:
        """The parameters that fine-tuning trains: the method's own, and the task bias."""
        return self.own_parameters() + ([] if self.bias is None else [self.bias])

    def rate_factors(self) -> list[float]:
        """Learning rate of each learnable parameter, as a multiple of the training's."""
        return [1.0] * len(self.learnable())

    def state(self) -> dict[str, Tensor]:
        """Buffers that belong to the adapted network without being learned, by name; changed in place. None by default."""
        return {}

    def prepare(self, features: Tensor) -> Tensor:
        """What the method reads, from features ``(B, C, H, W)``."""
        if self.reads == "features":
            return features
        activity = self.head.encode(features)
        return activity if self.reads == "activity" else self.head.decode(activity).mean((-2, -1))

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
        """Logits the task decides by: ``(T, B, C)`` for classes, ``(T, B, 2)`` for binary tasks."""
        logits = self.head_logits(inputs, task_ids, sample_ids, step)
        if self.bias is not None:
            bias = self.bias.index_select(0, task_ids)
            logits = logits + (bias if bias.ndim == 2 else bias[:, None])
        return task_logits(self.family, logits, task_ids, self.readout)

    def loss(
        self, inputs: Tensor, task_ids: Tensor, targets: Tensor, sample_ids: Tensor | None = None, step: int = 0
    ) -> Tensor:
        """Mean negative log likelihood over inputs, and over modulator samples where there are several."""
        logits = self(inputs, task_ids, sample_ids, step)
        return F.cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits)))

    @torch.no_grad()
    def log_probabilities(self, inputs: Tensor, task_ids: Tensor, sample_ids: Tensor | None = None) -> Tensor:
        """Log of the predicted probabilities, averaged over modulator samples as probabilities: ``(B, C)`` or ``(B, 2)``."""
        logs = self(inputs, task_ids, sample_ids).log_softmax(-1)
        return logs[0] if len(logs) == 1 else logs.logsumexp(0) - torch.tensor(float(len(logs))).log()

    def num_learnable(self) -> int:
        return sum(parameter.numel() for parameter in self.learnable())

    def adapter_tensors(self) -> dict[str, Tensor]:
        """What distinguishes the adapted network from its pretrained head, by name."""
        names = {id(parameter) for parameter in self.learnable()}
        learned = {name: parameter.detach() for name, parameter in self.named_parameters() if id(parameter) in names}
        return learned | self.state()

    def load_adapter_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``adapter_tensors``. Raises InputError for missing, unknown, misshapen or non-finite tensors."""
        own = self.adapter_tensors()
        copy_checked(own, tensors, f"method {self.name!r}")


def copy_checked(own: dict[str, Tensor], given: dict[str, Tensor], what: str) -> None:
    """Copy tensors by name into ``own``, after all of them have been checked.

    Raises:
        InputError: names that are missing or unknown, shapes or types that differ, values that are not finite.
    """
    if set(own) != set(given):
        missing, unknown = sorted(set(own) - set(given)), sorted(set(given) - set(own))
        raise InputError(
            f"the adapter does not fit {what}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}"
        )
    for name, tensor in own.items():
        if tensor.shape != given[name].shape or tensor.dtype != given[name].dtype:
            raise InputError(
                f"the adapter does not fit {what}: {name} is {given[name].dtype} {tuple(given[name].shape)}, expected "
                f"{tensor.dtype} {tuple(tensor.shape)}"
            )
        if not bool(torch.isfinite(given[name]).all()):
            raise InputError(f"the adapter is damaged: {name} holds values that are not finite")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name])
