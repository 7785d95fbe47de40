"""From configurations to finished run folders: claim the folders, extract features, fit and evaluate what is not finished."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..data import summary_table, warnings_of
from ..data.features import ENGINES, WEIGHTS, cache_folder, extract, settled_engine
from ..errors import InputError, brief, choose, first_difference
from ..files import writable
from ..networks.methods import METHODS as ALL_METHODS
from ..processes import Processes, Resources
from ..training import Place, Progress, Silent, Venue, company, joined
from .claiming import Claim, claimed, sources
from .config import OF_LAYERS, RunConfig, make_config, read_config, write_config
from .dataset import cut_in, without_labels
from .fitting_pieces import Extracted, extract_together, fit_together
from .folder import CONFIG, METRICS
from .prepared import Prepared, prepared_fit
from .records import read_metrics
from .session import Encoded, Session

_OF_A_METHOD = {
    "method", "options", "readout", "balance", "task_bias", "quality", "calibrate", "metric", "protocol", "head", "controller",
    "modulation", "pretraining", "tuning",
}  # fmt: skip


@dataclass(frozen=True)
class FitResult:
    """A finished run: its folder, and the content of its metrics.json."""

    folder: Path
    metrics: dict[str, Any]


def fit(
    configs: RunConfig | Sequence[RunConfig],
    out: str | Path,
    cache: str | Path | None = None,
    *,
    resume: bool = False,
    engine: str = "auto",
    progress: Progress | None = None,
    resources: Resources | None = None,
) -> list[FitResult]:
    """Fit one or several methods that share everything else, and write a run folder for each.

    In processes that were started together (``launch``, torchrun) all of them call this; the first writes, reports and returns.

    Args:
        configs: one configuration, or several methods on the same data, backbone and seed.
        out: the run folder; with several configurations, the folder of run folders, one named after each method.
        cache: folder of features and pretrained layers; None takes the user's own.
        resume: continue what an earlier call left in ``out``; finished runs are not repeated.
        engine: of extraction: ``torch``, ``onnx``, ``openvino``, or ``auto``, the fastest one; see ``extract``.
        progress: told what happens.
        resources: what extraction and methods run on, independently of one another; None: this process.

    Raises:
        InputError: bad input, found before features are extracted; ``out`` is in use, not a run folder, or of another
            configuration.
        RunError: something failed on the way; what is there can be resumed.

    Returns:
        The runs; none in a process that is not the first.
    """
    out, cache, resources = Path(out), cache_folder(cache), resources or Resources()
    choose(engine, ENGINES, "engine")
    configs = [_placed(config) for config in _together([configs] if isinstance(configs, RunConfig) else configs)]
    place = Place.of_environment()
    if place.number > 1:
        _check_several(configs, resources)
    first = place.rank == 0
    tell = progress if progress and first else Silent()
    with company([_settings(config) for config in configs]) as others, ExitStack() as held:
        folders = _folders(configs, out)
        prepared = prepared_fit(configs)
        if prepared.unlabelled is not None:
            tell.message(f"warning: split {prepared.unlabelled!r} has no labels: nothing is tested on it")
        if others is not None:
            others.same("data", _contents(prepared))
        runs = list(zip(prepared.configs, folders, strict=True))
        made_from: dict[str, Any] = {}
        if first:
            made_from = sources(prepared.family, prepared.labelled, prepared.encoder.fingerprint())
            held.enter_context(writable(cache))
            for config, folder in runs:
                held.enter_context(claimed(folder, _claim(config), resume=resume, made_from=made_from, tell=tell))
        venue = Venue(held.enter_context(joined(others)), tell)
        finished = Processes.of(venue.fabric).agree([(folder / METRICS).exists() for folder in folders])
        if unfinished := [run for run, done in zip(runs, finished, strict=True) if not done]:
            _tell_of_data(prepared, tell)
            extracted = _extracted(prepared, cache, venue, engine, resources)
            if len(unfinished) > 1 and resources.several:
                fit_together(prepared, unfinished, cache, resources, extracted, made_from, tell)
            else:
                session = Session(
                    prepared.configs[0], prepared, Encoded(prepared.encoder, extracted.features), venue, cache
                )
                for config, folder in unfinished:
                    session.run(config, folder, extracted.seconds, made_from)
        return [FitResult(folder, read_metrics(folder / METRICS)) for folder in folders] if first else []


def _folders(configs: Sequence[RunConfig], out: Path) -> list[Path]:
    """The run folder of each configuration. Raises InputError for several in the folder of a run."""
    if len(configs) == 1:
        return [out]
    if (out / CONFIG).exists():
        raise InputError(f"{out} is the run folder of one method; choose another --out for several")
    return [out / config.method for config in configs]


def _tell_of_data(prepared: Prepared, tell: Progress) -> None:
    """Say what there is to learn from, what is left out of it, and what is to be expected of it."""
    shared, found, splits = prepared.configs[0], prepared.found, prepared.splits
    if prepared.settled:
        tell.message(prepared.settled)
    tell.message(summary_table(found, {name: len(split) for name, split in splits.items()}, prepared.encoder.what))
    notes = [note for split in splits.values() for note in split.notes]
    notes += [note for data in prepared.labelled.values() for note in cut_in(data.split, prepared.encoder)]
    for note in dict.fromkeys(notes):
        tell.message(f"warning: {note}")
    unread = splits[shared.train_split].left_out
    for name, reason in prepared.left_out.items():
        # A column that cannot be read at all would be refused as a task, too.
        named = "" if name in unread else f"--task {name} makes it a task, "
        tell.message(f"left out column {name!r}: {reason}; {named}--ignore {name} hides this line")
    warnings = warnings_of(found)
    if shared.test_split in prepared.labelled:
        warnings += without_labels(prepared.family, prepared.labelled[shared.test_split])
    for warning in (*warnings, *_without_effect(prepared.configs)):
        tell.message(f"warning: {warning}")


def _extracted(prepared: Prepared, cache: Path, venue: Venue, engine: str, resources: Resources) -> Extracted:
    """Features of all splits, from the cache or made now: by all nodes of a cluster, or by the processes of a venue."""
    shared, encoder, tell, processes = prepared.configs[0], prepared.encoder, venue.tell, Processes.of(venue.fabric)
    asked = dict.fromkeys(prepared.labelled, engine)
    if resources.cluster is not None:
        asked = extract_together(prepared, cache, resources, engine, tell)
    found = Extracted({}, {}, {})
    for name, data in prepared.labelled.items():
        began = time.perf_counter()
        how: dict[str, Any] = {"device": venue.fabric.device, "precision": shared.precision}
        own = (
            settled_engine(asked[name], encoder, data.split, cache, say=tell.message, **how)
            if processes.first
            else None
        )
        found.engines[name] = processes.agree(own)  # the first one's: each would measure something else
        features = extract(
            encoder, data.split, cache, **how, engine=found.engines[name], skip_bad=shared.skip_bad,
            report=partial(tell.extraction, name), rank=processes.rank, world=processes.number, say=tell.message,
        )  # fmt: skip
        found.features[name] = features
        found.seconds[f"features_{name}"] = round(time.perf_counter() - began, 2)
        if features.bad_rows:
            tell.message(f"skipped {len(features.bad_rows)} unreadable {encoder.what}s of split {name!r}")
    return found


def _together(configs: Sequence[RunConfig]) -> list[RunConfig]:
    """Configurations that read the same features: a map, where one of several methods has layers and the others have none.

    Raises:
        InputError: none at all, a method twice, or configurations that differ in what a fit shares.
    """
    if not configs:
        raise InputError("fit needs at least one configuration")
    names = [config.method for config in configs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"method {twice[0]!r} is given twice, and each has the folder OUT/METHOD; fit them one by one")
    if len({config.backbone.output for config in configs}) > 1:
        configs = [config.model_copy(update={"backbone": replace(config.backbone, output="map")}) for config in configs]
    first, *others = [config.model_dump(exclude=_OF_A_METHOD) for config in configs]
    for other in others:
        if differing := first_difference(first, other):
            key, one, another = differing
            raise InputError(f"methods that are fitted together share {key}, got {brief(one)} and {brief(another)}")
    return list(configs)


def _without_effect(configs: Sequence[RunConfig]) -> list[str]:
    """What a user is told of settings that change nothing in methods without layers."""
    alone = [config for config in configs if ALL_METHODS[config.method].without_layers]
    found = [
        f"--balance {config.balance} changes nothing in method {config.method!r}, which weighs all examples alike; "
        "--metric balanced_accuracy chooses answers so that rare classes are found, and leaves probabilities as they are"
        for config in alone
        if config.balance != "none"
    ]
    if len(alone) == len(configs):  # else the settings are meant for the others
        config = alone[0]
        base = {"data": config.data, "method": config.method}
        usual = make_config({**base, "head": config.head}).model_copy(update={"head": make_config(base).head})
        if given := [section for section in OF_LAYERS if getattr(config, section) != getattr(usual, section)]:
            found.append(
                f"what is set of {', '.join(given)} changes nothing in method {config.method!r}, which has no layers"
            )
    return found


def _settings(config: RunConfig) -> dict[str, Any]:
    """A configuration without places, which may be others on other machines: what is there is compared instead."""
    values = config.model_dump(mode="json", exclude={"data", "labels"})
    if config.backbone.weights not in WEIGHTS:
        del values["backbone"]["weights"]
    if config.text is not None and config.text.local:
        del values["text"]["name"]
    return values


def _contents(prepared: Prepared) -> dict[str, Any]:
    """What must be the same in all processes of the data that they have read, and of their encoders."""
    digests = {}
    for name, data in prepared.labelled.items():
        digest = hashlib.sha256()
        for part in (data.examples.image, data.examples.task, data.examples.target):
            digest.update(part.numpy().tobytes())
        digests[name] = {"number of images": len(data.split), "labels": digest.hexdigest()[:16]}
    weights = prepared.encoder.fingerprint()[:16]
    return {"splits": digests, "tasks": prepared.family.to_json(), "weights of the backbone": weights}


def _placed(config: RunConfig) -> RunConfig:
    return config.with_encoder(config.encoder.placed())


def _claim(config: RunConfig) -> Claim:
    def read(path: Path) -> dict[str, Any]:
        return _placed(read_config(path)).model_dump()

    return Claim(CONFIG, write_config(config).encode(), config.model_dump(), read, "a run folder")


def _check_several(configs: list[RunConfig], resources: Resources) -> None:
    """Raise InputError for what several processes cannot train."""
    for config in configs:
        if reason := ALL_METHODS[config.method].one_process:
            raise InputError(f"method {config.method!r} trains in one process: {reason}; leave --devices out")
        if config.head.batch_norm:
            raise InputError(
                "batch normalisation trains in one process: its statistics would be those of a share of the batch; leave "
                "--devices or head.batch_norm out"
            )
    if resources.several:
        raise InputError(
            "processes that were started together train one method after the other; leave --cluster out, or start one process"
        )
