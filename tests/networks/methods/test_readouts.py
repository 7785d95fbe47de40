"""Methods of readouts: answers of each kind of family, adapters that come back to the bit or not at all, tasks added."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from comodulation.data.features import Features
from comodulation.errors import InputError
from comodulation.networks.adapters import load_adapter, save_adapter
from comodulation.networks.methods import NoLayers, add_tasks, all_tasks, begin_tasks, make_method
from comodulation.tasks import Examples, TaskFamily
from comodulation.training.progress import Silent
from comodulation.training.readouts import fit_method
from support.methods import BINARY, CLASSES, COLUMNS
from support.remembered import fit_probe_once, forget

SHAPE = (5, 2, 2)
IMAGES = 60
FEATURES = torch.randn(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(0)).half()
NEW = torch.randn(9, *SHAPE, generator=torch.Generator().manual_seed(1))
FAMILIES = {"classes": CLASSES, "binary": BINARY, "columns": COLUMNS}
NAMES = ("linear", "committee", "auto")


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Bags of few steps: nothing here depends on how good they are. Probes of equal numbers are fitted once."""
    from comodulation.training.readouts import table

    monkeypatch.setattr(table, "fit_probe", fit_probe_once)
    settings = table.BagSettings
    monkeypatch.setattr(table, "BAGS", [(math.inf, settings(hidden=8, fewest_steps=20, passes=1))])


def empty(name, family):
    return make_method(name, NoLayers(SHAPE[0], family.num_outputs, family.num_tasks), family)


def examples_of(family, seed=0):
    """Labels at random: of classes one an image, else some of every task's."""
    generator = torch.Generator().manual_seed(seed)
    if family.kind == "classes":
        task = torch.randint(family.num_tasks, (IMAGES,), generator=generator)
        target = torch.tensor([family.members[t][i % len(family.members[t])] for i, t in enumerate(task.tolist())])
        return Examples(torch.arange(IMAGES), task, target)
    answers = [2 if family.kind == "binary" else len(own) for own in family.members]
    columns = [torch.randint(number, (IMAGES,), generator=generator) for number in answers]
    for column in columns:
        column[torch.rand(IMAGES, generator=generator) < 0.3] = -1
    return family.examples([column.numpy() for column in columns])


def fit(method, quality="default", calibrate=True, seed=0):
    features = Features(np.asarray(FEATURES), (), "test")
    return fit_method(
        method, features, examples_of(method.family), seed, Silent(), quality=quality, calibrate=calibrate
    )[:2]


def fitted(name, family):
    method = empty(name, family)
    fit(method)
    return method.eval()


CASES = [(name, kind) for name in NAMES for kind in FAMILIES]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_answers_are_among_the_tasks_own(name, kind):
    """Normalised, and of classes and columns nothing but the task's own; the order of the inputs does not matter."""
    method, family = fitted(name, FAMILIES[kind]), FAMILIES[kind]
    tasks = torch.arange(9) % family.num_tasks
    with torch.no_grad():
        logs = method.log_probabilities(method.prepare(NEW), tasks)
    torch.testing.assert_close(logs.exp().sum(1), torch.ones(9))
    if kind != "binary":
        assert (logs.isneginf() == ~family.member_mask(tasks)).all()
    turned = torch.arange(9).flip(0)
    with torch.no_grad():
        again = method.log_probabilities(method.prepare(NEW[turned]), tasks[turned])
    torch.testing.assert_close(again[turned], logs)
    torch.testing.assert_close(all_tasks(method, NEW)[torch.arange(9), tasks], logs)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_an_adapter_comes_back_to_the_bit(name, kind, tmp_path):
    method = fitted(name, FAMILIES[kind])
    save_adapter(method, tmp_path / "a.safetensors")
    again = empty(name, FAMILIES[kind])
    load_adapter(again, tmp_path / "a.safetensors")
    assert torch.equal(all_tasks(again.eval(), NEW), all_tasks(method, NEW))
    assert again.num_learnable() == method.num_learnable() > 0


