"""Benchmarks do the same work for every contender, and their commands run."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from comodulation import ComodulatedHead, TaskFamily
from comodulation.networks.methods import make_method

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TASKS, OUTPUTS = 3, 6


@pytest.fixture(autouse=True)
def _on_path(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def run(script: str, *arguments: str | Path | int) -> subprocess.CompletedProcess:
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def head_with(**options) -> ComodulatedHead:
    """A head whose every tensor has a value of its own, so that none can be confused with another."""
    torch.manual_seed(0)
    sizes = {"encoder_channels": 8, "decoder_channels": 8, "hidden": 7, **options}
    head = ComodulatedHead(5, OUTPUTS, TASKS, **sizes)
    head.standardize(torch.randn(5), torch.rand(5) + 0.5)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return head.freeze().eval()


def family() -> TaskFamily:
    return TaskFamily("classes", ("a", "b", "c"), tuple("uvwxyz"), ((0, 1), (2, 3), (4, 5)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"residual": False},
        {"decoder_channels": 6},
        {"encoder_skip": 0.3, "decoder_skip": 0.6},
        {"kernel_size": 1},
        {"kernel_size": 5},
    ],
)
def test_the_plain_head_is_the_pretrained_head(options):
    # What the other libraries adapt must be what this one adapts, whatever becomes of the skip connections.
    from peers import plain_layers
    from peers_common import PlainHead

    head, features = head_with(**options), torch.randn(4, 5, 2, 2)
    with torch.no_grad():
        torch.testing.assert_close(PlainHead(plain_layers(head))(features), head(features, mode="base"))


def test_peft_on_the_plain_head_computes_what_our_ia3_computes():
    # The same function and the same gradient: gains g in one, exp(u) in the other, so that dL/du = g dL/dg.
    pytest.importorskip("peft")
    from peers import plain_layers
    from peers_common import PlainHead
    from peers_peft import adapted, adapter_name, run_tasks

    head = head_with()
    method = make_method("ia3", head, family()).eval()
    model = adapted(PlainHead(plain_layers(head)).requires_grad_(False).eval(), TASKS)
    layers = {name: module for name, module in model.named_modules() if name.endswith((".decoder", ".hidden"))}
    encoder = next(module.ia3_l for name, module in layers.items() if name.endswith(".decoder"))
    decoder = next(module.ia3_l for name, module in layers.items() if name.endswith(".hidden"))
    u, v = head.controller.embedding.weight, method.decoder_controller.embedding.weight
    with torch.no_grad():
        for table in (u, v):
            torch.nn.init.normal_(table, std=0.3)
        for task in range(TASKS):
            encoder[adapter_name(task)].copy_(u[task].exp()[None, :, None, None])
            decoder[adapter_name(task)].copy_(v[task].exp()[None])
    features, tasks = torch.randn(9, 5, 2, 2), torch.tensor([2, 0, 1, 1, 0, 2, 2, 2, 0])
    weights = torch.randn(9, OUTPUTS)
    ours = method(head.encode(features), tasks)[0]
    (ours * weights).sum().backward()
    for places, logits in run_tasks(model, features, tasks):
        torch.testing.assert_close(logits, ours[places])
        (logits * weights[places]).sum().backward()
    for table, vectors in ((u, encoder), (v, decoder)):
        for task in range(TASKS):
            vector = vectors[adapter_name(task)]
            torch.testing.assert_close((vector.grad * vector.detach()).flatten(), table.grad[task])


def test_one_task_batches_hold_every_pair_once_and_one_task_each():
    pytest.importorskip("peft")
    from peers_common import Pairs, Settings, Work
    from peers_peft import one_task_batches

    number = 50
    pairs = Pairs(torch.arange(number), torch.arange(number) % 7 % TASKS, torch.zeros(number, dtype=torch.int64))
    work = Work(Settings(TASKS, OUTPUTS, 8, 1, 0, 1), torch.zeros(number, 1, 1, 1), pairs, pairs, {})
    batches = one_task_batches(work, epoch=0)
    assert all(len(batch.task.unique()) == 1 and len(batch) <= 8 for batch in batches)
    assert sorted(torch.cat([batch.image for batch in batches]).tolist()) == list(range(number))
    assert sorted(torch.cat([batch.image for batch in work.batches(0)]).tolist()) == list(range(number))


@pytest.mark.slow
def test_peers_command(data, cache, monkeypatch, capsys):
    # One contender in a process of its own, as always; the others here, because a process takes seconds to start.
    pytest.importorskip("peft")
    import peers
    import peers_ours
    import peers_peft

    own_process = peers.run_contender

    def contender(name, folder, *rest):
        if name == "attention":
            return own_process(name, folder, *rest)
        if name == "in-turn":
            return peers_ours.in_turn(folder, rounds=2)
        return asdict((peers_ours if name in peers.OURS else peers_peft).measure(folder, name))

    monkeypatch.setattr(peers, "run_contender", contender)
    small = ["--backbone", "test_resnet", "--weights", "random", "--image-size", "32", "--channels", "16"]
    short = ["--pretraining-epochs", "1", "--epochs", "2", "--cache", str(cache)]
    monkeypatch.setattr(sys, "argv", ["peers.py", "--data", str(data), *small, *short])
    peers.main()
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")]
    assert [row[0].split()[0] for row in rows[2:]] == [*peers.OURS, *peers.PEFT]
    assert {len(row) for row in rows} == {13}
    # Three tasks, 16 neurons: a coupling each, or two gains.
    assert [int(row[8]) for row in rows[2:]] == [48, 96, 48, 96, 96, 96]
    # Whether the encoder's activity is kept or computed again is no difference to what is learned.
    assert rows[5][10:] == rows[6][10:]
    assert "LibMTL was left out" in out
    assert "training in turn" in out
    assert "inference in turn" in out


@pytest.mark.parametrize(
    ("asked", "line"),
    [("adapters", "unknown contender 'adapters'; expected attention"), ("libmtl", "libmtl needs --libmtl PYTHON")],
)
def test_peers_command_refuses_before_it_works(asked, line, monkeypatch, capsys):
    import peers

    monkeypatch.setattr(sys, "argv", ["peers.py", "--data", "nowhere", asked])
    with pytest.raises(SystemExit, match=line):
        peers.main()


@pytest.mark.slow
def test_growth_command():
    done = run("growth.py", "--small", "nodes", "images")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| nodes")] == [
        "nodes",
        "nodes: exponent of",
    ]
    assert any(line.startswith("| epoch | 1 |") for line in lines)


def test_exponents_of_power_laws():
    from growth import exponent

    slope, half, last = exponent([10, 100, 1000], [0.3, 30, 3000])
    assert (slope, last) == (pytest.approx(2), pytest.approx(2))
    assert half == pytest.approx(0, abs=1e-6)
    # A fixed cost pulls the line down, and the last two points less.
    sizes = [1, 10, 100, 1000]
    slope, half, last = exponent(sizes, [50 + size for size in sizes])
    assert slope < last < 1
    assert half > 0.1


@pytest.mark.slow
def test_predictions_of_any_size_are_measured():
    """A line of figures for each width."""
    done = run("predict_stream.py", "--rows", 3000, "--widths", 8, 16, "--repeats", 1)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines] == ["numbers", "---", "8", "16"]
