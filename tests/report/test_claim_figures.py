"""Every figure of the claims draws real-looking numbers without a warning, in INK on nothing, the same each time."""

from dataclasses import replace

import numpy as np
import pytest

from comodulation.evaluation import Reliability
from comodulation.report.claim_figures import (
    Curve,
    ForestRow,
    accuracy_figure,
    confidence_figure,
    forest_figure,
    learning_curves_figure,
    reliability_figure,
)
from comodulation.report.drawing import STYLES
from comodulation.report.gain_figures import svg
from comodulation.report.theme import INK
from support.drawings import check_drawing

METHODS = ("comodulation", "attention", "hard-sharing", "class-mask")


def calibration(rng, bias):
    centres = (np.arange(15) + 0.5) / 15
    count = (np.arange(15) ** 2 * 12).astype(int)
    return Reliability(
        count, centres, np.clip(centres - bias * centres + rng.normal(0, 0.02, 15), 0, 1), centres, centres
    )


def curve(rng, level):
    images = np.arange(0, 250_001, 5000)
    progress = 1 - np.exp(-images / 50_000)
    noise = rng.normal(0, 0.006, (3, len(images)))
    return Curve(images, 1.3 - 0.6 * level * progress + noise, 0.65 + 0.13 * level * progress + noise)


def draw(name):
    rng = np.random.default_rng(0)
    seeds = {method: 77 + i / 2 + rng.normal(0, 0.4, 5) for i, method in enumerate(STYLES)}
    return {
        "reliability": lambda: reliability_figure(
            {method: calibration(rng, 0.05 * i) for i, method in enumerate(METHODS)}
        ),
        "confidence": lambda: confidence_figure(
            {
                method: replace(calibration(rng, 0.05 * i), count=np.arange(15) ** (i + 1))
                for i, method in enumerate(METHODS)
            }
        ),
        "no predictions": lambda: confidence_figure(
            {"attention": Reliability(np.zeros(3, int), *4 * [np.full(3, np.nan)])}
        ),
        "learning": lambda: learning_curves_figure(
            {method: curve(rng, 1 - i / 6) for i, method in enumerate(METHODS[:3])}
        ),
        "forest": lambda: forest_figure(
            [
                ForestRow("C2 comodulation − attention, residual", 0.92, 0.41, 1.43, True),
                ForestRow("C2 comodulation − attention, base", 0.55, -0.12, 1.22, False),
                ForestRow("comodulation with mask − class mask", -0.75, -0.98, -0.52, True),
            ],
            xlabel="difference in accuracy (points), 95% interval over 5 seeds",
        ),
        "accuracy": lambda: accuracy_figure({"residual": seeds, "base": dict(list(seeds.items())[:5])}),
    }[name]()


@pytest.mark.parametrize("name", ["reliability", "confidence", "no predictions", "learning", "forest", "accuracy"])
def test_drawn_in_ink_on_nothing_legible_and_the_same_each_time(name):
    check_drawing(lambda: draw(name))


def test_a_method_looks_the_same_in_every_figure():
    """Colour and marker belong to the name, whatever else is drawn."""
    alone = svg(accuracy_figure({"residual": {"attention": [77.0, 78.0]}}))
    assert STYLES["attention"][0].lower() in alone
    assert STYLES["comodulation"][0].lower() not in alone
    assert len(set(STYLES.values())) == len(STYLES)
    assert INK not in {colour for colour, _ in STYLES.values()}


def test_the_forest_fills_what_is_decided():
    figure = draw("forest")
    markers = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [float(line.get_xdata()[0]) for line in markers] == [0.92, 0.55, -0.75]
    assert [line.get_markerfacecolor() == "none" for line in markers] == [False, True, False]


def test_one_seed_and_one_method():
    assert "other" in svg(accuracy_figure({"residual": {"other": [77.0]}}))
