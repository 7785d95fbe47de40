"""Tasks added later: the others keep their bits, whatever is learned for the new ones."""

import pytest
import torch

from comodulation.errors import InputError
from comodulation.networks.adapters import load_adapter, save_adapter
from comodulation.networks.head import ComodulatedHead
from comodulation.networks.methods.added_tasks import add_tasks, begin_tasks
from comodulation.networks.methods.registry import WITH_LAYERS, make_method
from comodulation.networks.methods.task_pairs import all_tasks
from comodulation.tasks import TaskFamily

CLASSES = TaskFamily("classes", ("a", "b"), tuple("tuvwxyz"), ((0, 1, 2), (3, 4)))
BINARY = TaskFamily.from_attributes(("p", "q", "r"))
ADDED = {"classes": {"c": ["x", "y", "z"], "d": ["t", "z"]}, "binary": ["s", "u"]}
CASES = [
    (name, family)
    for name, method in WITH_LAYERS.items()
    for family in (CLASSES, BINARY)
    if family.kind in method.kinds and not method.trains_layers
]
FEATURES = torch.randn(30, 5, 2, 2, generator=torch.Generator().manual_seed(2))


def make(name, family, readout="open", **options):
    torch.manual_seed(0)
    sizes = {"encoder_channels": 8, "decoder_channels": 8, "hidden": 16, **WITH_LAYERS[name].modulation}
    head = ComodulatedHead(5, family.num_outputs, family.num_tasks, **sizes, **options)
    return make_method(name, head, family, readout, task_bias=name == "film").eval()


def train(method, seed=0, steps=8):
    """Fine-tune on random labels with weight decay, which would also move what has no gradient."""
    generator = torch.Generator().manual_seed(seed)
    family, given = method.family, method.prepare(FEATURES).detach()
    task = torch.arange(len(given)) % family.num_tasks
    draw = torch.randint(0, 2, (len(given),), generator=generator)
    target = draw
    if family.kind == "classes":
        target = torch.tensor([family.members[k][c] for k, c in zip(task.tolist(), draw.tolist(), strict=True)])
    method.observe([(given, task)])
    method.train()
    if method.learnable():
        optimizer = torch.optim.AdamW(method.learnable(), 0.05, weight_decay=0.1)
        for _ in range(steps):
            optimizer.zero_grad()
            method.loss(given, task, target, torch.arange(len(task))).backward()
            optimizer.step()
    method.eval()
    method.settle([(given, task)])
    return method


def grown(name, family, added=None, **options):
    method = train(make(name, family, **options))
    learned = train(begin_tasks(method, added or ADDED[family.kind]), seed=1)
    return method, learned, add_tasks(method, learned)


def every(method, tasks=None):
    return all_tasks(method, FEATURES, tasks, sample_ids=torch.arange(len(FEATURES)))


@pytest.mark.parametrize(("name", "family"), CASES)
def test_the_others_keep_their_bits(name, family):
    """Rows, stored gains and answers of the old tasks, before and after; and the old method itself is untouched."""
    method = train(make(name, family))
    old, count = every(method), family.num_tasks
    kept = {key: value.clone() for key, value in method.adapter_tensors().items()}
    learned = train(begin_tasks(method, ADDED[family.kind]), seed=1)
    after = add_tasks(method, learned)
    assert torch.equal(every(after, torch.arange(count)), old)
    assert torch.equal(every(method), old)
    for key, value in kept.items():
        assert torch.equal(method.adapter_tensors()[key], value)
        assert torch.equal(after.adapter_tensors()[key][:count], value)
    assert after.family.tasks == family.tasks + tuple(ADDED[family.kind])
    assert after.head.fingerprint() == method.head.fingerprint()


