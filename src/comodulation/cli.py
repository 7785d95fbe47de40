"""The command line, thin over the library. Exit status: 0 done, 1 failed or interrupted, 2 bad input."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="comodulate",
    help="Adapt one frozen network to a family of tasks by stochastic comodulation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache", help="Folder of features and pretrained layers [$COMODULATION_CACHE, ~/.cache/comodulation]."
    ),
]


def main() -> None:
    """Entry point: every expected error becomes one line on standard error and an exit status."""
    sys.exit(run(app))


def run(command: Callable[..., Any]) -> int:
    """Run the command line and return its exit status."""
    from .errors import InputError, RunError

    try:
        status = int(command(standalone_mode=False) or 0)
        if status == 130:  # what newer versions of Typer make of Ctrl-C
            raise KeyboardInterrupt
        return status
    except InputError as error:
        _say(f"error: {error}")
        return 2
    except RunError as error:
        _say(f"error: {error}")
        return 1
    except typer.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return 1
    except BrokenPipeError:
        return 1
    except OSError as error:
        _say(f"error: {error.filename or ''}: {error.strerror or error}".replace(": :", ":"))
        return 1
    except Exception as error:
        # Typer's usage errors; where their class lives depends on its version, what they can do does not.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
        if parsing := getattr(
            error.__cause__, "errors", None
        ):  # newer versions parse with pydantic, and leave out the value
            message += f" (given: {parsing()[0]['input']!r})"
        _say(f"error: {message}") if not message.startswith("Usage:") else print(message)
        return 2


def _say(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr)


@app.command(
    epilog="Example: comodulate fit --data FOLDER --backbone efficientnet-lite0 --group coarse_label "
    "--label fine_label --method attention --method comodulation --seed 0 --out runs/c100"
)
def fit(
    data: Annotated[
        str,
        typer.Option(
            help="Folder of parquet files, of images that --labels names, or of images sorted in folders; or Hugging Face "
            "dataset id."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write; with several methods, OUT/METHOD for each.")],
    labels: Annotated[
        str | None,
        typer.Option(help="Table (csv, tsv, parquet) of image paths in the folder and a label column for each task."),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Label column that is a task; repeat for more [all columns of --labels].")
    ] = None,
    balance: Annotated[
        str, typer.Option(help="none, or classes: rare classes weigh as much as frequent ones in fine-tuning.")
    ] = "none",
    group: Annotated[str | None, typer.Option(help="Column of groups: each group is a task.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of classes within the groups.")] = None,
    attribute: Annotated[list[str] | None, typer.Option(help="Binary column that is a task; repeat for more.")] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Column of images or their paths, if there are several.")
    ] = None,
    train_split: Annotated[str, typer.Option(help="Split to train and validate on.")] = "train",
    test_split: Annotated[str, typer.Option(help="Split to test on once, if it is there.")] = "test",
    readout: Annotated[
        str | None,
        typer.Option(help="open (all classes) or restricted (the task's own) [open; of label columns: restricted]."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="base, class-mask, task-bias, attention, decoder-gains, ia3, film, comodulation; or, training the layers, "
            "hard-sharing, task-routing, maximum-roaming, fine-tuning, gradient-aggregation; repeat [comodulation]."
        ),
    ] = None,
    task_bias: Annotated[bool, typer.Option("--task-bias", help="Learn a bias per task and output besides.")] = False,
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of the method's own options, such as sharing=0.8; repeat.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="timm model name, or efficientnet-lite0.")] = "efficientnet-lite0",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a safetensors file.")] = "pretrained",
    image_size: Annotated[int, typer.Option(help="Side of the backbone's input, pixels.")] = 128,
    layer: Annotated[int, typer.Option(help="Feature stage of the backbone (-1: last).")] = -1,
    feature_size: Annotated[int, typer.Option(help="Side of the stored feature map (0: as it is).")] = 2,
    precision: Annotated[str, typer.Option(help="Backbone arithmetic: float32 or bfloat16.")] = "float32",
    residual: Annotated[bool, typer.Option("--residual/--no-residual", help="Skip connections in the head.")] = True,
    channels: Annotated[int, typer.Option(help="Encoder and decoder neurons.")] = 256,
    kernel_size: Annotated[int, typer.Option(help="Of the head's convolutions; 1 on pooled features.")] = 3,
    sigma: Annotated[float | None, typer.Option(help="Standard deviation of the modulator.")] = None,
    link: Annotated[str | None, typer.Option(help="rectified or exponential.")] = None,
    beta: Annotated[float | None, typer.Option(help="Strength of the decoder gains.")] = None,
    normalizer: Annotated[str | None, typer.Option(help="relative, covariance or correlation.")] = None,
    level: Annotated[str | None, typer.Option(help="task (one gain per task) or input (one per image).")] = None,
    estimator: Annotated[str | None, typer.Option(help="derivative, quadrature or monte_carlo.")] = None,
    encoder: Annotated[str | None, typer.Option(help="What the encoder does: gain, none or stochastic.")] = None,
    training_encoder: Annotated[str | None, typer.Option(help="The same while training, if different.")] = None,
    controller_hidden: Annotated[list[int] | None, typer.Option(help="Hidden widths: an MLP controller.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of fine-tuning.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of fine-tuning [the method's default].")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many epochs without gain (0: never).")] = None,
    pretraining_epochs: Annotated[int | None, typer.Option(help="Of pretraining.")] = None,
    pretraining_learning_rate: Annotated[float | None, typer.Option(help="Of pretraining.")] = None,
    seed: Annotated[int, typer.Option(help="Draws halves, initialisation, order and noise.")] = 0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count unreadable images and go on.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in OUT.")] = False,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Pretrain the added layers, fine-tune each method, evaluate, and write run folders."""
    from .backbone import BackboneSettings
    from .config import HeadSettings, RunConfig, make_config
    from .console import ConsoleProgress
    from .errors import RunError, choose
    from .features import cache_folder
    from .fitting import fit as fit_runs
    from .head import Modulation
    from .methods import METHODS

    names = list(dict.fromkeys(method or ["comodulation"]))
    for name in names:
        choose(name, METHODS, "method")
    given = dict(
        std=sigma, link=link, beta=beta, normalizer=normalizer, level=level, estimator=estimator, encoder=encoder,
        training_encoder=training_encoder,
    )  # fmt: skip
    defaults = {name: field.default for name, field in RunConfig.model_fields.items()}
    shared = dict(
        data=data, group=group, label=label, attributes=tuple(attribute or ()), image_column=image_column,
        labels=labels, tasks=tuple(task or ()), balance=balance,
        train_split=train_split, test_split=test_split, seed=seed, precision=precision,
        **({} if readout is None else {"readout": readout}),
        task_bias=task_bias, options=_options(option or []),
        skip_bad=skip_bad,
        backbone=BackboneSettings(backbone, weights, image_size, layer, feature_size),
        head=dict(
            HeadSettings(residual=residual), encoder_channels=channels, decoder_channels=channels,
            kernel_size=kernel_size,
        ),
        controller=dict(hidden=tuple(controller_hidden or ())),
        modulation=_modulation({key: value for key, value in given.items() if value is not None}, Modulation),
        pretraining=_training(
            "pretraining", defaults["pretraining"], epochs=pretraining_epochs, learning_rate=pretraining_learning_rate
        ),
    )  # fmt: skip
    configs = []
    for name in names:
        rate = learning_rate if learning_rate is not None else METHODS[name].default_learning_rate
        tuning = _training("fine-tuning", defaults["tuning"], epochs=epochs, patience=patience, learning_rate=rate)
        configs.append(make_config({**shared, "method": name, "tuning": tuning}))
    try:
        with ConsoleProgress() as progress:
            results = fit_runs(configs, out, cache_folder(cache), resume=resume, progress=progress)
    except KeyboardInterrupt:
        raise RunError("interrupted; what is finished is kept, the same command with --resume continues") from None
    if as_json:
        print(json.dumps({"runs": [{"folder": str(result.folder), **result.metrics} for result in results]}))
        return
    split = "test" if "test" in results[0].metrics else "validation"
    _table(f"{split} split", [(r.metrics["method"], r.metrics[split]) for r in results])
    for result in results:
        print(f"run folder: {result.folder}")


