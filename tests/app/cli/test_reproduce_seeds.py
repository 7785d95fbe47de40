"""Which seeds a study compares: a number of them, or a range."""

import pytest

from comodulation.app.cli.shared import seed_range
from comodulation.errors import InputError


@pytest.mark.parametrize(
    ("seeds", "first", "expected"),
    [("10", None, (0, 10)), ("3", 20, (20, 3)), ("20-29", None, (20, 10)), ("7-7", None, (7, 1))],
)
def test_a_number_or_a_range(seeds, first, expected):
    assert seed_range(seeds, first) == expected


@pytest.mark.parametrize("seeds", ["", "-", "20-", "-3", "29-20", "1.5", "ten", "1-2-3", "٣"])
def test_what_is_neither(seeds):
    with pytest.raises(InputError, match="--seeds is a number, or a range such as 20-29"):
        seed_range(seeds, None)


def test_a_range_says_where_it_begins():
    with pytest.raises(InputError, match="leave --seed out"):
        seed_range("20-29", 3)
