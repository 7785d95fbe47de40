"""Send a finished run to a tracker: curves, metrics, configuration, and the page as an artifact. Nothing leaves the machine.

TensorBoard is written through Fabric's logger. MLflow and Weights & Biases are called through their own clients, because
Lightning's loggers for them would need pytorch-lightning, for a few lines.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, choose
from .config import read_config
from .folder import CONFIG, METRICS, REPORT
from .records import read_metrics

PROJECT = "comodulation"
MOST_TASKS = 100  # whose metrics are told one by one
MEASURES = ("accuracy", "balanced_accuracy", "nll", "brier", "ece")
Curves = dict[str, list[tuple[int, float]]]


def check_trackers(names: Sequence[str]) -> None:
    """Raise InputError for a tracker that is unknown, or whose package is not there."""
    for name in names:
        package = _TRACKERS[choose(name, _TRACKERS, "tracker")][0]
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"tracker {name!r} needs the package {package}; pip install {package}, or all trackers: "
                "pip install 'comodulation[trackers]'"
            )


def track(folder: Path, name: str) -> str:
    """Hand a finished run to a tracker; where that has written it.

    Args:
        folder: of the run. name: `tensorboard` (RUN/tensorboard), `mlflow` ($MLFLOW_TRACKING_URI, or mlflow.db in the working
            folder) or `wandb` (RUN/wandb, offline unless $WANDB_MODE says otherwise).
    """
    check_trackers([name])
    metrics = read_metrics(folder / METRICS)
    settings = leaves(read_config(folder / CONFIG).model_dump(mode="json"))
    return _TRACKERS[name][1](folder, settings, curves_of(metrics), final_metrics(metrics))


def leaves(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested values under dotted keys; lists as texts.

    >>> leaves({"seed": 0, "head": {"hidden": 8}, "tasks": ["a", "b"]})
    {'seed': 0, 'head.hidden': 8, 'tasks': "['a', 'b']"}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= leaves(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return found


def curves_of(metrics: Mapping[str, Any]) -> Curves:
    """Learning curves of a run by name: pairs of epoch (or step) and value, from the content of metrics.json."""
    histories = {
        "pretraining": (metrics.get("pretraining") or [], "epoch"),
        "fine-tuning": (metrics.get("history") or [], "epoch"),
        **{name: (entries, "step") for name, entries in (metrics.get("readouts") or {}).get("committees", {}).items()},
    }
    found: Curves = {}
    for phase, (entries, place) in histories.items():
        for entry in entries:
            for name, value in entry.items():
                if name not in (place, "seconds") and isinstance(value, (int, float)):
                    found.setdefault(_key(phase, name), []).append((int(entry[place]), float(value)))
    return found


def final_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of a run by name, `test/nll`: of all answers, the mean over tasks, each task, and of logistic regression alone."""
    found: dict[str, float] = {}
    for split in ("validation", "test"):
        for prefix, whole in (
            ((split,), metrics.get(split)),
            (("linear", split), metrics.get("linear", {}).get(split)),
        ):
            if whole is None:
                continue
            parts = {"": whole, "mean over tasks": whole.get("macro", {})}
            if len(whole["tasks"]) <= MOST_TASKS:
                parts |= whole["tasks"]
            for part, values in parts.items():
                found |= {_key(*prefix, part, name): float(values[name]) for name in MEASURES if name in values}
    return found


def _key(*parts: str) -> str:
    """A name as all trackers take it: names of tasks are data, and hold any sign."""
    return "/".join(re.sub(r"[^\w\-. ]+", "_", part, flags=re.ASCII) for part in parts if part)


def _tensorboard(folder: Path, settings: dict[str, Any], curves: Curves, final: dict[str, float]) -> str:
    from lightning_fabric.loggers import TensorBoardLogger

    logger = TensorBoardLogger(folder, name="", version="tensorboard")
    for name, pairs in curves.items():
        for step, value in pairs:
            logger.log_metrics({name: value}, step=step)
    logger.log_hyperparams(settings, final)
    logger.experiment.add_text("report", f"`{(folder / REPORT).resolve()}`")  # it keeps no files
    logger.finalize("success")
    logger.experiment.close()
    return str(folder / "tensorboard")


def _mlflow(folder: Path, settings: dict[str, Any], curves: Curves, final: dict[str, float]) -> str:
    import mlflow

    where = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    mlflow.set_tracking_uri(where)
    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=folder.resolve().name):
        mlflow.log_params({name: str(value)[:500] for name, value in settings.items()})
        for name, pairs in curves.items():
            for step, value in pairs:
                mlflow.log_metric(name, value, step=step)
        mlflow.log_metrics(final)
        mlflow.log_artifact(str(folder / REPORT))
    return where


def _wandb(folder: Path, settings: dict[str, Any], curves: Curves, final: dict[str, float]) -> str:
    import wandb

    mode: Any = os.environ.get("WANDB_MODE", "offline")
    run = wandb.init(
        project=PROJECT, name=folder.resolve().name, dir=folder, config=settings, mode=mode, save_code=False,
        settings=wandb.Settings(silent=True, console="off"),
    )  # fmt: skip
    for name, pairs in curves.items():
        step_name = f"{name.rpartition('/')[0]}/step"
        run.define_metric(name, step_metric=step_name)
        for step, value in pairs:
            run.log({name: value, step_name: step})
    run.summary.update(final)
    page = wandb.Artifact("report", "report")
    page.add_file(str(folder / REPORT))
    run.log_artifact(page)
    run.finish()
    return str(folder / "wandb")


_TRACKERS: dict[str, tuple[str, Callable[[Path, dict[str, Any], Curves, dict[str, float]], str]]] = {
    "tensorboard": ("tensorboard", _tensorboard),
    "mlflow": ("mlflow", _mlflow),
    "wandb": ("wandb", _wandb),
}
