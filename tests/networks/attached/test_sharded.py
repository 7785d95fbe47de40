"""Parameters that FSDP2 shards, in one process: right, or refused with the reason."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from comodulation import comodulate
from support.networks import couple

X, TASKS = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 1, 0])


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    file = tmp_path_factory.mktemp("meeting") / "file"
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def network():
    torch.manual_seed(0)
    blocks = (nn.Sequential(nn.Linear(width, 16), nn.ReLU()) for width in (6, 16, 16))
    return nn.Sequential(*blocks, nn.Linear(16, 3))


def sharded(parts, mesh):
    model = network()
    chosen = {
        "model": [model],
        "blocks and model": [*model[:3], model],
        "layers": [module for module in model.modules() if isinstance(module, nn.Linear)],
    }[parts]
    for module in chosen:
        fully_shard(module, mesh=mesh)
    return model


def found(model, estimator):
    """Answers in training, the gradient of the couplings, answers with stored gains."""
    net = comodulate(model, encoder="0.1", decoder="2.1", num_tasks=3, example=X, estimator=estimator)
    answers = couple(net, 0.5).train()(X, TASKS)
    answers.square().sum().backward()
    gradient = net.controller.embedding.weight.grad
    net.eval().store_task_gains([(X, TASKS)])
    return net.modulation.estimator, [answers.detach(), gradient, net(X, TASKS).detach()]


@pytest.mark.parametrize("estimator", ["auto", "derivative", "quadrature"])
def test_the_model_as_a_whole(mesh, estimator):
    taken, values = found(sharded("model", mesh), estimator)
    assert taken == ("quadrature" if estimator == "quadrature" else "derivative")
    torch.testing.assert_close(values, found(network(), taken)[1])


# A part within a whole that is sharded too can be called several times before ``backward`` since torch 2.13.
WITHIN = pytest.mark.skipif(
    torch.__version__ < (2, 13), reason="FSDP2 of this version of torch cannot call a part again"
)


@pytest.mark.parametrize("parts", [pytest.param("blocks and model", marks=WITHIN), "layers"])
def test_parts_of_the_model(mesh, parts):
    """With the derivative, ``backward`` would raise torch's own error: a storage of size 0."""
    with pytest.warns(UserWarning, match="gains by quadrature .* FSDP2 shards"):
        taken, values = found(sharded(parts, mesh), "auto")
    assert taken == "quadrature"
    torch.testing.assert_close(values, found(network(), "quadrature")[1])
    with pytest.raises(RuntimeError, match=r"use estimator 'quadrature' \(none that can be trained: FSDP2 shards '0"):
        found(sharded(parts, mesh), "derivative")
