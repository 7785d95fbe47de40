"""One graph of a network with its tasks, for torch.export and ONNX: a batch of inputs and task ids in, probabilities out.

The task is an input, or one task is folded in; the answers of a task that does not exist are nan. Stored task gains become a table
in the graph; gains of level `input` are computed in it, by quadrature's passes or by the derivative's one more convolution. What
depends on random draws is refused.
"""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..data.features import Encoder, open_shapes
from ..errors import InputError, RunError, reason_of
from ..evaluation import apply_temperature
from ..files import write_bytes
from ..networks.attached import Comodulated
from ..networks.methods import Method
from .run import Run

BATCH = torch.export.Dim("batch", min=1, max=65536)


class Answers(nn.Module):
    """A run's encoder and method as one module.

    Args:
        encoder: a batch of images, texts or embeddings -> features. method: fitted.
        task: the one task it answers; None leaves the task an input.
        temperature: of the answers; None gives them as the network does.

    Raises:
        InputError: a stochastic encoder, whose answers depend on draws of the modulator.
    """

    def __init__(
        self, encoder: Encoder, method: Method, task: int | None = None, temperature: float | None = None
    ) -> None:
        super().__init__()
        if method.head.modulation.encoder == "stochastic":
            raise InputError(
                "a stochastic encoder draws its modulator anew for each image, and a graph cannot; fit with "
                "--set modulation.encoder=gain"
            )
        self.encoder, self.method, self.task = encoder, method.eval().requires_grad_(False), task
        self.temperature = temperature
        _ = method.family.member_table

    def open_shapes(self) -> Any:
        """Which dimensions of its inputs are open; they are one argument, a tuple."""
        batch = open_shapes(self.encoder)
        return ((*batch, *([{0: batch[0][0]}] if self.task is None else [])),)

    def forward(self, *inputs: Tensor) -> Tensor:
        """A batch as the encoder takes it, and task ids ``(B,)`` unless one is folded in -> probabilities ``(B, C)``."""
        batch = inputs if self.task is not None else inputs[:-1]
        if self.task is None:
            tasks = inputs[-1]
        else:
            tasks = torch.full_like(batch[0].flatten(1)[:, 0], self.task, dtype=torch.int64)
        features = self.encoder(*batch).to(self.encoder.kept).float()  # rounded as the cache rounds them
        known = _clamped(tasks, self.method.family.num_tasks)
        logs = self.method.log_probabilities(self.method.prepare(features), known)
        if self.temperature is not None:
            logs = apply_temperature(logs, self.temperature)
        return _of_known(logs.exp(), tasks == known)


class TaskAnswers(nn.Module):
    """A ``Comodulated`` model with one task folded in: called like the model.

    Args:
        network: with stored task gains, or level `input`. task: its number.
    """

    def __init__(self, network: Comodulated, task: int) -> None:
        super().__init__()
        if not 0 <= task < network.num_tasks:
            raise InputError(f"task must be in [0, {network.num_tasks - 1}], got {task}")
        self.network, self.task = network.eval(), task

    def forward(self, inputs: Tensor) -> Any:
        tasks = torch.full((inputs.shape[0],), self.task, dtype=torch.int64, device=inputs.device)
        return self.network(inputs, task_ids=tasks)


class _KnownTasks(nn.Module):
    """A ``Comodulated`` model whose last input are task ids, in which those that do not exist give nan."""

    def __init__(self, network: Comodulated) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Any:
        *given, tasks = inputs
        known = _clamped(tasks, self.network.num_tasks)
        outputs = self.network(*given, known)
        return tree_map_only(Tensor, lambda output: _of_known(output, tasks == known), outputs)


def _clamped(tasks: Tensor, number: int) -> Tensor:
    """Task ids within [0, number - 1]: a graph takes no exception, and a negative place would count from the end."""
    return tasks.clamp(0, number - 1)


def _of_known(answers: Tensor, known: Tensor) -> Tensor:
    """Answers ``(B, ...)`` with nan in the rows that are not known, ``(B,)``; what holds no fractions stays as it is."""
    if not answers.is_floating_point() or answers.ndim == 0:
        return answers
    return answers.masked_fill(~known.reshape(-1, *(1,) * (answers.ndim - 1)), torch.nan)


def export_program(network: nn.Module, example: tuple[Any, ...]) -> torch.export.ExportedProgram:
    """A network as one graph, with any number of inputs (``torch.export``).

    Args:
        network: in evaluation mode; the first dimension of each of its inputs is the batch. example: a batch of at least 2.

    Raises:
        RunError: something in it cannot be traced.
    """
    shapes: Any = tuple({0: BATCH} for _ in example)
    if isinstance(network, Answers):
        shapes = network.open_shapes()
    if isinstance(network, Comodulated):
        _check_graph(network)
        shapes = (shapes,)  # its arguments are the model's, whatever these are
        if len(example) > 1 and example[-1].ndim == 1 and not example[-1].is_floating_point():
            network = _KnownTasks(network)
    try:
        with torch.no_grad():
            return torch.export.export(network.eval(), example, dynamic_shapes=shapes)
    except Exception as error:  # the tracer raises whatever the model's code leads it into
        raise RunError(f"the network cannot be exported: {reason_of(error)}") from error


