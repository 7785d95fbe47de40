"""A family of tasks: what it accepts, the examples it reads off a table, and the logits a task decides by."""

import json

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from comodulation.errors import InputError
from comodulation.tasks import TaskFamily, first_rows, task_logits

ANIMALS = TaskFamily("classes", ("pets", "birds"), ("cat", "dog", "owl", "gull"), ((0, 1), (2, 3)))
FACES = TaskFamily.from_attributes(["smiling", "young", "glasses"])
MIXED = TaskFamily.from_columns(["striped", "size"], [("no", "yes"), ("s", "m", "l=xl")])


def test_from_groups_reads_members_off_the_table():
    """A class belongs to the groups it occurs with; rows without a group or class count for nothing."""
    groups = np.array([0, 0, 1, 1, 0, -1, 1])
    labels = np.array([2, 0, 1, 3, 2, 3, -1])
    family = TaskFamily.from_groups(groups, labels, ["a", "b"], ["w", "x", "y", "z"])
    assert family.members == ((0, 2), (1, 3))
    assert (family.num_tasks, family.num_outputs) == (2, 4)
    assert family.member_mask().tolist() == [[True, False, True, False], [False, True, False, True]]


@pytest.mark.parametrize(
    ("kind", "tasks", "outputs", "members", "message"),
    [
        ("clases", ("a",), ("x", "y"), ((0, 1),), "did you mean 'classes'"),
        ("classes", (), (), (), "at least one"),
        ("classes", ("a", "b"), ("x", "y"), ((0, 1),), "2 tasks and 1 lists"),
        ("classes", ("a",), ("x", "y"), ((0,),), "has 1 class; a task needs at least 2"),
        ("classes", ("a",), ("x", "y"), ((),), "has 0 classes; a task needs at least 2"),
        ("classes", ("a",), ("x", "y"), ((1, 1),), "has 1 class"),
        ("classes", ("a",), ("x", "y", "z"), ((0, 1, 1),), "twice"),
        ("classes", ("a",), ("x", "y"), ((0, 2),), r"outside \[0, 1\]"),
        ("classes", ("a",), ("x", "y"), ((-1, 1),), r"outside \[0, 1\]"),
        ("classes", ("a", "a"), ("x", "y"), ((0, 1), (0, 1)), "2 tasks are named 'a'"),
        ("classes", ("a",), ("x", "x"), ((0, 1),), "2 outputs are named 'x'"),
        ("binary", ("a", "b"), ("a", "b"), ((1,), (0,)), "task k reads output k"),
        ("binary", ("a", "b"), ("b", "a"), ((0,), (1,)), "task k reads output k"),
        ("columns", ("a",), ("a=x",), ((0,),), "has 1 class; a task needs at least 2"),
        ("columns", ("a", "b"), ("a=x", "a=y", "b=x", "b=y"), ((0, 1), (1, 2)), "one column after the other"),
        ("columns", ("a", "b"), ("a=x", "a=y", "b=x", "b=y"), ((2, 3), (0, 1)), "one column after the other"),
        ("columns", ("a",), ("a=x", "a=y", "a=z"), ((0, 1),), "one column after the other"),
        ("columns", ("a",), ("a=x", "y"), ((0, 1),), "'column=class'"),
    ],
)
def test_families_that_cannot_be(kind, tasks, outputs, members, message):
    with pytest.raises(InputError, match=message):
        TaskFamily(kind, tasks, outputs, members)


def test_task_id_names_the_nearest_task():
    assert ANIMALS.task_id("birds") == 1
    with pytest.raises(InputError, match=r"unknown task 'brids'; did you mean 'birds'\? known: pets, birds"):
        ANIMALS.task_id("brids")


def test_examples_of_classes_leave_out_missing_pairs():
    groups, labels = np.array([0, -1, 1, 1]), np.array([1, 0, -1, 3])
    examples = ANIMALS.examples([groups, labels])
    assert (examples.image.tolist(), examples.task.tolist(), examples.target.tolist()) == ([0, 3], [0, 1], [1, 3])


def test_examples_of_attributes_are_masked_per_image_and_task():
    columns = [np.array([1, -1, 0]), np.array([-1, -1, 1]), np.array([0, -1, -1])]
    examples = FACES.examples(columns)
    pairs = list(zip(examples.image.tolist(), examples.task.tolist(), examples.target.tolist(), strict=True))
    assert pairs == [(0, 0, 1), (0, 2, 0), (2, 0, 0), (2, 1, 1)]
    assert examples.of_images(torch.tensor([2])).task.tolist() == [0, 1]
    assert len(examples.of_images(torch.tensor([1]))) == 0


def test_columns_have_outputs_of_their_own():
    """Classes of the same name in two columns are two outputs, and answers are named as the table names them."""
    family = TaskFamily.from_columns(["a", "b"], [("no", "yes"), ("no", "yes")])
    assert family.outputs == ("a=no", "a=yes", "b=no", "b=yes")
    assert family.targets == ("no", "yes", "no", "yes")
    assert MIXED.members == ((0, 1), (2, 3, 4))
    assert [MIXED.answers(task) for task in range(2)] == [("no", "yes"), ("s", "m", "l=xl")]
    assert MIXED.targets == ("no", "yes", "s", "m", "l=xl")
    assert (FACES.answers(1), FACES.targets) == (("no", "yes"), ("no", "yes"))
    assert (ANIMALS.answers(1), ANIMALS.targets) == (("owl", "gull"), ANIMALS.outputs)
    assert (FACES.own_targets(2), MIXED.own_targets(1), ANIMALS.own_targets(1)) == ((0, 1), (2, 3, 4), (2, 3))
    with pytest.raises(InputError, match="2 outputs are named 'a=b=c'"):
        TaskFamily.from_columns(["a", "a=b"], [("b=c", "d"), ("c", "e")])


