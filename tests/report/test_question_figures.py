"""Figures of the open questions: what is drawn is explained, and a method has its colour everywhere."""

from __future__ import annotations

from comodulation.report.drawing import STYLES
from comodulation.report.question_figures import Point, curves_figure, scatter_figure

LINE = [Point(1.0, 0.1, 0.0, 0.2), Point(2.0, 0.2, 0.1, 0.3), Point(3.0, 0.1, -0.1, 0.3)]


def test_every_series_is_in_a_legend_once_and_only_where_it_is_drawn():
    panels = {
        "first": {"attention": LINE, "comodulation": LINE},
        "second": {"attention": LINE, "attention, channels alone": LINE},
        "third": {"comodulation": LINE},
        "fourth": {"something else": LINE, "another": LINE},
    }
    figure = curves_figure(panels, xlabel="x", ylabel="y")
    legends = [
        [text.get_text() for text in axis.get_legend().get_texts()] if axis.get_legend() else [] for axis in figure.axes
    ]
    assert legends == [["attention", "comodulation"], ["attention, channels alone"], [], ["something else", "another"]]


def test_a_method_has_its_colour_and_a_variant_of_it_another_line():
    figure = curves_figure(
        {"one": {"comodulation": LINE, "comodulation, channels alone": LINE}}, xlabel="x", ylabel="y"
    )
    own, variant = (container.lines[0] for container in figure.axes[0].containers)
    assert own.get_color() == variant.get_color() == STYLES["comodulation"][0]
    assert (own.get_linestyle(), variant.get_linestyle()) == ("-", "--")
    assert variant.get_markerfacecolor() == "none" != own.get_markerfacecolor()
    names = ["all classes a task, 1 decoder layer", "all classes a task, 2 decoder layers"]  # commas, but no methods
    figure = curves_figure({"one": dict.fromkeys(names, LINE)}, xlabel="x", ylabel="y")
    a, b = (container.lines[0] for container in figure.axes[0].containers)
    assert a.get_color() != b.get_color()
    assert a.get_linestyle() == b.get_linestyle() == "-"


def test_a_panel_a_property():
    figure = scatter_figure(
        {"influence": ("rho 0", LINE), "flow": ("rho 1", LINE), "gains": ("", LINE)}, ylabel="points"
    )
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_xlabel() for axis in shown] == ["influence", "flow", "gains"]
    assert [len(axis.lines[-1].get_xdata()) for axis in shown] == [3, 3, 3]
