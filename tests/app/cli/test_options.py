"""Methods, readouts, attributes and options on the command line, and data sets other than the plain one."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from support.command import comodulate, fit
from support.synthetic import CLASSES, GROUP_NAMES, GROUPS, encode, images_at, picture, write

pytestmark = pytest.mark.usefixtures("undrawn")
METRICS = ["accuracy", "nll", "brier", "ece"]
LONG = ["--epochs", 15, "--pretraining-epochs", 60, "--pretraining-learning-rate", 0.01]


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture
def image(tmp_path):
    picture("yellow", 77).save(tmp_path / "yellow.png")
    return tmp_path / "yellow.png"


# ---- methods, readouts, attributes ----


@pytest.fixture(scope="module")
def several(data, cache, tmp_path_factory):
    """Every method on groups, in one call: the outcome by name."""
    out = tmp_path_factory.mktemp("several")
    names = ["base", "hard-sharing", "class-mask", "task-bias", "attention", "comodulation"]
    outcome = fit(data, out, cache, *(word for name in names for word in ("--method", name)), "--json")
    assert outcome.status == 0, outcome.err
    runs = outcome.json["runs"]
    assert [run["method"] for run in runs] == names
    assert [run["folder"] for run in runs] == [str(out / name) for name in names]
    return out, {run["method"]: run for run in runs}


def test_several_methods_share_their_pretrained_layers(several, run):
    out, _ = several
    heads = {path.read_bytes() for path in out.glob("*/head.safetensors")}
    assert heads == {(run / "head.safetensors").read_bytes()}
    assert (out / "comodulation" / "adapter.safetensors").read_bytes() == (run / "adapter.safetensors").read_bytes()


def test_every_method_is_evaluated_as_it_was_fitted(several, data, cache):
    """Loading each run again gives the numbers of its fit, those that learn nothing included."""
    out, runs = several
    for name, fitted in runs.items():
        numbers = comodulate("evaluate", out / name, "--data", data, "--cache", cache, "--json").json
        assert {key: numbers[key] for key in METRICS} == {key: fitted["test"][key] for key in METRICS}, name
    parameters = {name: fitted["learnable_parameters"] for name, fitted in runs.items()}
    assert (parameters["base"], parameters["class-mask"], parameters["task-bias"]) == (0, 0, 3 * 8)
    assert parameters["attention"] == parameters["comodulation"] == 3 * 16


def test_a_folder_of_runs_is_no_run(several, data):
    out, _ = several
    refused = comodulate("evaluate", out, "--data", data)
    assert refused.status == 2
    assert (
        "it holds the runs attention, base, class-mask, comodulation, hard-sharing, task-bias: name one" in refused.line
    )


def test_restricted_readout_is_the_class_mask(several, data, cache, tmp_path):
    """The base network restricted to the task's classes is what the class mask makes of the open readout."""
    _, runs = several
    outcome = fit(data, tmp_path / "run", cache, "--method", "base", "--readout", "restricted", "--json")
    (restricted,) = outcome.json["runs"]
    assert {key: restricted["test"][key] for key in METRICS} == {
        key: runs["class-mask"]["test"][key] for key in METRICS
    }
    table = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pydict()
    assert all(answer in GROUPS[task] for answer, task in zip(table["prediction"], table["task"], strict=True))


