"""Bad input, item by item: one line that says what was given and what was expected, status 2, and nothing written."""

import math
import pickle
import re
import shutil

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from safetensors.torch import save_file

from support.command import GROUPED, comodulate, fit
from support.synthetic import at_row, encode, images_at, no_rows, picture, plain, snapshot, write

pytestmark = pytest.mark.usefixtures("no_figures")

# ---- arguments of fit ----

ARGUMENTS = {
    "backbone": (["--backbone", "resnet-18"], r"unknown backbone 'resnet-18'; did you mean 'resnet"),
    "backbone, nearly": (["--backbone", "eficientnet-lite0"], r"did you mean 'efficientnet-lite0'\? known: "),
    "weights": (["--weights", "pretraned"], r"no such weights: 'pretraned'; did you mean 'pretrained'\? expected "),
    "weights file": (["--weights", "/nowhere/a.safetensors"], "no such weights: '/nowhere/a.safetensors'"),
    "weights not to be had": (
        ["--weights", "pretrained"],
        "cannot be loaded here .* or take --backbone efficientnet-lite0",
    ),
    "method": (["--method", "atention"], r"unknown method 'atention'; did you mean 'attention'\? known: base, "),
    "second method": (["--method", "base", "--method", "comod"], "unknown method 'comod'"),
    "group": (["--group", "coarse"], r"unknown column 'coarse'; did you mean 'coarse_label'\? known: fine_label, "),
    "label": (["--label", "fine"], r"unknown column 'fine'; did you mean 'fine_label'\?"),
    "label that is the image": (["--label", "img"], "unknown column 'img'"),
    "image column": (["--image-column", "imgs"], r"unknown image column 'imgs'; did you mean 'img'\?"),
    "image column of labels": (["--image-column", "fine_label"], "column 'fine_label' of .* does not hold images"),
    "train split": (["--train-split", "trian"], r"unknown split of .* 'trian'; did you mean 'train'\? known: "),
    "test split": (["--test-split", "tset"], r"unknown split of .* 'tset'; did you mean 'test'\? known: "),
    "test split is train": (
        ["--test-split", "train"],
        "the test split must be another than the training split 'train'",
    ),
    "readout": (["--readout", "opened"], r"unknown readout 'opened'; did you mean 'open'\? known: open, restricted"),
    "precision": (["--precision", "float16"], r"unknown precision 'float16'; did you mean 'bfloat16'\?"),
    "link": (["--link", "exponental"], r"unknown link 'exponental'; did you mean 'exponential'\?"),
    "normalizer": (["--normalizer", "covarance"], r"unknown normalizer 'covarance'; did you mean 'covariance'\?"),
    "normalizer and link": (
        ["--normalizer", "covariance"],
        "link 'exponential' is defined for normalizer 'relative' only",
    ),
    "level": (["--level", "tasks"], r"unknown level 'tasks'; did you mean 'task'\?"),
    "estimator": (["--estimator", "montecarlo"], r"unknown estimator 'montecarlo'; did you mean 'monte_carlo'\?"),
    "encoder": (["--encoder", "noise"], "unknown encoder 'noise'; .*known: gain, none, stochastic"),
    "training encoder": (["--training-encoder", "gains"], r"unknown training_encoder 'gains'; did you mean 'gain'\?"),
    "image size": (["--image-size", 8], "image size 8 is out of range, expected 16 to 1024 pixels"),
    "image size, large": (["--image-size", 4096], "image size 4096 is out of range, expected 16 to 1024 pixels"),
    "image size, text": (["--image-size", "big"], "'--image-size': .*integer.*'big'|'big'.*integer"),
    "seed": (["--seed", -1], r"seed: .* greater than or equal to 0 \(given: -1\)"),
    "seed, large": (["--seed", 2**32], r"seed: .* less than or equal to 4294967295 \(given: 4294967296\)"),
    "seed, text": (["--seed", "x"], "'--seed': .*integer.*'x'|'x'.*integer"),
    "layer": (["--layer", 99], r"gives no feature map at image size 32, layer 99: .*out of range \(0 to 4\)"),
    "feature size": (["--feature-size", 65], "feature size 65 is out of range, expected 0 to 64"),
    "channels": (["--channels", 0], "encoder_channels must be a whole number from 1 to 65536, got 0"),
    "kernel size": (["--kernel-size", 2], "kernel_size must be odd, got 2"),
    "kernel size, large": (["--kernel-size", 33], "kernel_size must be a whole number from 1 to 31, got 33"),
    "sigma": (["--sigma", 0], r"modulation: std must be a positive finite number, got 0\.0"),
    "sigma, NaN": (["--sigma", "nan"], "modulation: std must be a positive finite number, got nan"),
    "sigma, infinite": (["--sigma", "inf"], "modulation: std must be a positive finite number, got inf"),
    "beta": (["--beta", -0.5], r"beta must be in \[0, inf\] for link 'exponential', got -0\.5"),
    "beta, large": (["--beta", 1.5, "--link", "rectified"], r"beta must be in \[0, 1\] for link 'rectified', got 1\.5"),
    "beta, NaN": (["--beta", "nan"], "beta must be in .* got nan"),
    "epochs": (["--epochs", 0], "tuning: epochs 0 is out of range, expected 1 to 60000"),
    "pretraining epochs": (["--pretraining-epochs", -3], "pretraining: epochs -3 is out of range, expected 1 to 60000"),
    "learning rate": (["--learning-rate", 0], r"tuning: learning_rate 0\.0 is out of range, expected a positive"),
    "pretraining learning rate": (
        ["--pretraining-learning-rate", "nan"],
        "pretraining: learning_rate nan is out of range",
    ),
    "patience": (["--patience", -1], "tuning: patience -1 is out of range, expected at least 0"),
    "controller": (["--controller-hidden", 0], r"controller\.hidden\.0: .* \(given: 0\)"),
    "option": (["--metod", "base"], "[Nn]o such option:? '?--metod.*--method"),
    "option without value": (["--seed"], "'--seed' requires an argument"),
    "extra argument": (["extra"], "unexpected extra argument"),
    "attributes too": (["--attribute", "warm"], "give either --group and --label .* or --attribute"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name, data, refused):
    options, message = ARGUMENTS[name]
    refused(lambda out, cache: fit(data, out, cache, *options), message)


LABELS = {
    "none": ([], "give either --group and --label .* or --attribute"),
    "group alone": (["--group", "coarse_label"], "need both --group and --label"),
    "label alone": (["--label", "fine_label"], "need both --group and --label"),
    "unknown attribute": (["--attribute", "wram"], r"unknown column 'wram'; did you mean 'warm'\?"),
    "attribute twice": (["--attribute", "warm", "--attribute", "warm"], "an attribute is given twice: warm, warm"),
    "not binary": (["--attribute", "counted"], r"column 'counted', row 2: '2' is not binary, expected 0 or 1"),
    "all missing": (["--attribute", "all_missing"], "has no labels of 'all_missing': every cell is missing"),
    "method for classes": (
        ["--attribute", "warm", "--method", "class-mask"],
        "'class-mask' is for tasks of kind classes",
    ),
}


@pytest.mark.parametrize("name", LABELS)
def test_label_arguments(name, data, refused):
    labels, message = LABELS[name]
    refused(lambda out, cache: fit(data, out, cache, labels=labels), message)


def test_missing_arguments(refused):
    refused(lambda out, cache: comodulate("fit", "--out", out, *GROUPED), "[Mm]issing option '--data'")
    refused(lambda out, cache: comodulate("fit", "--data", "x", *GROUPED), "[Mm]issing option '--out'")
    refused(lambda out, cache: comodulate("fitt"), "[Nn]o such command 'fitt'.*fit")
    refused(lambda out, cache: comodulate("predict", out), "[Mm]issing argument 'FILE")
    refused(lambda out, cache: comodulate("evaluate"), "[Mm]issing argument 'RUN'")


# ---- data ----


def one_grey(table, features):
    """Only the eighth class is left in its group."""
    table["coarse_label"] = [2 if fine == 7 else fine % 2 for fine in table["fine_label"]]


DATA = {
    "infinite label": (
        at_row(5, "fine_label", math.inf),
        r"column 'fine_label' of .* holds numbers that are no classes, first inf ",
    ),
    "fractional label": (
        at_row(5, "fine_label", 2.5),
        r"column 'fine_label' of .* holds numbers that are no classes, first 2\.5 ",
    ),
    "negative label": (
        at_row(5, "fine_label", -1, "int64"),
        r"holds numbers that are no classes, first -1 \(row 5\); missing labels are empty cells",
    ),
    "infinite group": (
        at_row(5, "coarse_label", -math.inf),
        r"column 'coarse_label' of .* holds numbers that are no classes, first -inf ",
    ),
    "column all missing": (
        plain("int64", fine_label=lambda number: None),
        "column 'fine_label' of .* has no labels: every cell is missing",
    ),
    "column all NaN": (plain("float64", coarse_label=lambda number: math.nan), "every cell is missing"),
    "column all empty": (plain("string", fine_label=lambda number: ""), "every cell is missing"),
    "group of one class": (one_grey, "task 'grey' has 1 class; a task needs at least 2 to choose among"),
    "too few labels": (
        lambda table, features: table.update(
            fine_label=[label if row < 8 else None for row, label in enumerate(table["fine_label"])]
        ),
        "8 labelled images are too few",
    ),
    "empty split": (no_rows, "cannot read split 'train' of .*: it is empty"),
}


@pytest.mark.parametrize("name", DATA)
def test_bad_labels(name, tmp_path, refused):
    """In the training split, where names of classes are read."""
    change, message = DATA[name]
    bad = write(tmp_path / "bad", change)
    refused(lambda out, cache: fit(bad, out, cache), message)


def test_a_class_label_out_of_range(tmp_path, refused):
    """A file whose header promises eight classes and whose rows hold a ninth."""
    path = write(tmp_path / "bad") / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    place, labels = table.column_names.index("fine_label"), table.column("fine_label").to_pylist()
    labels[5] = 8  # `datasets` itself refuses to write this
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(labels, pa.int64())), path)
    message = "column 'fine_label', row 5: label 8 is out of range, expected 0 to 7|Class label 8 greater than"
    refused(lambda out, cache: fit(path.parent, out, cache), message)


