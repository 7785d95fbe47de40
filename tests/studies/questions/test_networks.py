"""What the studies change: skip connections, normalisation, depth, controllers, data; and what they measure on networks."""

import itertools
import math

import pytest
import torch
from torch.func import jacrev, jvp, vmap

from comodulation import ComodulatedHead
from comodulation.data.features import BackboneSettings
from comodulation.errors import InputError
from comodulation.networks import Controller
from comodulation.networks.methods import make_method
from comodulation.runs import ControllerSettings, HeadSettings, make_config
from comodulation.studies.cells import Cell, Laboratory, Row, classes_kept, read_material, study_config
from comodulation.studies.questions.residual import influence, skip_shares
from comodulation.tasks import TaskFamily
from comodulation.tensors import copy_checked

SHAPES = [
    {"encoder_skip": encoder, "decoder_skip": decoder, "batch_norm": batch_norm, "depth": depth}
    for (encoder, decoder), batch_norm, depth in itertools.product(((1, 1), (0.3, 0.7), (0, 0)), (False, True), (1, 3))
]


def make_head(residual=True, channels=6, dtype=torch.float64, **options):
    """A head with statistics of its own in every normalisation, frozen."""
    torch.manual_seed(0)
    options = {"hidden": 5, "decoder_channels": channels} | options
    head = ComodulatedHead(4, 7, 3, encoder_channels=6, residual=residual, **options).to(dtype)
    features = torch.randn(40, 4, 3, 3, dtype=dtype)
    head.train()
    head(features, mode="base")  # moves the running statistics
    return head.freeze().eval()


