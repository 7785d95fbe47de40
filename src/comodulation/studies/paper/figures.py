"""A study's figures: every one that its finished cells allow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...evaluation import Reliability, reliability
from ...report import (
    Curve,
    Figure,
    accuracy_figure,
    confidence_figure,
    gain_histogram_figure,
    gains_figure,
    informativeness_figure,
    learning_curves_figure,
    noise_figure,
    one_image_figure,
    reliability_figure,
    separability_figure,
    svg,
)
from ..cells import (
    CELLS,
    VARIANTS,
    YARDSTICK,
    Comparison,
    Result,
    as_table,
    drawn_forest,
    read_gains,
    scores_by_seed,
    values,
)
from .illustration import read_illustration
from .reproduction import ILLUSTRATION, Study
from .words import constant_note, shown_name

SHOWN = (
    "comodulation",
    YARDSTICK,
    "attention",
    "ia3",
    "class-mask",
    "task-bias",
    "base",
)  # in figures that cannot hold all


def draw_figures(
    folder: Path, study: Study, results: Sequence[Result], comparisons: Sequence[Comparison]
) -> dict[str, Figure]:
    """Every figure that the finished cells allow, by name."""
    core = [row.label for row in study.plan().core]
    shown = [name for name in SHOWN if values(results, "residual", "open", name, "accuracy")]
    figures = {
        "accuracy": _accuracies(results, core),
        **{f"differences_{v}": _differences(comparisons, v, constant_note(results)) for v in VARIANTS},
        **_calibrations(folder, results, [name for name in shown if name != "base"]),
        "learning": _learning(results, shown),
        "separability": _separability(results, core),
        "gains": _gain_histograms(folder, results, min(study.seeds)),
    }
    if (known := read_illustration(folder / ILLUSTRATION)) is not None:
        figures |= _illustrated(*known)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _accuracies(results: Sequence[Result], core: Sequence[str]) -> Figure | None:
    groups: dict[str, dict[str, list[float]]] = {}
    for variant in VARIANTS:
        for name in (YARDSTICK, *core):
            by_seed = values(results, variant, "open", name, "accuracy")
            if by_seed and name != "base":
                groups.setdefault(variant, {})[shown_name(name)] = [100 * value for value in by_seed.values()]
    if not groups:
        return None
    return Figure(
        svg(accuracy_figure(groups)),
        "How to read it: a dot is a seed, the mark its mean. The network without a task is left out: it lies far below.",
        "Accuracy of every seed",
    )


def _differences(comparisons: Sequence[Comparison], variant: str, note: str) -> Figure | None:
    """Comodulation against its rivals in accuracy, but for those that lie far below."""
    series = (variant, "open", "accuracy", "comodulation")
    rivals = [
        c
        for c in comparisons
        if (c.variant, c.readout, c.metric, c.a) == series and c.b not in ("base", "hard-sharing")
    ]
    judged = {f"comodulation − {shown_name(c.b)}": c.judged for c in as_table(rivals) if c.judged is not None}
    if not judged:
        return None
    return Figure(
        drawn_forest(judged, "difference in accuracy (points)"),
        "How to read it: to the right of the line, comodulation is more accurate. Bars are 95% t intervals "
        f"over seeds, simultaneous for all but the primary comparison; filled where they exclude 0.{note}",
        f"Comodulation against its rivals, {variant} variant",
    )


def _calibrations(folder: Path, results: Sequence[Result], names: Sequence[str]) -> dict[str, Figure]:
    bins = {shown_name(name): _calibration(folder, results, name) for name in names}
    if not bins:
        return {}
    return {
        "reliability": Figure(
            svg(reliability_figure(bins)),
            "How to read it: on the diagonal, answers given with 80% confidence are right 80% of the time; below it, too sure. "
            "All seeds together, 15 bins.",
            "Reliability, residual variant",
        ),
        "confidence": Figure(
            svg(confidence_figure(bins)),
            "How to read it: share of test predictions by confidence. A sharp method has most at the right.",
            "How sure the answers are",
        ),
    }


def _learning(results: Sequence[Result], names: Sequence[str]) -> Figure | None:
    curves = {}
    for name in names:
        mine = [result.numbers for result in results if result.series == ("residual", "open", name)]
        histories = [numbers["history"] for numbers in mine if numbers["history"]]
        if histories and len({len(history) for history in histories}) == 1:
            images = [entry["epoch"] * mine[0].get("tuning_images", 22_500) for entry in histories[0]]
            nll, accuracy = ([[entry[m] for entry in history] for history in histories] for m in ("nll", "accuracy"))
            curves[shown_name(name)] = Curve(images, np.array(nll), np.array(accuracy))
    if not curves:
        return None
    return Figure(
        svg(learning_curves_figure(curves)),
        "How to read it: validation NLL and accuracy against inputs seen; the band spans the seeds.",
        "Learning curves, residual variant",
    )


def _separability(results: Sequence[Result], core: Sequence[str]) -> Figure | None:
    measures = {}
    for metric, label in (("dprime", "d' between the task's classes"), ("fisher", "Fisher ratio")):
        measured = {n: list(values(results, "residual", "open", n, f"mechanism.{metric}").values()) for n in core}
        separated = {shown_name(name): numbers for name, numbers in measured.items() if numbers}
        if len({len(numbers) for numbers in separated.values()}) == 1 and len(separated) > 1:
            measures[label] = separated
    if not measures:
        return None
    return Figure(
        svg(separability_figure(measures)),
        "How to read it: higher is better separated. Lines join the methods of one seed. Subspaces are fitted on validation "
        "inputs and measured on test inputs.",
        "Separation of a task's classes in the decoder, residual variant",
    )


def _gain_histograms(folder: Path, results: Sequence[Result], seed: int) -> Figure | None:
    """Of one seed, under either link, in either variant."""
    histograms = {}
    for result in results:
        variant, readout, name = result.series
        if (readout, result.cell.seed) == ("open", seed) and name in ("comodulation", "comodulation link=rectified"):
            gains = read_gains(folder / CELLS, result)
            link = "rectified" if result.cell.row.get("link") else "exponential"
            if "decoder" in gains:
                histograms[f"{link}, {variant}"] = gains["decoder"]
    if not histograms:
        return None
    return Figure(
        svg(gain_histogram_figure(histograms)),
        "How to read it: all tasks and neurons of the first seed. Left of a dotted line, neurons are turned down below that gain; "
        "1 is unchanged.",
        "Decoder gains, base against residual",
    )


def _illustrated(arrays: dict[str, np.ndarray], names: dict[str, Any]) -> dict[str, Figure]:
    """The figures of the one network that is followed through, as ``read_illustration`` has it."""
    tasks = [name.replace("_", " ") for name in names["tasks"]]
    gain_map = svg(gains_figure(arrays["encoder"], arrays["decoder"], tasks))
    return {
        "noise": _noise(arrays),
        "informativeness": _informativeness(arrays),
        "one_image": _one_image(arrays, names, tasks),
        "gain_map": Figure(
            gain_map,
            "How to read it: a row is a task, a column a neuron. White: gain 1. Purple: higher gain; orange: lower gain.",
            "Gains of every task",
        ),
    }


def _noise(arrays: dict[str, np.ndarray]) -> Figure:
    def beside(before: str, after: str) -> dict[str, np.ndarray]:
        return {"before the gains": arrays[before], "after them": arrays[after]}

    figure = noise_figure(
        beside("spectrum_before", "spectrum_after"),
        beside("share_before", "share_after"),
        beside("share_chance", "share_chance"),
        beside("share_control", "share_control"),
    )
    return Figure(
        svg(figure),
        "How to read it: left, how few dimensions of the decoder the modulator's fluctuation fills. Right, how much of it lies in "
        "the task's own subspace, a dot a task; beside it the share in other tasks' subspaces and the share of a random subspace.",
        "The modulator's fluctuation in the decoder",
    )


def _informativeness(arrays: dict[str, np.ndarray]) -> Figure:
    figure = informativeness_figure(
        {"comodulation": (arrays["encoder_dprime"].ravel(), arrays["coupling"].ravel())},
        {"comodulation": (arrays["decoder_dprime"].ravel(), arrays["decoder"].ravel())},
    )
    return Figure(
        svg(figure),
        "How to read it: neurons of all tasks in bins of informativeness (d' between the task's classes, unmodulated). A rising "
        "line means that informative neurons are coupled to the modulator (left) and turned up (right).",
        "Informative neurons and their gains",
    )


def _one_image(arrays: dict[str, np.ndarray], names: dict[str, Any], tasks: Sequence[str]) -> Figure:
    """One input, or text, from its couplings to its five most likely answers."""
    task, text = int(arrays["image_task"]), names.get("text")
    outputs = [name.replace("_", " ") for name in (("no", "yes") if names["kind"] == "binary" else names["outputs"])]
    likely = np.argsort(-arrays["after"])[:5]
    figure = one_image_figure(
        arrays["image"] if text is None else text,
        {tasks[k]: arrays["coupling"][k] for k in (task, (task + 1) % len(tasks))},
        arrays["modulator"], arrays["trace"], arrays["decoder"][task],
        {outputs[c]: float(arrays["before"][c]) for c in likely},
        {outputs[c]: float(arrays["after"][c]) for c in likely},
        outputs[int(arrays["image_target"])],
    )  # fmt: skip
    what = "image" if text is None else "text"
    return Figure(
        svg(figure),
        f"How to read it, from the top: the {what} and what the network answers without and with the task; the couplings that the "
        "task sets, beside those of another task; the modulator's fluctuation; decoder neurons under it, of the tenths with the "
        f"highest and the lowest gains those that move most for this {what}; the gains, which are the task's.",
        f"One {what} followed through",
    )


def _calibration(folder: Path, results: Sequence[Result], name: str) -> Reliability:
    confidence, hit = (
        np.concatenate(list(scores_by_seed(folder / CELLS, results, "residual", "open", name, score).values()))
        for score in ("confidence", "hit")
    )
    return reliability(as_logs(confidence), torch.from_numpy(1 - hit.astype(np.int64)))


def as_logs(confidence: np.ndarray) -> torch.Tensor:
    """Confidences as the largest of two log-probabilities: class 0 is the answer that was given."""
    top = torch.from_numpy(confidence.astype(np.float64)).clamp(1e-12, 1)
    return top.log()[:, None]
