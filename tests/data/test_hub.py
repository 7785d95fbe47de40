"""Without a network, what has to come from the Hugging Face hub is refused at once, in one line."""

import sys
import time

import pytest
from huggingface_hub import constants

from comodulation.data.features import Backbone, BackboneSettings
from comodulation.data.hub import hub_or_offline
from comodulation.data.opening import available_splits
from comodulation.errors import InputError


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """A hub at a port where nobody listens, with the tests' own offline mode switched off."""
    import datasets

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)

    def sleep(seconds):
        pytest.fail(f"waited {seconds} s for a hub that cannot be reached")

    monkeypatch.setattr(time, "sleep", sleep)


def test_pretrained_weights(capfd):
    with pytest.raises(InputError, match=r"pretrained weights of 'test_resnet' cannot be loaded here .* 'random'"):
        Backbone(BackboneSettings("test_resnet", "pretrained", 32))
    assert capfd.readouterr() == ("", "")


def test_data_sets(capfd):
    with pytest.raises(InputError, match="cannot read data 'nobody/nothing': no such folder; as a data set of the"):
        available_splits("nobody/nothing")
    assert capfd.readouterr() == ("", "")


def test_offline_mode_lasts_no_longer_than_needed():
    """Inside, the hub's libraries read their caches alone; afterwards they may try again."""
    with hub_or_offline():
        assert constants.HF_HUB_OFFLINE
        assert sys.modules["datasets.config"].HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    assert not sys.modules["datasets.config"].HF_HUB_OFFLINE
