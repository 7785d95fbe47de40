"""Processes that train together do not each take pieces of work besides."""

import pytest

from comodulation.errors import InputError
from comodulation.processes import Resources
from comodulation.runs import fit, make_config
from comodulation.training.launching import PLACE


@pytest.mark.parametrize("resources", [Resources(2), Resources(cluster="10.0.0.1:6379")], ids=str)
def test_a_cluster_is_refused_under_torchrun(resources, tmp_path, monkeypatch):
    """Each would have all methods fitted, in the same folders."""
    for name, value in zip(PLACE, ("0", "2", "0", "2", "127.0.0.1", "1"), strict=True):
        monkeypatch.setenv(name, value)
    config = make_config(
        {"data": str(tmp_path), "group": "coarse_label", "label": "fine_label", "method": "comodulation"}
    )
    with pytest.raises(InputError, match="leave --cluster out"):
        fit(config, tmp_path / "out", tmp_path / "cache", resources=resources)
    assert not (tmp_path / "out").exists()
