"""The controller: from a task to a pattern u over the encoder's neurons. The only learnable part.

u is signed and exactly 0 at the start, so that training begins at the network as it was pretrained. From u follow the
encoder's task gain e = exp(u) and, by the link, the coupling to the modulator (`coupling`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import InputError, choose
from ..mathematics import autocasts, outside_autocast

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}


class Controller(nn.Module):
    """Task -> u in R^E.

    Args:
        num_tasks: number K of tasks.
        num_channels: number E of encoder neurons.
        hidden: widths of the hidden layers. Empty: one row of u per task, learned directly (an embedding). Otherwise
            an MLP on an embedding of the task, or on ``task_vectors``.
        embedding_size: width of the task embedding that an MLP reads.
        rank: couplings of so many dimensions, (K + E) rank parameters: u is a linear map, without bias, of an embedding of this
            size. None: the embedding is u itself. Only without hidden layers and task vectors.
        activation: of the hidden layers: relu, gelu, tanh or silu.
        task_vectors: a fixed description of each task, ``(K, V)``, read by an MLP in place of a learned embedding, so
            that an unseen task can be expressed by its vector. With empty ``hidden`` the map is linear.

    Raises:
        InputError: unknown activation, task_vectors of wrong shape, a rank beside hidden layers or task vectors.
    """

    task_vectors: Tensor | None

    def __init__(
        self,
        num_tasks: int,
        num_channels: int,
        *,
        hidden: Sequence[int] = (),
        embedding_size: int = 32,
        activation: str = "relu",
        rank: int | None = None,
        task_vectors: Tensor | Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.num_tasks, self.num_channels = num_tasks, num_channels
        choose(activation, ACTIVATIONS, "activation")
        vectors = None if task_vectors is None else torch.as_tensor(task_vectors).clone().float()
        if vectors is not None and (vectors.ndim != 2 or vectors.shape[0] != num_tasks or not vectors.shape[1]):
            raise InputError(f"task_vectors must be (K, V) with K = {num_tasks}, got {tuple(vectors.shape)}")
        if rank is not None and (hidden or vectors is not None or rank < 1):
            raise InputError(
                f"rank must be positive, and cannot be used with hidden layers or task vectors, got {rank!r}"
            )
        self.register_buffer("task_vectors", vectors)
        self.embedding: nn.Embedding | None = None
        self.mlp: nn.Sequential | None = None
        if vectors is None:
            self.embedding = nn.Embedding(num_tasks, embedding_size if hidden else rank or num_channels)
        if rank is not None:
            self.mlp = nn.Sequential(nn.Linear(rank, num_channels, bias=False))
        elif hidden or vectors is not None:
            widths = [embedding_size if vectors is None else vectors.shape[1], *hidden]
            layers: list[nn.Module] = []
            for before, after in itertools.pairwise(widths):
                layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
            self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], num_channels))
        self.reset_output()

    def check_rows(self, couplings: str) -> None:
        """Raises InputError unless a task has a row of numbers of its own, into which couplings in closed form can be written."""
        if self.mlp is not None:
            raise InputError(
                f"couplings {couplings!r} are one row of numbers a task; the controller must be an embedding, without hidden "
                "layers, rank or task vectors"
            )

    @torch.no_grad()
    def reset_output(self) -> None:
        """Set u to exactly 0 for every task."""
        if self.mlp is not None:
            last = self.mlp[-1]
            assert isinstance(last, nn.Linear)
            last.weight.zero_()
            if last.bias is not None:
                last.bias.zero_()
        elif self.embedding is not None:
            self.embedding.weight.zero_()

    def forward(self, tasks: Tensor) -> Tensor:
        """u of each input, ``(B, E)``.

        Args:
            tasks: task ids, integers ``(B,)``, or task vectors, floating point ``(B, V)``.

        Raises:
            ValueError: task vectors given to a controller that was built without them, or of another width.
        """
        if tasks.is_floating_point():
            if self.task_vectors is None or tasks.ndim != 2 or tasks.shape[1] != self.task_vectors.shape[1]:
                expected = "none (built without)" if self.task_vectors is None else f"(B, {self.task_vectors.shape[1]})"
                raise ValueError(f"task vectors of shape {tuple(tasks.shape)} given, expected {expected}")
            described = tasks
        elif self.embedding is not None:
            described = self.embedding(tasks)
        else:
            assert self.task_vectors is not None
            described = self.task_vectors[tasks]
        if self.mlp is None:
            return described
        if autocasts(described.device):  # what u is rounded to, every gain would be
            with outside_autocast(described.device):
                return self.mlp(described)
        return self.mlp(described)


def coupling(u: Tensor, link: str) -> Tensor:
    """Coupling w to the modulator: exp(u) >= 0 for the rectified link, u itself (signed) for the exponential link."""
    return u.exp() if choose(link, ("rectified", "exponential"), "link") == "rectified" else u


def checked_task_ids(task_ids: Tensor, num_tasks: int, batch: int | None = None) -> Tensor:
    """Task ids as int64.

    Args:
        task_ids: task of each input, integers ``(B,)``.
        num_tasks: number K of tasks.
        batch: B, where it is known.

    Raises:
        ValueError: another type or shape.
        IndexError: out of range, with the value and the range.
    """
    if task_ids.is_floating_point() or task_ids.is_complex() or task_ids.dtype == torch.bool:
        raise ValueError(f"task_ids must be an integer tensor, got {task_ids.dtype}")
    # Not len(task_ids), which would fix the batch size of an exported graph.
    if task_ids.ndim != 1 or (batch is not None and task_ids.shape[0] != batch):
        expected = "(B,)" if batch is None else f"({batch},)"
        raise ValueError(f"task_ids must have shape {expected}, one task per input, got {tuple(task_ids.shape)}")
    if not torch.compiler.is_compiling() and len(task_ids):
        low, high = int(task_ids.min()), int(task_ids.max())
        if low < 0 or high >= num_tasks:
            raise IndexError(f"task_ids must be in [0, {num_tasks - 1}], got {low if low < 0 else high}")
    if torch.compiler.is_compiling():
        # A graph cannot raise, and a look-up in one may count negative ids from the end: it gets one that it refuses.
        return torch.where(task_ids < 0, num_tasks, task_ids).to(torch.int64)
    return task_ids.to(torch.int64)