@app.command(epilog="Example: comodulate evaluate runs/c100 --data FOLDER --json")
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    data: Annotated[str, typer.Option(help="Folder or dataset id with the run's columns.")],
    labels: Annotated[str | None, typer.Option(help="Table of labels, if the run has one [the run's].")] = None,
    split: Annotated[str | None, typer.Option(help="Split to evaluate [the run's test split].")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count unreadable images and go on.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of the modulator's noise [the run's].")] = None,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Metrics of a finished run on a data set: accuracy, NLL, Brier score, ECE; overall and per task."""
    from .console import ConsoleProgress
    from .features import cache_folder
    from .prediction import Run

    finished = _with_seed(Run.open(folder), seed)
    with ConsoleProgress() as progress:
        result = finished.evaluate(
            data, split, cache_folder(cache), labels=labels, skip_bad=skip_bad, progress=progress
        )
    if as_json:
        print(json.dumps(result))
        return
    _table(f"{result['split']} split, {result['method']}", [("all", result), *result["tasks"].items()])


@app.command(epilog="Example: comodulate predict runs/c100 photo.png --task trees --json")
def predict(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    task: Annotated[list[str] | None, typer.Option(help="Task to answer; repeat for more [all].")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the modulator's noise [the run's].")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Calibrated answers to named tasks for image files."""
    from .prediction import Run

    results = _with_seed(Run.open(folder), seed).predict(images, task or [])
    if as_json:
        print(json.dumps({"run": str(folder), "images": results}))
        return
    for result in results:
        print(result["image"])
        for name, answer in result["tasks"].items():
            print(f"  {name:32s} {answer['prediction']:24s} {100 * answer['confidence']:5.1f}%")


@app.command(epilog="Example: comodulate serve runs/c100 --port 8000 --open")
def serve(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    port: Annotated[int, typer.Option(help="Port (0: any that is free).")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let other machines in; there is no password.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Of the modulator's noise [the run's].")] = None,
    as_json: JsonFlag = False,
) -> None:
    """A page on this machine: drop an image, see all tasks, move the modulator. Ctrl-C ends it."""
    import webbrowser

    from .errors import InputError
    from .prediction import Run

    try:
        from .guard import bind
        from .serving import serve as serve_run
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("fastapi", "uvicorn", "python_multipart", "starlette", "anyio"):
            raise
        raise InputError(f"serve needs {error.name}: pip install 'comodulation[serve]'") from error

    def ready(address: str) -> None:
        if as_json:
            print(json.dumps({"run": str(folder), "address": address}), flush=True)
        else:
            print(f"serving {folder} on {address} (Ctrl-C ends it)", flush=True)
        if open_page:
            webbrowser.open(address)

    with bind(host, port, allow_remote=allow_remote) as listening:
        serve_run(_with_seed(Run.open(folder), seed), listening, allow_remote=allow_remote, ready=ready)


@app.command(epilog="Example: comodulate export runs/c100 --out trees.onnx --task trees")
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    out: Annotated[Path, typer.Option(help="File to write: *.onnx, or *.pt2 for torch.export.load.")],
    task: Annotated[str | None, typer.Option(help="The one task it answers [the task is an input].")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the modulator's noise [the run's].")] = None,
    as_json: JsonFlag = False,
) -> None:
    """The network with its tasks as one graph, for ONNX or torch.export: uint8 images (and task ids) in, probabilities out."""
    from .deployment import export_run
    from .prediction import Run

    about = export_run(_with_seed(Run.open(folder), seed), out, task)
    if as_json:
        print(json.dumps({"run": str(folder), "file": str(out), **about}))
        return
    inputs = f"images (B, 3, {about['image_size']}, {about['image_size']}) uint8" + (
        "" if task else ", tasks (B,) int64"
    )
    print(f"{out}: {inputs} -> probabilities (B, {len(about['answers'])})")