@pytest.mark.parametrize("kind", FAMILIES)
def test_predictions_out_of_fold(kind):
    """One for each label, normalised; the members that were weighed are reported."""
    method = empty("auto", FAMILIES[kind])
    predictions, about = fit(method)
    examples = examples_of(method.family)
    assert torch.equal(predictions.image, examples.image)
    assert torch.equal(predictions.target, examples.target)
    torch.testing.assert_close(predictions.log_probabilities.exp().sum(1), torch.ones(len(examples)))
    own = predictions.log_probabilities.gather(1, predictions.target[:, None])
    if kind != "columns":  # of columns the mean is that of all answers, too
        assert own.isfinite().all()
    assert float(-own.mean()) == pytest.approx(about["nll_out_of_fold"]["together"], abs=1e-4)
    assert set(about["weights"]) == {
        "linear, pooled", "linear, map", "committee, pooled", "committee, map", "frequencies",
    }  # fmt: skip
    assert sum(about["weights"].values()) == pytest.approx(1, abs=1e-3)


def test_gains_are_tried_where_groups_share_a_probe(tmp_path):
    """Only at the best quality; of classes that belong to several groups there are none. Adapter and answers come back."""
    told = set(fit(empty("auto", CLASSES), "best")[1]["weights"])
    assert {"gains, pooled", "gains, map"} <= told
    assert not any("gains" in name for name in fit(empty("auto", CLASSES))[1]["weights"])
    shared = replace(CLASSES, members=((0, 1, 2), *CLASSES.members[1:]))
    assert not any("gains" in name for name in fit(empty("auto", shared), "best")[1]["weights"])
    method = empty("auto", CLASSES)
    fit(method, "best")
    save_adapter(method, tmp_path / "adapter.safetensors")
    again = empty("auto", CLASSES)
    load_adapter(again, tmp_path / "adapter.safetensors")
    tasks = torch.arange(9) % CLASSES.num_tasks
    with torch.no_grad():
        logs = [one.eval().log_probabilities(one.prepare(NEW), tasks) for one in (method, again)]
    assert torch.equal(*logs)


@pytest.mark.parametrize(
    ("name", "quality", "members"),
    [
        ("auto", "fast", 3),
        ("auto", "default", 5),
        ("auto", "best", 8),
        ("linear", "best", 2),
        ("committee", "fast", 2),
    ],
)
def test_what_is_tried(name, quality, members):
    method = empty(name, COLUMNS)
    fit(method, quality)
    assert len(method.parts[0].members) == members


def test_temperatures_are_1_without_calibration():
    for calibrate in (False, True):
        method = empty("linear", COLUMNS)
        fit(method, calibrate=calibrate)
        assert bool((method.parts[0].temperature == 1).all()) is not calibrate


def test_equal_seeds_give_equal_bits():
    methods = [empty("auto", CLASSES) for _ in range(3)]
    for method, seed in zip(methods, (5, 5, 6), strict=True):
        forget()
        fit(method, seed=seed)
    first, second, other = (all_tasks(method, NEW) for method in methods)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_single_position_has_no_map():
    method = make_method("auto", NoLayers(5, COLUMNS.num_outputs, 2), COLUMNS)
    features = Features(np.asarray(FEATURES[:, :, :1, :1]), (), "test")
    fit_method(method, features, examples_of(COLUMNS), 0, Silent())
    assert len(method.parts[0].members) == 3
    assert all_tasks(method.eval(), NEW[:, :, :1, :1]).isfinite().any()


# ---- hostile adapters ----


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def changed(name, make):
    return lambda tensors: {**tensors, name: make(tensors.get(name))}


