"""Runs on embeddings: from a table or a file to answers, the same way as pictures go."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression

from comodulation.runs import Run, fit, make_config
from support.command import comodulate

pytestmark = pytest.mark.usefixtures("undrawn", "quick_onnx")

ROWS, WIDTH = 240, 12
RNG = np.random.default_rng(0)
PLACE = RNG.integers(0, 4, ROWS)
NUMBERS = (RNG.normal(size=(4, WIDTH))[PLACE] + RNG.normal(size=(ROWS, WIDTH))).astype(np.float32)
KIND = [("north", "east", "south", "west")[place] for place in PLACE]
FAST = ("--quality", "fast", "--method", "linear")


def write(folder, numbers=NUMBERS, name="table.parquet"):
    made = {
        "id": [f"clip{row}" for row in range(len(numbers))],
        "vector": pa.array(list(numbers), pa.list_(pa.float32())),
        "kind": KIND[: len(numbers)],
        "even": [place % 2 for place in PLACE[: len(numbers)]],
    }
    pq.write_table(pa.table(made), folder / name)
    return folder / name


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write(tmp_path_factory.mktemp("embeddings"))


@pytest.fixture(scope="module")
def run(table):
    outcome = comodulate(
        "fit",
        "--data",
        table,
        "--embeddings",
        "vector",
        "--out",
        table.parent / "run",
        "--cache",
        table.parent / "cache",
        *FAST,
    )
    assert outcome.status == 0, outcome.err
    assert "embeddings are vectors of 12 numbers" in outcome.err
    assert "2 tasks; embeddings: " in outcome.err
    return table.parent / "run"


def test_it_is_logistic_regression_on_the_vectors(run, table):
    """An independent library on the same rows has nearly the same answers: strengths of L2 differ a little."""
    opened = Run.open(run)
    answers = opened.predict(NUMBERS, ["kind"])
    model = LogisticRegression(C=1.0, max_iter=1000).fit(NUMBERS, KIND)
    found = [answer["tasks"]["kind"]["prediction"] for answer in answers]
    assert np.mean(np.array(found) == model.predict(NUMBERS)) > 0.95
    assert opened.metrics["test"]["tasks"]["kind"]["accuracy"] > 0.6
    assert [answer["embedding"] for answer in answers[:2]] == ["embedding 0", "embedding 1"]
    pandas = pytest.importorskip("pandas")
    assert opened.predict(pandas.DataFrame(NUMBERS[:3], index=[7, 8, 9]), "kind") == answers[:3]


def test_a_file_beside_a_table_gives_the_same_run(run, table, tmp_path):
    """Numbers in .npy, labels in a csv file: the same splits, labels and answers as of the table with both."""
    np.save(tmp_path / "v.npy", NUMBERS.astype(np.float64))
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("id", "kind", "even", "high"),
                *((f"clip{n}", KIND[n], PLACE[n] % 2, PLACE[n] + 0.5) for n in range(ROWS)),
            ]
        )
    outcome = comodulate(
        "fit", "--embeddings", tmp_path / "v.npy", "--labels", tmp_path / "labels.csv", "--out", tmp_path / "run", "--cache",
        table.parent / "cache", "--json", *FAST,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "left out column 'high'" in outcome.err
    assert "--task high" not in outcome.err  # it would be refused
    one, other = Run.open(run).metrics, json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert other["test"] == one["test"]
    assert other["made_from"] == one["made_from"]


def test_predict_reads_files(run, table, tmp_path):
    """Tables by the run's column, and arrays; a bad row is named, and the others are answered."""
    new = NUMBERS[:5].copy()
    alone = Run.open(run).predict(new, ["kind"])
    outcome = comodulate("predict", run, write(tmp_path, new), "--task", "kind", "--json")
    assert outcome.status == 0, outcome.err
    found = outcome.json["embeddings"]
    assert [one["embedding"] for one in found] == [f"clip{row}" for row in range(5)]
    assert [one["tasks"] for one in found] == [one["tasks"] for one in alone]
    new[3, 2] = np.nan
    np.save(tmp_path / "v.npy", new)
    outcome = comodulate("predict", run, tmp_path / "v.npy", "--out", tmp_path / "a.csv")
    assert outcome.status == 2
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["embedding"].rpartition(", ")[2] for row in rows if row["task"] == "kind"] == [
        "row 1",
        "row 2",
        "row 3",
        "row 5",
    ]
    (bad,) = [row for row in rows if row["error"]]
    assert bad["error"].endswith("v.npy, row 4 holds NaN at place 2; expected finite numbers")
    np.save(tmp_path / "w.npy", NUMBERS[:5, :7])
    assert "has the shape (7,), expected (12,), as in training" in comodulate("predict", run, tmp_path / "w.npy").line