@app.command(
    "add-task", epilog="Example: comodulate add-task runs/faces --data FOLDER --attribute hat --out runs/faces-hat"
)
def add_task(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder; not changed.")],
    data: Annotated[str, typer.Option(help="Folder or dataset id with images and labels of the new tasks.")],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    attribute: Annotated[list[str] | None, typer.Option(help="Binary column that is a new task; repeat.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="NAME=CLASS: a class of a new group of known classes; repeat for each.")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="Table of labels, if the run has one [the run's].")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count unreadable images and go on.")] = False,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Add tasks to a finished run; what it answers to the others keeps its bits."""
    from .console import ConsoleProgress
    from .errors import InputError
    from .features import cache_folder
    from .growing_runs import grow_run
    from .prediction import Run

    if bool(attribute) == bool(group):
        raise InputError(
            "give either --attribute (a run of binary tasks) or --group NAME=CLASS (a run of groups of classes)"
        )
    groups: dict[str, list[str]] = {}
    for pair in group or []:
        name, equals, member = pair.partition("=")
        if not (name and equals and member):
            raise InputError(f"--group {pair!r} is not NAME=CLASS")
        groups.setdefault(name, []).append(member)
    with ConsoleProgress() as progress:
        result = grow_run(
            Run.open(folder), groups or attribute or [], data, out, cache_folder(cache), labels=labels, skip_bad=skip_bad,
            progress=progress,
        )  # fmt: skip
    if as_json:
        print(json.dumps({"run": str(result.folder), **result.metrics}))
        return
    entry = result.metrics["added"][-1]
    split = "test" if "test" in entry else "validation"
    _table(f"{split} split, added", list(entry[split]["tasks"].items()))
    print(f"run folder: {result.folder}")


@app.command(epilog="Example: comodulate demo --seeds 5 --out runs/demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write; made anew.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(help="Number of seeds, at least 2.")] = 5,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """The main job on real images, without any download, in about a minute: digits, six methods, five seeds."""
    from .demo import describe, run_demo

    result = run_demo(out, seeds=seeds, first_seed=seed, report=None if as_json else _say)
    print(json.dumps(result) if as_json else describe(result))


@app.command(
    epilog="Example: comodulate reproduce cifar100 --data FOLDER --seeds 10 --out runs/cifar100   (again: goes on)"
)
def reproduce(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="cifar100, celeba or attributes.")],
    data: Annotated[str, typer.Option(help="Folder, or Hugging Face dataset id.")],
    out: Annotated[Path, typer.Option(help="Folder to write; one of the same study is continued.")],
    seeds: Annotated[int, typer.Option(help="Seeds of the core; the rest takes the first three.")] = 10,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    trials: Annotated[int, typer.Option(help="Of each search (0: the methods' defaults).")] = 16,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods; repeat [all].")] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these parts: core, others, restricted, regimes, options, layers, aggregation; repeat [all but the last]."
        ),
    ] = None,
    backbone: Annotated[str, typer.Option(help="timm model name, or efficientnet-lite0.")] = "efficientnet-lite0",
    weights: Annotated[str, typer.Option(help="pretrained, random, or a safetensors file.")] = "pretrained",
    image_size: Annotated[int, typer.Option(help="Side of the backbone's input, pixels.")] = 128,
    split_seed: Annotated[int | None, typer.Option(help="Draws the halves [the seed].")] = None,
    channels: Annotated[int, typer.Option(help="Encoder and decoder neurons.")] = 256,
    epochs: Annotated[int | None, typer.Option(help="Of fine-tuning [6].")] = None,
    pretraining_epochs: Annotated[int | None, typer.Option(help="Of pretraining [10].")] = None,
    devices: Annotated[int | None, typer.Option(help="Processes [GPUs, or CPU cores].")] = None,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Test the paper's claims on real data: every method, seeds, searches, statistics, mechanism, one report."""
    from .backbone import BackboneSettings
    from .config import RunConfig
    from .console import ConsoleProgress
    from .errors import InputError, RunError
    from .features import cache_folder
    from .studies.pool import usable_devices
    from .studies.report import write_report
    from .studies.reproduce import Study, study_config
    from .studies.reproduce import reproduce as run_study

    _checked_seed(seed)
    if not 2 <= seeds <= 1000:
        raise InputError(f"--seeds must be 2 to 1000, got {seeds}: a paired test needs at least 2")
    _checked_seed(seed + seeds - 1)
    if not 0 <= trials <= 1000:
        raise InputError(f"--trials must be 0 to 1000, got {trials}")
    if devices is not None and not 1 <= devices <= 256:
        raise InputError(f"--devices must be 1 to 256, got {devices}")
    defaults = {name: field.default for name, field in RunConfig.model_fields.items()}
    changes: dict[str, Any] = {
        "backbone": BackboneSettings(backbone, weights, image_size),
        "head": {"encoder_channels": channels, "decoder_channels": channels},
        "split_seed": split_seed,
        "pretraining": _training("pretraining", defaults["pretraining"], epochs=pretraining_epochs),
    }
    if epochs is not None:
        changes["tuning"] = _training("fine-tuning", defaults["tuning"], epochs=epochs)
    config = study_config(study, data, **changes)
    planned = Study(study, config, tuple(range(seed, seed + seeds)), trials, tuple(method or ()), tuple(part or ()))
    try:
        with ConsoleProgress() as progress:
            run_study(
                planned, out, cache_folder(cache), devices=devices or usable_devices(), progress=progress,
                say=progress.message,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise RunError("interrupted; what is finished is kept, the same command goes on") from None
    result = write_report(out)
    print(json.dumps(result) if as_json else result["text"])


@app.command(epilog="Example: comodulate report runs/cifar100 --also runs/cifar100-192")
def report(
    folder: Annotated[Path, typer.Argument(metavar="STUDY", help="Folder of a study.")],
    also: Annotated[
        list[Path] | None,
        typer.Option(help="Another folder of the same study, to say over what verdicts hold; repeat."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make tables, figures and report of a study again, from the cells that are finished."""
    from .studies.report import write_report

    result = write_report(folder, also or [])
    print(json.dumps(result) if as_json else result["text"])


def _options(pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; values are numbers where they can be."""
    from .errors import InputError

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals and text):
            raise InputError(f"--option {pair!r} is not NAME=VALUE")
        for kind in (int, float, str):
            try:
                found[name] = kind(text)
                break
            except ValueError:
                continue
    return found


def _training(step: str, settings: Any, **changes: Any) -> Any:
    """Training settings with the options that were given; errors say of which step they are."""
    from dataclasses import replace

    from .errors import InputError

    try:
        return replace(settings, **{name: value for name, value in changes.items() if value is not None})
    except InputError as error:
        raise InputError(f"{step}: {error}") from error


def _modulation(given: dict[str, Any], make: Callable[..., Any]) -> Any:
    """Modulation options, with the normaliser and strength that go with a link where they are not given."""
    from .errors import InputError

    try:
        return make(**given)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error).replace("std must", "sigma must")) from error


def _with_seed(finished: Any, seed: int | None) -> Any:
    if seed is not None:
        finished.method.head.seed = _checked_seed(seed)
    return finished


def _checked_seed(seed: int) -> int:
    from .config import MAX_SEED
    from .errors import InputError

    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed {seed} is out of range, expected 0 to {MAX_SEED}")
    return seed


def _table(title: str, rows: list[tuple[str, dict[str, Any]]]) -> None:
    width = max(len(name) for name, _ in rows)
    print(f"{title:{width}s}  accuracy  balanced     NLL   Brier     ECE   count")
    for name, values in rows:
        balanced = values.get("balanced_accuracy", values.get("macro", {}).get("balanced_accuracy"))
        shown = "" if balanced is None else f"{100 * balanced:7.2f}%"
        print(
            f"{name:{width}s}  {100 * values['accuracy']:7.2f}%  {shown:>8s}  {values['nll']:6.3f}"
            f"  {values['brier']:6.3f}  {100 * values['ece']:5.2f}%  {values['count']:6d}"
        )


if __name__ == "__main__":
    main()
