"""The summary of tasks before training: counts against a loop, refusals, warnings, and a table that fits a terminal."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comodulation.data.summary import refuse_unlearnable, summarize, summary_table, warnings_of
from comodulation.errors import InputError
from comodulation.tasks import TaskFamily

MIXED = TaskFamily.from_columns(["striped", "size"], [("no", "yes"), ("s", "m", "l")])


def summaries(*columns, family=MIXED):
    table = [np.array(column) for column in columns]
    return summarize(family, family.examples(table), len(table[0]))


def test_by_hand():
    """Ten images: seven labelled striped (five no, two yes), all labelled with a size (six, three, one)."""
    striped, size = summaries([0, 0, 0, 0, 0, 1, 1, -1, -1, -1], [0] * 6 + [1] * 3 + [2])
    assert (striped.kind, striped.counts, striped.labelled) == ("binary", {"no": 5, "yes": 2}, 7)
    assert striped.missing == pytest.approx(0.3)
    assert (striped.smallest, striped.largest, striped.imbalance) == ("yes", "no", 2.5)
    assert (size.kind, size.counts, size.missing) == ("categorical", {"s": 6, "m": 3, "l": 1}, 0)
    assert size.imbalance == 6


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 2)), min_size=1, max_size=30))
def test_counts_against_a_loop(rows):
    for column, (one, places) in enumerate(zip(summaries(*zip(*rows, strict=True)), (2, 3), strict=True)):
        cells = [row[column] for row in rows]
        assert list(one.counts.values()) == [cells.count(place) for place in range(places)]
        assert one.missing == pytest.approx(cells.count(-1) / len(rows))


def test_other_kinds_of_family():
    faces = TaskFamily.from_attributes(["p", "q"])
    p, q = summaries([0, 1, 1], [-1, -1, 1], family=faces)
    assert (p.kind, p.counts, q.counts) == ("binary", {"no": 1, "yes": 2}, {"no": 0, "yes": 1})
    assert math.isinf(q.imbalance)
    animals = TaskFamily("classes", ("pets", "birds"), ("cat", "dog", "owl", "gull"), ((0, 1), (2, 3)))
    pets, birds = summaries([0, 0, 1, -1], [0, 1, 3, 2], family=animals)
    assert (pets.kind, pets.counts, birds.counts) == ("group", {"cat": 1, "dog": 1}, {"owl": 0, "gull": 1})
    assert math.isnan(pets.missing)


def test_what_cannot_be_learned_is_refused_by_name():
    fine = [0, 0, 1, 1]
    refuse_unlearnable(summaries(fine, [0, 1, 0, 1]), named=False)
    for constant in ([1, 1, -1, 1], [0, 0, 0, 0]):
        with pytest.raises(InputError, match=r"nothing to learn from column 'striped': .* every label is '(yes|no)'"):
            refuse_unlearnable(summaries(constant, [0, 1, 0, 1]), named=True)
    with pytest.raises(InputError, match="column 'size': in the training split no image has a label"):
        refuse_unlearnable(summaries(fine, [-1] * 4), named=True)
    identifier = summaries([0, 0, 1], [2, 0, 1])
    with pytest.raises(InputError, match=r"column 'size' has a class of its own for every image \(3\)"):
        refuse_unlearnable(identifier, named=False)
    refuse_unlearnable(identifier, named=True)


def test_warnings():
    """Few images of a class, and a class that looks like a missing label; nothing else."""
    assert warnings_of(summaries([0] * 5 + [1] * 5, [-1] * 10)[:1]) == []
    (few,) = warnings_of(summaries([0] * 6 + [1] * 4, [-1] * 10)[:1])
    assert few == "task 'striped': classes with fewer than 5 training images: 'yes' 4"
    family = TaskFamily.from_columns(["size"], [("NA", "s")])
    (looks,) = warnings_of(summaries([0] * 5 + [1] * 5, family=family))
    assert looks.startswith("task 'size' has a class 'NA'; only empty cells")


def test_a_class_without_a_label_has_no_ratio():
    (line,) = [
        one for one in summary_table(summaries([0, 1], [0, 0]), {"train": 2}).splitlines() if one.startswith("size")
    ]
    assert line.split()[-3:] == ["0", "2", "-"]


def test_the_table():
    """A line a task with what was counted, none longer than a terminal is wide, and not hundreds of them."""
    text = summary_table(summaries([0, 0, 0, 1], [0, 1, 2, -1]), {"train": 4, "test": 1})
    head, _, striped, size = text.splitlines()
    assert head == "2 tasks; images: 4 in 'train', 1 in 'test'"
    assert striped.split() == ["striped", "binary", "2", "4", "0.0%", "1", "3", "3.0"]
    assert size.split() == ["size", "categorical", "3", "3", "25.0%", "1", "1", "1.0"]
    many = TaskFamily.from_attributes([f"{number} " + "long" * 20 for number in range(100)])
    lines = summary_table(summaries(*[[0, 1]] * 100, family=many), {"train": 10**6}).splitlines()
    assert (len(lines), lines[-1]) == (43, "... and 60 more tasks")
    assert max(len(line) for line in lines) < 80
