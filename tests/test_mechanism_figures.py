"""Every figure of the mechanism draws real-looking numbers without a warning, in INK on nothing, the same each time."""

import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from comodulation.report.claim_figures import (
    Calibration,
    Curve,
    ForestRow,
    accuracy_figure,
    confidence_figure,
    forest_figure,
    learning_curves_figure,
    reliability_figure,
)
from comodulation.report.drawing import STYLES
from comodulation.report.figures import svg
from comodulation.report.mechanism_figures import (
    gain_histogram_figure,
    informativeness_figure,
    noise_figure,
    one_image_figure,
    separability_figure,
)
from comodulation.report.page import INK

METHODS = ("comodulation", "attention", "hard-sharing", "class-mask")


def calibration(rng, bias):
    centres = (np.arange(15) + 0.5) / 15
    count = (np.arange(15) ** 2 * 12).astype(int)
    return Calibration(centres, np.clip(centres - bias * centres + rng.normal(0, 0.02, 15), 0, 1), count)


def curve(rng, level):
    images = np.arange(0, 250_001, 5000)
    progress = 1 - np.exp(-images / 50_000)
    noise = rng.normal(0, 0.006, (3, len(images)))
    return Curve(images, 1.3 - 0.6 * level * progress + noise, 0.65 + 0.13 * level * progress + noise)


def couplings(rng, size):
    return rng.gamma(2, 0.6, size), rng.gamma(2, 0.6, size)


def one_image(rng):
    modulator = rng.normal(0, 0.3, 40)
    slope = rng.normal(0.4, 0.4, 256)
    decoder = rng.gamma(1, 1, 256) * np.exp(np.outer(modulator, slope)) * (1 + rng.normal(0, 0.01, (40, 256)))
    decoder[:, 7] = 0  # a silent neuron
    fruit, fish = rng.normal(0, 0.5, (2, 256))
    return one_image_figure(
        rng.random((32, 32, 3)),
        {"fruit_and_vegetables": fruit, "aquatic_mammals": fish},
        modulator,
        decoder,
        np.exp(0.7 * slope),
        {"orange": 0.22, "sweet_pepper": 0.18, "sunflower": 0.31, "apple": 0.03, "rose": 0.2},
        {"orange": 0.71, "sweet_pepper": 0.18, "apple": 0.05, "sunflower": 0.03, "pear": 0.01},
        "orange",
    )


