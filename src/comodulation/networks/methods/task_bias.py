"""Task bias: one learned bias per task and output, added to the base network's logits. K C parameters (binary tasks: K).

The second cheap rival: what can be had without touching the network's features.
"""

from __future__ import annotations

from .no_task import NoTask


class TaskBias(NoTask):
    """Base network plus a bias on its logits."""

    name = "task-bias"
    paper = "none: a class prior per task"
    default_learning_rate = 0.25
    has_bias = True
