"""What only a label can do: gains of a decoder that cannot be differentiated, and questions that do not apply.

    python benchmarks/only_labels.py STUDY --cache CACHE --seeds 3

STUDY is a finished folder of `comodulate reproduce` (cifar100 or clinc), whose comodulation is trained again, to the same bits.

1. The decoder layer is exported to ONNX, quantised to 8 bits and run by ONNX Runtime: no derivative exists. The gains of each task
   come from five forward passes over 40 of its inputs (Gauss-Hermite quadrature). Their difference from the exact ones, and test
   accuracy of both.
2. Each test input is asked its own task's question, and another's, which does not apply. Three scores should tell which: the
   largest probability among the task's classes, the energy (logsumexp of their logits), and the standard deviation of the answer's
   probability under the modulator (nine nodes; a small one should mean that the question applies). Area under the ROC curve.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from comodulation.evaluation import paired_difference
from comodulation.mathematics import (
    average_over_tasks,
    decoder_statistics,
    derived_seed,
    gains_from_statistics,
    gauss_hermite,
    modulate,
)
from comodulation.networks.methods import Comodulation
from comodulation.studies.cells import Cell, Row
from comodulation.studies.paper import Study

INPUTS = 40  # of each task, from which gains come
NODES = 9
MOST = 2000  # test inputs


def quantised(head: Any, activity: Tensor) -> Any:
    """The decoder layer as a function of encoder activity, computed in 8 bits by ONNX Runtime."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    class Decoder(torch.nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            return head.decode(h)

    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder) / "plain.onnx", Path(folder) / "small.onnx"
        torch.onnx.export(
            Decoder().eval(), (activity[:4],), plain, input_names=["h"], output_names=["d"],
            dynamic_axes={"h": {0: "n"}, "d": {0: "n"}}, dynamo=False,
        )  # fmt: skip
        quantize_dynamic(plain, small, weight_type=QuantType.QUInt8)
        session = onnxruntime.InferenceSession(str(small), providers=["CPUExecutionProvider"])
    return lambda h: torch.from_numpy(session.run(None, {"h": h.detach().numpy()})[0])


def auroc(applies: Tensor, other: Tensor) -> float:
    """Area under the ROC curve of a score that is higher where a question applies."""
    ranks = torch.cat([applies, other]).double().argsort().argsort().double() + 1
    number = len(applies)
    return float((ranks[:number].sum() - number * (number + 1) / 2) / (number * len(other)))


@torch.no_grad()
def measured(study: Study, laboratory: Any, folder: Path, seed: int) -> dict[str, float]:
    """Figures of one seed."""
    cell = Cell("residual", "open", Row("comodulation"), seed)
    with torch.enable_grad():
        session, adapted = laboratory.adapt(cell, study.settings(laboratory, cell, folder))
    method = adapted.method.eval().cpu()
    assert isinstance(method, Comodulation)
    head, family = method.head, session.family
    features, examples = laboratory.test_data(session, cell)
    rng = np.random.default_rng(derived_seed(seed, "asked"))
    examples = examples.take(torch.from_numpy(rng.permutation(len(examples))[:MOST]))
    activity = head.encode(features.rows(examples.image))
    tuning = laboratory.training_data(session, cell).tuning
    seen = torch.cat([(tuning.task == task).nonzero()[:INPUTS, 0] for task in range(family.num_tasks)])
    observed, own = head.encode(session.tuning_data().features.rows(tuning.image[seen])), tuning.task[seen]
    coupling, options, exact = head.controller(torch.arange(family.num_tasks)), head.modulation, head.task_gains
    assert exact is not None
    decode = quantised(head, activity)

    def gains_by(decoder: Any) -> Tensor:
        found = decoder_statistics(decoder, observed, coupling[own], 0.1, estimator="quadrature", num_nodes=5)
        whole = average_over_tasks(found, own, family.num_tasks)
        return gains_from_statistics(whole, link=options.link, normalizer=options.normalizer, beta=options.beta)

    factor = coupling.exp() if options.encoder_in(training=False) == "gain" else torch.ones_like(coupling)

    def logits(decoder: Any, gains: Tensor, tasks: Tensor) -> Tensor:
        return head.read(decoder(activity * factor[tasks][:, :, None, None]), gains[tasks])

    tasks, target = examples.task, examples.target
    mask = family.member_mask(tasks)
    result = {}
    passes = gains_by(decode)
    result["largest weight of the decoder beside its skip"] = float(head.decoder.weight.abs().max())
    result["gain error, median %"] = 100 * float((passes / exact - 1).abs().median())
    result["gain error, 95th percentile %"] = 100 * float((passes / exact - 1).abs().quantile(0.95))
    ways = {
        "float, exact gains": (head.decode, exact),
        "8 bits, gains by five passes": (decode, passes),
        "8 bits, no gains": (decode, torch.ones_like(exact)),
    }
    for name, (decoder, gains) in ways.items():
        found = logits(decoder, gains, tasks)
        for readout, kept in (("open", found), ("mask", found.masked_fill(~mask, -torch.inf))):
            result[f"accuracy, {name}, {readout}"] = 100 * float((kept.argmax(1) == target).double().mean())
    others = (tasks + torch.from_numpy(rng.integers(1, family.num_tasks, len(tasks)))) % family.num_tasks
    nodes, weights = gauss_hermite(NODES, torch.float32, torch.device("cpu"))
    scores: dict[str, list[Tensor]] = {"probability": [], "energy": [], "fluctuation": []}
    for asked in (tasks, others):
        kept = logits(head.decode, exact, asked).masked_fill(~family.member_mask(asked), -torch.inf)
        answer = kept.argmax(1, keepdim=True)
        under = []
        for node in nodes:
            m = torch.full((len(asked),), float(options.std * node))
            moved = modulate(activity, coupling[asked], m, options.std)
            read = head.read(head.decode(moved), exact[asked]).masked_fill(~family.member_mask(asked), -torch.inf)
            under.append(read.log_softmax(1).exp().gather(1, answer)[:, 0])
        p = torch.stack(under)
        mean = (weights[:, None] * p).sum(0)
        scores["probability"].append(kept.log_softmax(1).amax(1))
        scores["energy"].append(kept.logsumexp(1))
        scores["fluctuation"].append(-(weights[:, None] * (p - mean) ** 2).sum(0).sqrt())
    return result | {f"AUROC, {name}": auroc(*both) for name, both in scores.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    study = Study.from_json(json.loads((given.study / "study.json").read_text()))
    laboratory = study.laboratory(given.cache)
    found = []
    for seed in study.seeds[: given.seeds]:
        found.append(measured(study, laboratory, given.study, seed))
        print(f"seed {seed}: { ({name: round(value, 3) for name, value in found[-1].items()}) }", flush=True)
    for name in found[0]:
        print(f"{name:48s} {np.mean([one[name] for one in found]):8.3f}")
    if len(found) > 1:
        for rival in ("probability", "energy"):
            a, b = ([one[f"AUROC, {name}"] for one in found] for name in ("fluctuation", rival))
            d = paired_difference(a, b)
            print(f"AUROC, fluctuation minus {rival}: {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]")


if __name__ == "__main__":
    main()
