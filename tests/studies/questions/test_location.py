"""Where a task acts: kinds of neuron, what gains of channels cannot know, the study's network, and its verdicts."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from comodulation import comodulate, decoder_gains
from comodulation.data.features import BackboneSettings
from comodulation.errors import InputError
from comodulation.studies.cells import Cell, Inquiry, Row, judged, on_common_seeds, study_config
from comodulation.studies.questions.location import (
    Condition,
    LocationNetwork,
    Measured,
    arranged,
    augmented,
    frames_of,
    frozen,
    label_quality,
    modulated,
    stages,
)
from comodulation.studies.questions.location import answer as judging
from comodulation.studies.questions.location import laboratory as laboratories
from comodulation.studies.questions.registry import QUESTIONS
from support.command import comodulate as command

SHORT = ["--seeds", "2", "--epochs", "1", "--pretraining-epochs", "1", "--devices", "1"]


# ---- neurons of comodulate --------------------------------------------------------------------------------------------


def small_maps():
    """Encoder, decoder and readout of maps, with positive activity."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(80, 5)
    )  # fmt: skip
    return layers, torch.rand(6, 2, 4, 5)


def coupled(net, scale=0.5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    weight = net.controller.embedding.weight
    with torch.no_grad():
        weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return net


def test_each_position_is_a_neuron():
    """The pure functions on flattened maps are the oracle: gains, and the answer with both gains."""
    model, images = small_maps()
    net = comodulate(model, encoder="1", decoder="3", num_tasks=2, example=images, neurons="position", std=0.4)
    assert (net.controller.num_channels, net.decoder_site.width) == (3 * 20, 4 * 20)
    tasks = torch.tensor([0, 1, 1, 0, 1, 0])
    u = coupled(net).controller(tasks)
    activity = model[:2](images)
    gains = decoder_gains(
        lambda h: model[2:4](h.unflatten(1, (3, 4, 5))).flatten(1), activity.flatten(1), u, 0.4, estimator="derivative",
        link="exponential",
    )  # fmt: skip
    decoded = model[2:4](activity * u.exp().reshape(6, 3, 4, 5)) * gains.reshape(6, 4, 4, 5)
    assert torch.allclose(net.eval()(images, tasks), model[4:](decoded), atol=1e-5)
    assert torch.equal(net(images, tasks, mode="base"), model(images))


def test_positions_that_share_a_gain_are_a_channel():
    """Encoder gains equal over positions are those of channels."""
    model, images = small_maps()
    nets = [
        comodulate(model, encoder="1", decoder="3", num_tasks=2, example=images, neurons=kind)
        for kind in ("channel", "position")
    ]
    channel = coupled(nets[0]).controller.embedding.weight
    with torch.no_grad():
        nets[1].controller.embedding.weight.copy_(channel[:, :, None].expand(2, 3, 20).flatten(1))
    tasks = torch.tensor([0, 1, 1, 0, 1, 0])
    both = [net(images, tasks, mode="attention") for net in nets]
    assert torch.allclose(*both, atol=1e-6)


@pytest.mark.parametrize("batch_dim", [0, 1])
def test_positions_wherever_the_inputs_are(batch_dim):
    """Inputs in another dimension: the same numbers, turned."""

    class Turned(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x.movedim(batch_dim, 0)).movedim(0, batch_dim)

    model, images = small_maps()
    turned = nn.Sequential(nn.Identity(), Turned(model[2:4]), nn.ReLU())
    activity = model[:2](images)
    tasks = torch.tensor([0, 1, 1, 0, 1, 0])
    net = comodulate(
        turned, encoder="0", decoder="1", num_tasks=2, example=activity.movedim(0, batch_dim), neurons="position",
        batch_dim=batch_dim,
    )  # fmt: skip
    plain = comodulate(
        nn.Sequential(nn.Identity(), model[2:4]),
        encoder="0",
        decoder="1",
        num_tasks=2,
        example=activity,
        neurons="position",
    )
    found = coupled(net)(activity.movedim(0, batch_dim), task_ids=tasks).movedim(batch_dim, 0)
    assert torch.allclose(found, coupled(plain)(activity, task_ids=tasks), atol=1e-6)


def test_maps_of_another_size_are_refused():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    net = comodulate(model, encoder="1", decoder="3", num_tasks=2, example=torch.rand(1, 2, 4, 5), neurons="position")
    with pytest.raises(InputError, match=r"expected 60 neurons.*has 48 an input"):
        net(torch.rand(1, 2, 4, 4), torch.tensor([0]))
    with pytest.raises(InputError, match="did you mean 'position'"):
        comodulate(model, encoder="1", decoder="3", num_tasks=2, neurons="positon")
    with pytest.raises(InputError, match="pass example="):
        comodulate(model, encoder="1", decoder="3", num_tasks=2, neurons="position")
    channel = comodulate(model, encoder="1", decoder="3", num_tasks=2, example=torch.rand(1, 2, 4, 5))
    assert channel.adapter_identity().keys() < net.adapter_identity().keys()  # neither's adapter is the other's


# ---- the network ------------------------------------------------------------------------------------------------------


def network(seed=0, classes=6, widths=(4, 6, 8, 10)):
    """A network whose normalisation has seen something."""
    torch.manual_seed(seed)
    net = LocationNetwork(classes, widths)
    for _ in range(3):
        net(torch.randint(256, (16, 3, 16, 16), dtype=torch.uint8))
    return net.eval()


def test_folding_normalisation_changes_no_answer():
    net, pixels = network(), torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8)
    found = frozen(net)
    assert torch.allclose(found(pixels), net(pixels), atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.modules())
    assert not any(parameter.requires_grad for parameter in found.parameters())