@pytest.mark.parametrize(("name", "family"), CASES)
def test_new_tasks_are_what_was_learned_for_them(name, family):
    """The answers of the method that learned them alone; and something was learned."""
    method, learned, after = grown(name, family)
    new = torch.arange(family.num_tasks, after.family.num_tasks)
    if name != "paper":  # whose noise belongs to the task's number, another one among the others
        torch.testing.assert_close(every(after, new), every(learned))
    if method.learnable():
        fresh = begin_tasks(method, ADDED[family.kind])
        fresh.settle([(fresh.prepare(FEATURES).detach(), torch.arange(len(FEATURES)) % 2)])
        assert not torch.allclose(every(fresh), every(learned), atol=1e-3)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_added_twice_and_saved(name, family, tmp_path):
    """A second addition leaves the first one's bits too, and the adapter of all of them loads into a grown network."""
    method, learned, after = grown(name, family)
    more = {"e": ["u", "w"]} if family.kind == "classes" else ["v"]
    last = add_tasks(after, train(begin_tasks(after, more), seed=3))
    assert torch.equal(every(last, torch.arange(after.family.num_tasks)), every(after))
    save_adapter(last, tmp_path / "a.safetensors")
    again = add_tasks(add_tasks(method, learned), train(begin_tasks(after, more), seed=4))
    load_adapter(again, tmp_path / "a.safetensors")
    assert torch.equal(every(again), every(last))
    with pytest.raises(InputError, match="belongs to another num_tasks"):
        load_adapter(method, tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "options",
    [{"level": "input"}, {"encoder": "stochastic", "num_samples": 4}, {"link": "rectified", "estimator": "quadrature"}],
)
def test_other_mechanisms_keep_their_bits_too(options):
    ids = torch.arange(len(FEATURES))
    method, _, after = grown("comodulation", BINARY, **options)
    before = all_tasks(method, FEATURES, sample_ids=ids)
    assert torch.equal(all_tasks(after, FEATURES, torch.arange(3), sample_ids=ids), before)


def test_begun_tasks_are_the_same_each_time():
    method = train(make("comodulation", BINARY))
    a, b = (train(begin_tasks(method, ["s"]), seed=1) for _ in range(2))
    assert torch.equal(all_tasks(a, FEATURES), all_tasks(b, FEATURES))


@pytest.mark.parametrize("name", [name for name, method in WITH_LAYERS.items() if method.trains_layers])
def test_methods_that_train_the_layers_are_refused(name):
    with pytest.raises(InputError, match="trains the layers that all tasks share"):
        begin_tasks(make(name, BINARY), ["s"])


@pytest.mark.parametrize("controller", [{"hidden": (4,)}, {"task_vectors": torch.eye(3)}])
def test_shared_controllers_are_refused_where_they_are_used(controller):
    with pytest.raises(InputError, match="controller's weights are shared by all tasks"):
        begin_tasks(make("attention", BINARY, controller=controller), ["s"])
    begin_tasks(make("decoder-gains", BINARY, controller=controller), ["s"])


@pytest.mark.parametrize(
    ("family", "added", "message"),
    [
        (BINARY, ["q"], "there is a task 'q' already"),
        (BINARY, ["s", "s"], "2 tasks are named 's'"),
        (BINARY, [], "at least one"),
        (BINARY, "s", "given as a list of their names, got 's'"),
        (BINARY, {"s": ["p"]}, "task 's' has 1 class"),
        (BINARY, {"s": "pq"}, "given as lists of answers by task"),
        (CLASSES, {"a": ["t", "u"]}, "there is a task 'a' already"),
        (CLASSES, {"c": ["t", "uu"]}, "unknown class 'uu'; did you mean 'u'"),
        (CLASSES, {"c": ["t"]}, "task 'c' has 1 class"),
        (CLASSES, {"c": "tu"}, "lists of output names by task"),
        (CLASSES, ["c"], "lists of output names by task"),
    ],
)
def test_bad_names(family, added, message):
    with pytest.raises(InputError, match=message):
        begin_tasks(make("attention", family), added)


def test_what_was_learned_elsewhere_is_refused():
    method = train(make("comodulation", BINARY))
    other = make("comodulation", BINARY)
    with torch.no_grad():
        other.head.encoder.weight.add_(1)
    with pytest.raises(InputError, match=r"learned on other layers \(encoder\.weight\)"):
        add_tasks(method, train(begin_tasks(other, ["s"])))
    with pytest.raises(InputError, match=r"another modulation\.std: 0\.6, here 0\.3"):
        add_tasks(method, train(begin_tasks(make("comodulation", BINARY, std=0.6), ["s"])))
    with pytest.raises(InputError, match="another method: 'attention', here 'comodulation'"):
        add_tasks(method, train(begin_tasks(make("attention", BINARY), ["s"])))
    with pytest.raises(InputError, match=r"the new tasks have no head\.task_gains; call settle"):
        add_tasks(method, begin_tasks(method, ["s"]))
    with pytest.raises(InputError, match="readout 'restricted', here is 'open'"):
        add_tasks(make("attention", CLASSES), begin_tasks(make("attention", CLASSES, "restricted"), {"c": ["t", "u"]}))
