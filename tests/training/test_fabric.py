"""The device that a process trains on when it trains alone, and the Fabric that it is a part of."""

from types import SimpleNamespace

import lightning_fabric
import pytest
import torch

from comodulation.training import joined


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
