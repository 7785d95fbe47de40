"""What a cell is trained and tested on, and what the same network is in another readout."""

from types import SimpleNamespace

import pytest
import torch

from comodulation.files import write_json
from comodulation.networks.methods import METHODS, Attention
from comodulation.processes import Resources
from comodulation.studies.cells import CELLS, engine, measure_everything
from comodulation.studies.cells.clock import Budget
from comodulation.studies.cells.folder import cell_path, diverged_path
from comodulation.studies.cells.laboratory import Laboratory, few_per_task
from comodulation.studies.cells.material import read_material
from comodulation.studies.cells.results import read_gains, read_scores
from comodulation.studies.cells.rows import Cell, Row
from comodulation.tasks import Examples
from support.small_study import small_study


@pytest.fixture(scope="module")
def laboratory():
    small = small_study()
    return Laboratory(read_material(small.study.name, small.study.config, small.cache))


def scores_of(variant, readout, label, seed=0):
    small = small_study()
    return read_scores(small.out / CELLS, small.cell(variant, readout, label, seed))


@pytest.mark.parametrize("variant", ["residual", "base"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_class_mask_is_the_restricted_readout_of_the_base(variant, seed):
    """To the bit, in every score of every prediction."""
    mask, base = scores_of(variant, "open", "class-mask", seed), scores_of(variant, "restricted", "base", seed)
    assert mask.keys() == base.keys()
    for name, score in mask.items():
        assert (score == base[name]).all(), name


@pytest.mark.parametrize("name", ["attention", "ia3", "film", "decoder-gains", "comodulation"])
def test_with_the_class_mask_a_method_is_what_it_is_in_the_restricted_readout(name, laboratory, monkeypatch):
    """Open logits, masked by hand before training and evaluation: the same parameters and the same probabilities, to the bit."""
    kind = METHODS[name]

    class Masked(kind):
        def head_logits(self, inputs, task_ids, sample_ids, step):
            logits = super().head_logits(inputs, task_ids, sample_ids, step)
            allowed = torch.zeros(self.family.num_tasks, self.family.num_outputs, dtype=torch.bool)
            for task, members in enumerate(self.family.members):
                allowed[task, list(members)] = True
            return logits.masked_fill(~allowed[task_ids], -torch.inf)

    settings = {"learning_rate": 0.1}
    session, restricted = laboratory.adapt(Cell("residual", "restricted", Row(name), 0), settings)
    monkeypatch.setitem(METHODS, name, Masked)
    _, masked = laboratory.adapt(Cell("residual", "open", Row(name), 0), settings)
    assert torch.equal(masked.validation.log_probabilities, restricted.validation.log_probabilities)
    histories = [[{**epoch, "seconds": 0} for epoch in adapted.history] for adapted in (masked, restricted)]
    assert histories[0] == histories[1]
    assert restricted.method.learnable()
    for a, b in zip(masked.method.learnable(), restricted.method.learnable(), strict=True):
        assert torch.equal(a, b)
        assert bool((a != 0).any())  # it did learn
    monkeypatch.undo()
    _, open_one = laboratory.adapt(Cell("residual", "open", Row(name), 0), settings)
    assert not torch.equal(open_one.validation.log_probabilities, restricted.validation.log_probabilities)
    assert session is laboratory.session("residual", 0)


def test_a_cell_is_the_same_each_time(laboratory, tmp_path):
    """Trained again in another laboratory: the same files to the bit, but for the seconds."""
    small = small_study()
    result = small.cell("residual", "open", "comodulation", 1)
    measure_everything(laboratory, result.cell, result.numbers["settings"], tmp_path)
    for kind in ("scores", "gains"):
        name = f"{result.cell.key}.{kind}.safetensors"
        assert (tmp_path / name).read_bytes() == (small.out / CELLS / name).read_bytes()


def test_gains_that_are_stored():
    """One a task and neuron, positive; comodulation's coupling is what its encoder gain says."""
    small = small_study()
    shapes = {
        "attention": {"encoder"},
        "ia3": {"encoder", "decoder"},
        "decoder-gains": {"decoder"},
        "comodulation": {"encoder", "decoder", "coupling"},
        "comodulation link=rectified": {"encoder", "decoder", "coupling"},
    }
    for label, places in shapes.items():
        gains = read_gains(small.out / CELLS, small.cell("residual", "open", label))
        assert places - set(gains) <= {"decoder"} & places if label == "ia3" else set(gains) == places
        assert all(value.shape == (3, 16) for value in gains.values())
        assert all(
            (gains[place] > 0).all() for place in ("encoder", "decoder") if place in gains and "rect" not in label
        )
    assert read_gains(small.out / CELLS, small.cell("residual", "open", "base")) == {}


def test_few_images():
    """At most so many of each task, each row once, others with another seed."""
    task = torch.arange(100) % 3
    examples = Examples(torch.arange(100), task, task)
    rows = few_per_task(examples, 5, 0)
    assert torch.equal(rows, rows.unique())
    assert task[rows].bincount().tolist() == [5, 5, 5]
    assert torch.equal(rows, few_per_task(examples, 5, 0))
    assert not torch.equal(rows, few_per_task(examples, 5, 1))
    assert len(few_per_task(examples, 1000, 0)) == 100


def test_what_rows_are_trained_on(laboratory):
    """The family's half; fewer images of it; scenes of it. Validation and test images stay what they are."""
    session = laboratory.session("residual", 0)
    plain, few, scenes = (
        laboratory.training_data(session, Cell("residual", "open", Row.parse(label), 0))
        for label in ("attention", "attention images=5", "attention distractors=1")
    )
    assert torch.equal(plain.tuning.image, session.parts.tuning)
    assert few.tuning.task.bincount().tolist() == [5, 5, 5]
    assert set(few.tuning.image.tolist()) < set(plain.tuning.image.tolist())
    assert torch.equal(few.validation.image, plain.validation.image)
    assert len(scenes.tuning) == len(plain.tuning)
    assert torch.equal(scenes.tuning.target, plain.tuning.target)
    members = scenes.features.members
    assert set(members[scenes.tuning.image].flatten().tolist()) <= set(plain.tuning.image.tolist())
    assert set(members[scenes.validation.image].flatten().tolist()) <= set(plain.validation.image.tolist())
    features, examples = laboratory.test_data(session, Cell("residual", "open", Row.parse("base distractors=1"), 0))
    assert features.members.shape == (40, 2)
    assert torch.equal(examples.target, session.test_examples.target)


def test_rows_of_a_regime_see_the_same_data(laboratory):
    """All methods the same few images and the same scenes, so that they can be paired."""
    session = laboratory.session("residual", 0)
    for mark in ("images=5", "distractors=1"):
        first, second = (
            laboratory.training_data(session, Cell("residual", "open", Row.parse(f"{name} {mark}"), 0))
            for name in ("attention", "comodulation")
        )
        assert torch.equal(first.tuning.image, second.tuning.image)
        assert first.features.key == second.features.key


def test_attention_is_among_the_methods():
    assert METHODS["attention"] is Attention  # the test above put it back


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (1, "cuda")])
def test_nodes_with_gpus_extract_by_an_engine_that_computes_on_them(gpus, device, laboratory, monkeypatch, tmp_path):
    """Not by what would be faster on this machine, which may have none: ONNX Runtime computes on CPUs only."""
    asked, sent = [], []
    monkeypatch.setattr(engine, "settled_engine", lambda *given, device, **more: asked.append(device) or "torch")
    monkeypatch.setattr(engine, "extract_in_pieces", lambda engines, *given: sent.append(engines))
    study = small_study().study
    engine._extract_together(study, laboratory, tmp_path, tmp_path, Resources(gpus=gpus), laboratory.tell)
    assert set(asked) == {device}
    assert sent == [dict.fromkeys(laboratory.material.labelled, "torch")]


def test_a_piece_that_begins_again_goes_on_after_the_cells_that_are_there(tmp_path):
    """As where the node that trained the first two is lost: neither is trained twice."""
    cells = [Cell("residual", "open", Row(name), 0) for name in ("base", "attention", "ia3")]
    (tmp_path / CELLS).mkdir()
    write_json(cell_path(tmp_path, cells[0]), {"accuracy": 0.5})
    diverged_path(tmp_path, cells[1]).write_text("the training loss became nan\n")
    study = SimpleNamespace(
        laboratory=lambda cache, engine: None,
        settings=lambda laboratory, cell, out: {},
        measure=lambda laboratory, cell, settings, out: dict.fromkeys(("accuracy", "nll", "ece"), 0.25),
    )
    work = engine._Worker(study, tmp_path, tmp_path, "torch", Budget(None))
    assert [(cell, numbers) for cell, numbers, _ in work(("cells", cells))] == [(cells[2], (0.25,) * 3)]
