"""The loop: the same bits however often it was interrupted, the best epoch at the end, clear failures."""

import itertools
import math

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from comodulation.errors import InputError, RunError
from comodulation.mathematics import derived_seed
from comodulation.tensors import read_tensors
from comodulation.training.loop import Objective, TrainingSettings, Venue, one_cycle, train
from comodulation.training.progress import Silent


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (self.layers(x)[:, 0] - y).square().mean()


class Stop(Exception):
    pass


X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = X.sum(1)


def run(
    module,
    checkpoint=None,
    *,
    epochs=6,
    stop_after=None,
    validate=None,
    identity="",
    seed=0,
    after_step=None,
    state=(),
    **settings,
):
    def batches(epoch, generator):
        for rows in torch.randperm(64, generator=generator).split(16):
            yield X[rows], Y[rows]

    class Stopping(Silent):
        def epoch(self, phase, epoch):
            if epoch.number == stop_after:
                raise Stop

    objective = Objective(
        "regression",
        module,
        [(p, 1.0) for p in module.parameters()],
        batches,
        4,
        validate or (lambda: {"nll": float(module.loss(X, Y)), "accuracy": 0.0}),
        after_step=after_step,
        state=state,
    )
    venue = Venue(Fabric(accelerator="cpu", devices=1), Stopping(), checkpoint, identity)
    return train(objective, TrainingSettings(epochs=epochs, learning_rate=0.01, **settings), venue, seed=seed)


def bits(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.parametrize("stops", [(1,), (3,), (5,), (1, 2, 4)])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, stops):
    whole = Regression()
    history = run(whole)
    path = tmp_path / "checkpoint.safetensors"
    for stop in stops:
        with pytest.raises(Stop):
            run(Regression(), path, stop_after=stop)
    resumed = Regression()
    again = run(resumed, path)
    assert all(torch.equal(a, b) for a, b in zip(bits(whole), bits(resumed), strict=True))
    assert [(e["epoch"], e["loss"], e["nll"]) for e in again] == [(e["epoch"], e["loss"], e["nll"]) for e in history]


def test_seed_decides_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    first, second, other = Regression(), Regression(), Regression()
    torch.manual_seed(5)
    run(first, seed=1)
    assert torch.equal(torch.rand(3), expected)
    run(second, seed=1)
    run(other, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(bits(first), bits(second), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(bits(first), bits(other), strict=True))


def test_ends_at_the_best_epoch(tmp_path):
    """Validation gets worse after the second epoch: the second epoch's parameters are what remains, also after a resume."""
    scores, seen, module = iter([3.0, 1.0, 2.0, 4.0]), [], Regression()

    def validate():
        seen.append(bits(module))
        return {"nll": next(scores), "accuracy": 0.0}

    path = tmp_path / "c.safetensors"
    run(module, path, epochs=4, validate=validate)
    assert all(torch.equal(a, b) for a, b in zip(bits(module), seen[1], strict=True))
    resumed = Regression()
    run(resumed, path, epochs=4)
    assert all(torch.equal(a, b) for a, b in zip(bits(resumed), seen[1], strict=True))


def test_state_belongs_to_the_best_epoch_and_to_the_checkpoint(tmp_path):
    """A buffer that counts steps: after a resume it counts on, and what is left is the best epoch's count."""
    scores = {4: 3.0, 8: 2.0, 12: 1.0, 16: 4.0, 20: 5.0, 24: 6.0}
    count, resumed, path = torch.tensor(0), torch.tensor(0), tmp_path / "c.safetensors"

    def counted(counter, **options):
        return run(
            Regression(), path, validate=lambda: {"nll": scores[int(counter)], "accuracy": 0.0},
            after_step=lambda steps: counter.add_(1), state=[counter], **options,
        )  # fmt: skip

    with pytest.raises(Stop):
        counted(count, stop_after=4)
    assert int(count) == 16
    history = counted(resumed)
    assert int(resumed) == 12
    assert [entry["nll"] for entry in history] == list(scores.values())


@pytest.mark.parametrize(("patience", "expected"), [(0, 8), (1, 3), (2, 4), (3, 5)])
def test_patience(patience, expected):
    scores = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    history = run(Regression(), epochs=8, patience=patience, validate=lambda: {"nll": next(scores), "accuracy": 0.0})
    assert len(history) == expected


def test_foreign_checkpoints_are_refused_and_damaged_ones_start_over(tmp_path):
    path = tmp_path / "c.safetensors"
    run(Regression(), path, epochs=2, identity="one")
    with pytest.raises(InputError, match="other settings or data"):
        run(Regression(), path, epochs=2, identity="two")
    whole, again = Regression(), Regression()
    run(whole, epochs=2)
    path.write_bytes(path.read_bytes()[:-40])
    run(again, path, epochs=2, identity="one")
    assert all(torch.equal(a, b) for a, b in zip(bits(whole), bits(again), strict=True))


def test_divergence_is_named_and_not_saved(tmp_path):
    class Diverging(Regression):
        def loss(self, x, y):
            return super().loss(x, y) * math.inf

    path = tmp_path / "c.safetensors"
    with pytest.raises(RunError, match=r"loss became.*epoch 1.*lower learning rate"):
        run(Diverging(), path)
    assert not path.exists()


def test_checkpoint_holds_all_of_the_state(tmp_path):
    path = tmp_path / "c.safetensors"
    run(Regression(), path, epochs=1)
    tensors, metadata = read_tensors(path)
    kinds = {name.split(".")[0] for name in tensors}
    assert kinds == {"now", "best", "optimizer"}
    assert {name.split(".")[2] for name in tensors if name.startswith("optimizer")} == {"exp_avg", "exp_avg_sq", "step"}
    assert metadata["history"][0]["epoch"] == 1


def test_one_cycle():
    """Up from peak / 25 to the peak at the turn, down to 0 at the end, continuous and monotone on either side."""
    rates = [one_cycle(step, 1000, 2.0, 0.3) for step in range(1001)]
    assert rates[0] == pytest.approx(2.0 / 25)
    assert rates[300] == pytest.approx(2.0)
    assert rates[1000] == pytest.approx(0.0)
    assert all(b > a for a, b in itertools.pairwise(rates[:301]))
    assert all(b < a for a, b in itertools.pairwise(rates[300:]))
    assert one_cycle(0, 10, 1.0, 0.0) == 1.0


def test_derived_seeds_differ_by_seed_and_purpose():
    seeds = {derived_seed(s, purpose, n) for s in range(20) for purpose in ("order", "dropout") for n in range(20)}
    assert len(seeds) == 800


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"batch_size": 0}, {"weight_decay": -1.0},
     {"warmup": 1.0}, {"patience": -1}],
)  # fmt: skip
def test_settings_out_of_range(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TrainingSettings(**wrong)
