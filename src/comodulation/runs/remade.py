"""Make the page of a finished run again from its folder; images and texts come from the data, if these are unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError, RunError
from ..files import read_json
from .claiming import ADDED
from .dataset import open_splits
from .finishing import write_page
from .folder import PREDICTIONS, REPORT, read_predictions
from .run import Run


def write_run_report(run: Run, say: Callable[[str], None]) -> Path:
    """Write report.html of a run anew, and nothing else.

    Args:
        run: finished. say: is told in a line what the page lacks.

    Returns:
        The file.

    Raises:
        InputError: a file of the run is damaged.
    """
    stored = run.metrics
    answered = read_predictions(run.folder / PREDICTIONS, run.family)
    answered = replace(answered, read=_reader(run, stored, say), what=run.encoder.what)
    write_page(run.folder, run.config, run.method, stored, answered)
    return run.folder / REPORT


def _reader(run: Run, metrics: dict[str, Any], say: Callable[[str], None]) -> Callable[[int], Any] | None:
    """Gives an input of the answered split by its number; None where the data are gone, or are others by now."""
    config, entry = run.config, metrics
    if (run.folder / ADDED).exists():  # the answers are those of the tasks that came last, to the data they came with
        added = read_json(run.folder / ADDED)
        config = config.model_copy(update={name: added.get(name) for name in ("data", "labels")})
        entry = metrics["added"][-1]
    name = config.test_split if "test" in entry else config.train_split
    try:
        split = open_splits(config, [name], answers=run.answer_words)[name]
        if entry.get("made_from", {}).get(name, {}).get("images") == split.fingerprint:
            return split.read
        reason = f"the {run.encoder.what}s of split {name!r} are others by now"
    except (InputError, RunError, OSError) as error:
        reason = str(error)
    say(f"the page shows no {run.encoder.what}s: {reason}")
    return None