def test_a_column_of_lists(tmp_path, refused):
    def boxes(table, features):
        table["box"], features["box"] = [[0, 1]] * len(table["img"]), datasets.List(datasets.Value("int64"))

    data = write(tmp_path / "boxes", boxes, changed="both")
    for labels in (["--attribute", "box"], ["--group", "coarse_label", "--label", "box"]):
        refused(
            lambda out, cache, labels=labels: fit(data, out, cache, labels=labels),
            "column 'box' of .* holds List, expected one label a row",
        )


def test_bad_labels_of_the_test_split(tmp_path, refused):
    """They are found as early: a class that training does not know, a column that is all missing, no rows."""
    unknown = write(tmp_path / "unknown", at_row(5, "fine_label", "99", "string"), changed="test")
    strings = write(tmp_path / "strings", plain("string", fine_label=str), splits=("train",))
    shutil.copy(strings / "train-00000-of-00001.parquet", unknown)
    refused(
        lambda out, cache: fit(unknown, out, cache),
        r"column 'fine_label', row 5: label '99' is out of range, expected one of the 8 known classes",
    )

    def nothing(table, features):
        table["fine_label"] = [None] * len(table["fine_label"])

    missing = write(tmp_path / "missing", nothing, changed="test")
    refused(lambda out, cache: fit(missing, out, cache), r"column 'fine_label' of .* \[test\] has no labels")
    empty = write(tmp_path / "empty", no_rows, changed="test")
    refused(lambda out, cache: fit(empty, out, cache), "cannot read split 'test' of .*: it is empty")