@pytest.mark.parametrize("location", [1, 2, 3])
@pytest.mark.parametrize("neurons", ["channel", "position"])
def test_the_rest_of_the_network_runs_on(location, neurons):
    """Encoder activity of a canvas, then the rest: the network itself."""
    net, pixels = frozen(network()), torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    activity = net.upto(pixels, location)
    found = modulated(net, location, neurons, False, 4, activity)
    assert torch.allclose(found(activity, task_ids=torch.tensor([0, 1, 2])), net(pixels), atol=1e-5)


@pytest.mark.parametrize("by_moment", [False, True])
def test_frames_pass_one_by_one_and_meet_in_the_mean(by_moment):
    """A sequence's answer is that of the mean over frames of each frame's own pooled activity."""
    net, pixels = frozen(network()), torch.randint(256, (3, 4, 3, 16, 16), dtype=torch.uint8)
    activity = net.upto(pixels.flatten(0, 1), 2)
    sequence = arranged(activity, 4, by_moment)
    assert torch.equal(frames_of(sequence, 4, by_moment), activity)
    found = modulated(net, 2, "moment" if by_moment else "channel", True, 4, sequence)
    pooled = net.upto(pixels.flatten(0, 1), 4).mean((2, 3)).unflatten(0, (3, 4)).mean(1)
    answer = found(sequence, task_ids=torch.tensor([0, 1, 2]))
    assert torch.allclose(answer, net.classifier(pooled), atol=1e-5)


@pytest.mark.parametrize("mode", ["attention", "comodulation"])
def test_channels_cannot_tell_moments_apart(mode):
    """Whatever the couplings, the order of the frames leaves the answer; with a neuron for each moment it does not."""
    net, pixels = frozen(network()), torch.randint(256, (3, 4, 3, 16, 16), dtype=torch.uint8)
    order, tasks = torch.tensor([2, 0, 3, 1]), torch.tensor([0, 1, 2])
    for neurons, same in (("channel", True), ("moment", False)):
        by_moment = neurons == "moment"
        a, b = (arranged(net.upto(p.flatten(0, 1), 2), 4, by_moment) for p in (pixels, pixels[:, order]))
        found = coupled(modulated(net, 2, neurons, True, 4, a), scale=1.0).eval()
        answers = [found(activity, task_ids=tasks, mode=mode) for activity in (a, b)]
        assert torch.allclose(*answers, atol=1e-5) == same
        assert not torch.allclose(answers[0], found(a, task_ids=tasks, mode="base"), atol=1e-3)


