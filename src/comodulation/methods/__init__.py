"""What is compared, one file each, behind one interface (base.py)."""

from ..errors import choose
from ..head import ComodulatedHead
from ..tasks import TaskFamily
from .attention import Attention
from .base import Method
from .class_mask import ClassMask
from .comodulation import Comodulation
from .hard_sharing import HardSharing
from .no_task import NoTask
from .task_bias import TaskBias

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (NoTask, HardSharing, ClassMask, TaskBias, Attention, Comodulation)
}


def make_method(name: str, head: ComodulatedHead, family: TaskFamily, readout: str = "open") -> Method:
    """Build a method by name on a pretrained head. Raises InputError for an unknown name, with the nearest one."""
    return METHODS[choose(name, METHODS, "method")](head, family, readout)


__all__ = [
    "METHODS",
    "Attention",
    "ClassMask",
    "Comodulation",
    "HardSharing",
    "Method",
    "NoTask",
    "TaskBias",
    "make_method",
]
