"""Exported graphs give what the networks give, for other batches than they were made with."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from comodulation import ComodulatedHead, InputError, RunError, TaskFamily, comodulate
from comodulation.data import decode_image
from comodulation.networks.methods import METHODS, make_method
from comodulation.runs.export import Answers, TaskAnswers, export_onnx, export_program
from comodulation.runs.run import Run
from support import command, networks
from support.networks import couple
from support.synthetic import picture

pytestmark = pytest.mark.usefixtures("quick_onnx")

TASKS = torch.tensor([0, 1, 2])
OTHER_TASKS = torch.tensor([2, 2, 0, 1, 1])


class Pooled(nn.Module):
    """A backbone: uint8 images to a 2x2 map of features."""

    kept, input_names, open_dimensions, longest = torch.float16, ("images",), 1, 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 3, stride=2)

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(self.layer(images / 255.0).relu(), 2)


def pictures(number, seed=0):
    return torch.randint(0, 256, (number, 3, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


FAMILIES = {
    "classes": TaskFamily("classes", ("a", "b", "c"), tuple("123456"), ((0, 1), (2, 3), (4, 5))),
    "binary": TaskFamily.from_attributes(("a", "b", "c")),
}


def network(method="comodulation", kind="classes", readout="open", **options):
    torch.manual_seed(0)
    family = FAMILIES[kind]
    head = ComodulatedHead(
        6, family.num_outputs, 3, encoder_channels=8, decoder_channels=7, hidden=9, **options
    )  # fmt: skip
    made = make_method(method, head, family, readout)
    with torch.no_grad():
        for parameter in made.learnable():
            parameter.add_(0.4 * torch.randn_like(parameter))
    made.eval()
    features = Pooled()(pictures(6, 3))
    made.settle([(made.prepare(features), torch.tensor([0, 1, 2, 0, 1, 2]))])
    return Pooled().eval(), made


def answers_by_hand(backbone, method, images, tasks):
    return method.log_probabilities(method.prepare(backbone(images).half().float()), tasks).exp()


def run_onnx(path, *inputs):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    return torch.from_numpy(session.run(None, {n: np.asarray(v) for n, v in zip(names, inputs, strict=True)})[0])


SETTINGS = [
    {},  # stored gains, a table in the graph
    {"level": "input", "estimator": "quadrature"},
    {"level": "input", "estimator": "derivative", "link": "rectified", "kind": "binary"},
    {"method": "attention"},
    {"method": "class-mask"},
    {"method": "film", "readout": "restricted"},
    {"method": "ia3", "kind": "binary"},
]


# Of every kind of graph, in both formats. Ids that stand for no task, -1 ("missing") among them, give nan in their rows alone.
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_run_as_program_and_onnx(settings, tmp_path):
    backbone, method = network(**settings)
    whole = Answers(backbone, method)
    images = pictures(5, 1)
    made = export_program(whole, (pictures(3), TASKS))
    export_onnx(made, (pictures(3), TASKS), tmp_path / "run.onnx")
    program = made.module()
    expected = answers_by_hand(backbone, method, images, OTHER_TASKS)
    torch.testing.assert_close(program(images, OTHER_TASKS), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(run_onnx(tmp_path / "run.onnx", images, OTHER_TASKS), expected, rtol=0, atol=1e-4)
    wrong, right = torch.tensor([-1, 0, 3, 2, -7]), torch.tensor([0, 0, 2, 2, 0])
    rows = wrong == right
    expected = answers_by_hand(backbone, method, images, right)
    for found in (run_onnx(tmp_path / "run.onnx", images, wrong), program(images, wrong), whole(images, wrong)):
        assert bool(found[~rows].isnan().all())
        torch.testing.assert_close(found[rows], expected[rows], rtol=0, atol=1e-4)


# With one task folded in, images alone go in; one image, too, though it was made with three.
def test_a_task_folded_in(tmp_path):
    backbone, method = network()
    one = Answers(backbone, method, task=1)
    export_onnx(one, (pictures(3),), tmp_path / "task.onnx")
    for number in (1, 4):
        images = pictures(number, 2)
        expected = answers_by_hand(backbone, method, images, torch.full((number,), 1))
        torch.testing.assert_close(run_onnx(tmp_path / "task.onnx", images), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"level": "input", "estimator": "quadrature"}, marks=pytest.mark.slow)], ids=str
)
def test_any_network_as_program_and_onnx(options, tmp_path):
    torch.manual_seed(0)
    model = networks.settled(networks.Blocks())
    net = couple(comodulate(model, encoder="first", decoder="third", num_tasks=3, **options), 0.4)
    example, images = torch.randn(3, 3, 9, 9), torch.randn(5, 3, 9, 9)
    if not options:
        net.store_task_gains([(example, TASKS)])
    expected = net(images, OTHER_TASKS)
    made = export_program(net, (example, TASKS))
    export_onnx(made, (example, TASKS), tmp_path / "net.onnx")
    program = made.module()
    torch.testing.assert_close(program(images, OTHER_TASKS), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        run_onnx(tmp_path / "net.onnx", images, OTHER_TASKS), expected.detach(), rtol=0, atol=1e-4
    )
    wrong = torch.tensor([2, -1, 0, 3, 1])
    for found in (run_onnx(tmp_path / "net.onnx", images, wrong), program(images, wrong)):
        assert bool(found[[1, 3]].isnan().all())
        torch.testing.assert_close(found[[0, 2, 4]], expected[[0, 2, 4]].detach(), rtol=0, atol=1e-4)
    export_onnx(TaskAnswers(net, 2), (example,), tmp_path / "task.onnx")
    folded = net(images, torch.full((5,), 2)).detach()
    torch.testing.assert_close(run_onnx(tmp_path / "task.onnx", images), folded, rtol=0, atol=1e-4)
    assert networks.untouched(model)


def test_what_has_no_graph():
    backbone, method = network(encoder="stochastic")
    with pytest.raises(InputError, match="stochastic encoder"):
        Answers(backbone, method)
    model = networks.settled(networks.Blocks())
    net = comodulate(model, encoder="first", decoder="third", num_tasks=3)
    with pytest.raises(InputError, match="store_task_gains"):
        export_program(net, (torch.randn(3, 3, 9, 9), TASKS))
    with pytest.raises(InputError, match=r"task must be in \[0, 2\]"):
        TaskAnswers(net, 3)
    pooled = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    example = torch.randn(3, 3, 9, 9)
    for labels in ("positions", "both"):  # stored gains of channels do not help: labels are computed for each input
        placed = comodulate(pooled, encoder="1", decoder="3", num_tasks=3, labels=labels, example=example)
        if labels == "both":
            placed.store_task_gains([(example, torch.arange(3))])
        with pytest.raises(
            InputError, match=r"^labels of positions are computed for each input.*take estimator='quadrature'$"
        ):
            export_program(placed.eval(), (example, TASKS))

    class Branching(nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(RunError, match="cannot be exported"):
        export_program(Branching(), (torch.randn(3, 2),))


# The head compiles to one graph; around a network of one's own the graph may break where hooks are set. The answer stays.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("name", ["comodulation", "attention", "ia3", "film", "positions"])
def test_compiled_heads(name):
    assert name in METHODS
    backbone, method = network(name)
    encoded = method.prepare(backbone(pictures(5, 1)))
    compiled = torch.compile(method, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(encoded, OTHER_TASKS), method(encoded, OTHER_TASKS), rtol=1e-5, atol=1e-6)


# Statistics leave autocast inside the graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_heads_under_autocast():
    backbone, method = network(level="input")
    encoded = method.prepare(backbone(pictures(5, 1)))
    compiled = torch.compile(method, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(encoded, OTHER_TASKS), method(encoded, OTHER_TASKS), rtol=1e-2, atol=1e-2)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("stored", [True, False])
def test_compiled_networks(stored):
    torch.manual_seed(0)
    net = couple(comodulate(networks.settled(networks.Blocks()), encoder="first", decoder="third", num_tasks=3), 0.4)
    images = torch.randn(5, 3, 9, 9)
    if stored:
        net.store_task_gains([(images[:3], TASKS)])
    compiled = torch.compile(net, backend="aot_eager")
    torch.testing.assert_close(compiled(images, OTHER_TASKS), net(images, OTHER_TASKS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("settings", [{}, {"level": "input", "estimator": "quadrature"}], ids=str)
def test_half_precision_stays_close(dtype, settings):
    backbone, method = network(**settings)
    whole = Answers(backbone, method)
    images = pictures(5, 1)
    with torch.autocast("cpu", dtype):
        half = whole(images, OTHER_TASKS)
    torch.testing.assert_close(half.float(), whole(images, OTHER_TASKS), rtol=0, atol=0.02)


# The verb on a run folder: the file answers what predict answers, and says what its columns are.
def test_the_verb(run, tmp_path):
    onnx = pytest.importorskip("onnx")
    outcome = command.comodulate("export", run, "--out", tmp_path / "run.onnx", "--json")
    assert outcome.status == 0, outcome.err
    about = json.loads(outcome.out)
    kept = {each.key: json.loads(each.value) for each in onnx.load(tmp_path / "run.onnx").metadata_props}
    keys = ("tasks", "answers", "outputs", "image_size", "task", "temperature", "preprocessing", "decisions", "inputs")
    assert kept == {key: about[key] for key in keys}
    image = tmp_path / "yellow.png"
    picture("yellow", 77).save(image)
    opened = Run.open(run)
    assert kept["temperature"] == opened.temperature is not None
    assert kept["preprocessing"]["interpolation"] == opened.backbone.interpolation
    assert kept["preprocessing"]["crop_fraction"] == opened.backbone.crop_fraction
    for name, own in kept["outputs"].items():
        assert own["words"] == list(opened.family.answers(opened.family.task_id(name)))
        assert [kept["answers"][column] for column in own["columns"]] == own["words"]
    pixels = opened.backbone.preprocess(decode_image(image, "picture"))[None]
    for task in opened.family.tasks:
        expected = opened.predict([image], [task])[0]["tasks"][task]["probabilities"]
        given = run_onnx(tmp_path / "run.onnx", pixels, torch.tensor([opened.family.task_id(task)]))[0]
        for name, value in expected.items():
            assert float(given[about["answers"].index(name)]) == pytest.approx(value, abs=1e-4)
    one = opened.family.tasks[1]
    outcome = command.comodulate("export", run, "--out", tmp_path / "one.pt2", "--task", one)
    assert (outcome.status, outcome.err) == (0, "")
    program = torch.export.load(tmp_path / "one.pt2")
    torch.testing.assert_close(
        program.module()(pixels)[0], run_onnx(tmp_path / "run.onnx", pixels, torch.tensor([1]))[0], rtol=0, atol=1e-4
    )


def test_a_file_that_is_there_stays(run, tmp_path):
    (tmp_path / "run.onnx").write_text("precious")
    outcome = command.comodulate("export", run, "--out", tmp_path / "run.onnx")
    assert outcome.status == 2
    assert "is there already" in outcome.line
    assert (tmp_path / "run.onnx").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "run.bin"), "ends with .onnx or .pt2"),
        (("--out", "run.onnx", "--task", "treees"), "unknown task 'treees'"),
        (("--out", "no/such/folder/run.onnx"), "cannot write"),
    ],
)
def test_what_the_verb_refuses(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    outcome = command.comodulate("export", run, *arguments)
    assert outcome.status in (1, 2)
    assert message in outcome.line
    assert not list(tmp_path.iterdir())
