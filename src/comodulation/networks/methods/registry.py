"""What is compared, one file each, behind one interface (base.py)."""

from typing import Any

from ...errors import choose
from ...tasks import Readout, TaskFamily
from ..head import ComodulatedHead
from .attention import Attention
from .base import Method
from .class_mask import ClassMask
from .comodulation import Comodulation
from .decoder_gains import DecoderGains
from .film import FiLM
from .fine_tuning import FineTuning
from .gradient_aggregation import GradientAggregation
from .hard_sharing import HardSharing
from .ia3 import IA3
from .local_mask import LocalMask
from .maximum_roaming import MaximumRoaming
from .no_task import NoTask
from .paper import Paper
from .positions import Positions
from .readouts import Auto, Committee, Linear, NearestClassMean
from .task_bias import TaskBias
from .task_routing import TaskRouting

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        NoTask,
        HardSharing,
        GradientAggregation,
        TaskRouting,
        MaximumRoaming,
        FineTuning,
        ClassMask,
        LocalMask,
        TaskBias,
        Attention,
        DecoderGains,
        IA3,
        FiLM,
        Comodulation,
        Paper,
        Positions,
        Linear,
        NearestClassMean,
        Committee,
        Auto,
    )
}

WITH_LAYERS = {name: method for name, method in METHODS.items() if not method.without_layers}


def make_method(
    name: str,
    head: ComodulatedHead,
    family: TaskFamily,
    readout: Readout = "open",
    *,
    task_bias: bool = False,
    **options: Any,
) -> Method:
    """Build a method by name on a pretrained head.

    Args:
        name, head, family, readout, task_bias: as in ``Method``.
        **options: the method's own; see ``Method.options``.

    Raises:
        InputError: an unknown name or option, with the nearest one; an option out of range.
    """
    return METHODS[choose(name, METHODS, "method")](head, family, readout, task_bias=task_bias, **options)