def test_examples_of_columns_name_outputs():
    """Each label of an image is a pair; its target is the output that the task's own readout must choose."""
    columns = [np.array([1, -1, 0]), np.array([-1, -1, 2])]
    examples = MIXED.examples(columns)
    pairs = list(zip(examples.image.tolist(), examples.task.tolist(), examples.target.tolist(), strict=True))
    assert pairs == [(0, 0, 1), (2, 0, 0), (2, 1, 4)]
    assert MIXED.target_table(columns).tolist() == [[1, -1], [-1, -1], [0, 4]]
    own = MIXED.member_mask()[examples.task]
    assert own[torch.arange(3), examples.target].all()


def test_columns_are_always_restricted():
    """No image says which column is asked about, so the open readout would compare answers to different questions."""
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    tasks = torch.tensor([0, 1, 1, 0])
    opened = task_logits(MIXED, logits, tasks, "open")
    assert torch.equal(opened, task_logits(MIXED, logits, tasks, "restricted"))
    assert torch.equal(opened > -torch.inf, MIXED.member_mask()[tasks])


def test_open_and_restricted_readout():
    """Restricted: the probability of another task's class is exactly 0; among the task's own, ratios are the open ones."""
    logits = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    tasks = torch.tensor([0, 1, 1])
    assert torch.equal(task_logits(ANIMALS, logits, tasks, "open"), logits)
    restricted = task_logits(ANIMALS, logits, tasks, "restricted")
    own = ANIMALS.member_mask()[tasks].expand(5, 3, 4)
    assert torch.equal(restricted[own], logits[own])
    assert (restricted.softmax(-1)[~own] == 0).all()
    with pytest.raises(InputError, match="unknown readout 'close'"):
        task_logits(ANIMALS, logits, tasks, "close")


def test_binary_logits_give_the_sigmoid():
    """A softmax over (0, z) is sigmoid(z), with z the task's own output, for every leading dimension."""
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
    tasks = torch.tensor([2, 0, 1, 2])
    answers = task_logits(FACES, logits, tasks).softmax(-1)
    expected = torch.stack([logits[:, row, task].sigmoid() for row, task in enumerate(tasks.tolist())], 1)
    assert answers.shape == (2, 4, 2)
    torch.testing.assert_close(answers[..., 1], expected)
    torch.testing.assert_close(answers.sum(-1), torch.ones(2, 4))


@pytest.mark.parametrize("family", [ANIMALS, FACES, MIXED])
def test_a_family_survives_json(family):
    assert TaskFamily.from_json(json.loads(json.dumps(family.to_json()))) == family


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "classes", "tasks": "ab", "outputs": ["x", "y"], "members": [[0, 1], [0, 1]]},
        {"kind": "classes", "tasks": ["a"], "outputs": ["x", "y"], "members": [["0", "1"]]},
        {"kind": "classes", "tasks": ["a"], "outputs": ["x", "y"], "members": [[0, 1.5]]},
        {"kind": "classes", "tasks": ["a"], "outputs": ["x", "y"], "members": [[0, float("inf")]]},
        {"kind": "classes", "tasks": ["a"], "outputs": ["x", "y"], "members": [[False, True]]},
        {"kind": "classes", "tasks": [1], "outputs": ["x", "y"], "members": [[0, 1]]},
        {"kind": "classes", "tasks": ["a"], "outputs": ["x", "y"], "members": 3},
        {"kind": None, "tasks": ["a"], "outputs": ["x", "y"], "members": [[0, 1]]},
    ],
)
def test_json_that_is_no_family(data):
    with pytest.raises(InputError):
        TaskFamily.from_json(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 5) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        JSON,
        st.fixed_dictionaries(
            {
                "kind": st.sampled_from(["classes", "binary", "columns"]) | JSON,
                "tasks": st.lists(st.text(max_size=2), max_size=3) | JSON,
                "outputs": st.lists(st.text(max_size=2), max_size=3) | JSON,
                "members": st.lists(st.lists(st.integers(-1, 3), max_size=3), max_size=3) | JSON,
            }
        ),
    )
)
@example({"kind": "binary", "tasks": ["a"], "outputs": [], "members": [[]]})
def test_any_json_is_a_family_or_an_input_error(data):
    """Whatever a damaged header holds, it becomes a family that survives the round trip, or one clear error."""
    try:
        family = TaskFamily.from_json(data)
    except InputError:
        return
    assert TaskFamily.from_json(json.loads(json.dumps(family.to_json()))) == family


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-5, 5), max_size=30))
def test_first_rows_against_a_loop(values):
    first, distinct = first_rows(torch.tensor(values, dtype=torch.int64))
    assert distinct.tolist() == sorted(set(values))
    assert first.tolist() == [values.index(value) for value in sorted(set(values))]
