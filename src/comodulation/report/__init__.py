"""Figures and the self-contained HTML page of a run."""

from .figures import gains_figure, svg
from .page import INK, Cell, Code, Details, Figure, Section, Table, Text, Verdict, render, themed
from .run import run_report

__all__ = [
    "INK",
    "Cell",
    "Code",
    "Details",
    "Figure",
    "Section",
    "Table",
    "Text",
    "Verdict",
    "gains_figure",
    "render",
    "run_report",
    "svg",
    "themed",
]
