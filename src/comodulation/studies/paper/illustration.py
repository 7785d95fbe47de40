"""One network followed through: what the figures of the mechanism need beyond the numbers of cells.

The first seed's comodulation (residual variant, open readout) is trained again, to the same bits, and looked at: the spectrum of
the modulator's fluctuation and its share in task subspaces, informativeness of each neuron against coupling and gain, and one test
image or text from its couplings to its prediction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...evaluation import fluctuation_covariance, informativeness, subspace_share, task_subspace
from ...mathematics import modulate, modulator_noise
from ...networks.methods import Method, gains_of
from ...tasks import Examples, TaskFamily
from ...tensors import read_arrays, write_tensors
from ..cells import (
    MOST_PER_TASK,
    NOISE_PER_TASK,
    Cell,
    Laboratory,
    at_most,
    checked_illustration,
    represent,
    under_noise,
)

TRACE = 60  # modulator samples shown for the one image


@torch.no_grad()
def illustrate(laboratory: Laboratory, cell: Cell, settings: dict[str, Any], path: Path) -> None:
    """Train a cell of comodulation and write what its figures show.

    Args:
        laboratory: where. cell: of comodulation. settings: as the cell was trained with. path: safetensors file to write.
    """
    with torch.enable_grad():
        session, adapted = laboratory.adapt(cell, settings)
    method, family = adapted.method.eval().cpu(), session.family
    features, examples = laboratory.test_data(session, cell)
    data = laboratory.training_data(session, cell)
    fitted, held = at_most(data.validation, MOST_PER_TASK), at_most(examples, MOST_PER_TASK)
    gains = gains_of(method)
    activity = torch.cat([method.head.encode(features.rows(part)) for part in held.image.split(1024)])
    decoded = torch.cat([method.head.decode(part).mean((-2, -1)) for part in activity.split(1024)])
    encoder = informativeness(activity.mean((-2, -1)), held.target, held.task, gains["coupling"])
    decoder = informativeness(decoded, held.target, held.task, gains["decoder"])
    tensors = {
        "encoder_dprime": encoder.dprime, "decoder_dprime": decoder.dprime,
        "encoder": torch.ones_like(gains["coupling"]), **gains,  # 1 where the encoder is not multiplied by the task
        **_noise(method, activity, held, represent(method, data.features, fitted), fitted, gains),
    }  # fmt: skip
    names: dict[str, Any] = {"tasks": family.tasks, "outputs": family.outputs, "kind": family.kind}
    row, followed = _followed(method, family, held, activity, gains)
    labelled, config = laboratory.material.labelled, laboratory.material.config
    name = config.test_split if config.test_split in labelled else config.train_split
    given = labelled[name].split.read(row)
    if isinstance(given, str):
        names["text"] = given
    else:
        followed["image"] = torch.from_numpy(np.array(given))
    write_tensors(path, {**tensors, **followed}, names)


def read_illustration(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """The inverse: arrays by name, and the names of tasks and outputs; None if it is not there. Raises InputError if damaged."""
    if not path.exists():
        return None
    arrays, names = read_arrays(path)
    checked_illustration(arrays, names, path)
    return arrays, names


def _noise(
    method: Method, activity: Tensor, held: Examples, fit_seen: Tensor, fitted: Examples, gains: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Spectra of the fluctuation, mean over tasks, and its shares: in the task's subspace, others', and by chance."""
    tasks = range(len(gains["coupling"]))
    bases = [task_subspace(fit_seen[fitted.task == k], fitted.target[fitted.task == k]) for k in tasks]
    spectra: dict[str, list[Tensor]] = {"before": [], "after": []}
    shares: dict[str, list[float]] = {"before": [], "after": [], "chance": [], "control": []}
    for task in tasks:
        rows = (held.task == task).nonzero()[:NOISE_PER_TASK, 0]
        samples, weights = under_noise(method, activity[rows], gains["coupling"][task])
        for name, seen in (("before", samples), ("after", samples * gains["decoder"][task])):
            covariance = fluctuation_covariance(seen, weights)
            shares[name].append(subspace_share(covariance, bases[task]))
            spectra[name].append(torch.linalg.eigvalsh(covariance).clamp(min=0).flip(0))
            if name == "after":
                others = [subspace_share(covariance, bases[k]) for k in tasks if k != task]
                shares["control"].append(float(torch.tensor(others, dtype=torch.float64).nanmean()))
        shares["chance"].append(bases[task].shape[1] / samples.shape[-1])
    found = {f"share_{name}": torch.tensor(values) for name, values in shares.items()}
    return found | {f"spectrum_{name}": torch.stack(values).mean(0) for name, values in spectra.items()}


def _followed(
    method: Method, family: TaskFamily, held: Examples, activity: Tensor, gains: dict[str, Tensor]
) -> tuple[int, dict[str, Tensor]]:
    """Row of a test input that the network gets wrong without its task and right with it (else the first), and all about it."""
    rows = torch.arange(min(len(held), 512))
    part = held.take(rows)
    before = (method.head.read(method.head.decode(activity[rows]))).log_softmax(-1).exp()
    after = method.log_probabilities(activity[rows], part.task, part.image).exp()
    if family.kind == "binary":
        yes = before_yes(method, activity[rows], part.task)
        before = torch.stack([1 - yes, yes], 1)
    mended = (before.argmax(1) != part.target) & (after.argmax(1) == part.target)
    place = int(mended.nonzero()[0, 0]) if bool(mended.any()) else 0
    task, image = int(part.task[place]), int(part.image[place])
    std = method.head.modulation.std
    ids = part.image[place : place + 1]
    modulator = std * modulator_noise(ids, part.task[place : place + 1], TRACE, seed=method.head.seed)
    modulated = modulate(activity[place : place + 1], gains["coupling"][task][None], modulator, std)
    trace = method.head.decode(modulated.flatten(0, 1)).mean((-2, -1))
    return image, {
        "image_task": torch.tensor(task), "image_target": part.target[place],
        "modulator": modulator[:, 0], "trace": trace, "before": before[place], "after": after[place],
    }  # fmt: skip


def before_yes(method: Method, activity: Tensor, tasks: Tensor) -> Tensor:
    """Probability of yes of binary tasks without a task signal, ``(B,)``."""
    logits = method.head.read(method.head.decode(activity))
    return logits.gather(1, tasks[:, None])[:, 0].sigmoid()
