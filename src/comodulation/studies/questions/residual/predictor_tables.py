"""Predictors as a report shows them: a table, and what is predicted against each property."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ....evaluation import PairedDifference
from ....report import Table, scatter_figure, svg
from ...cells import drawn_point, shown_ends, shown_p
from .prediction import Predictor


def shown_rho(found: Predictor) -> str:
    """The rank correlation with its interval."""
    return f"rho {found.rho:+.2f} {shown_ends(found.low, found.high, scale=1)}"


def predictor_table(found: Sequence[Predictor], names: Mapping[str, str], kind: str, caption: str) -> Table:
    """A row a predictor.

    Args:
        found: predictors. names: of their properties, in words. kind: of property, the head of their column. caption: of the table.
    """
    columns = (kind, "rho", "low", "high", "p", "p, Holm", "error (points)", "error of the mean", "predicts")
    rows = [
        [names[p.name], p.rho, p.low, p.high, p.p, p.p_holm, 100 * p.error, 100 * p.mean_error, p.predicts]
        for p in found
    ]
    formats = {
        **dict.fromkeys(columns[1:4], "+.2f"),
        **dict.fromkeys(columns[4:6], ".3f"),
        **dict.fromkeys(columns[6:8], ".2f"),
    }
    return Table(columns, rows, caption, formats)


def drawn_predictors(
    found: Sequence[Predictor],
    names: Mapping[str, str],
    properties: Sequence[Mapping[str, float]],
    outcomes: Sequence[PairedDifference],
    ylabel: str,
) -> str:
    """A panel a predictor, a dot a network with its properties and its outcome in points, as svg."""
    panels = {}
    for p in found:
        points = [drawn_point(own[p.name], d) for own, d in zip(properties, outcomes, strict=True)]
        panels[names[p.name]] = (f"{shown_rho(p)}, p {shown_p(p.p_holm)}".replace("-", "−"), points)
    return svg(scatter_figure(panels, ylabel=ylabel))
