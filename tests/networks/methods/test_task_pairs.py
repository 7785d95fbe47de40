"""All tasks of an image at once: the answers of one by one, one pass up to the encoder, and bounded memory."""

import pytest
import torch

from comodulation.data.features import Backbone
from comodulation.errors import InputError
from comodulation.networks.head import ComodulatedHead
from comodulation.networks.methods import task_pairs as module
from comodulation.networks.methods.registry import WITH_LAYERS, make_method
from comodulation.networks.methods.task_pairs import all_tasks, pairs_per_chunk, task_chunks
from comodulation.runs import Run
from comodulation.tasks import TaskFamily
from support.synthetic import picture

CLASSES = TaskFamily("classes", ("a", "b", "c"), tuple("tuvwxyz"), ((0, 1), (2, 3, 4), (5, 6)))
BINARY = TaskFamily.from_attributes(("p", "q", "r", "s"))
CASES = [
    (name, family)
    for name, method in WITH_LAYERS.items()
    for family in (CLASSES, BINARY)
    if family.kind in method.kinds
]
FEATURES = torch.randn(6, 5, 2, 2, generator=torch.Generator().manual_seed(2))
SAMPLES = torch.arange(6) + 100


def make(name, family, **options):
    torch.manual_seed(0)
    sizes = {"encoder_channels": 8, "decoder_channels": 9, "hidden": 16, **WITH_LAYERS[name].modulation}
    head = ComodulatedHead(5, family.num_outputs, family.num_tasks, **sizes, **options)
    method = make_method(name, head, family).eval()
    with torch.no_grad():
        for parameter in method.learnable():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    given = method.prepare(FEATURES).detach()
    method.settle([(given, torch.arange(6) % family.num_tasks)])
    return method


@pytest.mark.parametrize(("name", "family"), CASES)
@pytest.mark.parametrize("numbers", [module.CHUNK_NUMBERS, 100], ids=["one chunk", "many chunks"])
def test_all_at_once_is_one_by_one(name, family, numbers, monkeypatch):
    """For every method, whether one chunk holds all pairs or none holds a whole image's."""
    monkeypatch.setattr(module, "CHUNK_NUMBERS", numbers)
    method = make(name, family)
    together = all_tasks(method, FEATURES, sample_ids=SAMPLES)
    assert together.shape[:2] == (6, family.num_tasks)
    for image in range(6):
        for task in range(family.num_tasks):
            given = method.prepare(FEATURES[image : image + 1])
            alone = method.log_probabilities(given, torch.tensor([task]), SAMPLES[image : image + 1])[0]
            torch.testing.assert_close(together[image, task].exp(), alone.exp(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"encoder": "stochastic", "num_samples": 4}, {"level": "input"}, {"level": "input", "estimator": "monte_carlo"}],
)
def test_a_head_and_other_mechanisms(options):
    """Noise belongs to image and task; a head gives the logits of its own call."""
    method = make("comodulation", BINARY, **options)
    together = all_tasks(method.head, FEATURES, torch.tensor([2, 0]), sample_ids=SAMPLES)
    logs = all_tasks(method, FEATURES, torch.tensor([2, 0]), sample_ids=SAMPLES)
    for place, task in enumerate((2, 0)):
        tasks = torch.full((6,), task)
        alone = method.head(FEATURES, tasks, sample_ids=SAMPLES).detach()
        torch.testing.assert_close(together[:, place], alone)
        torch.testing.assert_close(logs[:, place], method.log_probabilities(method.prepare(FEATURES), tasks, SAMPLES))


@pytest.mark.parametrize(("name", "family"), CASES)
def test_the_encoder_runs_once_an_image(name, family, monkeypatch):
    """Also for methods that read the backbone's features, because they train the layers."""
    seen, own = [], ComodulatedHead.encode
    method = make(name, family)
    monkeypatch.setattr(ComodulatedHead, "encode", lambda head, x: seen.append(len(x)) or own(head, x))
    all_tasks(method, FEATURES, sample_ids=SAMPLES)
    assert seen == [6]


def test_ten_thousand_tasks_need_no_more_memory_than_ten(monkeypatch):
    """No decoder pass holds more numbers than a chunk may, and the answers are still those of one by one."""
    limit, largest, own = 20_000, [], ComodulatedHead.decode
    monkeypatch.setattr(module, "CHUNK_NUMBERS", limit)

    def decode(head, activity):
        largest.append(activity.numel())
        return own(head, activity)

    family = TaskFamily("classes", tuple(map(str, range(10_000))), tuple("tuvwxyz"), ((0, 1),) * 10_000)
    method = make("attention", family)
    monkeypatch.setattr(ComodulatedHead, "decode", decode)
    rows = 0
    for _, logs in task_chunks(method, FEATURES[:1]):
        rows += len(logs)
    assert rows == 10_000
    assert max(largest) <= limit
    assert len(largest) > 10
    last = all_tasks(method, FEATURES[:1], torch.tensor([9_999]))
    torch.testing.assert_close(logs[-1], last[0, 0])


def test_chunks_count_what_runs_at_once():
    """Modulator samples and quadrature nodes multiply a pair's share; a chunk holds one pair at least."""
    shared = torch.zeros(1, 8, 2, 2)

    def size(**options):
        return pairs_per_chunk(make("comodulation", BINARY, **options).head.eval(), shared)

    assert size() == module.CHUNK_NUMBERS // (9 * 4)
    assert size(estimator="quadrature", num_nodes=5) == module.CHUNK_NUMBERS // (5 * 9 * 4)
    assert size(encoder="stochastic", num_samples=16) == module.CHUNK_NUMBERS // (16 * 9 * 4)
    assert pairs_per_chunk(make("comodulation", BINARY).head, torch.zeros(1, 2**23, 2, 2)) == 1


def test_a_run_passes_each_image_through_the_backbone_once(run, tmp_path, monkeypatch):
    """Whatever the number of tasks; and the answers are those of each image and task alone."""
    photos = []
    for number, name in enumerate(("red", "blue", "dark")):
        picture(name, number).save(tmp_path / f"{name}.png")
        photos.append(tmp_path / f"{name}.png")
    opened, seen, own = Run.open(run), [], Backbone.forward
    _ = opened.method
    monkeypatch.setattr(Backbone, "forward", lambda backbone, images: seen.append(len(images)) or own(backbone, images))
    together = opened.predict(photos, [])
    assert seen == [3]
    for place, photo in enumerate(photos):
        assert list(together[place]["tasks"]) == list(opened.family.tasks)
        for task, answer in together[place]["tasks"].items():
            alone = opened.predict([photo], [task])[0]["tasks"][task]
            assert alone["prediction"] == answer["prediction"]
            assert alone["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)


def test_bad_questions():
    method = make("attention", BINARY)
    with pytest.raises(InputError, match=r"tasks must be integers \(n,\), at least one, got torch\.float32 \(2,\)"):
        all_tasks(method, FEATURES, torch.rand(2))
    with pytest.raises(InputError, match="at least one"):
        all_tasks(method, FEATURES, torch.zeros(0, dtype=torch.int64))
    with pytest.raises(InputError, match=r"sample_ids must be \(6,\), one per input, got \(2,\)"):
        all_tasks(method, FEATURES, sample_ids=torch.arange(2))
    with pytest.raises(IndexError, match=r"task_ids must be in \[0, 3\], got 4"):
        all_tasks(method, FEATURES, torch.tensor([4]))
    assert all_tasks(method, FEATURES[:0]).shape == (0, 4, 2)
