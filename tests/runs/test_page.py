"""The page of a run and the tables beside it: by hand where it is arithmetic, with names that would break it, in a browser."""

import base64
import csv
import io
import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from comodulation import Run
from comodulation.errors import InputError
from comodulation.evaluation import Predictions, evaluate_predictions
from comodulation.runs import chosen, make_config, run_report
from comodulation.runs.answered import Answered
from comodulation.runs.class_files import write_class_files
from comodulation.runs.mistakes import mistakes_section, thumbnail
from comodulation.runs.task_tables import MOST_TASKS, sure_section, task_sections
from comodulation.tasks import TaskFamily
from support.browser import CONTRAST
from support.command import SMALL, comodulate
from support.pages import HOSTILE
from support.synthetic import encode, picture


class Layerless:
    """All that a page asks of a method without gains."""

    name = "linear"


def answers(family, rows):
    """Predictions from (image, task, target, answer, probability)."""
    logs = torch.full((len(rows), len(family.targets)), -torch.inf)
    for place, (_, task, _, answer, probability) in enumerate(rows):
        own = [0, 1] if family.kind == "binary" else list(family.members[task])
        logs[place, own] = torch.tensor((1 - probability) / (len(own) - 1)).log()
        logs[place, answer] = torch.tensor(probability).log()
    image, task, target = torch.tensor([row[:3] for row in rows]).T
    return Predictions(image, task, target, logs)


def page_of(family, rows, files=None, picture=None, **more):
    found = answers(family, rows)
    result = {"test": evaluate_predictions(found, family.tasks), "learnable_parameters": 1, **more}
    config = make_config({"data": "made", "labels": "made.csv", "method": "linear"})
    return run_report(config, family, Layerless(), result, "run", Answered(found, family, files, picture))


def text_of(page):
    """What a reader sees."""
    return unescape(re.sub(r"<[^>]*>", " ", re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL)))


FAMILY = TaskFamily.from_columns(["kind", "worn"], [["hat", "shoe", "coat"], ["no", "yes"]])
ROWS = [
    (0, 0, 0, 0, 0.9), (1, 0, 0, 1, 0.8), (2, 0, 1, 1, 0.7), (3, 0, 2, 1, 0.95),
    (0, 1, 3, 3, 0.9), (1, 1, 4, 3, 0.6), (2, 1, 4, 4, 0.9),
]  # fmt: skip


