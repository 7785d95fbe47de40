"""Every method on small heads, built and trained alike for the tests of all of them."""

from __future__ import annotations

import torch

from comodulation.networks.head import ComodulatedHead
from comodulation.networks.methods.registry import METHODS, WITH_LAYERS, make_method
from comodulation.tasks import TaskFamily

CLASSES = TaskFamily("classes", ("a", "b", "c"), tuple("tuvwxyz"), ((0, 1), (2, 3, 4), (5, 6)))
BINARY = TaskFamily.from_attributes(("p", "q", "r", "s"))
COLUMNS = TaskFamily.from_columns(("p", "q"), (("no", "yes"), ("u", "v", "w")))
CASES = [
    (name, family)
    for name, method in WITH_LAYERS.items()
    for family in (CLASSES, BINARY, COLUMNS)
    if family.kind in method.kinds
]


def make(name: str, family: TaskFamily, readout: str = "open", seed: int = 0, **options):
    torch.manual_seed(seed)
    if "modulation" not in options and name in METHODS:
        options = {**METHODS[name].modulation, **options}
    head = ComodulatedHead(
        5, family.num_outputs, family.num_tasks, encoder_channels=8, decoder_channels=8, hidden=16, **options
    )
    return make_method(name, head, family, readout).eval()


def train(method, given, task, target, steps: int = 10):
    method.observe([(given, task)])
    method.train()
    if method.learnable():
        optimizer = torch.optim.Adam(method.learnable(), 0.05)
        for _ in range(steps):
            loss = method.loss(given, task, target, torch.arange(len(task)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    method.eval()
    method.settle([(given, task)])
