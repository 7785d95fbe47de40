"""What models and their users do around a call: threads, modes, hooks, caches, masks, checkpoints, arguments. Right, or refused."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from comodulation import InputError, comodulate
from support import networks
from support.networks import couple, untouched

TASKS = torch.tensor([1, 0, 2, 1])
X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def layer(size=6, out=8):
    return nn.Sequential(nn.Linear(size, out), nn.ReLU())


class Parts(nn.Module):
    """First part, encoder, something between, decoder, readout."""

    def __init__(self, between=lambda model, h: h):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.e, self.middle, self.d, self.out = (
            layer(),
            layer(8),
            nn.Linear(8, 8),
            layer(8),
            nn.Linear(8, 3),
        )
        self.between = between

    def forward(self, x, step=None):
        h = self.e(self.first(x))
        if step is not None:
            h = h + step[:, None]
        return self.out(self.d(self.between(self, h)))


def over(model, **options):
    return comodulate(model, **{"encoder": "e", "decoder": "d", "num_tasks": 3, **options})


def pads(ids, number):
    """Token ids and their mask, with so many pads behind."""
    mask = torch.cat([torch.ones_like(ids), torch.zeros(len(ids), number, dtype=torch.int64)], 1)
    return {"input_ids": F.pad(ids, (0, number)), "attention_mask": mask}


# ---- threads and modes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [True, False])
def test_networks_on_one_model_in_threads(stored):
    torch.manual_seed(0)
    model, images = networks.settled(networks.Blocks()), torch.randn(4, 3, 9, 9)
    nets = {
        seed: couple(comodulate(model, encoder="first", decoder="third", num_tasks=3, estimator=estimator), seed=seed)
        for seed, estimator in ((1, "derivative"), (2, "quadrature"))
    }
    calls = {"model": lambda: model(images)}
    for seed, net in nets.items():
        if stored:
            net.store_task_gains([(images, TASKS)])
        calls[seed] = lambda net=net: net(images, TASKS)
    off = threading.Event()

    def disabled():
        with nets[1].disabled():
            off.set()
            return nets[1](images, TASKS)

    calls["disabled"] = disabled
    expected = {name: call() for name, call in calls.items()}
    assert torch.equal(expected["model"], expected["disabled"])
    wrong = []

    def work(name):
        for _ in range(8):
            try:
                if not torch.equal(calls[name](), expected[name]):
                    wrong.append(name)
            except Exception as error:
                wrong.append((name, error))

    threads = [threading.Thread(target=work, args=(name,)) for name in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert untouched(model)


def test_frozen_statistics_stay_whatever_calls_train():
    torch.manual_seed(0)
    model, images = networks.settled(networks.Blocks()), torch.randn(4, 3, 9, 9)
    net = couple(comodulate(model, encoder="first", decoder="third", num_tasks=3))
    before, answer = copy.deepcopy(model.state_dict()), net(images, TASKS)
    for call in (lambda: net(images, TASKS), lambda: net.all_tasks(images), lambda: net(images, mode="base")):
        nn.ModuleList([net, model]).train()  # the wrapper's order: the model last
        call()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    net.eval()
    model.train()
    assert torch.equal(net(images, TASKS), answer)


@pytest.mark.parametrize(
    "changes", [{"encoder": "e.0"}, {"encoder": "d", "decoder": "e"}, {"controller": {"hiden": ()}}]
)
def test_a_refusal_leaves_the_model_as_it_was(changes):
    model = Parts().train()
    model.middle.eval().requires_grad_(False)
    with pytest.raises((InputError, TypeError)):
        over(model, example=X, **changes)
    assert model.training
    assert not model.middle.training
    assert untouched(model)
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {"middle.weight", "middle.bias"}


# ---- arguments ------------------------------------------------------------------------------------------------------------


def test_integers_of_the_models_own_are_not_tasks():
    model, step = Parts(), torch.tensor([2, 0, 1, 2])
    net = couple(over(model, example=(X, step)))
    with net.disabled():
        assert torch.equal(net(X, step), model(X, step))
        assert torch.equal(net(X, step, TASKS), model(X, step))
    with pytest.raises(ValueError, match="task_ids is missing"):
        net(X, step)
    assert torch.equal(net(X, step, TASKS), net(X, step, task_ids=TASKS))
    short = couple(over(model, example=X))
    assert torch.equal(short(X, TASKS), short(X, task_ids=TASKS))
    # Without an example it cannot be told, and is not guessed.
    unknown = couple(over(model))
    for context in (unknown.disabled, threading.Lock):
        with context(), pytest.raises(InputError, match="may be the model's own or the tasks"):
            unknown(X, step)
    assert torch.equal(unknown(X, step, TASKS), net(X, step, TASKS))


# ---- what is between the layers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["auto", "quadrature"])
@pytest.mark.parametrize(
    "between", [lambda _, h: h.detach(), lambda _, h: h.round(), lambda _, h: torch.ones_like(h)], ids=["detach", "round", "none"]
)  # fmt: skip
def test_a_gradient_that_does_not_arrive_is_refused(between, estimator):
    model = Parts(between)
    with pytest.raises(InputError, match="no gradient passes between layers 'e' and 'd'"):
        over(model, example=X, estimator=estimator)
    with pytest.raises(InputError, match="no gradient passes"):
        couple(over(model, estimator=estimator)).store_task_gains([(X, TASKS)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", ["auto", "quadrature"])
def test_quantised_layers_are_refused(estimator):
    model = torch.ao.quantization.quantize_dynamic(Parts().eval(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(InputError, match="no gradient passes"):
        over(model, example=X, estimator=estimator)


def test_rows_that_are_repeated_are_refused():
    model = Parts(lambda _, h: h.repeat_interleave(3, 0))
    for example in (X, X[:1]):
        with pytest.raises(InputError, match=f"{3 * len(example)} inputs arrive at layer 'd' for {len(example)}"):
            over(model, example=example)


# Every pass draws the same numbers: else their differences would be taken for the modulator's.
def test_random_draws_between_the_layers():
    model = Parts(lambda _, h: F.dropout(h, 0.2, training=True))
    nets = [couple(over(model, estimator=each), 0.01) for each in ("derivative", "quadrature")]
    for net in nets:
        torch.manual_seed(1)
        net.store_task_gains([(X, TASKS)])
    torch.testing.assert_close(nets[0].task_gains, nets[1].task_gains, rtol=1e-3, atol=1e-3)
    assert 0.9 < nets[0].task_gains.min() < 0.999


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints(reentrant):
    def again(function, h):
        return checkpoint(function, h, use_reentrant=reentrant)

    class Inside(Parts):
        def forward(self, x):
            return self.out(again(self.d, self.e(self.first(x))))

    with pytest.raises(InputError, match=r"layer 'd' runs inside torch\.utils\.checkpoint"):
        over(Inside(), example=X)
    # Between the layers nothing is changed: the gradient is that without checkpoints.
    gradients = []
    for between in (lambda model, h: model.middle(h), lambda model, h: again(model.middle, h)):
        net = couple(over(Parts(between), estimator="quadrature")).train()
        net(X, task_ids=TASKS).square().sum().backward()
        gradients.append(net.controller.embedding.weight.grad)
    torch.testing.assert_close(*gradients)


# ---- hooks, caches, state -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["first", "first.0", "e", "middle", "d"])
def test_hooks_of_the_user_act_once(where):
    hooked = {
        "new": lambda module, inputs, output: output * 2,
        "in place": lambda module, inputs, output: output.mul_(2),
    }
    for name, hook in hooked.items():
        if name == "in place" and where in ("e", "d"):
            continue  # nobody could train that: torch wants what a ReLU returned as it was
        model = Parts(lambda model, h: model.middle(h))
        model.get_submodule(where).register_forward_hook(hook)
        net = over(model, example=X).eval()
        base = model(X)
        assert torch.equal(net(X, TASKS), base)
        assert torch.equal(net.all_tasks(X), torch.cat([base] * 3))


def test_inputs_changed_in_place_are_changed_once():
    class InPlace(Parts):
        def forward(self, x):
            x.sub_(1)
            return super().forward(x)

    model = InPlace()
    expected, given = model(X.clone()), X.clone()
    net = over(model, example=X.clone(), estimator="quadrature").eval()
    assert torch.equal(net(given, TASKS), expected)
    assert torch.equal(given, X - 1)
    assert torch.equal(net.all_tasks(X.clone()), torch.cat([expected] * 3))


def test_a_cache_of_keys_and_values():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2, vocab_size=50,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    ids, last = torch.randint(0, 50, (2, 5)), torch.randint(0, 50, (2, 1))
    net = comodulate(
        model, encoder="model.layers.0", decoder="model.layers.2", num_tasks=2, unrectified="magnitude", estimator="quadrature",
        example={"input_ids": ids},
    ).eval()  # fmt: skip
    tasks = torch.tensor([0, 1])
    with torch.no_grad():
        own, ours = model(input_ids=ids, use_cache=True), net(input_ids=ids, use_cache=True, task_ids=tasks)
        for a, b in zip(own.past_key_values.layers, ours.past_key_values.layers, strict=True):
            assert torch.equal(a.keys, b.keys)
        cache = ours.past_key_values
        step = net(input_ids=last, past_key_values=cache, task_ids=tasks).logits
        assert [one.keys.shape[2] for one in cache.layers] == [6, 6, 6]
        torch.testing.assert_close(step, model(input_ids=last, past_key_values=own.past_key_values).logits)
        assert net.all_tasks(input_ids=ids, use_cache=False).logits.shape[0] == 4


def test_recurrent_state_is_activity():
    class Last(nn.Module):
        def __init__(self, kind, bidirectional):
            super().__init__()
            torch.manual_seed(0)
            self.a = kind(4, 8, batch_first=True)
            self.b = kind(8, 8, num_layers=2, batch_first=True, bidirectional=bidirectional)
            self.out = nn.Linear(8, 3)

        def forward(self, x):
            _, state = self.b(self.a(x)[0])
            return self.out((state[0] if isinstance(state, tuple) else state)[-1])

    x, gains = torch.randn(3, 5, 4), torch.rand(3, 16) + 0.5
    for kind in (nn.GRU, nn.LSTM):
        for bidirectional in (False, True):
            model = Last(kind, bidirectional).eval()
            net = comodulate(
                model, encoder="a", decoder="b", num_tasks=3, unrectified="magnitude", estimator="quadrature", example=x,
                encoder_gain=False,
            )  # fmt: skip
            width = net.decoder_site.width
            net.eval().task_gains = gains[:, :width].clone()
            _, state = model.b(model.a(x)[0])
            hidden = (state[0] if kind is nn.LSTM else state)[-1]
            expected = model.out(hidden * gains[:, width - 8 : width])
            torch.testing.assert_close(net(x, torch.arange(3)), expected)


# ---- positions --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [20, 6])
def test_activations_have_their_neurons_where_the_layers_before_have(size):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv1d(6, 6, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2)
    )
    x = torch.rand(4, 1, size)
    for decoder in ("3", "4"):
        net = comodulate(model, encoder="1", decoder=decoder, num_tasks=3, example=x)
        assert (net.controller.num_channels, net.decoder_site.width) == (6, 6)
        late = couple(comodulate(model, encoder="1", decoder=decoder, num_tasks=3, encoder_width=6))
        assert torch.equal(late(x, TASKS), couple(net)(x, TASKS))

    class ChannelsLast(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.act, self.b, self.last = nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 7), nn.ReLU()

        def forward(self, x):
            return self.last(self.b(self.act(self.a(x))) + 1)

    net = comodulate(ChannelsLast(), encoder="act", decoder="last", num_tasks=3, example=torch.rand(2, 4, 4, 3))
    assert (net.controller.num_channels, net.decoder_site.width) == (5, 7)


@pytest.mark.parametrize("neurons", ["channel", "position"])
def test_padding_is_in_no_statistic(neurons):
    class Tokens(Parts):
        def forward(self, x, attention_mask=None):
            h = self.d(self.e(self.first(x)))
            m = torch.ones(h.shape[:2]) if attention_mask is None else attention_mask.float()
            return self.out((h * m[..., None]).sum(1) / m.sum(1, keepdim=True))

    model, x = Tokens(), torch.randn(4, 7, 6)
    mask = torch.ones(4, 7, dtype=torch.int64)
    mask[1, 3:] = mask[3, 5:] = 0
    net = couple(over(model, example=x, neurons=neurons, level="input"))
    for row, length in enumerate((7, 3, 7, 5)):
        padded = net(x[row : row + 1], attention_mask=mask[row : row + 1], task_ids=TASKS[row : row + 1])
        assert torch.allclose(padded, net(x, attention_mask=mask, task_ids=TASKS)[row], atol=1e-5)
        if neurons == "channel":
            alone = net(x[row : row + 1, :length], task_ids=TASKS[row : row + 1])
            torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)
    other = torch.where(mask[..., None] == 0, 5.0, x)  # what stands in the padding has no effect
    torch.testing.assert_close(
        net(other, attention_mask=mask, task_ids=TASKS), net(x, attention_mask=mask, task_ids=TASKS)
    )
    with pytest.raises(InputError, match="does not say which positions are padding"):
        net(x, attention_mask=mask[:, None, :, None], task_ids=TASKS)
    if neurons == "channel":
        counted = couple(over(model, example=x, level="input", mask=None))(x, attention_mask=mask, task_ids=TASKS)
        assert not torch.allclose(counted, net(x, attention_mask=mask, task_ids=TASKS), atol=1e-4)


# A mask has the name that the model has for it; a name that it does not have would let padding count.
def test_a_mask_by_its_own_name():
    class Valid(Parts):
        def forward(self, x, valid):
            h = self.d(self.e(self.first(x))) * valid[..., None]
            return self.out(h.sum(1) / valid.sum(1, keepdim=True))

    x = torch.randn(4, 5, 6)
    valid = torch.ones(4, 5)
    net = couple(over(Valid(), example=(x, valid), mask="valid"))
    padded = torch.cat([x, torch.randn(4, 3, 6)], 1), torch.cat([valid, torch.zeros(4, 3)], 1)
    torch.testing.assert_close(net(*padded, TASKS), net(x, valid, TASKS))
    with pytest.raises(InputError, match="did you mean 'valid'"):
        over(Valid(), example=(x, valid), mask="vald")


def test_a_padded_text_encoder():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, vocab_size=50,
        attn_implementation="eager",
    )  # fmt: skip
    model, ids = transformers.BertModel(config).eval(), torch.randint(5, 50, (2, 6))
    net = couple(
        comodulate(
            model, encoder="encoder.layer.0", decoder="encoder.layer.2", num_tasks=2, unrectified="magnitude",
            estimator="quadrature", example={"input_ids": ids},
        )
    )  # fmt: skip
    tasks = torch.tensor([0, 1])
    with torch.no_grad():
        alone = net(**pads(ids, 0), task_ids=tasks, output_attentions=True)
        padded = net(**pads(ids, 20), task_ids=tasks)
        torch.testing.assert_close(padded.last_hidden_state[:, :6], alone.last_hidden_state, rtol=1e-4, atol=1e-4)
        own = model(**pads(ids, 0), output_attentions=True).attentions
        assert len(alone.attentions) == 3
        assert torch.equal(alone.attentions[0], own[0])
    gains = []
    for number in (0, 20):
        net.store_task_gains([(pads(ids, number), tasks)])
        gains.append(net.task_gains)
    torch.testing.assert_close(*gains, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:comodulate. gains by quadrature")
def test_an_encoder_with_a_fast_path():
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 3).eval()
    src, pad = torch.randn(4, 5, 8), torch.zeros(4, 5, dtype=torch.bool)
    pad[1, 3:] = True
    net = comodulate(
        model, encoder="layers.0", decoder="layers.2", num_tasks=3, unrectified="magnitude",
        example={"src": src, "src_key_padding_mask": pad},
    )  # fmt: skip
    with torch.no_grad():
        base = model(src, src_key_padding_mask=pad)
        ours = net.eval()(src, src_key_padding_mask=pad, task_ids=TASKS)
        torch.testing.assert_close(ours[~pad], base[~pad], rtol=1e-4, atol=1e-5)
        couple(net)
        alone = net(src[1:2, :3], task_ids=TASKS[1:2])
        torch.testing.assert_close(
            net(src, src_key_padding_mask=pad, task_ids=TASKS)[1:2, :3], alone, rtol=1e-4, atol=1e-4
        )
    assert torch.backends.mha.get_fastpath_enabled()


# ---- all tasks ----------------------------------------------------------------------------------------------------------------


def test_all_tasks_of_graphs_and_of_pairs():
    class Graph(Parts):
        def forward(self, x, edges, graph):
            h = self.e(self.first(x))
            h = self.d(h.index_add(0, edges[1], h[edges[0]]))
            return self.out(torch.zeros(2, 8).index_add(0, graph, h))

    class Pairs(Parts):  # as CLIP: every image with every text
        def forward(self, x, texts):
            h = self.d(self.e(self.first(x)))
            return {"per_image": h @ texts.T, "loss": h.mean(), "note": "cosine"}

    edges, graph = torch.randint(0, 4, (2, 9)), torch.tensor([0, 0, 1, 1])
    net = couple(over(Graph(), example=(X, edges, graph)))
    separate = [net(X, edges, graph, task_ids=torch.full((4,), task)) for task in range(3)]
    torch.testing.assert_close(net.all_tasks(X, edges, graph), torch.cat(separate))
    for texts in (torch.randn(4, 8), torch.randn(3, 8)):
        net = couple(over(Pairs(), example=(X, texts)))
        found = net.all_tasks(X, texts)
        separate = [net(X, texts, task_ids=torch.full((4,), task)) for task in range(3)]
        torch.testing.assert_close(found["per_image"], torch.cat([one["per_image"] for one in separate]))
        torch.testing.assert_close(found["loss"], torch.stack([one["loss"] for one in separate]))
        assert found["note"] == "cosine"


# Inputs in dimension 1 between the layers, and in dimension 0 behind the pooling: also where there are as many as outputs.
@pytest.mark.parametrize("inputs", [3, 5])
def test_all_tasks_of_sequences_that_are_pooled(inputs):
    class Steps(Parts):
        def forward(self, x):
            return super().forward(x).mean(0)

    x = torch.randn(7, inputs, 6)
    net = couple(over(Steps(), example=x, batch_dim=1))
    separate = torch.cat([net(x, task_ids=torch.full((inputs,), task)) for task in range(3)])
    torch.testing.assert_close(net.all_tasks(x), separate)
    assert torch.equal(net.all_tasks(x, mode="base"), net.model(x).repeat(3, 1))


def test_a_graph_breaks_with_the_reason():
    net = couple(over(Parts(), example=X))
    net.store_task_gains([(X, TASKS)])
    with pytest.raises(Exception, match="comodulate changes the outputs of a model's layers by hooks"):
        torch.compile(net, backend="eager", fullgraph=True)(X, TASKS)
    compiled = torch.compile(net, backend="eager")
    for tasks in (TASKS, TASKS.flip(0)):  # what was compiled for other tasks is not answered again
        assert torch.equal(compiled(X, tasks), net(X, tasks))


# ---- the Trainer of transformers --------------------------------------------------------------------------------------------


def test_whether_the_model_takes_further_keywords():
    """The Trainer adds the number of labels to a call, if the signature says that the model takes it: ours takes anything."""

    class Open(Parts):
        def forward(self, x, step=None, **rest):
            return super().forward(x, step)

    assert not over(Parts()).accepts_loss_kwargs
    assert over(Open()).accepts_loss_kwargs
    refusing = Open()
    refusing.accepts_loss_kwargs = False
    assert not over(refusing).accepts_loss_kwargs
