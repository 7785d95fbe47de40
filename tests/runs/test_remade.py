"""`comodulate report RUN`: the page is made again from the run folder, and from the data where they are as they were."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from comodulation.errors import InputError
from comodulation.runs import Run
from comodulation.runs.folder import read_predictions
from support.command import comodulate, fit
from support.synthetic import with_attributes, write

undrawn = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Data, and a run of two methods on binary columns; the first is of layers, the second is weighed."""
    place = tmp_path_factory.mktemp("remade")
    data = write(place / "data", with_attributes, changed="both")
    methods = ["--method", "attention", "--method", "auto", "--quality", "fast", "--metric", "balanced_accuracy"]
    outcome = fit(
        data, place / "runs", place / "cache", *methods, labels=["--attribute", "warm", "--attribute", "cool"]
    )
    assert outcome.status == 0, outcome.err
    return place


@pytest.mark.parametrize("method", ["attention", "auto"])
def test_the_page_is_made_again_to_the_byte(here, method, tmp_path):
    """Of a method with layers and of one without; the mistakes' pictures among them."""
    run = tmp_path / method
    shutil.copytree(here / "runs" / method, run)
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    outcome = comodulate("report", run, "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json == {"reports": [str(run / "report.html")]}
    assert outcome.err == ""
    assert (run / "report.html").read_bytes() == before


@undrawn
def test_all_runs_of_a_folder(here):
    outcome = comodulate("report", here / "runs")
    assert outcome.out.splitlines() == [str(here / "runs" / name / "report.html") for name in ("attention", "auto")]


@undrawn
def test_without_the_data_there_are_no_pictures(here, tmp_path):
    """Data that are gone, and data that are others by now: said in a line, and the rest of the page is there."""
    run = tmp_path / "run"
    shutil.copytree(here / "runs" / "attention", run)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(str(here / "data"), str(here / "gone")))
    outcome = comodulate("report", run)
    assert outcome.status == 0
    assert "the page shows no images: " in outcome.err
    assert "img src" not in (run / "report.html").read_text()
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["made_from"]["test"]["images"] = "of others"
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "config.yaml").write_text(config)
    assert "the images of split 'test' are others by now" in comodulate("report", run).err


def test_linear_stands_beside_a_method_with_layers(here):
    """In metrics.json, in the predictions, and on the page by task, by class and in the reliability."""
    run = here / "runs" / "attention"
    metrics = json.loads((run / "metrics.json").read_text())
    alone = comodulate("fit", "--config", run / "config.yaml", "--method", "linear", "--set", "backbone.output=map",
                       "--out", here / "linear", "--cache", here / "cache", "--json").json["runs"][0]  # fmt: skip
    for split in ("validation", "test"):
        for name in ("accuracy", "nll", "count"):
            assert metrics["linear"][split][name] == pytest.approx(alone[split][name])
    table = pq.read_table(run / "predictions.parquet").to_pydict()
    hits = [said == truth for said, truth in zip(table["linear_prediction"], table["target"], strict=True)]
    assert sum(hits) / len(hits) == metrics["linear"]["test"]["accuracy"]
    page = (run / "report.html").read_text()
    assert "all, linear alone" in page
    assert page.count("F1, linear") >= 2
    assert page.count("Orange: logistic regression alone") == 2
    assert "while the layers are pretrained" in page


def test_answers_are_read_as_they_were_written(here):
    run = Run.open(here / "runs" / "auto")
    answered = read_predictions(run.folder / "predictions.parquet", run.family)
    measured = run.metrics["test"]
    assert float((answered.predictions.answers == answered.predictions.target).double().mean()) == measured["accuracy"]
    assert len(answered.predictions.task) == measured["count"]
    assert answered.linear is not None


@undrawn
def test_damaged_predictions_are_refused(here, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(here / "runs" / "auto", run)
    (run / "predictions.parquet").write_bytes(b"not a table")
    refused = comodulate("report", run)
    assert refused.status == 2
    assert "predictions.parquet is damaged: " in refused.line
    other = pq.read_table(here / "runs" / "auto" / "predictions.parquet").to_pydict()
    other["prediction"][0] = "maybe"
    import pyarrow as pa

    pq.write_table(pa.table(other), run / "predictions.parquet")
    with pytest.raises(InputError, match="prediction 'maybe' is none of its task's classes"):
        read_predictions(run / "predictions.parquet", Run.open(run).family)


@undrawn
def test_what_is_neither_run_nor_study(here, tmp_path):
    refused = comodulate("report", tmp_path)
    assert refused.status == 2
    assert "study" in refused.line
    refused = comodulate("report", here / "runs" / "auto", "--also", tmp_path)
    assert refused.status == 2
    assert "--also is for studies" in refused.line
