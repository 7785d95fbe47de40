"""Every method behind one interface: properties that all of them must have."""

import pytest
import torch

from comodulation.errors import InputError
from comodulation.mathematics import Modulation
from comodulation.networks.head import ComodulatedHead
from comodulation.networks.methods.registry import WITH_LAYERS, make_method
from comodulation.tasks import TaskFamily
from support.methods import BINARY, CASES, CLASSES, COLUMNS, make, train


def inputs(method, family, size: int = 20):
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(size, 5, 2, 2, generator=generator)
    task = torch.arange(size) % family.num_tasks
    if family.kind != "binary":
        target = torch.tensor([family.members[k][i % len(family.members[k])] for i, k in enumerate(task.tolist())])
    else:
        target = torch.arange(size) // family.num_tasks % 2
    return method.prepare(features).detach(), task, target


def logs_of(method, given, task, rows=slice(None)):
    """Log probabilities of some inputs, each with the noise that is its own."""
    return method.log_probabilities(given[rows], task[rows], torch.arange(len(task))[rows])


@pytest.mark.parametrize(("name", "family"), CASES)
def test_probabilities_are_normalised_and_mixed_batches_equal_separate_ones(name, family):
    method = make(name, family)
    given, task, target = inputs(method, family)
    train(method, given, task, target)
    logs = logs_of(method, given, task)
    torch.testing.assert_close(logs.exp().sum(1), torch.ones(len(task)))
    for k in range(family.num_tasks):
        rows = task == k
        alone = logs_of(method, given, task, rows)
        torch.testing.assert_close(alone.exp(), logs[rows].exp(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_only_what_is_learnable_changes(name, family):
    """Backbone bits cannot change (it is not there); the head's layers, only methods that say so change."""
    method = make(name, family)
    layers = {n: t.clone() for n, t in method.head.state_dict().items() if not n.startswith("controller.")}
    given, task, target = inputs(method, family)
    ids = torch.arange(len(task))
    before = float(method.loss(given, task, target, ids).detach())
    train(method, given, task, target, 30)
    same = all(torch.equal(method.head.state_dict()[n], t) for n, t in layers.items())
    assert same != method.trains_layers
    if method.learnable():
        assert float(method.loss(given, task, target, ids).detach()) < before


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("name", "family"), CASES)
def test_adapter_tensors_carry_everything(name, family, batch_norm):
    """A second network with the same pretrained layers and the adapter's tensors predicts the same bits."""
    method, other = (make(name, family, batch_norm=batch_norm) for _ in range(2))
    given, task, target = inputs(method, family)
    train(method, given, task, target)
    tensors = {n: t.clone() for n, t in method.adapter_tensors().items()}
    other.load_adapter_tensors(tensors)
    assert torch.equal(logs_of(other, given, task), logs_of(method, given, task))
    if tensors:
        first = next(iter(tensors))
        for broken in (
            {},
            {**tensors, "more": torch.zeros(1)},
            {**tensors, first: torch.full_like(tensors[first], torch.nan)},
        ):
            fresh = make(name, family, batch_norm=batch_norm)
            with pytest.raises(InputError, match="adapter"):
                fresh.load_adapter_tensors(broken)


@pytest.mark.parametrize("name", [name for name, method in WITH_LAYERS.items() if "classes" in method.kinds])
def test_restricted_readout_never_leaves_the_group(name):
    method = make(name, CLASSES, "restricted")
    given, task, _ = inputs(method, CLASSES)
    probabilities = logs_of(method, given, task).exp()
    assert (probabilities[~CLASSES.member_mask()[task]] == 0).all()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(task)))