def test_data_that_is_none(data, tmp_path, refused):
    nothing, noise = tmp_path / "nothing", tmp_path / "noise"
    nothing.mkdir()
    noise.mkdir()
    (noise / "train.parquet").write_bytes(b"PAR1 noise")
    refused(lambda out, cache: fit(tmp_path / "nowhere", out, cache), "no such data folder: '.*nowhere'")
    refused(lambda out, cache: fit(nothing, out, cache), "cannot read data '.*nothing'")
    refused(lambda out, cache: fit(noise, out, cache), "cannot read (data|split 'train' of) '.*noise'")
    refused(lambda out, cache: fit("nobody/nothing", out, cache), "cannot read data 'nobody/nothing'")
    parquet = data / "test-00000-of-00001.parquet"
    refused(
        lambda out, cache: fit(parquet, out, cache),
        "is a file; give the folder that holds it",
        "of a table of texts or embeddings, --text or --embeddings names their column",
    )
    cut = write(tmp_path / "cut", splits=("train",)) / "train-00000-of-00001.parquet"
    cut.write_bytes(cut.read_bytes()[:-1000])
    refused(lambda out, cache: fit(cut.parent, out, cache), "cannot read (data|split 'train' of) '.*cut'")


def test_an_unreadable_image(tmp_path):
    """It is found while features are extracted: named, and neither run folder nor cache are left behind."""
    cut = encode(picture("red", 5))[:300]
    bad = write(tmp_path / "bad", images_at({11: cut}))
    before = snapshot(tmp_path)
    outcome = fit(bad, tmp_path / "runs" / "out", tmp_path / "cache")
    assert outcome.status == 2
    pattern = r"error: unreadable image: .*bad \[train, row 11\], damaged_11\.png: image file is truncated"
    *summary, line = outcome.err.splitlines()  # the summary of tasks comes before extraction
    assert re.fullmatch(pattern, line), line
    assert summary[0].startswith("3 tasks; ")
    assert snapshot(tmp_path) == before
    # Nothing stands in the way of the same command with --skip-bad.
    assert fit(bad, tmp_path / "runs" / "out", tmp_path / "cache", "--skip-bad").status == 0