FEATURES = torch.randn(11, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
TASKS = torch.arange(11) % 3


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize("residual", [True, False])
def test_the_fused_derivative_is_that_of_the_decoder(options, residual):
    """Through every layer, skip and normalisation: automatic differentiation gives the same slopes."""
    head = make_head(residual, **options)
    activity = head.encode(FEATURES)
    coupling = torch.randn(11, 6, dtype=torch.float64)
    decoded, slope = jvp(head.decode, (activity,), (activity * coupling[:, :, None, None],))
    found = head.statistics(activity, coupling)
    torch.testing.assert_close(found.slope, slope.mean((-2, -1)))
    torch.testing.assert_close(found.mean, decoded.mean((-2, -1)))


@pytest.mark.parametrize("channels", [6, 5])
@pytest.mark.parametrize("options", [shape for shape in SHAPES if shape["depth"] == 1], ids=str)
def test_the_stored_response_is_the_mean_over_inputs(options, channels):
    """Exact task gains, against statistics of each input averaged by task; with a projecting skip connection, too."""
    head = make_head(channels=channels, **options)
    activity = head.encode(FEATURES)
    assert head.observe([(activity, TASKS)])
    coupling = torch.randn(3, 6, dtype=torch.float64)
    each = head.statistics(activity, coupling[TASKS])
    averaged = torch.stack([each.slope[task == TASKS].mean(0) for task in range(3)])
    torch.testing.assert_close(head.response.statistics(coupling).slope, averaged)


def test_without_skip_connections_a_residual_network_is_the_base_network():
    """To the bit; and with full ones it is the head without the option."""
    for options, residual in (
        ({"encoder_skip": 0, "decoder_skip": 0}, False),
        ({"encoder_skip": 1, "decoder_skip": 1}, True),
    ):
        torch.manual_seed(3)
        one = ComodulatedHead(4, 7, 3, encoder_channels=6, decoder_channels=6, residual=True, **options)
        torch.manual_seed(3)
        other = ComodulatedHead(4, 7, 3, encoder_channels=6, decoder_channels=6, residual=residual)
        one, other = one.freeze().eval(), other.freeze().eval()
        assert torch.equal(one(FEATURES.float(), mode="base"), other(FEATURES.float(), mode="base"))


@pytest.mark.parametrize("depth", [1, 2])
def test_frozen_normalisation_is_linear_and_stays_as_it_is(depth):
    """What is trained with the batch's statistics is, once frozen, the same for an image alone and leaves no statistic changed."""
    head = make_head(batch_norm=True, depth=depth)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    head.train()
    together = head(FEATURES, mode="base")
    alone = torch.cat([head(feature[None], mode="base") for feature in FEATURES])
    torch.testing.assert_close(together, alone)
    for name, value in head.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("method", ["attention", "film", "ia3", "decoder-gains", "comodulation"])
def test_every_method_begins_at_the_network_as_it_was_pretrained(method):
    head = make_head(dtype=torch.float32, batch_norm=True, depth=2, encoder_skip=0.5, decoder_skip=0.25)
    base = head(FEATURES.float(), mode="base").detach()
    members = ((0, 1), (2, 3), (4, 5, 6))
    family = TaskFamily("classes", ("a", "b", "c"), tuple("0123456"), members)
    made = make_method(method, head, family, "open").eval()
    made.settle([(made.prepare(FEATURES.float()), TASKS)])
    logits = made(made.prepare(FEATURES.float()), TASKS)[0]
    torch.testing.assert_close(logits, base)


def test_layers_are_stored_and_loaded():
    head, other = make_head(batch_norm=True, depth=2), make_head(batch_norm=True, depth=2)
    with torch.no_grad():
        for tensor in other.pretrained_tensors().values():
            tensor.zero_()
    copy_checked(other.pretrained_tensors(), head.pretrained_tensors(), "the head")
    assert torch.equal(head(FEATURES, mode="base"), other(FEATURES, mode="base"))
    assert head.fingerprint() == other.fingerprint()
    half = make_head(encoder_skip=0.5)
    assert half.adapter_identity() != make_head().adapter_identity()  # the same tensors, another network
    assert "skips" not in make_head().adapter_identity()


def test_layers_keep_the_key_that_they_were_stored_under():
    """The options that came later are named only where they are used."""
    first = {"encoder_channels", "decoder_channels", "residual", "kernel_size", "hidden", "dropout", "feature_dropout"}
    assert set(HeadSettings().identity()) == first
    assert HeadSettings(depth=2, encoder_skip=0.5).identity().items() >= {"depth": 2, "encoder_skip": 0.5}.items()


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("head", {"encoder_skip": 1.5}, "head: encoder_skip"),
        ("head", {"depth": 0}, "head: depth"),
        ("controller", {"rank": 0}, "controller.rank"),
        ("controller", {"rank": 2, "hidden": [4]}, "rank"),
        ("controller", {"task_vectors": [[1.0], [1.0, 2.0]]}, "one length"),
        ("controller", {"task_vectors": [[math.nan]]}, "task_vectors"),
    ],
)
def test_bad_settings_are_refused(section, values, message):
    with pytest.raises(InputError, match=message):
        make_config({"data": "x", "attributes": ["a"], section: values})


