"""Runs on texts: from a table of messages to answers, in any language, the same way as pictures go."""

import csv
import json

import numpy as np
import onnxruntime
import pytest
import torch

pytest.importorskip("transformers")

from comodulation.data.features import TextSettings
from comodulation.errors import InputError
from comodulation.runs import Run, make_config, read_config
from comodulation.sklearn import MultiTaskClassifier
from support.command import comodulate
from support.texts import write_encoder, write_texts

pytestmark = pytest.mark.usefixtures("undrawn", "quick_onnx")

FAST = ("--quality", "fast", "--method", "linear")
ASKED = ["we see rain and wind now", "SOUP 🎉 bread", "the ship is at the border, see we", "数字 Größe"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A table, an encoder, a cache and a run on them."""
    place = tmp_path_factory.mktemp("texts")
    write_texts(place / "messages.csv")
    write_encoder(place / "encoder")
    outcome = comodulate(
        "fit", "--data", place / "messages.csv", "--text", "text", "--backbone", place / "encoder", "--out", place / "run",
        "--cache", place / "cache", *FAST,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "2 tasks; texts: " in outcome.err
    return place


@pytest.fixture(scope="module")
def run(place):
    return Run.open(place / "run")


def test_topics_are_learned(run):
    """By random features of words, from one text in four on; and the settings say which encoder and column."""
    assert run.metrics["test"]["tasks"]["topic"]["accuracy"] > 0.6
    assert run.config.text.column == "text"
    assert run.config.text.name.endswith("/encoder")
    answers = run.predict(ASKED)
    assert [answer["text"] for answer in answers] == ASKED
    assert answers[0]["tasks"]["topic"]["prediction"] == "weather"
    alone = [run.predict([text])[0] for text in ASKED]
    for one, other in zip(answers, alone, strict=True):
        for task in run.family.tasks:
            assert one["tasks"][task]["confidence"] == pytest.approx(other["tasks"][task]["confidence"], abs=2e-3)


def test_predict_reads_tables_and_lines(run, place, tmp_path):
    (tmp_path / "new.txt").write_text("\n".join(ASKED) + "\n\n", encoding="utf-8")
    with open(tmp_path / "new.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("n", "text"), *enumerate(ASKED), (9, "")])
    outcome = comodulate("predict", place / "run", tmp_path / "new.txt", "--json")
    assert outcome.status == 0, outcome.err
    assert [one["text"] for one in outcome.json["texts"]] == ASKED
    outcome = comodulate(
        "predict", place / "run", tmp_path / "new.csv", "--task", "topic", "--out", tmp_path / "answers.csv"
    )
    assert outcome.status == 2
    assert "line 6 is missing: the cell is empty" in outcome.err
    with open(tmp_path / "answers.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows[:4]] == ASKED
    expected = [answer["tasks"]["topic"]["prediction"] for answer in run.predict(ASKED)]
    assert [row["prediction"] for row in rows[:4]] == expected
    (tmp_path / "other.csv").write_text("message,n\na,1\n")
    assert "unknown column of texts 'text'" in comodulate("predict", place / "run", tmp_path / "other.csv").line


def test_long_texts_are_said(place, tmp_path):
    write_texts(tmp_path / "t.csv", 80)
    with open(tmp_path / "t.csv", "a") as file:
        file.write('"' + "rain " * 50 + '",weather,no\n')
    outcome = comodulate(
        "fit", "--data", tmp_path / "t.csv", "--text", "text", "--backbone", place / "encoder", "--out", tmp_path / "run",
        "--cache", tmp_path / "cache", *FAST,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    (line,) = [line for line in outcome.err.splitlines() if "longer than" in line]
    assert "texts of split 't" in line
    assert "are longer than the 16 tokens that text encoder" in line
    (tmp_path / "x.txt").write_text("sun " * 40)
    outcome = comodulate("predict", tmp_path / "run", tmp_path / "x.txt")
    assert "warning: 1 of 1 texts are longer than the 16 tokens" in outcome.err


def test_groups_and_other_methods(place, tmp_path, no_figures):
    """Classes within groups, with gains: the vectors go through layers as maps of one position."""
    lines = (place / "messages.csv").read_text().splitlines()
    rows = [line.rsplit(",", 2) for line in lines[1:]]
    grouped = [f"{text},{'outside' if topic == 'weather' else 'inside'},{topic} {asks}" for text, topic, asks in rows]
    (tmp_path / "t.csv").write_text("\n".join(["text,group,label", *grouped]) + "\n")
    outcome = comodulate(
        "fit", "--data", tmp_path / "t.csv", "--text", "text", "--backbone", place / "encoder", "--group", "group",
        "--label", "label", "--method", "comodulation", "--kernel-size", 1,
        "--channels", 16, "--epochs", 1, "--pretraining-epochs", 1, "--out",
        tmp_path / "run", "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    (answer,) = Run.open(tmp_path / "run").predict(["rain"], ["outside"])
    assert set(answer["tasks"]["outside"]["probabilities"]) == {"weather no", "weather yes"}


def test_a_folder_of_tables(place, tmp_path):
    """A csv file in a folder, as `datasets` reads it, with a column of splits."""
    lines = (place / "messages.csv").read_text().splitlines()
    made = [f"{lines[0]},split", *(f"{line},{'test' if n % 4 == 0 else 'train'}" for n, line in enumerate(lines[1:]))]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "messages.csv").write_text("\n".join(made) + "\n")
    outcome = comodulate(
        "fit", "--data", tmp_path / "data", "--text", "text", "--task", "topic", "--backbone", place / "encoder", "--out",
        tmp_path / "run", "--cache", place / "cache", "--json", *FAST,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert Run.open(tmp_path / "run").metrics["test"]["count"] == 60
    outcome = comodulate(
        "evaluate", tmp_path / "run", "--data", tmp_path / "data", "--cache", place / "cache", "--json"
    )
    assert outcome.json["count"] == 60


def test_the_report_shows_texts(place):
    page = (place / "run" / "report.html").read_text()
    assert "Most confidently wrong" in page
    assert "This page contains these texts" in page
    assert "text encoder" in page


def test_the_graph_takes_tokens(run, place, tmp_path):
    outcome = comodulate("export", place / "run", "--out", tmp_path / "g.onnx", "--task", "topic", "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["inputs"] == ["ids", "mask"]
    ids, mask = run.encoder.collate([run.encoder.preprocess(text) for text in ASKED])
    (found,) = onnxruntime.InferenceSession(tmp_path / "g.onnx").run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
    about = outcome.json["outputs"]["topic"]
    for row, answer in zip(found, run.predict(ASKED, ["topic"]), strict=True):
        for column, word in zip(about["columns"], about["words"], strict=True):
            assert row[column] == pytest.approx(answer["tasks"]["topic"]["probabilities"][word], abs=2e-3)


def test_a_run_on_another_encoder_is_refused(place, tmp_path):
    """The folder of the encoder holds other weights now: answers of the run would be wrong."""
    write_encoder(tmp_path / "other", seed=3)
    config = read_config(place / "run" / "config.yaml")
    assert config.text is not None
    for name in ("head.safetensors", "adapter.safetensors", "metrics.json"):
        (tmp_path / name).write_bytes((place / "run" / name).read_bytes())
    text = (place / "run" / "config.yaml").read_text().replace(config.text.name, str(tmp_path / "other"))
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match="backbone"):
        Run.open(tmp_path).predict(["rain"])


def test_settings_that_do_not_go_together():
    text = {"column": "text"}
    with pytest.raises(InputError, match="inputs of one kind"):
        make_config({"data": "t.csv", "text": text, "embeddings": {}})
    with pytest.raises(InputError, match="columns of one table"):
        make_config({"data": "t.csv", "text": text, "labels": "l.csv"})
    assert "names a column; give its table" in comodulate("fit", "--text", "text", "--out", "x").line


def test_python_takes_lists_of_texts(run):
    with pytest.raises(InputError, match="give a list of texts"):
        run.predict("rain")
    with pytest.raises(InputError, match="text 1 is 3, expected a text"):
        run.predict(["rain", 3])
    with pytest.raises(InputError, match="text 0 is missing"):
        run.predict(["  "])
    assert json.loads(json.dumps(run.predict(["rain"])))
    assert np.isfinite(run.encoder(*run.encoder.collate([torch.tensor([2, 5, 3])])).numpy()).all()


def test_files_that_are_no_texts(place, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "rain"}\n')
    assert (
        "is no file of texts that can be read: expected a table"
        in comodulate("predict", place / "run", tmp_path / "x.jsonl").line
    )


def test_scikit_learn_takes_texts(place):
    """The name of the encoder in the place of features: what the encoder and the class do one after the other."""
    with open(place / "messages.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    texts, topics = [row["text"] for row in rows], [row["topic"] for row in rows]
    fitted = MultiTaskClassifier("linear", encoder=str(place / "encoder"), random_state=0).fit(texts, topics)
    encoder = TextSettings("text", str(place / "encoder")).encoder()
    with torch.no_grad():
        features = torch.cat([encoder(*encoder.collate([encoder.preprocess(text)])) for text in texts]).flatten(1)
    beside = MultiTaskClassifier("linear", random_state=0).fit(features, topics)
    np.testing.assert_allclose(fitted.predict_proba(texts[:9]), beside.predict_proba(features[:9]), atol=5e-3)
    with pytest.raises(InputError, match="text 1 is 3, expected a text"):
        fitted.predict(["rain", 3])