def test_attributes(data, cache, image, tmp_path):
    """Binary tasks: missing labels are left out, per image and task; answers are yes or no."""
    labels = [word for name in ("warm", "bright", "grey", "cool") for word in ("--attribute", name)]
    out = tmp_path / "run"
    methods = ["--method", "comodulation", "--method", "attention", "--method", "task-bias"]
    outcome = fit(data, out, cache, *methods, *LONG, "--json", labels=labels)
    assert outcome.status == 0, outcome.err
    run = outcome.json["runs"][0]
    rows = np.arange(40)
    known = {"warm": rows % 7 != 3, "bright": rows % 5 != 2, "grey": rows % 11 != 5, "cool": rows >= 0}
    assert {name: values["count"] for name, values in run["test"]["tasks"].items()} == {
        name: mask.sum() for name, mask in known.items()
    }
    assert run["test"]["count"] == sum(mask.sum() for mask in known.values())
    assert run["test"]["accuracy"] > 0.85
    evaluated = comodulate("evaluate", out / "comodulation", "--data", data, "--cache", cache, "--json").json
    assert evaluated["tasks"] == run["test"]["tasks"]
    answers = comodulate("predict", out / "comodulation", image, "--json").json["images"][0]["tasks"]
    assert list(answers) == ["warm", "bright", "grey", "cool"]
    assert answers["warm"]["prediction"] == "yes"
    assert answers["cool"]["prediction"] == "no"
    assert answers["warm"]["probabilities"].keys() == {"yes", "no"}
    assert sum(answers["warm"]["probabilities"].values()) == pytest.approx(1)


