"""What a computed decoder gain knows: docs/routing.md's predictions on the networks of a study.

    python benchmarks/averaging.py STUDY --seeds 3

For each variant: the averaging matrix A_k (S = A_k u) of the decoder (row sums, weight of a neuron's own coupling, singular
values of one task's), and accuracy and NLL on the test split of the trained comodulation, of attention with its couplings u,
with (1 + beta) u, and of its decoder gains alone. If comodulation were attention at a larger coupling, the first and the
third would agree.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from comodulation.data.features import cache_folder
from comodulation.evaluation import metrics
from comodulation.mathematics import TaskResponse
from comodulation.networks.methods import make_method
from comodulation.runs import build_head
from comodulation.studies.cells import CELLS, Laboratory, read_gains, read_material
from comodulation.studies.paper import open_study
from comodulation.tasks import task_logits

SILENT = 1e-3  # mean activity below which a neuron's relative slope means nothing


@torch.no_grad()
def measure(laboratory: Laboratory, folder: Path, result: object) -> dict[str, float]:
    """Numbers of one trained network."""
    cell, numbers = result.cell, result.numbers
    session = laboratory.session(cell.variant, cell.seed)
    head = build_head(session.config, session.family, session.train_features.shape[0])
    session._pretrained(head)
    method = make_method("comodulation", head, session.family).eval()
    data = session.tuning_data()
    batches = [data.tuning.take(rows) for rows in torch.arange(len(data.tuning)).split(1024)]
    method.observe((head.encode(data.features.rows(part.image)), part.task) for part in batches)
    response = head.response
    assert isinstance(response, TaskResponse)
    live = response.mean > SILENT
    matrix = response.jacobian / response.mean.clamp(min=SILENT)[:, :, None]
    sums, own = matrix.sum(2)[live], torch.diagonal(matrix, dim1=1, dim2=2)[live]
    sizes = torch.linalg.svdvals(matrix[0][live[0]])
    gains = {name: torch.from_numpy(value) for name, value in read_gains(folder / CELLS, result).items()}
    u, decoder = gains["encoder"].log(), gains["decoder"]
    beta = float(numbers["settings"].get("beta", 1.0))
    features, examples = laboratory.test_data(session, cell)
    activity = torch.cat([head.encode(features.rows(part)) for part in examples.image.split(1024)])

    def accuracy(coupling: Tensor, gain: Tensor | None) -> tuple[float, float]:
        logs = []
        for rows in torch.arange(len(examples)).split(1024):
            tasks = examples.task[rows]
            decoded = head.decode(activity[rows] * coupling[tasks].exp()[:, :, None, None]).mean((-2, -1))
            logits = head.readout(decoded if gain is None else decoded * gain[tasks])
            logs.append(task_logits(session.family, logits, tasks, cell.readout).log_softmax(-1))
        found = metrics(torch.cat(logs), examples.target)
        return found["accuracy"], found["nll"]

    rows = {
        "comodulation": accuracy(u, decoder),
        "attention at u": accuracy(u, None),
        "attention at (1 + beta) u": accuracy((1 + beta) * u, None),
        "decoder gains alone": accuracy(0 * u, decoder),
    }
    result_row = {"row sum": float(sums.mean()), "row sum sd": float(sums.std()), "own weight": float(own.mean())}
    result_row |= {"coupling sd": float(u.std()), "log decoder gain sd": float(decoder.log()[live].std())}
    result_row |= {f"singular value {n}": float(sizes[min(n, len(sizes)) - 1]) for n in (1, 20, 60, 120, 200)}
    for name, (right, nll) in rows.items():
        result_row |= {f"{name}, %": 100 * right, f"{name}, NLL": nll}
    return result_row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    study, results = open_study(arguments.study)
    laboratory = Laboratory(read_material(study.name, study.config, cache_folder()))
    for variant in ("residual", "base"):
        mine = [r for r in results if (r.cell.variant, r.cell.readout, r.name) == (variant, "open", "comodulation")]
        found = [measure(laboratory, arguments.study, result) for result in mine[: arguments.seeds]]
        print(f"\n{variant} variant, {len(found)} seeds")
        for name in found[0] if found else ():
            print(f"  {name:34s} {sum(row[name] for row in found) / len(found):9.4f}")
