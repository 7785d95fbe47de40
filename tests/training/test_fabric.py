"""The device that a process trains on when it trains alone, and the Fabric that it is a part of."""

from types import SimpleNamespace

import lightning_fabric
import pytest
import torch

from comodulation.training import Alone, TrainingSettings, Venue, joined
from comodulation.training.loop import Objective, train


@pytest.mark.parametrize(("gpu", "expected"), [(2, [2]), (None, 1)])
def test_a_process_alone_takes_its_own_gpu(gpu, expected, monkeypatch):
    """Processes of a pool have one each; Fabric would put all of them on the first."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: gpu)
    monkeypatch.setattr(
        lightning_fabric, "Fabric", lambda **given: SimpleNamespace(given=given, device=given["devices"])
    )
    with joined() as fabric:
        assert fabric.given == {"accelerator": "auto", "devices": expected}
        assert fabric.device == (expected if gpu else torch.device("cpu"))


def test_a_process_alone_is_fabrics():
    with joined() as alone:
        fabric = lightning_fabric.Fabric(accelerator="auto", devices=1)
        for name in ("device", "global_rank", "world_size", "is_global_zero"):
            assert getattr(alone, name) == getattr(fabric, name)
        module = torch.nn.Linear(2, 1)
        assert alone.setup_module(module)(torch.ones(1, 2)).shape == (1, 1)
        with pytest.raises(AttributeError, match="no_such_name"):
            alone.no_such_name  # noqa: B018


def test_a_cpu_needs_no_fabric_to_train(monkeypatch):
    """A training on it has the bits that it has with Fabric, which is not made."""

    class Line(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor([0.5, -1.0]))

        def loss(self, inputs, targets):
            return (torch.nn.functional.dropout(inputs, 0.3, self.training) @ self.weight - targets).square().mean()

    def trained(fabric):
        line, draws = Line(), torch.Generator().manual_seed(0)
        batches = [(torch.randn(8, 2, generator=draws), torch.randn(8, generator=draws)) for _ in range(3)]
        objective = Objective(
            "line", line, [(line.weight, 1.0)], lambda epoch, generator: batches, 3,
            lambda: {"nll": float(line.loss(*batches[0]))},
        )  # fmt: skip
        history = train(objective, TrainingSettings(epochs=3, learning_rate=0.1), Venue(fabric), seed=1)
        return line.weight.detach(), [{**epoch, "seconds": 0} for epoch in history]

    expected = trained(lightning_fabric.Fabric(accelerator="cpu", devices=1))
    monkeypatch.setattr(lightning_fabric, "Fabric", lambda **given: pytest.fail("made"))
    for fabric in (Alone(), Alone(torch.device("cpu"))):
        weight, history = trained(fabric)
        assert torch.equal(weight, expected[0])
        assert history == expected[1]
    assert not torch.equal(expected[0], torch.tensor([0.5, -1.0]))


def test_a_device_that_is_given(monkeypatch):
    monkeypatch.setattr(lightning_fabric, "Fabric", lambda **given: SimpleNamespace(given=given))
    alone = Alone(torch.device("cuda", 3))
    assert alone.device == torch.device("cuda", 3)
    assert alone.given == {"accelerator": "cuda", "devices": [3]}
