"""``auto`` takes a derivative only where it can be trained; attention and what else stands between the layers of transformers."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from comodulation import comodulate
from support import networks
from support.networks import couple

TASKS = torch.tensor([1, 0, 2, 1])
X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Through(nn.Module):
    """A function between encoder and decoder."""

    def __init__(self, function):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.act1 = nn.Linear(6, 8), nn.ReLU()
        self.between, self.act2, self.last = nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
        self.function = function

    def forward(self, x):
        h = self.function(self.between(self.act1(self.first(x))))
        return self.last(self.act2(h))


def attached(function, example=X, **options):
    net = comodulate(
        Through(function).double(), encoder="act1", decoder="act2", num_tasks=3, encoder_width=8, example=example, **options
    )  # fmt: skip
    return couple(net.double(), 0.5).train()


def check_gradients(net, answer, rel, size=1e-6):
    """Gradients in the controller against finite differences along a direction."""
    row = net.controller.embedding.weight
    step = torch.randn(row.shape, dtype=row.dtype, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad(answer(), row)
    values = []
    for way in (size, -size):
        with torch.no_grad():
            row.add_(way * step)
            values.append(answer().item())
            row.sub_(way * step)
    assert float((gradient * step).sum()) == pytest.approx((values[0] - values[1]) / (2 * size), rel=rel)


FUNCTIONS = {
    "softmax": lambda h: h.softmax(-1),
    "log_softmax": lambda h: -h.log_softmax(-1),
    "logsumexp": lambda h: h - h.logsumexp(-1, True),
    "logcumsumexp": lambda h: h.logcumsumexp(-1),
    "cross-entropy": lambda h: (
        h + nn.functional.cross_entropy(h, torch.zeros(len(h)).long(), reduction="none")[:, None]
    ),
    "glu": lambda h: nn.functional.glu(torch.cat([h, h], -1)),
    "hardsigmoid": nn.functional.hardsigmoid,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("example", [X, None], ids=["example", "first call"])
def test_the_derivative_is_trained_through(name, example):
    net = attached(FUNCTIONS[name], example)
    check_gradients(net, lambda: net(X, TASKS).square().sum(), 1e-5)
    assert net.modulation.estimator == "derivative"


# After the task gain the value depends on the couplings, and torch has no rule for its gradient here.
@pytest.mark.parametrize("name", ["logcumsumexp", "cross-entropy"])
def test_a_derivative_that_cannot_be_trained_is_not_taken(name):
    reason = r"by quadrature.*no forward-mode derivative \(none that can be trained: .*inplace"
    with pytest.warns(UserWarning, match=reason):
        net = attached(FUNCTIONS[name], after_gain=True)
    assert net.modulation.estimator == "quadrature"
    check_gradients(net, lambda: net(X, TASKS).square().sum(), 1e-5)
    with pytest.raises(RuntimeError, match=r"use estimator 'quadrature' \(none that can be trained"):
        attached(FUNCTIONS[name], after_gain=True, estimator="derivative")
    late = attached(FUNCTIONS[name], None, after_gain=True)
    with pytest.warns(UserWarning, match=reason):
        late(X, TASKS).sum().backward()


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "glu", "hardsigmoid"])
def test_after_the_task_gain(name):
    net = attached(FUNCTIONS[name], after_gain=True)
    assert net.modulation.estimator == "derivative"
    check_gradients(net, lambda: net(X, TASKS).square().sum(), 1e-5)


# Out of memory while the derivative is tried is no word on the layers.
def test_running_out_of_memory_is_not_a_missing_derivative():
    class Full(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def jvp(ctx, tangent):
            return Hungry.apply(tangent)

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    class Hungry(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        attached(Full.apply)


def text(name):
    """A small text encoder with attention that is written out, and the names of two of its layers."""
    transformers = pytest.importorskip("transformers")
    sizes = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 50,
        "max_position_embeddings": 20, "pad_token_id": 0,
    }  # fmt: skip
    eager = {"attn_implementation": "eager"}
    ends = {"bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
    kind, more = {
        "BERT": ("Bert", eager),
        "ModernBERT": ("ModernBert", eager | ends),
        "DeBERTa": ("DebertaV2", relative),
        "MPNet": ("MPNet", {}),
        "Gemma 2": ("Gemma2", eager | {"num_key_value_heads": 1, "head_dim": 8}),
    }[name]
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes, **more))
    where = "layers" if name in ("ModernBERT", "Gemma 2") else "encoder.layer"
    return model.double().eval(), f"{where}.0", f"{where}.1"


@pytest.mark.parametrize("name", ["BERT", "ModernBERT", "DeBERTa", "MPNet", "Gemma 2"])
def test_text_encoders_with_attention_written_out(name):
    model, encoder, decoder = text(name)
    words = torch.randint(3, 50, (4, 5), generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = comodulate(
            model, encoder=encoder, decoder=decoder, num_tasks=3, unrectified="layer_norm", example={"input_ids": words}
        )
    assert net.modulation.estimator == "derivative"
    couple(net.double(), 0.3).train()
    # Some of these compute in float32 in any case: a larger step, and a looser bound.
    answer = lambda: net(input_ids=words, task_ids=TASKS).last_hidden_state[..., ::2].square().sum()  # noqa: E731
    check_gradients(net, answer, 1e-2, size=1e-3)


SMALL = {"img_size": 64, "embed_dim": 24, "depth": 3, "num_heads": 2}
SWIN = {"img_size": 64, "embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
IMAGE_MODELS = {
    "swin_tiny_patch4_window7_224": (SWIN, "layers.2", "layers.3"),
    "cait_xxs24_224": (SMALL, "blocks.0", "blocks.2"),
    "xcit_nano_12_p16_224": (SMALL, "blocks.0", "blocks.2"),
    "levit_128s": ({}, "stages.1", "stages.2"),
    "mobilevitv2_050": ({}, "stages.3", "stages.4"),
    "vit_tiny_patch16_224": (SMALL, "blocks.0", "blocks.2"),
}


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_image_models_with_attention_written_out(name):
    timm = pytest.importorskip("timm")
    options, encoder, decoder = IMAGE_MODELS[name]
    torch.manual_seed(0)
    model = networks.settled(timm.create_model(name, pretrained=False, num_classes=3, **options)).double()
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    size = 224 if name == "levit_128s" else 64  # it takes no other
    images = torch.rand(4, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = comodulate(model, encoder=encoder, decoder=decoder, num_tasks=3, unrectified="layer_norm", example=images)
    assert net.modulation.estimator == "derivative"
    couple(net.double(), 0.3).train()
    check_gradients(net, lambda: net(images, TASKS).square().sum(), 1e-4, size=1e-5)
