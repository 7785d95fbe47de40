"""One graph of a network with its tasks, for torch.export and ONNX: images and task ids in, probabilities out.

The task is an input, or one task is folded in. Stored task gains become a table in the graph; gains of level `input` are computed
in it, by quadrature's passes or by the derivative's one more convolution. What depends on random draws is refused.
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

from .comodulated import Comodulated
from .errors import InputError, RunError
from .methods import Method
from .prediction import Run
from .store import write_bytes
from .stored_gains import check_all

BATCH = torch.export.Dim("batch", min=1, max=65536)


class Answers(nn.Module):
    """A run's backbone and method as one module.

    Args:
        backbone: uint8 images ``(B, 3, S, S)`` -> features. method: fitted.
        task: the one task it answers; None leaves the task an input.

    Raises:
        InputError: a stochastic encoder, whose answers depend on draws of the modulator.
    """

    def __init__(self, backbone: nn.Module, method: Method, task: int | None = None) -> None:
        super().__init__()
        if method.head.modulation.encoder == "stochastic":
            raise InputError(
                "a stochastic encoder draws its modulator anew for each image, and a graph cannot; fit with --encoder gain"
            )
        self.backbone, self.method, self.task = backbone, method.eval().requires_grad_(False), task
        _ = method.family.member_table

    def forward(self, images: Tensor, tasks: Tensor | None = None) -> Tensor:
        """uint8 images ``(B, 3, S, S)``, and task ids ``(B,)`` unless one is folded in -> probabilities ``(B, C)``."""
        if tasks is None:
            tasks = torch.full_like(images[:, 0, 0, 0], self.task or 0, dtype=torch.int64)
        features = self.backbone(images).half().float()  # rounded as the cache rounds them
        return self.method.log_probabilities(self.method.prepare(features), tasks).exp()


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


def export_program(network: nn.Module, example: tuple[Any, ...]) -> torch.export.ExportedProgram:
    """A network as one graph, with any number of inputs (``torch.export``).

    Args:
        network: in evaluation mode; the first dimension of each of its inputs is the batch. example: a batch of at least 2.

    Raises:
        RunError: something in it cannot be traced.
    """
    if isinstance(network, Comodulated):
        check_all(network)
    if isinstance(network, Comodulated) and network.task_gains is None and network.modulation.estimator == "derivative":
        raise InputError(
            "the network has no stored task gains, and a derivative has no graph: store_task_gains(...) first, or "
            "estimator='quadrature'"
        )
    shapes: Any = tuple({0: BATCH} for _ in example)
    if isinstance(network, Comodulated):  # its arguments are the model's, whatever these are
        shapes = (shapes,)
    try:
        with torch.no_grad():
            return torch.export.export(network.eval(), example, dynamic_shapes=shapes)
    except Exception as error:  # the tracer raises whatever the model's code leads it into
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"the network cannot be exported: {reason}") from error


def export_onnx(
    network: nn.Module,
    example: tuple[Any, ...],
    path: str | Path,
    *,
    names: tuple[str, ...] = ("images", "tasks"),
    notes: dict[str, str] | None = None,
) -> None:
    """A network as an ONNX file, whole or not at all, checked by the onnx library.

    Args:
        network, example: as in ``export_program``. path: *.onnx. names: of the inputs. notes: kept in the file, text by name.

    Raises:
        InputError: the extra package is not there. RunError: as ``export_program``; the file cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"ONNX needs {package}: pip install 'comodulation[onnx]'")
    import onnx

    program = export_program(network, example)
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

    The file takes uint8 images ``(B, 3, S, S)``, scaled and cropped as the backbone wants them, and, unless a task is folded in,
    task ids ``(B,)``; it gives probabilities ``(B, C)``, of no and yes ``(B, 2)`` for binary tasks.

    Args:
        run: finished. path: file to write. task: name of the one task it answers; None leaves the task an input.

    Returns:
        What the file notes about itself: ``tasks``, ``answers`` (names of the C columns), ``image_size``, ``task``.

    Raises:
        InputError: another ending, an unknown task, a network without a graph. RunError: as ``export_program``.
    """
    if path.suffix not in (".onnx", ".pt2"):
        raise InputError(f"cannot tell the format of {path.name!r}; expected a name that ends with .onnx or .pt2")
    number = None if task is None else run.family.task_id(task)
    size = run.config.backbone.image_size
    network = Answers(run.backbone, run.method, number)
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    example = (images,) if task is not None else (images, torch.zeros(2, dtype=torch.int64))
    about = {"tasks": list(run.family.tasks), "answers": list(run.family.targets), "image_size": size, "task": task}
    notes = {key: json.dumps(value) for key, value in about.items()}
    if path.suffix == ".onnx":
        export_onnx(network, example, path, notes=notes)
    else:
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the writer's own, about tensors that share memory
            torch.export.save(export_program(network, example), buffer, extra_files=notes)
        write_bytes(path, buffer.getvalue())
    return about
