from .added_tasks import Added, add_tasks, begin_tasks, extend_head, first_family
from .attention import Attention
from .base import Method
from .comodulation import Comodulation
from .inspection import Inspection, answers, inspect
from .learned_gains import gains_of
from .readouts import NoLayers, ReadoutMethod, rows_of
from .registry import METHODS, WITH_LAYERS, make_method
from .task_pairs import all_tasks, task_chunks

__all__ = [
    "METHODS",
    "WITH_LAYERS",
    "Added",
    "Attention",
    "Comodulation",
    "Inspection",
    "Method",
    "NoLayers",
    "ReadoutMethod",
    "add_tasks",
    "all_tasks",
    "answers",
    "begin_tasks",
    "extend_head",
    "first_family",
    "gains_of",
    "inspect",
    "make_method",
    "rows_of",
    "task_chunks",
]
