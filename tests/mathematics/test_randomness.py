"""Counter-based noise: known answers, distribution, and what a value depends on."""

from __future__ import annotations

import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from comodulation.mathematics.randomness import drawing_from, modulator_noise, philox

DEVICE = torch.device(os.environ.get("COMODULATION_TEST_DEVICE", "cpu"))


def ids(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device=DEVICE)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # kat_vectors of Random123, the authors' implementation: philox4x32, 10 rounds.
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_known_answers(counter: str, key: str, words: str) -> None:
    c0, c1, c2, c3 = (ids(int(word, 16)) for word in counter.split())
    k0, k1 = (ids(int(word, 16)) for word in key.split())
    assert " ".join(f"{word.item():08x}" for word in philox((c0, c1, c2, c3), (k0, k1))) == words


def philox_in_python(counter: list[int], key: list[int]) -> list[int]:
    """The ten rounds in Python's unbounded integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        product0, product1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            (product1 >> 32) ^ c[1] ^ k[0],
            product1 & 0xFFFFFFFF,
            (product0 >> 32) ^ c[3] ^ k[1],
            product0 & 0xFFFFFFFF,
        ]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


@given(words=st.lists(st.integers(0, 2**32 - 1), min_size=6, max_size=6))
@settings(max_examples=100, deadline=None)
def test_words_equal_unbounded_integers(words: list[int]) -> None:
    c0, c1, c2, c3, k0, k1 = (ids(word) for word in words)
    out = [word.item() for word in philox((c0, c1, c2, c3), (k0, k1))]
    assert out == philox_in_python(words[:4], words[4:])


def test_standard_normal() -> None:
    values = modulator_noise(torch.arange(400, device=DEVICE), ids(*[3] * 400), 250, seed=1).cpu()
    assert values.shape == (250, 400)
    assert values.dtype == torch.float32
    n = values.numel()
    # Five standard errors: 1 / sqrt(n) of the mean, sqrt(2 / n) of the variance, sqrt(96 / n) of the fourth moment.
    assert abs(values.mean().item()) < 5 / math.sqrt(n)
    assert abs(values.double().square().mean().item() - 1) < 5 * math.sqrt(2 / n)
    assert abs(values.double().pow(4).mean().item() - 3) < 5 * math.sqrt(96 / n)
    assert stats.kstest(values.flatten().double().numpy(), "norm").pvalue > 1e-3
    # Tails: 100,000 draws reach beyond 4 with probability 1 - 0.0018 and beyond 6.5 with probability 1e-5.
    assert 4 < values.abs().max().item() < 6.5


def draw(
    sample: int = 5, task: int = 2, layer: int = 0, step: int = 0, seed: int = 0, count: int = 4000
) -> torch.Tensor:
    return modulator_noise(ids(sample), ids(task), count, seed=seed, layer=layer, step=step)[:, 0].double()


@pytest.mark.parametrize(
    "other",
    [
        {"sample": 6},
        {"sample": 5 + 2**32},  # ids of more than 32 bits: the high word counts too
        {"task": 3},
        {"layer": 1},
        {"step": 1},
        {"seed": 1},
    ],
    ids=str,
)
def test_each_coordinate_gives_independent_noise(other: dict[str, int]) -> None:
    first, second = draw(), draw(**other)
    # Correlation of 4000 independent pairs: standard error 1 / sqrt(4000), of values and of squares.
    for power in (1, 2):
        correlation = torch.corrcoef(torch.stack([first**power, second**power]))[0, 1].item()
        assert abs(correlation) < 5 / math.sqrt(4000)
    assert (first == second).sum() <= 1


def test_mean_and_variance_over_every_coordinate() -> None:
    # One draw for each of 4000 samples, tasks, layers, steps, seeds: each a standard normal sample of its own.
    n = 4000
    many, zero = torch.arange(n, device=DEVICE), torch.zeros(n, dtype=torch.int64, device=DEVICE)
    series = {
        "sample": modulator_noise(many, zero, 1, seed=0)[0],
        "task": modulator_noise(zero, many, 1, seed=0)[0],
        "layer": torch.cat([modulator_noise(zero[:1], zero[:1], 1, seed=0, layer=k)[0] for k in range(500)]),
        "step": torch.cat([modulator_noise(zero[:1], zero[:1], 1, seed=0, step=k)[0] for k in range(500)]),
        "seed": torch.cat([modulator_noise(zero[:1], zero[:1], 1, seed=k)[0] for k in range(500)]),
    }
    for name, values in series.items():
        count = len(values)
        assert abs(values.mean().item()) < 5 / math.sqrt(count), name
        assert abs(values.var().item() - 1) < 5 * math.sqrt(2 / count), name
        neighbours = torch.corrcoef(torch.stack([values[:-1], values[1:]]).double())[0, 1].item()
        assert abs(neighbours) < 5 / math.sqrt(count), name


def test_draws_are_independent() -> None:
    # Box-Muller gives two draws from one counter: neither they nor neighbours may be correlated, nor their squares.
    values = draw(count=20_000)
    for lag in (1, 2):
        for power in (1, 2):
            pair = torch.stack([values[:-lag] ** power, values[lag:] ** power])
            assert abs(torch.corrcoef(pair)[0, 1].item()) < 5 / math.sqrt(20_000 - lag)


@given(
    samples=st.lists(st.integers(0, 2**62), min_size=1, max_size=8),
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 7),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_noise_belongs_to_the_input_and_not_to_its_place(
    samples: list[int], seed: int, count: int, data: st.DataObject
) -> None:
    tasks = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=len(samples), max_size=len(samples)))
    order = torch.tensor(data.draw(st.permutations(range(len(samples)))), device=DEVICE)
    batch = modulator_noise(ids(*samples), ids(*tasks), count, seed=seed, layer=3, step=9)
    shuffled = modulator_noise(ids(*samples)[order], ids(*tasks)[order], count, seed=seed, layer=3, step=9)
    assert torch.equal(shuffled, batch[:, order])
    alone = modulator_noise(ids(samples[-1]), ids(tasks[-1]), count, seed=seed, layer=3, step=9)
    assert torch.equal(alone[:, 0], batch[:, -1])
    assert torch.isfinite(batch).all()


def test_more_draws_extend_fewer() -> None:
    assert torch.equal(draw(count=7), draw(count=100)[:7])


def test_small_integer_types_give_the_same_noise() -> None:
    wide = modulator_noise(ids(1, 200), ids(0, 3), 5, seed=7)
    assert torch.equal(modulator_noise(ids(1, 200).to(torch.uint8), ids(0, 3).to(torch.int32), 5, seed=7), wide)


def test_empty_batch() -> None:
    assert modulator_noise(ids(), ids(), 5, seed=0).shape == (5, 0)


@pytest.mark.parametrize(
    ("samples", "tasks", "options", "message"),
    [
        ([0, 1], [0], {}, r"must both be \(B,\), got \(2,\) and \(1,\)"),
        ([[0]], [[0]], {}, r"must both be \(B,\)"),
        ([0.0], [0], {}, "sample_ids must be integers"),
        ([-1], [0], {}, "sample_ids must be integers >= 0"),
        ([0], [0.5], {}, "task_ids must be integers"),
        ([0], [-1], {}, "task_ids must be integers"),
        ([0], [2**32], {}, "task_ids must be integers"),
        ([0], [0], {"seed": -1}, "seed, layer or step out of range"),
        ([0], [0], {"seed": 2**32}, "seed, layer or step out of range"),
        ([0], [0], {"layer": 2**16}, "seed, layer or step out of range"),
        ([0], [0], {"step": 2**16}, "seed, layer or step out of range"),
        ([0], [0], {"step": -1}, "seed, layer or step out of range"),
    ],
)
def test_errors(samples: list[int], tasks: list[int], options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        modulator_noise(torch.tensor(samples), torch.tensor(tasks), 2, **({"seed": 0} | options))


def test_drawing_from_a_seed_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of ``torch.manual_seed``; what is drawn afterwards is what would have been, on other devices too."""
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(3)
    undisturbed = torch.rand(4)
    torch.manual_seed(3)

    def never(seed: int) -> None:
        pytest.fail("the generators of all devices begin anew")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", never)
    with drawing_from(7), torch.no_grad():
        assert torch.equal(torch.rand(4), expected)
    assert torch.equal(torch.rand(4), undisturbed)


def test_what_is_made_from_a_seed_leaves_other_devices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from comodulation.data.features import BackboneSettings

    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    BackboneSettings("test_resnet", "random", 32).encoder()
    assert seeds == []
