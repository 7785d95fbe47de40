"""Which columns that nobody has named are tasks."""

import pytest

from comodulation.data.suitability import unlearnable


@pytest.mark.parametrize(
    ("column", "words", "reason"),
    [
        ("Split", ["train", "test"], "it holds splits"),
        ("set", ["Train", "Val", "TEST"], "it holds splits"),
        ("phase", ["training", "evaluation"], "it holds splits"),
        ("MRN", [f"{number}" for number in range(100_000, 100_012)], "it seems to number people"),
        ("patient_id", ["P1", "P2"], "it seems to number people"),
        ("barcode", ["a", "b"], "by its name it identifies something"),
        ("colour", ["red"], "every training label is 'red'"),
        ("price", [f"{number}" for number in range(3, 60, 2)], "it seems to measure or to count"),
    ],
)
def test_columns_that_are_no_tasks(column, words, reason):
    found = unlearnable(column, dict.fromkeys(words, 4))
    assert found is not None
    assert found.startswith(reason)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("vehicle", ["train", "bus"]), ("class_id", ["0", "1", "2"]), ("patient", ["old", "young"]), ("warm", ["no", "yes"]),
        ("kind", ["test", "testing"]),  # two words of one split
    ],
)  # fmt: skip
def test_columns_that_may_be(column, words):
    assert unlearnable(column, dict.fromkeys(words, 4)) is None
