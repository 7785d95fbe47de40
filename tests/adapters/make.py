"""How the adapters kept here were made: once, by the release that is part of their names. They are not made again.

    python tests/adapters/make.py RELEASE

A file that cannot be loaded any more is an error of the library, not of the file. See tests/test_adapters_hostile.py; for
networks/, tests/test_attach.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from comodulation.networks import ComodulatedHead, save_adapter
from comodulation.networks.attached import Comodulated, comodulate
from comodulation.networks.methods import Method, all_tasks, make_method
from comodulation.tasks import TaskFamily

HERE = Path(__file__).parent
FAMILIES = {
    "classes": TaskFamily("classes", ("pets", "birds"), ("cat", "dog", "owl", "gull"), ((0, 1), (2, 3))),
    "binary": TaskFamily.from_attributes(("smiling", "young", "glasses")),
}
FEATURES = (torch.arange(3 * 4 * 4).reshape(3, 4, 2, 2) * 7 % 11).float() / 5


def numbers(shape: torch.Size, start: int) -> torch.Tensor:
    """Values in [-0.5, 0.5] that no random generator of any release decides."""
    count = torch.arange(shape.numel()) + start
    return ((count * 37 % 101).float() / 101 - 0.5).reshape(shape)


def network(method: str, kind: str) -> Method:
    """A tiny network; all of its pretrained numbers are given by ``numbers``."""
    family = FAMILIES[kind]
    sizes: dict[str, Any] = {"encoder_channels": 5, "decoder_channels": 6, "hidden": 4}
    head = ComodulatedHead(4, family.num_outputs, family.num_tasks, **sizes)
    with torch.no_grad():
        for place, parameter in enumerate(head.parameters()):
            parameter.copy_(numbers(parameter.shape, 13 * place))
        head.controller.reset_output()
    return make_method(method, head, family).eval()


def learn(method: Method) -> None:
    with torch.no_grad():
        for place, parameter in enumerate(method.learnable()):
            parameter.copy_(numbers(parameter.shape, 5 + 17 * place))
    inputs = method.prepare(FEATURES).detach()
    method.settle([(inputs, torch.arange(len(inputs)) % method.family.num_tasks)])


def attached() -> Comodulated:
    """Modulation inside a tiny network, whose numbers are given by ``numbers`` too."""
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            parameter.copy_(numbers(parameter.shape, 13 * place))
    return comodulate(model, encoder="1", decoder="3", num_tasks=2, encoder_width=5).eval()


def main(release: str) -> None:
    net, inputs = attached(), FEATURES.flatten(2).mean(2)
    with torch.no_grad():
        for place, parameter in enumerate(net.learnable()):
            parameter.copy_(numbers(parameter.shape, 5 + 17 * place))
    net.store_task_gains([(inputs, torch.tensor([0, 1, 0]))])
    save_adapter(net, HERE / "networks" / f"{release}.safetensors")
    (HERE / "networks" / f"{release}.json").write_text(json.dumps(net.all_tasks(inputs).tolist()) + "\n")
    for name, kind in (("comodulation", "classes"), ("comodulation", "binary"), ("film", "binary")):
        made = network(name, kind)
        learn(made)
        save_adapter(made, HERE / f"{release}-{name}-{kind}.safetensors", backbone="0" * 64)
        expected = json.dumps(all_tasks(made, FEATURES).tolist())
        (HERE / f"{release}-{name}-{kind}.json").write_text(expected + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
