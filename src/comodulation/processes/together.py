"""The processes that train together, and what they exchange.

Every process holds the whole network and takes its rows of every batch. What one process would sum over the batch or over the data
is summed over their shares, then over the processes; what one process would draw is drawn alike by all. So several processes do
the sums of one in another order: the same result up to rounding, whatever their number.

Values that decide something (the validation loss, what is finished) are those of the first process, for all: two machines may
differ in the last bit, and must not disagree about when to stop. Nothing is pickled: what is exchanged is tensors and JSON.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

from ..errors import RunError

CPU = torch.device("cpu")


class LostProcess(RunError):
    """Another process of the training is gone: it failed, was killed, or cannot be reached."""


class Calls:
    """This process's collective calls: how many have begun, and since when (seconds, monotonic) one has been waiting."""

    begun = 0
    since: float | None = None


CALLS = Calls()


class Share(NamedTuple):
    """Rows ``start`` to ``stop`` (exclusive) of a batch of ``total`` rows."""

    start: int
    stop: int
    total: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; alone by default, where every call returns what it is given.

    All of them must make the same calls in the same order. Each raises LostProcess where another process is gone.

    Attributes:
        rank: place of this process, from 0.
        number: how many there are.
        device: of this process; what is exchanged goes there.
    """

    rank: int = 0
    number: int = 1
    device: torch.device = CPU

    @classmethod
    def of(cls, fabric: Any) -> Processes:
        """Those of a ``lightning_fabric.Fabric``."""
        return cls(fabric.global_rank, fabric.world_size, fabric.device)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.number > 1

    def share(self, total: int) -> Share:
        """This process's rows of ``total``, in order; shares differ by one row at most, and may be empty."""
        return Share(total * self.rank // self.number, total * (self.rank + 1) // self.number, total)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the processes, the same bits in each; differentiable."""
        return _Sum.apply(values) if self.several else values

    def gather(self, rows: Tensor, total: int) -> Tensor:
        """All ``total`` rows, from each process's share of them: ``(n, ...) -> (total, ...)``."""
        if not self.several:
            return rows
        sizes = [Processes(rank, self.number).share(total) for rank in range(self.number)]
        longest = max(share.stop - share.start for share in sizes)
        padded = rows.new_zeros(longest, *rows.shape[1:], device=self.device)  # what is exchanged must have one size
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        with _connected():
            distributed.all_gather(parts, padded)
        whole = torch.cat([part[: share.stop - share.start] for part, share in zip(parts, sizes, strict=True)])
        return whole.to(rows.device)

    def join(self, rows: Tensor) -> Tensor:
        """The rows ``(n, ...)`` of all processes, in the order of the processes, however many each has."""
        if not self.several:
            return rows
        sizes = self.sum(
            torch.nn.functional.one_hot(torch.tensor(self.rank, device=rows.device), self.number) * len(rows)
        ).tolist()
        whole = rows.new_zeros(sum(sizes), *rows.shape[1:])
        whole[sum(sizes[: self.rank]) : sum(sizes[: self.rank + 1])] = rows
        return self.sum(whole)

    def follow(self, values: Tensor) -> None:
        """Overwrite a tensor by the first process's."""
        if not self.several:
            return
        received = values.detach().to(self.device, copy=True).contiguous()
        with _connected():
            distributed.broadcast(received, 0)
        with torch.no_grad():
            values.copy_(received)  # torch's own copy, which counts as a change where changes are counted

    def agree(self, value: Any) -> Any:
        """The first process's value, which can be written as JSON; the others' are not read."""
        if not self.several:
            return value
        text = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor(len(text))
        self.follow(length)
        text = text if self.first else torch.zeros(int(length), dtype=torch.uint8)
        self.follow(text)
        return json.loads(bytes(text.tolist()))

    def wait(self) -> None:
        """Until all processes have come to this place."""
        self.sum(torch.zeros((), device=self.device))


ALONE = Processes()


class _Sum(torch.autograd.Function):
    """Each process's loss depends on the sum, so that the gradient of what it adds is the sum of all their gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.detach().clone(memory_format=torch.contiguous_format)
        with _connected():
            distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(gradients[0])


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Whatever a collective call raises means that it did not come about."""
    CALLS.begun += 1
    CALLS.since = time.monotonic()
    try:
        yield
    except RuntimeError as error:
        raise LostProcess(
            "another process of this training is gone; what is finished is kept, the same command with --resume continues"
        ) from error
    finally:
        CALLS.since = None
