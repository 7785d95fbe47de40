"""What fine-tuning shows a method before it trains."""

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from comodulation.config import RunConfig
from comodulation.features import Features
from comodulation.head import ComodulatedHead
from comodulation.methods import make_method
from comodulation.progress import Silent
from comodulation.tasks import TaskFamily
from comodulation.training import TrainingSettings
from comodulation.tuning import Inputs, tune

FAMILY = TaskFamily.from_attributes(("p", "q", "r"))


@pytest.mark.parametrize("missing", [False, True])
def test_images_with_all_labels_are_seen_once(missing):
    """The task response is that of every (image, task) pair, whether labels are missing or not."""
    rng = np.random.default_rng(0)
    columns = [rng.integers(2, size=12) for _ in FAMILY.tasks]
    if missing:
        columns[1][3:7] = -1
    examples = FAMILY.examples(columns)
    torch.manual_seed(0)
    head = ComodulatedHead(4, 3, 3, encoder_channels=6, decoder_channels=5, hidden=8)
    method = make_method("comodulation", head, FAMILY)
    features = Features(rng.random((12, 4, 2, 2)).astype(np.float16), (), "test")
    inputs = Inputs(method, features, examples.image.unique())
    config = RunConfig(data="d", attributes=FAMILY.tasks, tuning=TrainingSettings(epochs=1))
    tune(method, inputs, examples, examples, config, Fabric(accelerator="cpu", devices=1), None, "", Silent())
    found = head.response
    head.observe([(inputs.rows(examples.image), examples.task)])
    torch.testing.assert_close(found.jacobian, head.response.jacobian)
    torch.testing.assert_close(found.mean, head.response.mean)
    assert torch.equal(found.jacobian[0], found.jacobian[1]) != missing
