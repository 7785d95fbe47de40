"""The optimizers of torch, without its compiler.

The first optimizer of a process makes torch import its compiler (torch._dynamo, sympy, 900 modules; two seconds), only to say that
some methods of the optimizer are not to be compiled. Here nothing is compiled, and a small fit takes less than these two seconds.
"""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer


class _Eager(Optimizer):
    """An optimizer whose methods are those that torch wraps; where a version of torch wraps none, nothing changes."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class AdamW(_Eager, torch.optim.AdamW):
    """``torch.optim.AdamW``, whose steps are not differentiable."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))  # what torch wraps it in sets the same, and imports


class LBFGS(_Eager, torch.optim.LBFGS):
    """``torch.optim.LBFGS``."""
