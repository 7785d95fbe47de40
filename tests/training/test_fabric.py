"""The device that a process trains on when it trains alone."""

import pytest
import torch

from comodulation.training import fabric


@pytest.mark.parametrize(("gpu", "expected"), [(2, [2]), (None, 1)])
def test_a_process_alone_takes_its_own_gpu(gpu, expected, monkeypatch):
    """Processes of a pool have one each; Fabric would put all of them on the first."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: gpu)
    monkeypatch.setattr(fabric, "Fabric", lambda accelerator, devices: devices)
    with fabric.joined() as devices:
        assert devices == expected