@pytest.mark.parametrize("mode", ["attention", "comodulation"])
def test_channels_cannot_tell_places_apart(mode):
    """Without borders a canvas with its images exchanged is the same canvas, moved: only neurons with a place see it."""
    net, pixels = frozen(network()), torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
    tasks = torch.tensor([0, 1, 2])
    for neurons, same in (("channel", True), ("position", False)):
        a, b = (net.upto(p, 1) for p in (pixels, pixels.roll((16, 16), (2, 3))))
        found = coupled(modulated(net, 1, neurons, False, 4, a), scale=1.0).eval()
        answers = [found(activity, task_ids=tasks, mode=mode) for activity in (a, b)]
        assert torch.allclose(*answers, atol=1e-4) == same


def test_augmented_images_are_moved_and_mirrored():
    """Every image is a window of itself or its mirror image, by at most an eighth of its side; all of them occur."""
    pixels = torch.randint(1, 256, (200, 3, 8, 8), dtype=torch.uint8)
    pixels[:] = pixels[0]
    windows = {}
    for mirrored in (False, True):
        padded = nn.functional.pad(pixels[0].flip(-1) if mirrored else pixels[0], (1, 1, 1, 1))
        for y in range(3):
            for x in range(3):
                windows[padded[:, y : y + 8, x : x + 8].numpy().tobytes()] = (mirrored, y, x)
    found = augmented(pixels, torch.Generator().manual_seed(0))
    assert {windows[image.contiguous().numpy().tobytes()] for image in found} == set(windows.values())


# ---- the laboratory ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """Few canvases, by which no test can tell much, but quickly."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, number in {"TUNED": 512, "DRAWN": 512, "VALIDATED": 64, "TESTED": 512, "MEASURED": 64}.items():
            monkeypatch.setattr(laboratories, name, number)
        monkeypatch.setattr(laboratories, "WIDTHS", (8, 12, 16, 24))
        own = LocationNetwork.__init__
        monkeypatch.setattr(
            LocationNetwork, "__init__", lambda net, classes, widths=(8, 12, 16, 24): own(net, classes, widths)
        )
        yield


@pytest.fixture(scope="module")
def laboratory(small, tmp_path_factory):
    config = study_config("cifar100", "digits", pretraining={"epochs": 12}, tuning={"epochs": 4})
    return laboratories.make_laboratory(Inquiry("location", config, (0, 1), 0), tmp_path_factory.mktemp("cache"))


def cell(kind, label, seed=0):
    return Cell(kind, "open", Row.parse(label), seed)


def test_images_never_cross_the_halves(laboratory):
    """Canvases to learn from, to validate and to test on share no image, and none with what the network was pretrained on."""
    found, parts = laboratory.encoded(0, False, 3), laboratory.parts(0)
    own = {name: set(found[name].canvases.members.flatten().tolist()) for name in ("tuning", "validation")}
    primary = {*parts.pretraining.tolist(), *parts.pretraining_validation.tolist()}
    assert not own["tuning"] & own["validation"]
    assert not primary & (own["tuning"] | own["validation"])
    assert torch.equal(found["test"].canvases.members, laboratory.encoded(0, True, 3)["test"].canvases.members)