OPTIONS = {
    "base network": ["--no-residual", "--kernel-size", 1, "--feature-size", 1],
    "rectified": ["--link", "rectified", "--normalizer", "covariance", "--estimator", "quadrature", "--beta", 0.5],
    "per input": ["--level", "input", "--sigma", 0.6],
    "monte carlo": ["--estimator", "monte_carlo"],
    "stochastic encoder": ["--encoder", "stochastic", "--training-encoder", "gain"],
    "MLP controller": ["--controller-hidden", 8, "--controller-hidden", 4, "--learning-rate", 0.01],
    "early stop, bfloat16": ["--patience", 1, "--epochs", 30, "--precision", "bfloat16", "--layer", -2],
    "no test split": ["--test-split", "test", "--train-split", "train", "--image-column", "img"],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_reach_the_run(name, data, cache, tmp_path):
    """Each option is kept in the configuration, and the run is evaluated as it was fitted."""
    fitted = fit(data, tmp_path / "run", cache, *OPTIONS[name], "--json")
    assert fitted.status == 0, fitted.err
    evaluated = comodulate("evaluate", tmp_path / "run", "--data", data, "--cache", cache, "--json")
    assert {key: evaluated.json[key] for key in METRICS} == {
        key: fitted.json["runs"][0]["test"][key] for key in METRICS
    }
    kept = (tmp_path / "run" / "config.yaml").read_text()
    for option, value in zip(OPTIONS[name], OPTIONS[name][1:], strict=False):
        names = {"--beta": "beta", "--sigma": "std", "--level": "level", "--estimator": "estimator", "--link": "link"}
        if option in names:
            assert f"{names[option]}: {value}\n" in kept


# ---- other data than the run's ----


def test_normalised_layers_answer_alike_when_they_are_read_again(data, cache, tmp_path):
    """Their running statistics are in the head, or in the adapter of a method that moved them: evaluate finds the same numbers."""
    methods = ("comodulation", "fine-tuning")
    words = [word for method in methods for word in ("--method", method)]
    outcome = fit(data, tmp_path / "runs", cache, "--batch-norm", *words)
    assert outcome.status == 0, outcome.err
    for method in methods:
        run = tmp_path / "runs" / method
        assert "batch_norm: true" in (run / "config.yaml").read_text()
        numbers = comodulate("evaluate", run, "--data", data, "--cache", cache, "--json").json
        assert numbers["nll"] == pytest.approx(metrics_of(run)["test"]["nll"], abs=1e-5)


def test_evaluate_needs_the_split_asked_for_alone(run, cache, tmp_path):
    """A folder with a test split and nothing else; and a training split evaluated by name."""
    only = write(tmp_path / "only", splits=("test",))
    numbers = comodulate("evaluate", run, "--data", only, "--cache", cache, "--json").json
    assert {key: numbers[key] for key in METRICS} == {key: metrics_of(run)["test"][key] for key in METRICS}
    train = write(tmp_path / "train", splits=("train",))
    assert (
        comodulate("evaluate", run, "--data", train, "--cache", cache, "--split", "train", "--json").json["count"]
        == 160
    )
    refused = comodulate("evaluate", run, "--data", train, "--cache", cache)
    assert refused.status == 2
    assert "unknown split" in refused.line
    assert "'test'" in refused.line


def test_evaluate_reads_classes_by_name(run, cache, tmp_path):
    """A data set that numbers the same classes otherwise gives the same numbers, as ClassLabel or as strings."""

    def renumber(table, features):
        import datasets

        for column, names in (("fine_label", CLASSES), ("coarse_label", GROUP_NAMES)):
            table[column] = [len(names) - 1 - number for number in table[column]]
            features[column] = datasets.ClassLabel(names=names[::-1])

    def spell(table, features):
        import datasets

        for column, names in (("fine_label", CLASSES), ("coarse_label", GROUP_NAMES)):
            table[column] = [names[number] for number in table[column]]
            features[column] = datasets.Value("string")

    for name, change in (("renumbered", renumber), ("spelled", spell)):
        other = write(tmp_path / name, change, splits=("test",), changed="test")
        numbers = comodulate("evaluate", run, "--data", other, "--cache", cache, "--json").json
        assert {key: numbers[key] for key in METRICS} == {key: metrics_of(run)["test"][key] for key in METRICS}


def test_fit_without_a_test_split(cache, tmp_path):
    """The table and the predictions are then of the validation images."""
    data = write(tmp_path / "data", splits=("train",))
    outcome = fit(data, tmp_path / "run", cache, "--json")
    (run,) = outcome.json["runs"]
    assert "test" not in run
    table = pq.read_table(tmp_path / "run" / "predictions.parquet")
    assert len(table) == run["validation"]["count"] == 8
    assert "validation split" in fit(data, tmp_path / "again", cache).out


def test_missing_labels_in_groups(cache, tmp_path):
    """Images without a class or group are in no step and no metric."""

    def thin(table, features):
        import datasets

        table["fine_label"] = [None if row % 4 == 1 else label for row, label in enumerate(table["fine_label"])]
        table["coarse_label"] = [None if row % 5 == 2 else label for row, label in enumerate(table["coarse_label"])]
        assert isinstance(features["fine_label"], datasets.ClassLabel)

    data = write(tmp_path / "data", thin, changed="both")
    outcome = fit(data, tmp_path / "run", cache, "--json")
    assert outcome.status == 0, outcome.err
    labelled = sum(row % 4 != 1 and row % 5 != 2 for row in range(40))
    assert outcome.json["runs"][0]["test"]["count"] == labelled


# ---- unreadable images ----


def test_skip_bad_counts_and_goes_on(tmp_path):
    """In fit and in evaluate: unreadable images are counted, and in no metric."""
    cut = encode(picture("red", 0))[:200]
    data = write(tmp_path / "data", images_at({0: cut, 9: None, 17: b"no image"}), changed="both")
    cache = tmp_path / "cache"
    outcome = fit(data, tmp_path / "run", cache, "--skip-bad", "--json")
    assert outcome.status == 0, outcome.err
    (run,) = outcome.json["runs"]
    assert run["skipped_images"] == {"train": 3, "test": 3}
    assert run["test"]["count"] == 37
    assert "skipped 3 unreadable images of split 'train'" in outcome.err
    evaluated = comodulate("evaluate", tmp_path / "run", "--data", data, "--cache", cache, "--skip-bad", "--json").json
    assert (evaluated["skipped"], evaluated["count"]) == (3, 37)
    assert evaluated["nll"] == run["test"]["nll"]
    refused = comodulate("evaluate", tmp_path / "run", "--data", data, "--cache", cache)
    assert refused.status == 2
    assert "unreadable image: " in refused.line
    assert "[test, row 0], damaged_0.png" in refused.line
