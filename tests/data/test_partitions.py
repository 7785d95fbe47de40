"""Dealing images to pretraining, fine-tuning and their validation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comodulation.data.partitions import partition
from comodulation.errors import InputError

FIELDS = ("pretraining", "pretraining_validation", "tuning", "tuning_validation")


def deal(count, classes, **options):
    return partition(torch.arange(count) + 100, torch.arange(count) % classes, **{"seed": 0, **options})


@settings(max_examples=60, deadline=None)
@given(st.integers(60, 400), st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.25, 0.4]))
def test_disjoint_halves_use_every_row_once(count, classes, seed, fraction):
    parts = deal(count, classes, seed=seed, validation_fraction=fraction)
    lists = [getattr(parts, field).tolist() for field in FIELDS]
    assert all(rows == sorted(rows) for rows in lists)
    assert sorted(row for rows in lists for row in rows) == list(range(100, 100 + count))
    halves = [len(lists[0]) + len(lists[1]), len(lists[2]) + len(lists[3])]
    assert abs(halves[0] - halves[1]) <= 1
    for half, validation in zip(halves, lists[1::2], strict=True):
        assert int(half * fraction) - 1 <= len(validation) <= half * fraction + 1


def test_every_class_is_spread_evenly():
    """Each class gives both halves the same number of rows, within one; and its share of validation, within one."""
    parts = deal(1000, 10)
    for field, share in zip(FIELDS, (45, 5, 45, 5), strict=True):
        counts = torch.bincount((getattr(parts, field) - 100) % 10, minlength=10)
        assert (counts - share).abs().max() <= 1, (field, counts)


def test_the_seed_decides():
    """Equal seeds deal equally; another seed otherwise, and its halves overlap as chance has it."""
    first, again, other = deal(1000, 10), deal(1000, 10), deal(1000, 10, seed=1)
    assert all(torch.equal(getattr(first, field), getattr(again, field)) for field in FIELDS)
    overlap = torch.isin(first.tuning, other.tuning).double().mean().item()
    # Hypergeometric: 450 of 1000 rows are in the other's part; standard deviation of the share is 0.017.
    assert abs(overlap - 0.45) < 5 * 0.017


def test_shared_halves_are_equal():
    parts = deal(100, 4, disjoint=False)
    assert torch.equal(parts.pretraining, parts.tuning)
    assert torch.equal(parts.pretraining_validation, parts.tuning_validation)
    assert len(parts.tuning) + len(parts.tuning_validation) == 100
    assert not torch.isin(parts.tuning, parts.tuning_validation).any()


@pytest.mark.parametrize("count", [0, 1, 3, 12])
def test_too_few_rows(count):
    with pytest.raises(InputError, match=f"{count} labelled images are too few"):
        deal(count, 2)