def test_files_by_hand(tmp_path):
    write_class_files(tmp_path, Answered(answers(FAMILY, ROWS), FAMILY))
    classes = list(csv.DictReader(io.StringIO((tmp_path / "classes.csv").read_text())))
    assert [tuple(row.values()) for row in classes] == [
        ("kind", "hat", "1", "0.5", "0.666667", "2", "1"),
        ("kind", "shoe", "0.333333", "1", "0.5", "1", "3"),
        ("kind", "coat", "", "0", "0", "1", "0"),
        ("worn", "no", "0.5", "1", "0.666667", "1", "2"),
        ("worn", "yes", "1", "0.5", "0.666667", "2", "1"),
    ]
    confusions = list(csv.reader(io.StringIO((tmp_path / "confusions.csv").read_text())))
    assert confusions == [
        ["task", "truth", "answer", "count"],
        ["kind", "hat", "hat", "1"], ["kind", "hat", "shoe", "1"], ["kind", "shoe", "shoe", "1"],
        ["kind", "coat", "shoe", "1"],
        ["worn", "no", "no", "1"], ["worn", "yes", "no", "1"], ["worn", "yes", "yes", "1"],
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.csv", "confusions.csv"]


def test_binary_tasks_have_the_classes_no_and_yes():
    family = TaskFamily.from_attributes(["red", "blue"])
    (task,) = Answered(answers(family, [(0, 1, 1, 0, 0.8), (1, 1, 0, 0, 0.9)]), family).tasks()
    assert (task.name, task.classes, task.target.tolist(), task.answer.tolist()) == (
        "blue",
        ("no", "yes"),
        [1, 0],
        [0, 0],
    )


def test_answers_of_other_tasks_are_counted(tmp_path, no_figures):
    """With all classes to choose among, a task may be answered with another one's class."""
    family = TaskFamily("classes", ("a", "b"), ("a0", "a1", "b0", "b1"), ((0, 1), (2, 3)))
    logs = torch.tensor([[0.1, 0.1, 0.7, 0.1], [0.7, 0.1, 0.1, 0.1]]).log()
    found = Predictions(torch.arange(2), torch.tensor([0, 0]), torch.tensor([1, 0]), logs)
    answered = Answered(found, family)
    (task,) = answered.tasks()
    assert (task.classes, task.own, task.answer.tolist()) == (("a0", "a1", "b0"), 2, [2, 0])
    write_class_files(tmp_path, answered)
    assert "a,a1,b0,1" in (tmp_path / "confusions.csv").read_text().split()
    assert task_sections(answered, {"test": evaluate_predictions(found, family.tasks)}, "test")


def test_of_many_tasks_the_worst_are_shown(no_figures):
    family = TaskFamily.from_attributes([f"task {number:02d}" for number in range(20)])
    rows = [
        (image, task, image % 2, (image % 2) ^ (image < 20 - task), 0.9) for task in range(20) for image in range(24)
    ]
    found = answers(family, rows)
    sections = task_sections(Answered(found, family), {"test": evaluate_predictions(found, family.tasks)}, "test")
    assert [section.title for section in sections] == [f"Task: task {number:02d}" for number in range(MOST_TASKS)]
    assert "the 12 of 20 tasks with the lowest balanced accuracy" in sections[0].blocks[0].text


def test_many_classes_have_a_table_of_pairs(no_figures):
    family = TaskFamily.from_columns(["kind"], [[f"c{number:02d}" for number in range(31)]])
    rows = [(image, 0, image % 31, (image + (image % 31 < 25)) % 31, 0.9) for image in range(62)]
    rows += [(62, 0, 3, 4, 0.9)]
    page = page_of(family, rows)
    assert "The 20 pairs of classes that are confused most often" in text_of(page)
    assert "Confusion matrix" not in page
    table = page.split("The 20 pairs")[1].split("</table>")[0]
    cells = re.findall(r"<(?:th|td)[^>]*>([^<]+)</(?:th|td)>", table)
    assert cells[:4] == ["c03", "c04", "3", "100%"]
    assert len(cells) == 4 * 20


def test_few_labels_are_said():
    result = {"test": {"tasks": {"few": {"accuracy": 0.9, "count": 140}, "enough": {"accuracy": 0.9, "count": 141}}}}
    said, table = sure_section(result, "test").blocks
    assert "1 of 2 tasks" in said.text
    assert "few (140 of 141)" in said.text
    assert [row[0] for row in table.rows] == ["few", "enough"]
    enough = {"test": {"tasks": {"enough": {"accuracy": 1.0, "count": 35}}}}
    assert "Few labels" not in sure_section(enough, "test").blocks[0].text


def test_mistakes_are_those_it_was_surest_of():
    family = TaskFamily.from_attributes(["red"])
    rows = [(image, 0, 1, 0, 0.6 + image / 100) for image in range(20)] + [(20, 0, 1, 1, 0.99)]

    def image(row):
        if row == 18:
            raise InputError("gone")
        if row == 17:
            raise OSError("gone")
        return Image.new("RGB", (300, 100), (255, 0, 0))

    section = mistakes_section(Answered(answers(family, rows), family, [f"{n}.png" for n in range(21)], image), "test")
    (block,) = section.blocks
    assert [one.title for one in block.pictures] == [f"{n}.png" for n in range(19, 7, -1)]
    assert block.pictures[0].lines == ("red: truth yes", "answered no (79%)")
    assert [one.jpeg is None for one in block.pictures] == [False, True, True, *[False] * 9]
    assert "2 of the images cannot be read any more" in block.caption
    small = Image.open(io.BytesIO(block.pictures[0].jpeg))
    assert (small.format, small.size) == ("JPEG", (96, 32))
    assert mistakes_section(Answered(answers(family, [rows[-1]]), family), "test") is None


def test_without_files_a_picture_is_named_by_its_row():
    family = TaskFamily.from_attributes(["red"])
    section = mistakes_section(Answered(answers(family, [(7, 0, 1, 0, 0.9)]), family), "validation")
    (one,) = section.blocks[0].pictures
    assert (one.title, one.jpeg) == ("row 7", None)


def test_a_small_picture_stays_small():
    assert Image.open(io.BytesIO(thumbnail(Image.new("RGB", (3, 2000))))).size == (1, 96)


@pytest.mark.parametrize(
    ("nll", "weights", "said"),
    [
        (
            {"linear, pooled": 0.7, "committee, pooled": 0.62, "together": 0.6},
            {"linear, pooled": 0.25, "committee, pooled": 0.75},
            "**committee, pooled** (75%), **linear, pooled** (25%), with weights fitted to out-of-fold predictions: "
            "NLL 0.600, 0.020 below that of the best candidate alone (committee, pooled, 0.620) and 0.100 below that of the best "
            "linear one (linear, pooled, 0.700).",
        ),
        (
            {"linear, pooled": 0.5, "committee, pooled": 0.9, "together": 0.5},
            {"linear, pooled": 0.999, "committee, pooled": 0.001},
            "**linear, pooled** has practically all of the weight, with weights fitted to out-of-fold predictions: "
            "NLL 0.500, equal to that of the best candidate alone",
        ),
        (
            {"linear, pooled": 0.5, "linear, map": 0.52, "together": 0.51},
            {"linear, pooled": 0.5, "linear, map": 0.5},
            "NLL 0.510, 0.010 above that of the best candidate alone (linear, pooled, 0.500).",
        ),
    ],
)  # fmt: skip
def test_what_was_chosen_is_said_from_the_numbers(nll, weights, said):
    assert said in chosen.chosen_sentence(nll, weights)


def test_epochs_are_a_learning_curve():
    history = [{"epoch": 1, "nll": 2.0, "loss": 2.1}, {"epoch": 2, "nll": float("nan")}, {"epoch": 3, "nll": 1.0}]
    (section,) = chosen.chosen_sections(Layerless(), {"history": history})
    assert section.title == "Learning curve"
    assert "<svg" in section.blocks[0].svg
    assert chosen.chosen_sections(Layerless(), {"history": []}) == []


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.seen = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_hostile_names_are_text():
    """Tasks, classes and files that would be tags, scripts, or no text at all."""
    family = TaskFamily.from_columns(
        [f"{name} a" for name in HOSTILE], [[f"{name} b", f"{name} c"] for name in HOSTILE]
    )
    rows = [(task, task, 2 * task, 2 * task + 1, 0.9) for task in range(len(HOSTILE))]
    page = page_of(family, rows, HOSTILE, lambda row: Image.new("RGB", (9, 9)))
    page.encode()
    tags = Tags(page).seen
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    images = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert len(images) == len(HOSTILE)
    assert all(base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))[:2] == b"\xff\xd8" for source in images)
    for name in HOSTILE[:2]:
        assert name in text_of(page) or name in unescape(page)