def test_a_pretrained_network_is_kept(laboratory):
    """From the cache the same network, bit for bit; what is damaged is trained again to the same bits."""
    before = laboratory.network(0).state_dict()
    again = laboratories.LocationLaboratory(laboratory.material)
    (path,) = (p for p in (laboratory.material.cache / "networks").glob("*.safetensors") if p.stat().st_size)
    for damage in (False, True):
        if damage:
            path.write_bytes(path.read_bytes()[:-10])
        again._networks.clear()
        after = again.network(0).state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("location", "least"), [(1, 0.65), (3, 0.55)])  # later stages mix neighbours
def test_the_quality_of_labels(laboratory, location, least):
    """Gains of the place asked for label its neurons; those of another place label others, equal ones none."""
    own = cell("spatial", f"comodulation location={location} neurons=position")
    net = laboratory.net(own, laboratory.encoded(0, False, location)["test"].activity)
    width = net.decoder_site.width
    net.task_gains = torch.ones(4, width)
    assert label_quality(laboratory, own, net) == {"encoder_auc": 0.5, "auc": 0.5}
    side = round((width / (12, 16, 24)[location - 1]) ** 0.5)
    quadrant = torch.arange(side) >= side // 2
    place = 2 * quadrant[:, None] + quadrant[None, :]
    net.task_gains = torch.stack(
        [(place == k).float().expand(width // side**2, side, side).flatten() for k in range(4)]
    )
    assert label_quality(laboratory, own, net)["auc"] > least
    net.task_gains = net.task_gains.roll(1, 0)  # of another task
    assert label_quality(laboratory, own, net)["auc"] < 0.5


def test_training_learns_places_by_position_alone(laboratory):
    """With a neuron for each channel and position the task is learned; with channels no more than a quarter is reached."""
    settings = {"learning_rate": 0.3, "weight_decay": 0.0}
    found = {}
    for neurons in ("position", "channel"):
        own = cell("spatial", f"attention location=1 neurons={neurons}")
        _, trained = laboratory.adapt(own, settings)
        tested = laboratory.answer(own, trained.net, "test")
        found[neurons] = float((tested.log_probabilities.argmax(1) == tested.target).double().mean())
    assert found["position"] > found["channel"] + 0.1
    assert found["channel"] < 0.25 + 4 * (0.25 * 0.75 / 512) ** 0.5  # a quarter, and four standard errors


def test_other_networks_and_data_are_refused(tmp_path):
    config = study_config("cifar100", "digits", backbone=BackboneSettings("test_resnet", "random", 32))
    with pytest.raises(InputError, match="pretrains a network of its own: leave out --backbone"):
        laboratories.make_laboratory(Inquiry("location", config, (0, 1), 0), tmp_path)


# ---- the study --------------------------------------------------------------------------------------------------------


def test_a_study_of_location_from_data_to_verdict(small, tmp_path, monkeypatch):
    """Verdicts, table and figures there, no other network loaded; time that is over leaves cells out, and the next call goes on."""
    monkeypatch.setattr(BackboneSettings, "encoder", lambda *given: pytest.fail("a backbone was loaded"))
    whole = QUESTIONS["location"]

    def few(seeds):
        first = whole.stages(seeds)[0]
        kept = tuple(c for c in first.cells if c.variant != "temporal" and c.row.get("location") != 2)
        return [replace(first, cells=kept)]

    monkeypatch.setitem(QUESTIONS, "location", replace(whole, stages=few))
    out, words = tmp_path / "study", ["study", "location", "--data", "digits", "--cache", tmp_path / "cache", *SHORT]
    outcome = command(*words, "--out", out, "--hours", "0", "--trials", "1")
    assert (outcome.status, "no finished cell, of 20" in outcome.err.splitlines()[-1]) == (2, True)
    outcome = command(*words, "--out", out, "--json", "--trials", "1")
    assert outcome.status == 0, outcome.err
    assert outcome.json["left_out"] == 0
    assert "--backbone" not in outcome.json["command"]
    assert {verdict["claim"] for verdict in outcome.json["verdicts"]} >= {"Location", "Best, category", "Labels"}
    rows = list(csv.DictReader(io.StringIO((out / "cells.csv").read_text())))
    assert len(rows) == 20
    assert {row["variant"] for row in rows} == {"category", "spatial"}
    ours = [row for row in rows if row["method"] == "comodulation"]
    assert all(0 <= float(row["auc"]) <= 1 and 0 <= float(row["encoder_auc"]) <= 1 for row in ours)
    # Four tasks of 8 channels at 16 x 16 positions; five of 8 channels.
    numbers = {(row["variant"], row["options"][:10]): int(row["learnable_parameters"]) for row in ours}
    assert numbers["spatial", "location=1"] == 4 * 8 * 16 * 16
    assert numbers["category", "location=1"] == 5 * 8
    assert (out / "figures" / "locations.svg").exists()
    assert "four stages" in (out / "report.html").read_text()


def test_the_order_of_worth():
    """What the first two seeds have is balanced: every condition with both methods and no task; no cell twice."""
    found = stages((3, 4, 5))
    cells = [c for stage in found for c in stage.cells]
    assert len(set(cells)) == len(cells) == 3 * 33
    table = {}
    for c in found[0].cells:
        table.setdefault((c.variant, c.row.label), set()).add(c.seed)
    assert set(map(frozenset, table.values())) == {frozenset({3, 4})}
    first = {(c.variant, c.row.get("neurons")) for c in found[0].cells if c.row.method != "base"}
    assert first == {("category", "channel"), ("spatial", "position"), ("temporal", "moment")}
    assert {c.row.get("neurons") for c in found[-1].cells} == {"channel"}
    assert [len(stage.cells) for stage in stages((3, 4))] == [42, 24]


def measured(kind, location, accuracy, neurons=None, auc=0.5, base=0.2, spread=0.002):
    noise = spread * np.array([-1.0, 0.3, 0.7]) * (1 + 0.02 * location * len(kind))
    ours = (accuracy + noise).tolist()
    return Measured(
        Condition(kind, neurons or judging.OWN[kind], location), (0, 1, 2), [base] * 3, [0.5] * 3, [a - 0.01 for a in ours],
        ours, [-0.01] * 3, [0.0] * 3, {"auc": auc, "encoder_auc": 0.5},
    )  # fmt: skip


def said(finding):
    return judged([finding])[0]


def test_verdicts_on_location():
    """Categories late and places early; and no difference at all."""
    late = [measured("category", k, 0.2 + 0.05 * k, auc=0.5 + 0.1 * k) for k in (1, 2, 3)]
    early = [measured("spatial", k, 0.5 - 0.05 * k, auc=0.9 - 0.1 * k) for k in (1, 2, 3)]
    assert said(judging.interaction_finding(late + early)).verdict == "holds"
    assert said(judging.interaction_finding(late)).verdict == "cannot be told"
    best = said(judging.best_finding(late + early, "category"))
    assert (best.verdict, "best at stage 3" in best.statement) == ("holds", True)
    assert "best at stage 1" in said(judging.best_finding(late + early, "spatial")).statement
    flat = [measured("category", k, 0.3 + 0.0001 * k, spread=0.02) for k in (1, 2, 3)]
    assert said(judging.best_finding(flat, "category")).verdict == "cannot be told"
    assert said(judging.best_finding([], "temporal")).verdict == "cannot be told"


def test_verdicts_on_neurons_and_labels():
    """A condition's own neurons against channels; labels that go with accuracy, and labels that go against it."""
    own = [measured("spatial", k, 0.4) for k in (1, 2, 3)]
    channels = [measured("spatial", k, 0.21, neurons="channel", spread=0.001) for k in (1, 2, 3)]
    assert said(judging.neurons_finding(own + channels, "spatial")).verdict == "holds"
    assert said(judging.neurons_finding(own, "spatial")).verdict == "cannot be told"
    for sign, verdict in ((1, "holds"), (-1, "does not hold")):
        series = [measured("category", k, 0.2 + 0.01 * k, auc=0.5 + sign * 0.02 * k) for k in range(1, 13)]
        found = judging.tested_qualities(series)
        assert [item.name for item in found] == ["auc"]  # the other is the same everywhere
        assert judging.quality_verdict(found, series).verdict == verdict
    assert judging.quality_verdict([], []).verdict == "cannot be told"
    advantages = {item.claim: item for item in judged([judging.advantage_finding(own, kind) for kind in judging.OWN])}
    assert set(advantages) == {f"Attention, {kind}" for kind in judging.OWN}
    assert {item.verdict for item in advantages.values()} == {"cannot be told"}  # no spread over seeds; not there


def test_three_advantages_are_three_chances():
    """One that would be decided alone (p 0.03) is not among three; one that is clear is."""
    alone = {"spatial": (0.02, 0.03, 0.04), "temporal": (0.0, 0.01, -0.01), "category": (-0.01, 0.0, 0.01)}

    def verdicts(advantages):
        rows = [measured(kind, k, 0.4) for kind in advantages for k in (1, 2, 3)]
        rows = [r._replace(attention=np.subtract(r.comodulation, advantages[r.condition.kind]).tolist()) for r in rows]
        findings = [judging.advantage_finding(rows, kind) for kind in judging.OWN]
        return {item.claim: item.verdict for item in judged(findings)}

    assert verdicts({"spatial": alone["spatial"]})["Attention, spatial"] == "holds"
    assert set(verdicts(alone).values()) == {"cannot be told"}
    assert verdicts({**alone, "category": (0.029, 0.03, 0.031)})["Attention, category"] == "holds"


def test_labels_among_conditions_that_can_name_their_task():
    """Good where neurons can name the task and bad where they cannot: one correlation over all, the other among the first."""
    able = [measured(kind, k, 0.5, auc=0.9 - 0.1 * k) for kind in ("category", "spatial") for k in (1, 2, 3)]
    able = [item._replace(comodulation=[0.3 + 0.1 * item.condition.location] * 3) for item in able]
    unable = [measured("spatial", k, 0.05, neurons="channel", auc=0.5 + 0.001 * k) for k in (1, 2, 3)]
    rows = able + unable
    verdict = judging.quality_verdict(judging.tested_qualities(rows), rows)
    assert "Among the 6 conditions whose neurons can name the task: rho -1.00." in verdict.note
    assert not verdict.effect.startswith("rho -1")
    assert on_common_seeds([measured("spatial", 1, 0.4)._replace(seeds=(0,))]) == []


def test_conditions_with_other_seeds_are_compared_on_those_they_share():
    """A study that time cut short: pairs are of the same seed, and more cells of one kind take no verdict from another."""
    own = [measured("spatial", k, 0.4) for k in (1, 2, 3)]
    channels = [measured("spatial", k, 0.21, neurons="channel").over((0, 1)) for k in (1, 2, 3)]
    assert said(judging.neurons_finding(own + channels, "spatial")).n == "2 seeds"
    shifted = [item._replace(seeds=(0, 2)) for item in channels]
    expected = np.mean(
        [np.subtract(a.over((0, 2)).comodulation, b.comodulation) for a, b in zip(own, shifted, strict=True)]
    )
    assert f"{100 * expected:+.2f}" in said(judging.neurons_finding(own + shifted, "spatial")).effect
    assert said(judging.neurons_finding(own + [item._replace(seeds=(7, 8)) for item in channels], "spatial")).n == ""
    late = [measured("category", k, 0.2 + 0.05 * k) for k in (1, 2, 3)]
    ahead = [measured("spatial", k, 0.5 - 0.05 * k).over((0, 2)) for k in (1, 2, 3)]
    assert said(judging.interaction_finding(late + ahead)).n == "2 seeds"
