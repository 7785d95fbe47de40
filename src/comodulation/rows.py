"""Rows computed part by part, put together."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def filled(parts: Iterable[Tensor], count: int) -> Tensor:
    """Parts ``(n, ...)``, at least one, as they come, in one tensor ``(count, ...)``; ``torch.cat`` would hold all of it twice."""
    whole, start = None, 0
    for part in parts:
        whole = part.new_empty(count, *part.shape[1:]) if whole is None else whole
        whole[start : start + len(part)] = part
        start += len(part)
    assert whole is not None
    assert start == count
    return whole
