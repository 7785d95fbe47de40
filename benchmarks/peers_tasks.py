"""peft beside this library as more and more tasks meet in one batch: a training step and an inference of 256 mixed inputs.

    python benchmarks/peers_tasks.py [--tasks 5 20 100 256]

Binary tasks, a head of 256 channels with random weights on 2x2 maps, the kept encoder activity of 256 random inputs, tasks
in turn. IA3 in both libraries (the same function: tests/test_benchmarks.py), peft's behind the encoder; comodulation beside
them. Processor time of one thread, in turn in one process, median.
"""

from __future__ import annotations

import argparse

import torch
from peers import plain_layers
from peers_common import Clock, PlainHead
from peers_peft import adapted, adapter_parameters, run_tasks
from torch import Tensor
from torch.nn import functional as F

from comodulation.networks import ComodulatedHead
from comodulation.networks.methods import Method, make_method
from comodulation.tasks import TaskFamily

BATCH, CHANNELS = 256, 256
NAMES = ("ia3", "comodulation", "peft")


def measure(num_tasks: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of a training step and of an inference, by contender."""
    torch.manual_seed(0)
    family = TaskFamily.from_attributes([f"task {number}" for number in range(num_tasks)])

    def make(name: str) -> Method:
        torch.manual_seed(1)
        return make_method(
            name, ComodulatedHead(320, num_tasks, num_tasks, encoder_channels=CHANNELS, hidden=CHANNELS), family
        )

    ours = {name: make(name) for name in NAMES[:2]}
    head = ours["ia3"].head
    model = adapted(PlainHead(plain_layers(head)).requires_grad_(False).eval().tail, num_tasks)
    activity = head.encode(torch.randn(BATCH, 320, 2, 2)).detach()
    tasks, targets = torch.arange(BATCH) % num_tasks, torch.randint(2, (BATCH,))
    learned = {name: method.learnable() for name, method in ours.items()} | {"peft": adapter_parameters(model)}
    optimizers = {name: torch.optim.AdamW(own, lr=0.01, weight_decay=0.0) for name, own in learned.items()}

    def train_peft() -> None:
        for places, logits in run_tasks(model, activity, tasks):
            own = logits.gather(1, tasks[places, None])[:, 0]
            (F.binary_cross_entropy_with_logits(own, targets[places].float(), reduction="sum") / BATCH).backward()

    def answer_peft() -> Tensor:
        return torch.cat([logits for _, logits in run_tasks(model, activity, tasks)])

    clocks = {(name, what): Clock() for name in NAMES for what in ("training", "inference")}
    for method in ours.values():
        method.observe([(activity, tasks)])
    for _ in range(rounds):
        for name in NAMES:
            model.train() if name == "peft" else ours[name].train()
            with clocks[name, "training"]:
                optimizers[name].zero_grad()
                train_peft() if name == "peft" else ours[name].loss(activity, tasks, targets).backward()
                optimizers[name].step()
            model.eval() if name == "peft" else ours[name].eval().settle([(activity, tasks)])
            with clocks[name, "inference"], torch.inference_mode():
                answer_peft() if name == "peft" else ours[name].log_probabilities(activity, tasks)
    training, inference = (
        {name: 1000 * clocks[name, what].medians()[0] for name in NAMES} for what in ("training", "inference")
    )
    return {name: (training[name], inference[name]) for name in NAMES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[5, 20, 100, 256])
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| tasks | " + " | ".join(f"{name}, step, ms" for name in NAMES) + " | peft / ia3 | "
          + " | ".join(f"{name}, inference, ms" for name in NAMES) + " | peft / ia3 |")  # fmt: skip
    print("|" + " --- |" * (3 + 2 * len(NAMES)))
    for number in given.tasks:
        found = measure(number, given.rounds)
        cells = [str(number)]
        for what in (0, 1):
            cells += [f"{found[name][what]:.1f}" for name in NAMES]
            cells.append(f"{found['peft'][what] / found['ia3'][what]:.1f}")
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