def test_the_page_in_a_browser(browser, tmp_path):
    """Nothing is loaded or complained about, nothing runs out of a phone's window, and all of it can be read in the dark."""
    family = TaskFamily.from_columns(["kind", HOSTILE[0]], [[f"c{number}" for number in range(20)], ["no", "yes"]])
    rows = [(n, 0, n % 20, (n * n) % 20, 0.4 + (n % 5) / 10) for n in range(60)] + [
        (n, 1, 20, 20 + n % 2, 0.8) for n in range(9)
    ]
    files = [f"{HOSTILE[1]}{'x' * 90}{row}.png" for row in range(60)]
    path = tmp_path / "report.html"
    path.write_bytes(page_of(family, rows, files, lambda row: Image.new("RGB", (50, 80), (200, 0, 0))).encode())
    for width, scheme in ((1280, "light"), (390, "dark")):
        browser.open(path, width=width, scheme=scheme)
        assert browser.complaints() == []
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("window.hacked") is None
        assert browser.run("[...document.images].every(i => i.complete && i.naturalWidth === 50)")
        assert browser.run(CONTRAST)[0][0] >= 4.5
    browser.open(path, width=390, javascript=False)
    assert browser.complaints() == []


@pytest.fixture(scope="module")
def tabular(tmp_path_factory):
    """A run of auto on pictures whose colour is the answer, with a test split."""
    place = tmp_path_factory.mktemp("auto")
    (place / "data").mkdir()
    for split, number in (("train", 60), ("test", 24)):
        rows = [encode(picture(("red", "blue")[row % 2], row)) for row in range(number)]
        labels = {
            "colour": [("red", "blue")[row % 2] for row in range(number)],
            "late": [int(row % 7 < 3) for row in range(number)],
        }
        pq.write_table(pa.table({"image": rows, **labels}), place / "data" / f"{split}.parquet")
    outcome = comodulate(
        "fit", "--data", place / "data", "--task", "colour", "--task", "late", "--out", place / "run", "--cache", place / "cache",
        *SMALL,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    return place, outcome


def test_linear_stands_beside_auto(tabular):
    place, outcome = tabular
    metrics = json.loads((place / "run" / "metrics.json").read_text())
    assert set(metrics["linear"]) == {"validation", "test"}
    linear = metrics["linear"]["test"]
    assert linear["count"] == metrics["test"]["count"]
    assert set(linear["tasks"]) == {"colour", "late"}
    assert metrics["linear"]["validation"]["nll"] == pytest.approx(
        min(value for name, value in metrics["readouts"]["nll_out_of_fold"].items() if name.startswith("linear")),
        abs=1e-3,
    )
    lines = [line.split() for line in outcome.out.splitlines()]
    assert [line[0] for line in lines[1:5]] == ["all", "linear", "colour", "late"]
    assert lines[2][4] == f"{linear['nll']:.3f}"
    page = text_of((place / "run" / "report.html").read_text())
    for said in (
        "all, linear alone",
        "linear alone",
        "What was chosen",
        "Learning curves",
        "How many labels",
        "Task: late",
    ):
        assert said in page, said
    table = (place / "run" / "classes.csv").read_text().splitlines()
    assert table[0] == "task,class,precision,recall,f1,support,answered"
    assert len(table) == 5


def test_the_member_alone_answers_as_the_probe_it_is(tabular):
    """By hand: the probe's product with standardised features."""
    run = Run.open(tabular[0] / "run")
    nll = run.metrics["readouts"]["nll_out_of_fold"]
    names = [name for name in nll if name != "together"]
    place = min((n for n in range(len(names)) if names[n].startswith("linear")), key=lambda n: nll[names[n]])
    part, alone = run.method.parts[0], run.method.alone(place)
    features = torch.randn(5, *run.backbone.feature_shape)
    from comodulation.networks.methods import rows_of

    start, stop = part.places[place]
    rows = ((rows_of(features) - part.mean) / part.deviation)[:, start:stop]
    logits = rows @ part.members[place].weight.T + part.members[place].bias
    expected = logits[:, :2].softmax(-1)
    found = alone.log_probabilities(features, torch.zeros(5, dtype=torch.int64)).exp()
    torch.testing.assert_close(found[:, :2], expected)
    assert len(part.members) > 1  # the method itself stays as it is
    assert len(run.method.parts[0].members) == len(names)


def test_runs_without_the_new_keys_open(tabular, tmp_path):
    """A run of an earlier release: no linear, no readouts, no tables."""
    place, _ = tabular
    shutil.copytree(place / "run", tmp_path / "old")
    for name in ("classes.csv", "confusions.csv"):
        (tmp_path / "old" / name).unlink()
    path = tmp_path / "old" / "metrics.json"
    metrics = json.loads(path.read_text())
    del metrics["linear"], metrics["readouts"], metrics["made_from"]
    path.write_text(json.dumps(metrics))
    run = Run.open(tmp_path / "old")
    assert run_report(run.config, run.family, run.method, run.metrics, "old").endswith("</html>\n")
    again = comodulate(
        "fit", "--data", place / "data", "--task", "colour", "--task", "late", "--out", tmp_path / "old",
        "--cache", place / "cache", *SMALL, "--resume",
    )  # fmt: skip
    assert again.status == 0, again.err
    assert not (tmp_path / "old" / "classes.csv").exists()


@pytest.mark.parametrize(
    ("key", "value"), [("linear", {"test": {"nll": 1}}), ("linear", 3), ("readouts", {"weights": {"a": "b"}})], ids=str
)
def test_damaged_new_keys_are_refused(tabular, tmp_path, key, value):
    shutil.copytree(tabular[0] / "run", tmp_path / "bad")
    path = tmp_path / "bad" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(InputError, match=f"damaged: {key}"):
        _ = Run.open(tmp_path / "bad").metrics