def draw(name):
    rng = np.random.default_rng(0)
    rising = {label: couplings(rng, (20, 256)) for label in ("base variant", "residual variant")}
    rising = {label: (d, 0.5 + 0.3 * d + 0.3 * g) for label, (d, g) in rising.items()}
    seeds = {method: 77 + i / 2 + rng.normal(0, 0.4, 5) for i, method in enumerate(STYLES)}
    return {
        "separability": lambda: separability_figure(
            {
                "Fisher ratio": {method: 0.8 - 0.1 * i + rng.normal(0, 0.03, 5) for i, method in enumerate(METHODS)},
                "d′ (sd)": {method: 2.5 - 0.2 * i + rng.normal(0, 0.1, 5) for i, method in enumerate(METHODS)},
            }
        ),
        "noise": lambda: noise_figure(
            {name: np.exp(-np.arange(256) / tau) for name, tau in (("comodulation", 9), ("random coupling", 30))},
            {"comodulation": rng.beta(9, 60, 20), "random coupling": [*rng.beta(3, 60, 19), np.nan]},
            {"comodulation": [4 / 256] * 20, "random coupling": [4 / 256] * 20},
            {"comodulation": rng.beta(4, 60, 20), "random coupling": rng.beta(3, 60, 20)},
        ),
        "noise without control": lambda: noise_figure(
            {"comodulation": np.zeros(8)}, {"comodulation": [np.nan]}, {"comodulation": [0.5]}
        ),
        "informativeness": lambda: informativeness_figure(rising, rising),
        "informativeness of one neuron": lambda: informativeness_figure(
            {"base variant": ([[1.0]], [[1.0]])}, {"base variant": ([[np.inf, np.nan]], [[1.0, 2.0]])}
        ),
        "gains": lambda: gain_histogram_figure(
            {
                "base variant": np.exp2(rng.normal(-0.3, 1, (20, 256))),
                "residual variant": np.exp2(rng.normal(-1, 2, (20, 256))) * (rng.random((20, 256)) > 0.1),
            }
        ),
        "reliability": lambda: reliability_figure(
            {method: calibration(rng, 0.05 * i) for i, method in enumerate(METHODS)}
        ),
        "confidence": lambda: confidence_figure(
            {
                method: calibration(rng, 0.05 * i)._replace(counts=np.arange(15) ** (i + 1))
                for i, method in enumerate(METHODS)
            }
        ),
        "no predictions": lambda: confidence_figure({"attention": Calibration([np.nan] * 3, [np.nan] * 3, [0] * 3)}),
        "learning": lambda: learning_curves_figure(
            {method: curve(rng, 1 - i / 6) for i, method in enumerate(METHODS[:3])}
        ),
        "image": lambda: one_image(rng),
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


NAMES = (
    "separability",
    "noise",
    "noise without control",
    "informativeness",
    "informativeness of one neuron",
    "gains",
    "reliability",
    "confidence",
    "no predictions",
    "learning",
    "image",
    "forest",
    "accuracy",
)


def drawn_texts(figure):
    """The texts of a figure that are seen: ticks beyond an axis' limits exist but are not drawn."""
    unseen = set()
    for axis in (a for axes in figure.axes for a in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not low <= tick.get_loc() <= high:
                unseen |= {tick.label1, tick.label2}
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in unseen]


@pytest.mark.parametrize("name", NAMES)
def test_drawn_in_ink_on_nothing_legible_and_the_same_each_time(name):
    figure = draw(name)
    drawn = svg(figure)
    assert drawn == svg(draw(name))
    # Whoever embeds it turns INK into currentColor: then no text may be left with a colour of its own.
    texts = re.findall(r"<text [^>]*?style=\"([^\"]*)\"", drawn)
    assert texts
    assert all(INK in style for style in texts)
    assert not re.search(r"(fill|stroke): #(000000|ffffff)", drawn)
    # No text covers another or leaves the page.
    FigureCanvasAgg(figure).draw()
    shown = [(t.get_text(), t.get_window_extent().padded(-1)) for t in drawn_texts(figure)]
    clashes = [(a, b) for i, (a, x) in enumerate(shown) for b, y in shown[i + 1 :] if x.overlaps(y)]
    assert not clashes
    outside = [a for a, x in shown if x.x0 < 0 or x.y0 < 0 or x.x1 > figure.bbox.x1 or x.y1 > figure.bbox.y1]
    assert not outside
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", drawn))


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


def test_bins_hold_equally_many_neurons_in_the_order_of_dprime():
    """d' 0 to 99 with gain 2 d': the median of the tenth k is 10 k + 4.5, its gain twice that; infinite d' left out."""
    dprime = np.append(np.arange(100.0), np.inf)
    figure = informativeness_figure({"a": (dprime, 2 * dprime)}, {"a": (dprime, 2 * dprime)})
    line = figure.axes[1].lines[0]
    np.testing.assert_allclose(line.get_xdata(), 10 * np.arange(10) + 4.5)
    np.testing.assert_allclose(line.get_ydata(), 2 * (10 * np.arange(10) + 4.5))


def test_spectrum_and_histogram_show_what_they_were_given():
    figure = draw("noise")
    assert float(figure.axes[0].lines[0].get_ydata()[-1]) == pytest.approx(100)
    figure = gain_histogram_figure({"base": [[0.05, 0.0, 1.0, 1.0]]})
    assert figure.legends[0].get_texts()[0].get_text() == "base: 50.0% below 0.1"


def test_one_seed_and_one_method():
    assert "attention" in svg(separability_figure({"d′ (sd)": {"attention": [2.0]}}))
    assert "other" in svg(accuracy_figure({"residual": {"other": [77.0]}}))