def test_evaluate_and_add_task_read_other_tables(run, table, tmp_path):
    before = Run.open(run)
    answers = before.predict(NUMBERS[:9], ["kind"])
    outcome = comodulate("evaluate", run, "--data", table, "--cache", tmp_path / "cache", "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["accuracy"] == pytest.approx(before.metrics["test"]["accuracy"])
    new = pq.read_table(table).append_column("high", pa.array([["no", "yes"][int(place > 1)] for place in PLACE]))
    pq.write_table(new, tmp_path / "more.parquet")
    outcome = comodulate(
        "add-task",
        run,
        "--data",
        tmp_path / "more.parquet",
        "--task",
        "high",
        "--out",
        tmp_path / "more",
        "--cache",
        tmp_path / "cache",
    )
    assert outcome.status == 0, outcome.err
    after = Run.open(tmp_path / "more")
    assert after.predict(NUMBERS[:9], ["kind"]) == answers
    assert set(after.family.tasks) == {"kind", "even", "high"}
    twice = ["--task", "high", "--task", "high", "--out", tmp_path / "twice", "--cache", tmp_path / "cache"]
    assert (
        "a new task is given twice: high, high"
        in comodulate("add-task", run, "--data", tmp_path / "more.parquet", *twice).line
    )


def test_groups_of_classes(table, tmp_path):
    """A task is a group whose classes are known, as with pictures."""
    made = pq.read_table(table)
    sides = ["vertical" if kind in ("north", "south") else "horizontal" for kind in KIND]
    pq.write_table(made.append_column("side", pa.array(sides)), tmp_path / "t.parquet")
    outcome = comodulate(
        "fit", "--data", tmp_path / "t.parquet", "--embeddings", "vector", "--group", "side", "--label", "kind", "--out",
        tmp_path / "run", "--cache", tmp_path / "cache", *FAST,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    opened = Run.open(tmp_path / "run")
    (answer,) = opened.predict(NUMBERS[:1], ["vertical"])
    assert set(answer["tasks"]["vertical"]["probabilities"]) == {"north", "south"}
    outcome = comodulate(
        "evaluate", tmp_path / "run", "--data", tmp_path / "t.parquet", "--cache", tmp_path / "cache", "--json"
    )
    assert outcome.json["accuracy"] == pytest.approx(opened.metrics["test"]["accuracy"])


def test_methods_with_gains_read_maps(tmp_path, no_figures):
    """Maps (C, H, W) go through the layers as those of a backbone do."""
    maps, short = NUMBERS.reshape(ROWS, 3, 2, 2), ("--channels", 16, "--epochs", 1, "--pretraining-epochs", 1)
    np.save(tmp_path / "maps.npy", maps)
    (tmp_path / "labels.csv").write_text("kind\n" + "\n".join(KIND) + "\n")
    outcome = comodulate(
        "fit", "--embeddings", tmp_path / "maps.npy", "--labels", tmp_path / "labels.csv", "--method", "comodulation", *short,
        "--out", tmp_path / "run", "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    (answer,) = Run.open(tmp_path / "run").predict(maps[:1])
    assert sum(answer["tasks"]["kind"]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_resuming_needs_the_same_numbers(run, table, tmp_path):
    """A finished run is kept for the same embeddings, and not taken for the answer to others."""
    shutil.copytree(run, tmp_path / "run")
    again = (
        "fit",
        "--embeddings",
        "vector",
        "--out",
        tmp_path / "run",
        "--cache",
        table.parent / "cache",
        "--resume",
        *FAST,
    )
    assert comodulate(*again, "--data", table).status == 0
    other = write(tmp_path, NUMBERS + 1)
    shutil.copy(table, tmp_path / "kept.parquet")
    shutil.copy(other, table)
    try:
        assert "a finished run that was made from other" in comodulate(*again, "--data", table).line
    finally:
        shutil.copy(tmp_path / "kept.parquet", table)


def test_the_graph_takes_vectors(run, tmp_path):
    outcome = comodulate("export", run, "--out", tmp_path / "g.onnx", "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["inputs"] == ["embeddings", "tasks"]
    assert outcome.json["embedding_shape"] == [WIDTH, 1, 1]
    session = onnxruntime.InferenceSession(tmp_path / "g.onnx")
    tasks = np.array([outcome.json["tasks"].index("kind")] * 6)
    (found,) = session.run(None, {"embeddings": NUMBERS[:6, :, None, None], "tasks": tasks})
    about = outcome.json["outputs"]["kind"]
    for row, answer in zip(found, Run.open(run).predict(NUMBERS[:6], ["kind"]), strict=True):
        for place, word in zip(about["columns"], about["words"], strict=True):
            assert row[place] == pytest.approx(answer["tasks"]["kind"]["probabilities"][word], abs=1e-5)


def test_the_report_names_rows(run):
    page = (run / "report.html").read_text()
    assert "Most confidently wrong" in page
    assert "clip" in page
    assert "<dt>embeddings</dt>" in page or "embeddings" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--embeddings", "none.npy"], "no such file of embeddings: 'none.npy'"),
        (["--embeddings", "vector"], "--embeddings 'vector' names a column; give its table with --data"),
        (["--data", "TABLE", "--embeddings", "vectr"], "has no column 'vectr'"),
        (["--data", "TABLE", "--embeddings", "kind"], "holds one value in each row, expected lists of numbers"),
        (["--data", "TABLE", "--embeddings", "vector", "--text", "kind"], "give either --text or --embeddings"),
        (["--data", "FILE", "--embeddings", "FILE"], "leave --data out"),
        (
            ["--embeddings", "ARRAY"],
            "rows.npy holds no labels; give them with --labels: a table with a row for each of its rows",
        ),
        (
            ["--data", "TABLE", "--embeddings", "vector", "--attribute", "kind"],
            "expected no and yes (or 0 and 1, -1 and 1, false and true); --task kind takes it as it is",
        ),
        (
            ["--embeddings", "FILE", "--backbone", "resnet18"],
            "--backbone resnet18 is of images; embeddings have no encoder",
        ),
        (
            ["--data", "TABLE", "--text", "kind", "--image-size", "64"],
            "--image-size 64 is of images; the model of texts is",
        ),
        ([], "missing option '--data'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_options_that_do_not_go_together(options, said, table, tmp_path):
    np.save(tmp_path / "rows.npy", NUMBERS)
    places = {"TABLE": str(table), "FILE": str(table), "ARRAY": str(tmp_path / "rows.npy")}
    given = [places.get(one, one) for one in options]
    outcome = comodulate("fit", *given, "--out", tmp_path / "run", "--cache", tmp_path / "cache")
    assert outcome.status == 2
    assert said in outcome.line
    assert not (tmp_path / "run").exists()


def test_methods_fitted_together_have_the_layers_of_their_own_settings(table, tmp_path):
    """Settings of layers that do not show in the sizes of their tensors."""
    configs = [
        make_config({
            "data": str(table), "embeddings": {"column": "vector"}, "tasks": ["kind", "even"], "method": method,
            "head": {"start": "probe", "encoder_skip": skip}, "pretraining": {"epochs": epochs}, "tuning": {"epochs": 1},
        })
        for method, skip, epochs in (("attention", 1.0, 1), ("comodulation", 0.5, 2))
    ]  # fmt: skip
    fit(configs, tmp_path / "both", tmp_path / "cache")
    for config in configs:
        fit(config, tmp_path / config.method, tmp_path / f"cache of {config.method}")
        alone, together = (place / config.method / "head.safetensors" for place in (tmp_path, tmp_path / "both"))
        assert together.read_bytes() == alone.read_bytes(), config.method


@pytest.mark.slow
def test_two_processes_fit_the_methods_that_one_fits(table, tmp_path):
    words = ["--data", table, "--embeddings", "vector", "--method", "linear", "--method", "attention", "--epochs", 1]
    for name, more in (("one", []), ("two", ["--cluster", "local"])):
        outcome = comodulate("fit", *words, "--out", tmp_path / name, "--cache", tmp_path / f"cache {name}", *more)
        assert outcome.status == 0, outcome.err
    for file in (f"{m}/{part}.safetensors" for m in ("linear", "attention") for part in ("head", "adapter")):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_fit_imports_no_library_that_loads_for_seconds(tmp_path):
    """A fit of a readout, whole: neither torch's compiler nor Lightning Fabric, which imports it, nor SciPy's statistics."""
    rng = np.random.default_rng(0)
    answers = np.arange(40) % 2
    np.save(tmp_path / "rows.npy", (rng.normal(size=(40, 8)) + answers[:, None]).astype(np.float32))
    (tmp_path / "labels.csv").write_text("id,kind\n" + "".join(f"{row},{'ab'[a]}\n" for row, a in enumerate(answers)))
    code = f"""if True:
        import os, sys
        os.chdir({str(tmp_path)!r})
        sys.argv = "comodulate fit --embeddings rows.npy --labels labels.csv --out run --quality fast".split()
        from comodulation.app.cli import main
        try:
            main()
        except SystemExit as ended:
            assert not ended.code
        heavy = "timm torchvision torch._dynamo sympy scipy.stats sklearn lightning_fabric".split()
        print([name for name in heavy if name in sys.modules])
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ended.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "run" / "metrics.json").exists()