def test_no_image_can_be_read(tmp_path):
    """Also with --skip-bad, that is an error and no empty result; in the test split as in the training split."""
    for split in ("train", "test"):
        rows = range(160 if split == "train" else 40)
        bad = write(tmp_path / split, images_at(dict.fromkeys(rows, b"noise")), changed=split)
        outcome = fit(bad, tmp_path / "out", tmp_path / "cache", "--skip-bad")
        assert outcome.status == 2
        assert f"split '{split}' of '{bad}' has no labelled image that can be read" in outcome.err.splitlines()[-1]
        assert not (tmp_path / "out").exists()


# ---- weights ----


def test_weights_of_another_architecture(data, tmp_path, refused):
    path = tmp_path / "w.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_convnext").state_dict(), path)
    refused(
        lambda out, cache: fit(data, out, cache, "--weights", path),
        r"w\.safetensors holds weights of another architecture: \d+ tensors missing, \d+ unknown",
    )
    path.write_bytes(path.read_bytes()[:1000])
    refused(lambda out, cache: fit(data, out, cache, "--weights", path), "is not a readable safetensors file")
    path.write_bytes(pickle.dumps({"a": 1}))
    refused(lambda out, cache: fit(data, out, cache, "--weights", path), "is not a readable safetensors file")


def test_nothing_is_printed_twice_and_json_stays_empty(data, refused):
    """With --json too, an error is a line on standard error, and standard output is empty."""
    outcome = refused(lambda out, cache: fit(data, out, cache, "--json", "--method", "x"), "unknown method 'x'")
    assert outcome.out == ""
