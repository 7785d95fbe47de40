"""Figures and the self-contained HTML page of a run."""

from .figures import gains_figure, svg
from .run import run_report

__all__ = ["gains_figure", "run_report", "svg"]
