"""Runs handed on: a folder that stands for itself, a model card, and the Hugging Face hub through its documented functions.

What is shared is what predicting needs: config.yaml, head.safetensors, adapter.safetensors, metrics.json, the card, and
backbone.safetensors where the backbone's weights are the user's own. What comes from elsewhere is not trusted: files have fixed
names, their sizes are known before they are fetched, nothing is unpickled, and no field names a file outside the folder.

(The hub's mixin writes attributes into the class and reads a config.json of constructor arguments before any check, which
fits neither a frozen dataclass nor such files.)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .analysis.calibration import temperature_note
from .backbone import WEIGHTS
from .config import MAX_CONFIG, RunConfig, read_config, write_config
from .errors import InputError, RunError, brief
from .files import MAX_TENSORS
from .hub import REACHING, hub_errors
from .store import ADAPTER, CONFIG, HEAD, METRICS, writable, write_bytes

if TYPE_CHECKING:
    from .prediction import Run

CARD, BACKBONE = "README.md", "backbone.safetensors"
FILES = (CONFIG, HEAD, ADAPTER, METRICS)
OPTIONAL = (BACKBONE, CARD)
MAX_TEXT = 2**24
MAX_TASKS_SHOWN = 50
LIMITS = {CONFIG: MAX_CONFIG, HEAD: MAX_TENSORS, ADAPTER: MAX_TENSORS, BACKBONE: MAX_TENSORS}


def save_pretrained(run: Run, folder: str | Path) -> Path:
    """Write a run to a folder that holds everything needed to predict, and a model card.

    Args:
        run: a finished run; it is loaded first, so that what cannot be loaded is not handed on.
        folder: new or empty.

    Returns:
        The folder.

    Raises:
        InputError: the run is damaged, or the folder is not empty. RunError: it cannot be written.
    """
    target = Path(folder)
    config = portable(run.config)
    _ = run.method
    with writable(target):
        if found := sorted(path.name for path in target.iterdir()):
            raise InputError(f"{target} is not empty (it holds {brief(found[0])}); choose another folder")
        try:
            for name in (HEAD, ADAPTER, METRICS):
                write_bytes(target / name, (run.folder / name).read_bytes())
            if config.backbone.weights == BACKBONE:
                shutil.copyfile(run.config.backbone.weights, target / BACKBONE)
        except OSError as error:
            raise RunError(f"cannot copy {run.folder} to {target}: {error.strerror or error}") from error
        write_bytes(target / CARD, model_card(run).encode())
        write_bytes(target / CONFIG, write_config(config).encode())
    return target


def portable(config: RunConfig) -> RunConfig:
    """A configuration without paths of the machine it was made on: data by its last name, own weights by a fixed one."""
    weights = config.backbone.weights
    backbone = {**vars(config.backbone), "weights": weights if weights in WEIGHTS else BACKBONE}
    data = Path(config.data).name if Path(config.data).exists() or _leads_away(config.data) else config.data
    labels = None if config.labels is None else Path(config.labels).name
    values = {**config.model_dump(), "data": data or "data", "labels": labels, "backbone": backbone}
    return RunConfig.model_validate(values)


def _leads_away(path: str) -> bool:
    """Whether a path may lead out of the folder it starts from."""
    return Path(path).is_absolute() or ".." in Path(path).parts or path.startswith("~")


def check_shared(folder: Path, root: Path | None = None) -> None:
    """Check a folder from elsewhere before anything in it is used.

    Args:
        folder: of ``save_pretrained``.
        root: what its files may lie in where they are links (the hub's cache); the folder itself by default.

    Raises:
        InputError: a file is missing, too large, or leads outside the folder; the configuration names a file elsewhere.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of a shared run")
    bounds = os.path.realpath(root or folder)
    for name in (*FILES, *OPTIONAL):
        path = folder / name
        if path.is_symlink() or path.exists():
            if not Path(os.path.realpath(path)).is_relative_to(bounds):
                raise InputError(f"{path} leads outside its folder; refused")
            if not path.is_file():
                raise InputError(f"{path} is not a file")
            check_size(name, path.stat().st_size)
        elif name in FILES:
            raise InputError(f"{folder} is not a shared run: it has no {name}")
    config = read_config(folder / CONFIG)
    weights = config.backbone.weights
    for field, value in (("data", config.data), ("labels", config.labels)):
        if value is not None and _leads_away(value):
            raise InputError(
                f"{folder / CONFIG} names {field} {brief(value)}; a shared run names no place outside its folder"
            )
    if weights not in (*WEIGHTS, BACKBONE):
        raise InputError(f"{folder / CONFIG} names weights {brief(weights)}; a shared run may name {BACKBONE!r} alone")
    if weights == BACKBONE and not (folder / BACKBONE).is_file():
        raise InputError(f"{folder} is not a shared run: it has no {BACKBONE}")


def with_weights(config: RunConfig, folder: Path) -> RunConfig:
    """A run's configuration, its backbone's weights found in the run's folder where they are kept there."""
    if config.backbone.weights != BACKBONE or not (folder / BACKBONE).is_file():
        return config
    backbone = {**vars(config.backbone), "weights": str(folder / BACKBONE)}
    return RunConfig.model_validate({**config.model_dump(), "backbone": backbone})


def check_size(name: str, size: int | None) -> None:
    """Raise InputError for a file that is larger than one of its name may be, or of unknown size."""
    limit = LIMITS.get(name, MAX_TEXT)
    if size is None or size > limit:
        raise InputError(
            f"{name} has {'an unknown number of' if size is None else size} bytes, at most {limit} are read"
        )


def download(
    repo_id: str, *, revision: str | None, token: str | None, cache: Path | None, endpoint: str | None
) -> Path:
    """Fetch the files of a shared run, and no others, into the hub's cache; the folder they lie in.

    Raises:
        InputError: no such repository or revision, a file missing or too large, a hub that cannot be reached.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import EntryNotFoundError

    places: dict[str, Path] = {}
    commit = revision
    with hub_errors(repo_id):
        for name in (*FILES, *OPTIONAL):
            try:
                url = hf_hub_url(repo_id, name, revision=commit, endpoint=endpoint)
                found = get_hf_file_metadata(url, token=token, timeout=REACHING, endpoint=endpoint)
                check_size(name, found.size)
                commit = found.commit_hash or commit  # all files of one state, whatever is pushed in between
                places[name] = Path(
                    hf_hub_download(
                        repo_id, name, revision=commit, token=token, cache_dir=cache, endpoint=endpoint,
                        etag_timeout=REACHING,
                    )
                )  # fmt: skip
            except EntryNotFoundError:
                if name in FILES:
                    raise InputError(f"{repo_id!r} is not a shared run: it has no {name}") from None
    return places[CONFIG].parent


def push_to_hub(
    run: Run,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Run of comodulation",
    endpoint: str | None = None,
) -> str:
    """Upload a run with its model card, in one commit; the repository is made if it is not there.

    Args:
        run: finished.
        repo_id: "name" or "owner/name".
        private: of a repository that is made; None takes the owner's default.
        token: of the hub; None takes the one that is logged in.
        message: of the commit.
        endpoint: address of the hub, if it is another one.

    Returns:
        Address of the commit.

    Raises:
        InputError: the run is damaged; the hub cannot be reached, or refuses.
    """
    import tempfile

    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as place:
        folder = save_pretrained(run, Path(place) / "run")
        with hub_errors(repo_id):
            api = HfApi(endpoint=endpoint, token=token)
            full_name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            return str(api.upload_folder(repo_id=full_name, folder_path=folder, commit_message=message).commit_url)


def model_card(run: Run) -> str:
    """A model card (README.md) from a run and its metrics: what it answers, how well, how to use it.

    The licence is left to the user: the card says that none has been chosen.
    """
    config, family, metrics = run.config, run.family, run.metrics
    split = "test" if isinstance(metrics, dict) and "test" in metrics else "validation"
    result = metrics.get(split) if isinstance(metrics, dict) else None
    header = yaml.safe_dump(
        {"library_name": "comodulation", "tags": ["comodulation", "multi-task", config.method]}, sort_keys=False
    )
    m = config.modulation
    answers = {
        "classes": f"{family.num_tasks} groups of {family.num_outputs} classes; a task chooses among its own",
        "binary": f"{family.num_tasks} binary attributes; a task answers yes or no",
        "columns": f"{family.num_tasks} tasks, each with classes of its own",
    }[family.kind]
    lines = [
        "---", header.strip(), "---", "",
        f"# {family.num_tasks} tasks on a frozen {_cell(config.backbone.name)}", "",
        "One frozen, pretrained network, adapted to a family of tasks by [comodulation](https://arxiv.org/abs/2311.15053).", "",
        f"- Tasks: {answers}.",
        f"- Method: `{config.method}`, readout `{config.readout}`, seed {config.seed}.",
        f"- Backbone: `{config.backbone.name}`, weights "
        f"`{config.backbone.weights if config.backbone.weights in WEIGHTS else BACKBONE}`, "
        f"{config.backbone.image_size} px; not part of this repository unless `{BACKBONE}` is.",
        f"- Modulator: standard deviation {m.std}, estimator `{m.estimator}`, link `{m.link}`, level `{m.level}`.",
        f"- Data: {_cell(portable(config).data)}.", "",
        "## Use", "", "```python", "from pathlib import Path", "", "from comodulation import Run", "",
        'run = Run.from_pretrained("OWNER/NAME")  # or a folder',
        f"run.predict([Path(\"photo.png\")], [{_python(family.tasks[0])}])", "```", "",
        f"## Metrics ({split} split)", "",
    ]  # fmt: skip
    lines += _table(result) if isinstance(result, Mapping) else ["Not stored with this run.", ""]
    lines += [temperature_note(metrics, split), ""] if isinstance(result, Mapping) else []
    lines += ["## Licence", "", "Not chosen yet: add `license:` to the header of this file.", ""]
    return "\n".join(lines)


# Balanced accuracy first: it equals accuracy where classes are equally frequent. Majority: what the most frequent class has.
METRIC_NAMES = {
    "balanced_accuracy": "balanced accuracy, %", "accuracy": "accuracy, %", "majority": "majority class, %", "nll": "NLL",
    "brier": "Brier", "ece": "ECE, %", "count": "images",
}  # fmt: skip
SHARES = ("balanced_accuracy", "accuracy", "majority", "ece")


def _table(result: Mapping[str, Any]) -> list[str]:
    """Metrics overall and per task, as Markdown; ``result`` as ``evaluate_predictions`` gives it."""
    by_task = result.get("tasks")
    macro = result.get("macro")
    rows = {
        "all": {**(macro if isinstance(macro, Mapping) else {}), **result},
        **(by_task if isinstance(by_task, Mapping) else {}),
    }
    shown = list(rows.items())[: MAX_TASKS_SHOWN + 1]
    head = " | ".join(["task", *METRIC_NAMES.values()])
    lines = [f"| {head} |", "| --- |" + " --- |" * len(METRIC_NAMES)]
    for name, values in shown:
        lines.append(f"| {_cell(name)} | {' | '.join(_number(key, values) for key in METRIC_NAMES)} |")
    left = len(rows) - len(shown)
    return [*lines, "", *([f"... and {left} more tasks, in {METRICS}.", ""] if left else [])]


def _number(key: str, values: Any) -> str:
    value = values.get(key) if isinstance(values, Mapping) else None
    if not isinstance(value, (int, float)):
        return ""
    if key == "count":
        return str(int(value))
    return f"{100 * value:.1f}" if key in SHARES else f"{value:.3f}"


def _cell(text: str) -> str:
    """A user's text as it can stand in a line or cell of Markdown: one line, without signs that would end or start markup."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{sign}" if sign in "\\|`*_[]<>#" else sign for sign in plain)


def _python(text: str) -> str:
    """A name as a Python string in a fenced block."""
    return repr(text).replace("`", "\\x60")