def test_low_rank_controllers():
    """(K + E) rank numbers, couplings of that rank, 0 at first, and every number has a gradient after a step."""
    controller = Controller(9, 12, rank=2)
    assert sum(p.numel() for p in controller.parameters()) == (9 + 12) * 2
    tasks = torch.arange(9)
    assert not controller(tasks).any()
    optimizer = torch.optim.SGD(controller.parameters(), 0.1)
    target = torch.randn(9, 12, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        optimizer.zero_grad()
        (controller(tasks) - target).square().sum().backward()
        optimizer.step()
    assert all(bool((p.grad != 0).any()) for p in controller.parameters())
    assert torch.linalg.matrix_rank(controller(tasks)) == 2
    for options in ({"rank": 0}, {"rank": 2, "hidden": (3,)}, {"rank": 2, "task_vectors": torch.eye(9)}):
        with pytest.raises(InputError, match="rank"):
            Controller(9, 12, **options)


def test_one_hot_vectors_are_an_embedding_with_a_common_part():
    controller = Controller(
        3, 4, task_vectors=ControllerSettings(task_vectors=((1, 0, 0), (0, 1, 0), (0, 0, 1))).task_vectors
    )
    with torch.no_grad():
        torch.nn.init.normal_(controller.mlp[-1].weight)
        torch.nn.init.normal_(controller.mlp[-1].bias)
    expected = controller.mlp[-1].weight.T + controller.mlp[-1].bias
    torch.testing.assert_close(controller(torch.arange(3)), expected)
    with pytest.raises(InputError, match="K = 3"):
        Controller(3, 4, task_vectors=((1.0,),))


# ---- what is measured -------------------------------------------------------------------------------------------------


def test_shares_of_skip_and_block_add_up():
    """The block's share, from the same network without the skip connection, is what is left."""
    head = make_head(encoder_skip=0.6, decoder_skip=0.4)
    shares = skip_shares(head, FEATURES)
    h = head.encode(FEATURES)
    skip = 0.4 * h
    whole = head.drive(h)
    centred = [t - t.mean((0, 2, 3), keepdim=True) for t in (whole - skip, whole)]
    block = float((centred[0] * centred[1]).sum() / centred[1].square().sum())
    assert shares["decoder"] == pytest.approx(1 - block)
    assert 0.01 < shares["decoder"] < 0.99
    without = skip_shares(make_head(encoder_skip=0, decoder_skip=0), FEATURES)
    assert without == {"encoder": 0.0, "decoder": 0.0}
    assert skip_shares(make_head(False), FEATURES) == {"encoder": 0.0, "decoder": 0.0}


def test_the_encoders_share_is_of_what_the_encoder_computes():
    """The network's own activity is the rectified sum of the two parts whose shares are measured."""
    head = make_head(encoder_skip=0.6)
    with torch.no_grad():
        head.encoder.weight.zero_()
        head.encoder.bias.zero_()
    assert skip_shares(head, FEATURES)["encoder"] == pytest.approx(1)


@pytest.mark.parametrize("options", [{}, {"decoder_skip": 0}, {"depth": 2, "batch_norm": True}], ids=str)
def test_influence_is_the_norm_of_the_derivative(options):
    """Against the whole Jacobian of every image; the probes' own error is a few per cent."""
    head = make_head(**options)
    h = head.encode(FEATURES)

    def pooled(one, u):
        return head.decode((one * u.exp()[:, None, None])[None]).mean((-2, -1))[0]

    jacobian = vmap(jacrev(pooled, 1), (0, None))(h, torch.zeros(6, dtype=torch.float64))
    expected = float((jacobian.square().sum() / head.decode(h).mean((-2, -1)).square().sum()).sqrt())
    assert influence(head, FEATURES, probes=600) == pytest.approx(expected, rel=0.05)
    assert influence(head, FEATURES, probes=2, seed=1) == influence(head, FEATURES, probes=2, seed=1)


def test_neurons_that_each_read_one_have_influence_1():
    head = make_head(decoder_skip=1)
    with torch.no_grad():
        head.decoder.weight.zero_()
        head.decoder.bias.zero_()
    assert influence(head, FEATURES, probes=3000) == pytest.approx(1, rel=0.05)


# ---- rows -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def laboratory(data, cache):
    config = study_config(
        "cifar100", str(data), backbone=BackboneSettings("test_resnet", "random", 32), pretraining={"epochs": 2},
        head={"encoder_channels": 16, "decoder_channels": 16}, tuning={"epochs": 2, "batch_size": 16},
    )  # fmt: skip
    return Laboratory(read_material("cifar100", config, cache))


def cell(label, seed=0):
    return Cell("residual", "open", Row.parse(label), seed)


def test_options_of_the_controller_and_the_layers():
    config = make_config({"data": "x", "attributes": ["a"]})
    row = Row.parse("comodulation hidden=64x32 activation=tanh embedding_size=8")
    controller = row.configure(config, {}).controller
    assert (controller.hidden, controller.activation, controller.embedding_size) == ((64, 32), "tanh", 8)
    assert Row.parse("comodulation rank=4").configure(config, {}).controller.rank == 4
    head = Row.parse("attention encoder_skip=0.5 batch_norm=True depth=2 channels=12").layers(HeadSettings(hidden=9))
    assert (head.encoder_skip, head.decoder_skip, head.batch_norm, head.depth) == (0.5, 1.0, True, 2)
    assert (head.encoder_channels, head.decoder_channels, head.hidden) == (12, 12, 9)
    with pytest.raises(InputError, match="64x64"):
        Row.parse("comodulation hidden=wide").configure(config, {})


def test_layers_of_a_row_are_its_own(laboratory):
    session, adapted = laboratory.adapt(cell("comodulation depth=2 channels=8 encoder_skip=0"), {"learning_rate": 0.01})
    head = adapted.method.head
    assert (len(head.deeper), head.encoder_channels, head.skips) == (1, 8, (0, 1))
    assert laboratory.session("residual", 0, Row("comodulation")) is not session


def test_fewer_classes(laboratory):
    """Two of each task's classes, of the same for all rows of a seed, in tuning, validation and test."""
    session = laboratory.session("residual", 0)
    kept = classes_kept(session.family, 2, 0)
    assert [int(kept[list(members)].sum()) for members in session.family.members] == [2, 2, 2]
    data = laboratory.training_data(session, cell("attention classes=2"))
    _, tested = laboratory.test_data(session, cell("comodulation classes=2"))
    for part in (data.tuning, data.validation, tested):
        assert len(part)
        assert bool(kept[part.target].all())
    assert len(data.tuning) < len(session.tuning_data().tuning)
    assert any(not torch.equal(kept, classes_kept(session.family, 2, seed)) for seed in range(1, 6))
    with pytest.raises(InputError, match="at least 2"):
        classes_kept(session.family, 1, 0)


def test_draws(laboratory):
    """Other images of the same half, as many validate; the same draw is the same for every method."""
    session = laboratory.session("residual", 0)
    first, again, second = (
        laboratory.training_data(session, cell(f"{method} images=2 draw={draw}"))
        for method, draw in (("attention", 0), ("comodulation", 0), ("attention", 1))
    )
    assert torch.equal(first.tuning.image, again.tuning.image)
    assert not torch.equal(first.tuning.image, second.tuning.image)
    for data in (first, second):
        assert data.tuning.task.bincount().tolist() == [2, 2, 2]
        assert data.validation.task.bincount().max() == 2
    whole = laboratory.training_data(session, cell("attention draw=1"))
    assert torch.equal(whole.tuning.image, session.tuning_data().tuning.image)


def test_a_draw_of_all_images_is_another_order(laboratory):
    """Trained on the same images to another end; the same draw to the same end."""
    ends = []
    for draw in (0, 1, 1):
        _, adapted = laboratory.adapt(cell(f"attention draw={draw}"), {"learning_rate": 0.05})
        ends.append(adapted.validation.log_probabilities)
    assert not torch.equal(ends[0], ends[1])
    assert torch.equal(ends[1], ends[2])


def test_a_draw_has_noise_of_its_own(laboratory):
    options = "comodulation encoder=stochastic num_samples=2"
    seeds = [
        laboratory.adapt(cell(f"{options}{draw}"), {"epochs": 1})[1].method.head.seed
        for draw in ("", " draw=0", " draw=1")
    ]
    assert len(set(seeds)) == 3


def test_prototypes_come_from_the_other_half(laboratory):
    """Vectors whose products are those of the tasks' mean features, computed here again; one a task, the same for all rows."""
    session, adapted = laboratory.adapt(cell("comodulation task_vectors=prototypes"), {"learning_rate": 0.01})
    vectors = adapted.method.head.controller.task_vectors.double()
    primary = session.train_examples.of_images(session.parts.pretraining)
    means = torch.stack(
        [
            session.train_features.rows(primary.image[primary.task == k].unique()).double().mean((0, 2, 3))
            for k in range(3)
        ]
    )
    means -= means.mean(0)
    products = means @ means.T
    scale = products.trace() / (vectors @ vectors.T).trace()
    torch.testing.assert_close(scale * (vectors @ vectors.T), products, rtol=1e-4, atol=1e-6)
    assert vectors.square().mean() == pytest.approx(1)
    _, onehot = laboratory.adapt(cell("comodulation task_vectors=onehot"), {"learning_rate": 0.01})
    assert torch.equal(onehot.method.head.controller.task_vectors, torch.eye(3))
    with pytest.raises(InputError, match=r"onehot.*prototypes"):
        laboratory.adapt(cell("comodulation task_vectors=prototype"), {})