def _check_graph(network: Comodulated) -> None:
    """Raise InputError for a network whose gains cannot be a part of a graph."""
    network.check_task_gains()
    if network.modulation.estimator != "derivative":
        return
    if network.labels != "channels":
        raise InputError(
            "labels of positions are computed for each input, and a derivative has no graph; take estimator='quadrature'"
        )
    if network.task_gains is None:
        raise InputError(
            "the network has no stored task gains, and a derivative has no graph: store_task_gains(...) first, or "
            "estimator='quadrature'"
        )


def export_onnx(
    network: nn.Module | torch.export.ExportedProgram,
    example: tuple[Any, ...],
    path: str | Path,
    *,
    names: tuple[str, ...] = ("images", "tasks"),
    notes: dict[str, str] | None = None,
) -> None:
    """A network as an ONNX file, whole or not at all, checked by the onnx library.

    Args:
        network, example: as in ``export_program``; or the program that it has made of them. path: *.onnx. names: of the inputs.
        notes: kept in the file, text by name.

    Raises:
        InputError: the extra package is not there. RunError: as ``export_program``; the file cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"ONNX needs {package}: pip install 'comodulation[onnx]'")
    import onnx

    program = export_program(network, example) if isinstance(network, nn.Module) else network
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        made = torch.onnx.export(
            program, input_names=list(names[: len(example)]), output_names=["probabilities"], dynamo=True, verbose=False
        )
    assert made is not None
    model = made.model_proto
    for name, text in (notes or {}).items():
        model.metadata_props.add(key=name, value=text)
    onnx.checker.check_model(model)
    write_bytes(Path(path), model.SerializeToString())


def export_run(run: Run, path: Path, task: str | None = None) -> dict[str, Any]:
    """A run's network as a file: ``*.onnx``, or ``*.pt2`` for ``torch.export.load``.

    The file takes a batch as the run's encoder does (uint8 images ``(B, 3, S, S)``, scaled and cropped as ``preprocessing`` says;
    ids and mask of the tokens of texts, int64 ``(B, L)``; or embeddings ``(B, C, H, W)``) and, unless a task is folded in, task
    ids ``(B,)``; it gives probabilities ``(B, C)`` at the run's temperature, of no and yes ``(B, 2)`` for binary tasks. A task id
    that does not exist gives nan.

    Args:
        run: finished. path: file to write. task: name of the one task it answers; None leaves the task an input.

    Returns:
        What the file notes about itself, as JSON by name: ``tasks`` (their ids are their places), ``answers`` (words of the C
        columns), ``outputs`` (for each task by name, the columns that are its own and their words), ``task`` (that is folded in),
        ``temperature`` (that is in the graph), ``decisions`` (that are not: offsets of the log probabilities of each task's
        words, after which the highest is the answer; null where the most probable is), ``inputs`` (names of the tensors),
        ``preprocessing``, and what else the encoder says.

    Raises:
        InputError: another ending, a file that is there, an unknown task, a network without a graph. RunError: as
            ``export_program``.
    """
    if path.suffix not in (".onnx", ".pt2"):
        raise InputError(f"cannot tell the format of {path.name!r}; expected a name that ends with .onnx or .pt2")
    if path.exists():
        raise InputError(f"{path} is there already; remove it or choose another --out")
    if not path.parent.is_dir():  # said before the work, not after it
        raise RunError(f"cannot write {path}: no such folder")
    number = None if task is None else run.family.task_id(task)
    network = Answers(run.encoder, run.method, number, run.temperature)
    tasks = () if task is not None else (torch.zeros(2, dtype=torch.int64),)
    example = (*run.encoder.example(2), *tasks)
    names = (*run.encoder.input_names, *["tasks"] * len(tasks))
    about = {
        "tasks": list(run.family.tasks),
        "answers": list(run.family.targets),
        "outputs": {
            name: {"columns": list(run.family.own_targets(place)), "words": list(run.family.answers(place))}
            for place, name in enumerate(run.family.tasks)
        },
        "task": task,
        "temperature": run.temperature,
        "decisions": None if run.decisions is None else run.decisions.to_json(),
        "inputs": list(names),
        **run.encoder.about(),
    }
    notes = {key: json.dumps(value) for key, value in about.items()}
    if path.suffix == ".onnx":
        export_onnx(network, example, path, names=names, notes=notes)
    else:
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the writer's own, about tensors that share memory
            torch.export.save(export_program(network, example), buffer, extra_files=notes)
        write_bytes(path, buffer.getvalue())
    return about