@pytest.mark.parametrize("name", [name for name, family in CASES if family is COLUMNS])
def test_columns_never_answer_for_another_column(name):
    """In either readout; and what a column answers depends on its own outputs alone, task bias included."""
    method = make(name, COLUMNS, "open")
    given, task, target = inputs(method, COLUMNS)
    train(method, given, task, target)
    probabilities = logs_of(method, given, task).exp()
    assert (probabilities[~COLUMNS.member_mask()[task]] == 0).all()
    with torch.no_grad():
        logits = method.head_logits(method.encoded(given), task, torch.arange(len(task)), 0)
        if method.bias is not None:
            logits = logits + method.bias
    for k, group in enumerate(COLUMNS.members):
        own = logits[:, task == k][..., list(group)].softmax(-1).mean(0)
        torch.testing.assert_close(probabilities[task == k][:, list(group)], own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_weights_in_the_loss(name, family):
    """Equal weights change nothing, integer weights repeat inputs, weight 0 leaves them out (up to the number divided by)."""
    method = make(name, family)
    given, task, target = inputs(method, family)
    method.observe([(given, task)])
    with torch.no_grad():
        ids = torch.arange(len(task))
        plain = method.loss(given, task, target, ids)
        torch.testing.assert_close(method.loss(given, task, target, ids, weights=torch.ones(len(task))), plain)
        weights = torch.arange(len(task)) % 3
        rows = ids.repeat_interleave(weights)
        weighted = method.loss(given, task, target, ids, weights=weights.float())
        repeated = method.loss(given[rows], task[rows], target[rows], rows) * len(rows) / len(task)
    torch.testing.assert_close(weighted, repeated, rtol=1e-4, atol=1e-5)


def test_class_mask_is_the_restricted_base():
    mask, base = make("class-mask", CLASSES), make("base", CLASSES, "restricted")
    given, task, _ = inputs(mask, CLASSES)
    assert torch.equal(mask.log_probabilities(given, task), base.log_probabilities(given, task))


def test_local_mask_adds_up_what_the_readout_says_at_each_column():
    """By hand; and with one column it is the class mask."""
    method, mask = make("local-mask", CLASSES), make("class-mask", CLASSES)
    given, task, _ = inputs(method, CLASSES)
    decoded = method.head.decode(given)
    members = CLASSES.member_mask()[task]
    added = sum(method.head.readout(decoded[:, :, :, j].mean(-1)).softmax(-1) for j in range(2)) * members
    expected = added / added.sum(1, keepdim=True)
    torch.testing.assert_close(method.log_probabilities(given, task).exp(), expected.detach())
    one = torch.randn(20, 5, 2, 1)
    alone, masked = (m.log_probabilities(m.prepare(one), task) for m in (method, mask))
    torch.testing.assert_close(alone.exp(), masked.exp())


def test_learnable_parameters():
    """Attention and comodulation have K E, the task bias K C, hard sharing and its kin all layers, fine-tuning all of it."""
    counts = {name: make(name, CLASSES).num_learnable() for name in WITH_LAYERS}
    layers = sum(p.numel() for p in make("base", CLASSES).head.parameters()) - 3 * 8
    assert counts == {
        "base": 0,
        "class-mask": 0,
        "local-mask": 0,
        "task-bias": 3 * 7,
        "attention": 3 * 8,
        "comodulation": 3 * 8,
        "paper": 3 * 8,
        "positions": 3 * 8,
        "decoder-gains": 3 * 8,
        "ia3": 3 * 16,
        "film": 3 * 16,
        "hard-sharing": layers,
        "gradient-aggregation": layers,
        "task-routing": layers,
        "maximum-roaming": layers,
        "fine-tuning": layers + 3 * 16 + 3 * 7,
    }


@pytest.mark.parametrize(("name", "family"), CASES)
def test_untrained_methods_are_the_base_network(name, family):
    """Before training, all methods are the base network but those that mask outputs or neurons (rectified comodulation is
    the mean over equal couplings).

    Bit for bit where the layers are frozen; trainable ones may compute the same sums in another order.
    """
    method, base = make(name, family), make("base", family)
    given, task, _ = inputs(method, family)
    activity = inputs(base, family)[0]
    method.settle([(given, task)])
    own, plain = logs_of(method, given, task), base.log_probabilities(activity, task)
    same = torch.allclose(own, plain, atol=1e-5) if method.trains_layers else torch.equal(own, plain)
    assert same != (name in ("class-mask", "local-mask", "task-routing", "maximum-roaming", "paper"))


def test_stochastic_training_averages_losses_over_samples():
    method = make("comodulation", CLASSES, encoder="stochastic", num_samples=4)
    given, task, target = inputs(method, CLASSES)
    ids = torch.arange(len(task))
    torch.nn.init.normal_(method.head.controller.embedding.weight)
    method.settle([(given, task)])
    logs = method(given, task, ids).log_softmax(-1)
    by_hand = torch.stack([-sample[torch.arange(len(task)), target].mean() for sample in logs]).mean()
    torch.testing.assert_close(method.loss(given, task, target, ids), by_hand)


def test_binary_task_reads_its_own_output():
    method = make("base", BINARY)
    given, task, _ = inputs(method, BINARY)
    logits = method.head.readout(given)
    expected = logits[torch.arange(len(task)), task].sigmoid()
    torch.testing.assert_close(method.log_probabilities(given, task)[:, 1].exp(), expected)


def test_wrong_kind_and_wrong_sizes():
    with pytest.raises(InputError, match="class-mask"):
        make("class-mask", BINARY)
    with pytest.raises(InputError, match="did you mean 'attention'"):
        make("atention", CLASSES)
    with pytest.raises(ValueError, match="7 outputs"):
        make_method("base", ComodulatedHead(5, 7, 2, encoder_channels=8, decoder_channels=8), CLASSES)


def test_missing_task_gains_are_refused():
    method = make("comodulation", CLASSES, modulation=Modulation(level="task"))
    with pytest.raises(InputError, match="task_gains"):
        method.load_adapter_tensors(method.adapter_tensors())


@pytest.mark.parametrize(
    ("name", "family"), [case for case in CASES if case[0] not in ("base", "class-mask", "local-mask")]
)
def test_gradients_have_the_same_bits_each_time_on_two_threads(name, family):
    """A resumed run must equal an uninterrupted one: no sum may depend on the order in which threads arrive."""
    method = make(name, family)
    given, task, target = inputs(method, family, 4000)
    method.observe([(given, task)])
    method.eval()  # no dropout
    gradients = []
    torch.set_num_threads(2)
    try:
        for _ in range(4):
            method.zero_grad()
            method.head.train(not method.trains_layers)
            method.loss(given, task, target, torch.arange(len(task))).backward()
            gradients.append([parameter.grad.clone() for parameter in method.learnable()])
    finally:
        torch.set_num_threads(1)
    for other in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], other, strict=True))


def test_gains_of_low_rank_have_as_many_parameters_as_comodulation():
    """With the tasks and neurons of a study; the base network at first; and what is no rank is refused."""
    family = TaskFamily("classes", tuple(map(str, range(20))), tuple("uvw"), ((0, 1, 2),) * 20)
    head = ComodulatedHead(5, 3, 20, controller={"rank": 9})
    method = make_method("ia3", head, family, decoder_rank=9).eval()
    assert (
        method.num_learnable()
        == 4968
        <= 20 * 256
        < make_method("ia3", ComodulatedHead(5, 3, 20), family).num_learnable()
    )
    h, tasks = method.prepare(torch.randn(20, 5, 2, 2)), torch.arange(20)
    assert torch.equal(method(h, tasks)[0], head.read(head.decode(h)))
    torch.manual_seed(1)  # whatever was drawn before it
    again = make_method("ia3", head, family, decoder_rank=9)
    for one, other in zip(method.learnable(), again.learnable(), strict=True):
        assert torch.equal(one, other)
    for rank in (-1, 257, 0.5, True):
        with pytest.raises(InputError, match="decoder_rank must be a whole number from 0 to 256"):
            make_method("ia3", ComodulatedHead(5, 3, 20), family, decoder_rank=rank)
