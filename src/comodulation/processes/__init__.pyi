from .agreement import code_in_use, sight
from .children import SAFE_PATH, safe_children
from .clusters import cluster
from .reported import reports_of
from .resources import Resources, Worker, in_rounds
from .running import run
from .together import ALONE, CALLS, LostProcess, Processes, Share

__all__ = [
    "ALONE",
    "CALLS",
    "SAFE_PATH",
    "LostProcess",
    "Processes",
    "Resources",
    "Share",
    "Worker",
    "cluster",
    "code_in_use",
    "in_rounds",
    "reports_of",
    "run",
    "safe_children",
    "sight",
]