HOSTILE = {
    "nothing": lambda tensors: {},
    "no part": lambda tensors: {key.removeprefix("part."): value for key, value in tensors.items()},
    "a part without a number": changed("part", lambda _: torch.zeros(1)),
    "a part that is no number": changed("part.x.mean", lambda _: torch.zeros(1)),
    "a part below 0": changed("part.-1.mean", lambda _: torch.zeros(1)),
    "a part left out": lambda tensors: {key.replace("part.0", "part.1"): value for key, value in tensors.items()},
    "a part too many": lambda tensors: (
        tensors | {key.replace("part.0", "part.1"): value for key, value in tensors.items()}
    ),
    "an unknown name": changed("part.0.more", lambda _: torch.zeros(1)),
    "a missing tensor": without("part.0.0.bias"),
    "another shape": changed("part.0.1.weight", lambda value: value.T.contiguous()),
    "not a number": changed("part.0.0.weight", lambda value: value * float("nan")),
    "places beyond": changed("part.0.1.features", lambda _: torch.tensor([0, 10**9])),
    "places below 0": changed("part.0.1.features", lambda _: torch.tensor([-5, 20])),
    "fewer questions": changed("part.0.weights", lambda value: value[:1]),
    "a row of other width": changed("part.0.mean", lambda value: torch.zeros(7)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_adapters(name, tmp_path):
    """An InputError of one line, and nothing is changed."""
    method = fitted("auto", COLUMNS)
    before = all_tasks(method, NEW)
    tensors = HOSTILE[name](method.adapter_tensors())
    with pytest.raises(InputError, match=r"the adapter (is damaged|does not fit)") as error:
        method.load_adapter_tensors(tensors)
    assert "\n" not in str(error.value)
    assert torch.equal(all_tasks(method, NEW), before)


def test_readouts_of_rows_of_another_width():
    """An adapter belongs to a number of channels; of another number of positions, it says so when it is asked."""
    method = fitted("auto", COLUMNS)
    other = make_method("auto", NoLayers(6, COLUMNS.num_outputs, 2), COLUMNS)
    assert other.adapter_identity() != method.adapter_identity()
    with pytest.raises(InputError, match="reads rows of 25 features, got 50"):
        all_tasks(method, torch.randn(9, 5, 3, 3))


@pytest.mark.parametrize("name", NAMES)
def test_a_bias_besides_is_refused(name):
    head = NoLayers(5, COLUMNS.num_outputs, 2)
    with pytest.raises(InputError, match="has a bias for each output already"):
        make_method(name, head, COLUMNS, task_bias=True)


# ---- tasks added later ----

ADDED = {
    "classes": {"d": ("t", "z", "w")},
    "binary": ["t", "u"],
    "binary, a column of classes": {"t": ("x", "y", "z")},
    "columns": {"t": ("x", "y", "z"), "u": ("no", "yes")},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ADDED)
def test_tasks_that_are_added_leave_the_others_their_bits(name, kind, tmp_path):
    """Twice, one after the other, and through a file."""
    method = fitted(name, FAMILIES[kind.split(",")[0]])
    for added in (ADDED[kind], {"last": ("t", "u")} if kind != "binary" else ["last"]):
        tasks = method.family.num_tasks
        learned = begin_tasks(method, added)
        fit(learned)
        grown = add_tasks(method, learned)
        assert grown.family.num_tasks == tasks + len(added)
        old = torch.arange(tasks)
        before, after = all_tasks(method, NEW), all_tasks(grown, NEW, old)
        own = [(0, 1) if method.family.kind == "binary" else members for members in method.family.members]
        wide = [(0, 1) if grown.family.kind == "binary" else members for members in grown.family.members]
        for task in range(tasks):
            assert torch.equal(after[:, task][:, list(wide[task])], before[:, task][:, list(own[task])])
        if kind != "classes":
            new = torch.arange(tasks, grown.family.num_tasks)
            both = [learned.family, grown.family]
            places = [[(0, 1) if f.kind == "binary" else m for m in f.members] for f in both]
            found, alone = all_tasks(grown, NEW, new), all_tasks(learned.eval(), NEW)
            for task in range(len(new)):
                torch.testing.assert_close(
                    found[:, task][:, list(places[1][tasks + task])], alone[:, task][:, list(places[0][task])]
                )
        save_adapter(grown, tmp_path / "a.safetensors")
        again = empty(name, grown.family)
        load_adapter(again, tmp_path / "a.safetensors")
        assert torch.equal(all_tasks(again.eval(), NEW), all_tasks(grown, NEW))
        method = grown


def test_many_columns():
    """A family of a hundred columns is fitted, saved and read again."""
    sizes = [2 + number % 3 for number in range(100)]
    family = TaskFamily.from_columns(
        [f"c{number}" for number in range(100)], [[str(n) for n in range(size)] for size in sizes]
    )
    method = empty("linear", family)
    fit(method)
    again = empty("linear", family)
    again.load_adapter_tensors(method.adapter_tensors())
    assert torch.equal(again.encoded(NEW), method.encoded(NEW))
