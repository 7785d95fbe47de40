"""What a shared folder may contain, checked before anything in it is used."""

from __future__ import annotations

import os
from pathlib import Path

from ..data.features import WEIGHTS
from ..errors import InputError, brief
from ..files import MAX_TENSORS
from .config import MAX_CONFIG, RunConfig, read_config
from .folder import ADAPTER, CONFIG, HEAD, METRICS

CARD, BACKBONE = "README.md", "backbone.safetensors"
FILES = (CONFIG, HEAD, ADAPTER, METRICS)
OPTIONAL = (BACKBONE, CARD)
MAX_TEXT = 2**24
LIMITS = {CONFIG: MAX_CONFIG, HEAD: MAX_TENSORS, ADAPTER: MAX_TENSORS, BACKBONE: MAX_TENSORS}


def portable(config: RunConfig) -> RunConfig:
    """A configuration without paths of the machine it was made on: data by its last name, own weights by a fixed one.

    Raises:
        InputError: the encoder is a folder of texts' models, which is not handed on.
    """
    if config.text is not None and config.text.local:
        raise InputError(
            f"the run's text encoder is the folder {config.text.name}, which is not shared with the run; put the encoder on the "
            "hub, and fit with its name there (--backbone OWNER/NAME)"
        )
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
    _check_files(folder, root or folder)
    config = read_config(folder / CONFIG)
    _check_names(config, folder / CONFIG)
    if config.backbone.weights == BACKBONE and not (folder / BACKBONE).is_file():
        raise InputError(f"{folder} is not a shared run: it has no {BACKBONE}")


def _check_files(folder: Path, root: Path) -> None:
    """Raise InputError for files that are missing, too large, or lie outside of a root."""
    bounds = os.path.realpath(root)
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


def _check_names(config: RunConfig, path: Path) -> None:
    """Raise InputError for a configuration, read from a path, that names something outside of its folder."""
    for field, value in (("data", config.data), ("labels", config.labels)):
        if value is not None and _leads_away(value):
            raise InputError(f"{path} names {field} {brief(value)}; a shared run names no place outside its folder")
    if config.text is not None and (_leads_away(config.text.name) or config.text.name.count("/") > 1):
        raise InputError(
            f"{path} names the text encoder {brief(config.text.name)}; a shared run names one of the hub, OWNER/NAME"
        )
    if (weights := config.backbone.weights) not in (*WEIGHTS, BACKBONE):
        raise InputError(f"{path} names weights {brief(weights)}; a shared run may name {BACKBONE!r} alone")


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
