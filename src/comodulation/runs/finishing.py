"""The last files of a run folder: what a method has learned and answered, and how good that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..files import write_bytes, write_json
from ..networks import save_adapter
from ..networks.methods import Method
from .answered import Answered
from .claiming import CHECKPOINT
from .class_files import write_class_files
from .config import RunConfig
from .folder import ADAPTER, METRICS, PREDICTIONS, REPORT, write_predictions


def finish_run(
    folder: Path, config: RunConfig, method: Method, backbone: str, metrics: dict[str, Any], answered: Answered
) -> None:
    """Write all files but the configuration and the pretrained layers; metrics.json last, which makes it a finished run.

    Args:
        folder: of the run. config: of the method. method: fitted. backbone: its fingerprint.
        metrics: content of metrics.json. answered: to the test split, or else validation.
    """
    save_adapter(method, folder / ADAPTER, backbone=backbone)
    write_predictions(folder / PREDICTIONS, answered)
    write_class_files(folder, answered)
    write_page(folder, config, method, metrics, answered)
    write_json(folder / METRICS, metrics)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def write_page(folder: Path, config: RunConfig, method: Method, metrics: dict[str, Any], answered: Answered) -> None:
    """Write report.html; arguments as in ``finish_run``."""
    from .page import run_report  # figures: imported after all that may be refused

    page = run_report(config, method.family, method, metrics, folder.resolve().name, answered)
    write_bytes(folder / REPORT, page.encode())
