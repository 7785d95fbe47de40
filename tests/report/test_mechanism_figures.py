"""Every figure of the mechanism draws real-looking numbers without a warning, in INK on nothing, the same each time."""

import re

import numpy as np
import pytest

from comodulation.report.gain_figures import gains_figure, svg
from comodulation.report.mechanism_figures import (
    gain_histogram_figure,
    informativeness_figure,
    noise_figure,
    one_image_figure,
    separability_figure,
)
from support.drawings import check_drawing

METHODS = ("comodulation", "attention", "hard-sharing", "class-mask")


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
        "image": lambda: one_image(rng),
    }[name]()


NAMES = (
    "separability",
    "noise",
    "noise without control",
    "informativeness",
    "informativeness of one neuron",
    "gains",
    "image",
)


@pytest.mark.parametrize("name", NAMES)
def test_drawn_in_ink_on_nothing_legible_and_the_same_each_time(name):
    check_drawing(lambda: draw(name))


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


def test_the_lines_of_the_highest_gains_move():
    """A task's gain is a mean over images: where neurons of the highest gains stand still in this one, others of them are shown."""
    rng = np.random.default_rng(0)
    modulator, slope = rng.normal(0, 0.3, 60), np.linspace(-1, 1, 200)
    slope[-8:] = 0  # the eight highest gains follow nothing here
    decoder = np.exp(np.outer(modulator, slope))
    figure = one_image_figure(
        rng.random((8, 8, 3)), {"a": rng.random(20), "b": rng.random(20)}, modulator, decoder, np.linspace(0.5, 2, 200),
        {"x": 0.3, "y": 0.7}, {"x": 0.8, "y": 0.2}, "x",
    )  # fmt: skip
    driven = next(axis for axis in figure.axes if "decoder activity" in axis.get_ylabel())
    lines = [line for line in driven.lines if len(line.get_ydata()) == 60]
    assert len(lines) == 6
    assert all(np.ptp(line.get_ydata()) > 50 for line in lines)
    labels = [text.get_text() for text in driven.get_legend().get_texts()]
    assert labels == ["3 of the lowest gains", "3 of the highest gains"]


@pytest.mark.parametrize("name", ["$x_{$", "a $ b $ c", "\\$", "$\\frac$"])
def test_a_dollar_in_a_name_is_no_formula(name):
    """Every text that a user's name may become, drawn as it is; powers on a logarithmic axis stay powers."""
    rng = np.random.default_rng(0)
    words = name.replace("_", " ")  # as figures write names

    def texts(figure):
        return re.findall(r">([^<>\n]*)</text>", svg(figure))

    assert {name, words} <= set(
        texts(gains_figure(rng.random((2, 4)), rng.random((2, 5)), [name, "other"], title=name))
    )
    assert {name, words} <= set(texts(separability_figure({name: {name: [1.0, 2.0], "attention": [0.5, 1.0]}})))
    spectrum = texts(noise_figure({name: [4.0, 1.0]}, {name: [0.2, 0.3]}, {name: [0.1, 0.1]}))
    assert words in spectrum
    assert not any("mathdefault" in text for text in spectrum)
