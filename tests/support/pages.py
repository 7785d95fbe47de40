"""Pages that tests look at: everything a report may hold, and names that would break it."""

from __future__ import annotations

import io
import math

import numpy as np

from comodulation.report.page import Cell, Code, Details, Figure, Section, Table, Text, Verdict, render
from comodulation.report.theme import INK

HOSTILE = [
    '<script>window.hacked = "title"</script>',
    "\"><img onerror='window.hacked=1' src=x>",
    "</table></style></script><!--",
    "קלמנטינה (ירוקה) 42",
    "\u202eevil.txt",
    "🍊 & 🍎 &amp; `**`",
    "bad\udcffbyte",
    "javascript:alert(1)",
    "x" * 300,
]


def drawing(kind="lines", *, path_text=False):
    """A matplotlib figure as figures are to be drawn: transparent, text and axes in INK."""
    import matplotlib
    from matplotlib.figure import Figure as Drawing

    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.labelcolor")
    options = {**dict.fromkeys(ink, INK), "svg.fonttype": "path" if path_text else "none", "svg.hashsalt": "x"}
    with matplotlib.rc_context(
        {**options, "font.family": "sans-serif", "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Drawing(figsize=(8.5, 3.4) if kind != "plain" else (4, 3), layout="constrained")
        axis = figure.subplots()
        x = np.linspace(0, 1, 20)
        if kind == "bars":
            names = ("hard sharing", "class mask", "task bias", "attention", "comodulation")
            axis.barh(names, [71.4, 74.0, 75.2, 78.8, 79.1], color=["#8a929e"] * 4 + ["#2f86c5"], height=0.6)
            axis.set_xlim(65, 82)
            axis.set_xlabel("accuracy, %")
        elif kind == "scatter":
            axis.scatter(x, x + 0.1 * np.sin(40 * x), c="#D55E00", s=18, label="a task")
            axis.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--", label="equal")
            axis.set(xlabel="accuracy of attention", ylabel="accuracy of comodulation")
            axis.legend(frameon=False)
        else:
            axis.plot(x, np.sqrt(x), color="#2f86c5", label="comodulation", marker="o", ms=4)
            axis.plot(x, x**0.7, color="#D55E00", label="attention", marker="s", ms=4)
            axis.set(xlabel="images per task", ylabel="accuracy")
            axis.legend(frameon=False)
        sink = io.StringIO()
        figure.savefig(sink, format="svg", transparent=True)
    return sink.getvalue()


def realistic_page():
    """Four verdicts, fifteen rows, three figures."""
    verdicts = [
        Verdict(
            "Better than attention", "Comodulation is more accurate than attention with as many parameters.", "holds",
            "+0.6 points", "[+0.2, +1.0], 95 %", "0.004", "20 seeds", "Paired over seeds, Holm-corrected over 4 claims.",
        ),
        Verdict(
            "Better calibrated", "Its expected calibration error is lower than that of attention.", "does not hold",
            "+0.3 points", "[+0.1, +0.5], 95 %", "0.01", "20 seeds",
        ),
        Verdict(
            "Fewer images", "With 50 images per task it keeps its advantage.", "cannot be told", "+0.2 points",
            "[-0.7, +1.1], 95 %", "0.61", "5 seeds", "An effect below one point would need about 40 seeds.",
        ),
        Verdict("Noise matters", "Without modulator noise accuracy falls.", "holds", "-2.1 points", "[-2.6, -1.6]", "< 0.001"),
    ]  # fmt: skip
    families = ("flowers", "vehicles 1", "vehicles 2", "fish", "fruit and vegetables", "household furniture", "insects",
                "large carnivores", "people", "reptiles", "small mammals", "trees", "medium-sized mammals",
                "non-insect invertebrates", "aquatic mammals")  # fmt: skip
    rows = [
        [name, Cell(f"{80 - 1.3 * i:.1f} ± 0.{i}", 80 - 1.3 * i), 0.7 + 0.031 * i, 0.3 + 0.01 * i,
         math.nan if i == 4 else 0.02 + 0.003 * i, 500 * (i % 5 + 1), None if i == 7 else 0.6 - 0.1 * i]
        for i, name in enumerate(families)
    ]  # fmt: skip
    columns = ("task", "accuracy, %", "NLL", "Brier", "ECE", "count", "difference")
    table = Table(
        columns, rows, "**Accuracy and calibration per task**, mean ± standard deviation over 20 seeds. How to read it: a row "
        "is a task; the last column is `comodulation` minus `attention` in points. Click a column to sort by it.",
        formats={"NLL": ".3f", "Brier": ".3f", "ECE": ".3f", "difference": "+.1f"},
        fixed=[["all tasks", Cell("79.1 ± 0.2", 79.1), 0.781, 0.312, 0.024, 22500, 0.6]],
    )  # fmt: skip
    sections = [
        Section(
            "Per task", [Text("Tests compare runs of **equal seed**.\n\n- trained on CIFAR-100\n- `20` seeds"), table]
        ),
        Section(
            "Figures",
            [
                Figure(
                    drawing("lines"),
                    "How to read it: further up is better; the gap is the gain.",
                    "Images and accuracy",
                ),
                Figure(drawing("bars"), "How to read it: longer is better. The axis starts at 65 %.", "Methods"),
                Figure(
                    drawing("scatter"), "How to read it: points above the line favour comodulation.", "Task by task"
                ),
            ],
        ),
        Section(
            "Details", [Details("Configuration", [Code("method: comodulation\nseed: 0\n" + "long: " + "x" * 200)])]
        ),
    ]
    facts = {
        "command": "comodulate study --data /data/cifar100 --methods all --seeds 20 --out runs/2026-01-31",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "date": "2026-01-31",
        "machine": "16 cores, NVIDIA H100",
        "data": "CIFAR-100, 20 superclasses as tasks",
    }
    return render(
        "Comodulation against its rivals", "CIFAR-100, one frozen backbone, 20 seeds", facts, verdicts, sections
    )
