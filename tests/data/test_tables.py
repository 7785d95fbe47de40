"""Tables of labels beside images, and images sorted in folders: what is read, what is held out, what is refused."""

import csv
import os
import pickle
import re

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comodulation.data.folders import folder_splits
from comodulation.data.label_files import read_label_table
from comodulation.data.labels import answer_column, is_binary, label_names
from comodulation.data.pictures import BadImageError
from comodulation.data.tables import held_out, label_table_splits
from comodulation.errors import InputError
from comodulation.runs import make_config, open_splits, read_family, read_labels
from support.command import SHORT, SMALL, comodulate
from support.synthetic import CLASSES, GROUPS, picture

NAMES = [CLASSES[row % 8] for row in range(120)]
FILES = [f"{name}/{row}.png" for row, name in enumerate(NAMES)]
WARM = ["" if row % 7 == 3 else ("no", "yes")[name in GROUPS["warm"]] for row, name in enumerate(NAMES)]
COLOUR = ["" if row % 5 == 2 else name for row, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """120 images of eight colours, sorted in folders of classes; not to be changed."""
    folder = tmp_path_factory.mktemp("images")
    for row, file in enumerate(FILES):
        (folder / file).parent.mkdir(exist_ok=True)
        picture(NAMES[row], row).save(folder / file)
    return folder


def table(path, header=("photo", "warm", "colour"), rows=None, separator=",", encoding="utf-8"):
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerows([header, *(zip(FILES, WARM, COLOUR, strict=True) if rows is None else rows)])
    return path


def cells(split, column):
    """Labels as the table had them, by file name."""
    classes = ["no", "yes"] if is_binary(split, column) else label_names(split, column)
    places = answer_column(split, column, classes)
    paths = [cell["path"] for cell in split.table[split.image_column]]
    return {
        "/".join(path.split("/")[-2:]): "" if place < 0 else classes[place]
        for path, place in zip(paths, places, strict=True)
    }


# ---- what is read ----


@pytest.mark.parametrize("kind", ["csv", "csv with BOM", "tsv", "parquet", "absolute paths", "dots in paths"])
def test_every_format_holds_the_same_labels(kind, images, tmp_path):
    path = tmp_path / ("labels.parquet" if kind == "parquet" else "labels.tsv" if kind == "tsv" else "labels.csv")
    if kind == "parquet":
        columns = {"photo": FILES, "warm": [{"yes": True, "no": False}.get(w) for w in WARM]}
        pq.write_table(pa.table({**columns, "colour": [c or None for c in COLOUR]}), path)
    elif kind == "absolute paths":
        table(path, rows=zip([str(images / file) for file in FILES], WARM, COLOUR, strict=True))
    elif kind == "dots in paths":
        table(path, rows=zip([f"./red/../{file}" for file in FILES], WARM, COLOUR, strict=True))
    else:
        table(path, separator="\t" if kind == "tsv" else ",", encoding="utf-8-sig" if "BOM" in kind else "utf-8")
    splits = label_table_splits(str(path), str(images))
    assert set(splits) == {"train", "test"}
    found = {column: {} for column in ("warm", "colour")}
    for split in splits.values():
        assert split.image_column == "photo"
        for column, own in found.items():
            own.update(cells(split, column))
    assert found["warm"] == dict(zip(FILES, WARM, strict=True))
    assert found["colour"] == dict(zip(FILES, COLOUR, strict=True))
    row = splits["train"].table[0]["photo"]["path"].split("/")[-1].removesuffix(".png")
    assert np.array_equal(np.array(splits["train"].image(0)), np.array(picture(NAMES[int(row)], int(row))))


def test_spellings_of_no_and_yes_and_of_whole_numbers(images, tmp_path):
    """0.0 and 1.0 are what a table of numbers with gaps makes of 0 and 1; classes that are numbers are in their order."""
    spellings = {
        "a": ("0", "1"), "b": ("-1", "1"), "c": ("False", "TRUE"), "d": (" no", "Yes "), "e": ("0.0", "1.0")
    }  # fmt: skip
    header = ("photo", *spellings, "number")
    rows = [(file, *(s[n % 2] for s in spellings.values()), f"{(n % 3) * 5}.0") for n, file in enumerate(FILES)]
    train = label_table_splits(str(table(tmp_path / "labels.csv", header, rows)), str(images))["train"]
    first = answer_column(train, "a", ("no", "yes"))
    assert set(first.tolist()) == {0, 1}
    for column in spellings:
        assert is_binary(train, column)
        assert np.array_equal(answer_column(train, column, ("no", "yes")), first)
    assert label_names(train, "number") == ["0", "5", "10"]


def test_a_split_column_decides(images, tmp_path):
    """Its rows are where it says, and it is no task; with --task it is one like any other."""
    given_ = [("Train", "test", "val", "validation")[row % 4] for row in range(len(FILES))]
    path = table(tmp_path / "labels.csv", ("photo", "colour", "split"), zip(FILES, COLOUR, given_, strict=True))
    splits = label_table_splits(str(path), str(images))
    assert {name: len(split) for name, split in splits.items()} == {"train": 30, "test": 30, "validation": 60}
    assert splits["test"].label_columns == ["colour"]
    assert list(cells(splits["test"], "colour")) == FILES[1::4]
    named = label_table_splits(str(path), str(images), tasks=["split"])
    assert label_names(named["train"], "split") == ["Train", "test", "val", "validation"]


def test_held_out_images_stay_held_out(images, tmp_path):
    """Rows in another order, rows added and rows left out move no image; the share is the one that is stated."""
    whole = label_table_splits(str(table(tmp_path / "a.csv")), str(images))
    backwards = list(zip(FILES, WARM, COLOUR, strict=True))[::-1][:70]
    part = label_table_splits(str(table(tmp_path / "b.csv", rows=backwards)), str(images))
    assert set(cells(part["test"], "colour")) == set(cells(whole["test"], "colour")) & set(FILES[-70:])
    # 20% of 20,000 with a standard deviation of 57.
    assert abs(sum(held_out(f"folder/{n}.jpg") == "test" for n in range(20_000)) - 4000) < 250


def test_classes_are_those_of_the_whole_table(images, tmp_path):
    """A class whose few images are all held out is still an output, so that the test split can be read."""
    tested = [file for file in FILES if held_out(file) == "test"][:2]
    rows = [(file, "rare" if file in tested else ("a", "b")[n % 2]) for n, file in enumerate(FILES)]
    splits = label_table_splits(str(table(tmp_path / "labels.csv", ("photo", "kind"), rows)), str(images))
    assert label_names(splits["train"], "kind") == ["a", "b", "rare"]
    assert "rare" not in cells(splits["train"], "kind").values()


def test_the_table_is_found_in_the_folder_and_the_index_is_left_out(images, tmp_path):
    """`--labels labels.csv` may be the folder's own; a column without a name is the index that pandas writes."""
    for name in NAMES[:8]:
        (tmp_path / name).symlink_to(images / name)
    rows = [(n, *row) for n, row in enumerate(zip(FILES, WARM, strict=True))]
    table(tmp_path / "own.csv", ("", "photo", "warm"), rows)
    assert label_table_splits("own.csv", str(tmp_path))["train"].label_columns == ["warm"]


# ---- rows without their image, and names in place of paths ----


def test_rows_whose_image_is_missing(images, tmp_path):
    """Named, with the option that leaves them out; with it they are rows that cannot be read, in their places."""
    rows = [*zip(FILES, WARM, COLOUR, strict=True), ("red/gone.png", "yes", "red"), ("", "no", "blue")]
    path = table(tmp_path / "labels.csv", rows=rows)
    with pytest.raises(InputError, match=r"line 123: column 'photo' is empty"):
        label_table_splits(path, images)
    path = table(tmp_path / "labels.csv", rows=rows[:-1])
    with pytest.raises(
        InputError, match=r"1 of 121 images are not in .*'red/gone\.png'.*--skip-bad leaves their rows out"
    ):
        label_table_splits(path, images)
    splits = label_table_splits(table(tmp_path / "labels.csv", rows=rows), images, skip_missing=True)
    assert sum(len(split) for split in splits.values()) == 122
    unreadable = []
    for split in splits.values():
        for row in range(len(split)):
            try:
                split.image(row)
            except BadImageError as error:
                unreadable.append(str(error))
    assert len(unreadable) == 2
    assert any("gone.png: there is no such file" in message for message in unreadable)
    (said,) = splits["train"].notes
    assert re.search(
        r"2 of 122 rows are left out: their images are not in .*, first 'red/gone\.png' \(.*line 122\)", said
    )


def test_no_image_at_all_is_refused_whatever_is_skipped(images, tmp_path):
    """Most likely the wrong folder."""
    path = table(tmp_path / "labels.csv", rows=[(f"x{n}.png", w, c) for n, (_, w, c) in enumerate(ROWS)])
    for skip in (False, True):
        with pytest.raises(InputError, match=r"120 of 120 images are not in .*, where images are named as 'blue/"):
            label_table_splits(path, images, image_column="photo", skip_missing=skip)


@pytest.mark.parametrize("named", ["by name", "without suffix", "by path without suffix"])
def test_names_in_place_of_paths(named, images, tmp_path):
    """The ids of a table are the files' names without suffix; numbers that are names too, but not of one row each, are none."""
    short = {"by name": lambda f: f.split("/")[1], "without suffix": lambda f: f.split("/")[1][:-4],
             "by path without suffix": lambda f: f[:-4]}[named]  # fmt: skip
    rows = [(short(file), w, n % 7) for n, (file, w, _) in enumerate(ROWS)]
    splits = label_table_splits(table(tmp_path / "labels.csv", ("id", "warm", "sender"), rows), images)
    assert all(split.image_column == "id" for split in splits.values())
    found = {}
    for split in splits.values():
        found |= cells(split, "warm")
    assert found == dict(zip(FILES, WARM, strict=True))
    (said,) = splits["train"].notes
    assert f"column 'id' names 120 images without their folder or suffix: '{FILES[0]}' in" in said


def test_a_name_of_two_images_is_refused(images, tmp_path):
    for kind in ("red", "blue"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        picture(kind, 0).save(tmp_path / "data" / kind / "a.png")
    path = table(tmp_path / "labels.csv", ("id", "warm"), [("a", 1), ("b", 0)])
    with pytest.raises(InputError, match=r"line 2: 'a' may be blue/a\.png or red/a\.png"):
        label_table_splits(path, tmp_path / "data")


# ---- images sorted in folders ----


def test_images_sorted_in_folders(images):
    splits = folder_splits(str(images))
    assert label_names(splits["train"], "label") == sorted(CLASSES)
    both = {**cells(splits["train"], "label"), **cells(splits["test"], "label")}
    assert both == dict(zip(FILES, NAMES, strict=True))
    assert all(held_out(file) == "test" for file in cells(splits["test"], "label"))


def test_folders_of_splits(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for name in ("red", "blue"):
            (tmp_path / split / name / "deeper").mkdir(parents=True)
            for seed in range(count):
                picture(name, seed).save(tmp_path / split / name / "deeper" / f"{seed}.png")
            (tmp_path / split / name / ".hidden.png").write_bytes(b"x")
            (tmp_path / split / name / "notes.txt").write_text("x")
    splits = folder_splits(str(tmp_path))
    assert {name: len(split) for name, split in splits.items()} == {"train": 6, "validation": 4}
    picture("red", 0).save(tmp_path / "train" / "stray.png")
    with pytest.raises(InputError, match=r"stray\.png is beside the folders of the classes"):
        folder_splits(str(tmp_path))


def test_a_class_called_train(tmp_path):
    """Vehicles: next to a bus, a train is a class and no split."""
    for name in ("bus", "train"):
        (tmp_path / name).mkdir()
        for seed in range(20):
            picture("red", seed).save(tmp_path / name / f"test_{seed}.png")
    splits = folder_splits(str(tmp_path))
    assert label_names(splits["train"], "label") == ["bus", "train"]
    assert sum(len(split) for split in splits.values()) == 40


def test_folders_that_hold_something_else(data, tmp_path):
    assert folder_splits(str(data)) is None
    assert folder_splits(str(tmp_path)) is None
    assert folder_splits("nobody/nothing") is None


# ---- families ----


def family_of(columns, path, images, **values):
    rows = zip(FILES, *columns.values(), strict=True)
    labels = table(path, ("photo", *columns), rows)
    config = make_config({"data": str(images), "labels": str(labels), **values})
    splits = open_splits(config, ["train"], ["test"])
    family = read_family(config, splits["train"])
    return family, {name: read_labels(config, split, family) for name, split in splits.items()}


def test_only_binary_columns_are_a_binary_family(images, tmp_path):
    cool = ["1" if name in GROUPS["cool"] else "0" for name in NAMES]
    both, _ = family_of({"warm": WARM, "cool": cool}, tmp_path / "a.csv", images)
    assert (both.kind, both.tasks) == ("binary", ("warm", "cool"))
    mixed, labelled = family_of({"warm": WARM, "colour": COLOUR}, tmp_path / "b.csv", images)
    assert (mixed.kind, mixed.num_outputs) == ("columns", 10)
    assert mixed.outputs[:3] == ("warm=no", "warm=yes", "colour=blue")
    # Every label of the table is an example, in one of the splits, under its own name.
    pairs = [
        (split.split.table[image]["photo"]["path"].split("/")[-1], mixed.tasks[task], mixed.targets[target])
        for split in labelled.values()
        for image, task, target in zip(*(t.tolist() for t in vars(split.examples).values()), strict=True)
    ]
    expected = [
        (file.split("/")[-1], name, label)
        for name, column in (("warm", WARM), ("colour", COLOUR))
        for file, label in zip(FILES, column, strict=True)
        if label
    ]
    assert sorted(pairs) == sorted(expected)


def test_columns_of_a_dataset_are_tasks(data):
    """--task on parquet files: a ClassLabel, strings, and 0 and 1 side by side."""
    config = make_config({"data": str(data), "tasks": ["fine_label", "warm", "counted"]})
    splits = open_splits(config, ["train"], ["test"])
    family = read_family(config, splits["train"])
    assert [family.answers(task) for task in range(3)] == [tuple(CLASSES), ("no", "yes"), ("0", "1", "2")]
    examples = read_labels(config, splits["test"], family).examples
    assert len(examples) == 40 + sum(row % 7 != 3 for row in range(40)) + 40
    binary = make_config({"data": str(data), "tasks": ["warm", "cool"]})
    assert read_family(binary, splits["train"]).kind == "binary"


def test_words_in_a_dataset_and_the_codes_of_a_class_label(tmp_path):
    """A ClassLabel whose first name is yes has code 0 for yes: read by name, never as the number."""
    made = datasets.Dataset.from_dict(
        {"a": [0, 1, 0], "b": ["yes", "no", ""]},
        features=datasets.Features({"a": datasets.ClassLabel(names=["yes", "no"]), "b": datasets.Value("string")}),
    )
    from comodulation.data.source import Split

    split = Split("here", "train", made, "image")
    assert answer_column(split, "a", ("no", "yes")).tolist() == [1, 0, 1]
    assert answer_column(split, "b", ("no", "yes")).tolist() == [1, 0, -1]


# ---- the command ----


def fit(images, out, *options):
    short = SHORT[:-2] if "--method" in options else SHORT
    return comodulate("fit", "--data", images, "--out", out / "run", "--cache", out / "cache", *SMALL, *short, *options)


@pytest.mark.usefixtures("no_figures")
def test_fit_evaluate_predict(images, tmp_path):
    """From table to answers: the summary first, each column answered in its own words, the same numbers again by evaluate."""
    path = table(tmp_path / "labels.csv")
    fitted = fit(images, tmp_path, "--labels", path, "--pretraining-epochs", "30", "--epochs", "5")
    assert fitted.status == 0, fitted.err
    lines = fitted.err.splitlines()
    tested = sum(held_out(file) == "test" for file in FILES)
    assert lines[0] == f"2 tasks; images: {120 - tested} in 'train', {tested} in 'test'"
    assert [line.split()[:3] for line in lines[2:4]] == [["warm", "binary", "2"], ["colour", "categorical", "8"]]
    assert lines.index(next(line for line in lines if line.startswith("features"))) > 3
    run = tmp_path / "run"
    evaluated = comodulate("evaluate", run, "--data", images, "--cache", tmp_path / "cache", "--json").json
    assert set(evaluated["tasks"]) == {"warm", "colour"}
    assert evaluated["tasks"]["warm"]["balanced_accuracy"] > 0.8
    stored = pq.read_table(run / "predictions.parquet").to_pydict()
    assert set(stored["target"]) <= {*CLASSES, "no", "yes"}
    hits = [a == b for a, b in zip(stored["target"], stored["prediction"], strict=True)]
    assert np.mean(hits) == evaluated["accuracy"]
    answers = comodulate("predict", run, images / "red" / "0.png", "--json").json["images"][0]["tasks"]
    assert (set(answers["warm"]["probabilities"]), set(answers["colour"]["probabilities"])) == (
        {"no", "yes"},
        set(CLASSES),
    )
    for answer in answers.values():
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    again = fit(images, tmp_path, "--labels", path, "--pretraining-epochs", "30", "--epochs", "5", "--resume")
    assert (again.status, again.out) == (0, fitted.out)
    # The run evaluated on a table of its own, in another order, without one of the columns' labels.
    other = table(tmp_path / "other.csv", rows=[(f, w, "") for f, w in list(zip(FILES, WARM, strict=True))[::-1]])
    part = comodulate("evaluate", run, "--data", images, "--labels", other, "--cache", tmp_path / "cache", "--json")
    assert "warning: no label in split 'test' for 'colour': not among its metrics" in part.err
    assert part.json["tasks"] == {"warm": pytest.approx(evaluated["tasks"]["warm"])}
    kept = [(f, w, c) for f, w, c in zip(FILES, WARM, COLOUR, strict=True)][::-1]
    table(other, rows=kept)
    moved = comodulate("evaluate", run, "--data", images, "--labels", other, "--cache", tmp_path / "cache", "--json")
    assert moved.json["tasks"]["colour"]["count"] == evaluated["tasks"]["colour"]["count"]
    assert moved.json["accuracy"] == pytest.approx(evaluated["accuracy"])


@pytest.mark.usefixtures("no_figures")
def test_fit_on_sorted_folders(images, tmp_path):
    fitted = fit(images, tmp_path, "--method", "attention", "--method", "task-bias", "--balance", "classes")
    assert fitted.status == 0, fitted.err
    config = (tmp_path / "run" / "attention" / "config.yaml").read_text()
    assert "balance: classes" in config
    assert "readout: restricted" in config
    answer = comodulate("predict", tmp_path / "run" / "attention", images / "red" / "0.png", "--json").json
    assert set(answer["images"][0]["tasks"]["label"]["probabilities"]) == set(CLASSES)


# ---- what is refused ----

ROWS = list(zip(FILES, WARM, COLOUR, strict=True))
NAMED = ["--task", "colour"]


def changed(row, column, value):
    copy = [list(one) for one in ROWS]
    copy[row][column] = value
    return copy


REFUSED = {
    "missing image": (changed(5, 0, "red/none.png"), [], r"1 of 120 images are not in .*; first 'red/none\.png' \(.*line 7"),
    "no image named": (changed(5, 0, ""), [], "line 7: column 'photo' is empty, expected the path of an image"),
    "parent folder": (changed(5, 0, "../a.png"), [], r"line 7: '\.\./a\.png' is outside the folder"),
    "hidden parent folder": (changed(5, 0, "red/../../a.png"), [], "is outside the folder"),
    "absolute path": (changed(5, 0, "/etc/passwd"), [], "line 7: '/etc/passwd' is outside the folder"),
    "NUL in a path": (changed(5, 0, "a\0b"), [], "1 of 120 images are not in"),
    "endless path": (changed(5, 0, "a" * 5000), [], "1 of 120 images are not in"),
    "a folder": (changed(5, 0, "red"), [], "1 of 120 images are not in .*first 'red'"),
    "duplicate": (changed(5, 0, f"./{FILES[2]}"), [], r"line 7: image '\./yellow/2\.png' is listed twice, also on line 4"),
    "no labels": ([(file,) for file in FILES], [], "has no label column: only photo"),
    "only a split": ([(file, "train") for file in FILES], [], "has no label column"),
    "unknown task": (ROWS, ["--task", "colur"], r"unknown task .* 'colur'; did you mean 'colour'\?"),
    "the paths as a task": (ROWS, ["--task", "photo"], "unknown task .* 'photo'"),
    "task twice": (ROWS, ["--task", "warm", "--task", "warm"], "a task is given twice"),
    "image column": (ROWS, ["--image-column", "foto"], r"unknown image column 'foto'; did you mean 'photo'\?"),
    "image column of labels": (ROWS, ["--image-column", "colour"], "line 4: column 'colour' is empty"),
    "open readout": (ROWS, ["--readout", "open"], "the open readout is not for label columns"),
    "class mask": (ROWS, ["--method", "class-mask"], "'class-mask' is for tasks of kind classes"),
    "attribute": (ROWS, ["--attribute", "warm"], "give either --group"),
    "empty column": ([(f, w, "") for f, w, _ in ROWS], NAMED, "column 'colour' .* has no labels: every cell is missing"),
    "constant": ([(f, w, "red") for f, w, _ in ROWS], NAMED, "nothing to learn from column 'colour': .* every label is 'red'|"
                 "task 'colour' has 1 class"),
    "constant, binary": ([(f, 1, c) for f, _, c in ROWS], ["--task", "warm"], "nothing to learn from column 'warm': .*'yes'"),
    "nothing to learn": (
        [(f, 1, f"id{n}") for n, (f, _, _) in enumerate(ROWS)], [], "no label column that can be learned; first 'warm'"
    ),
    "all is ignored": (ROWS, ["--ignore", "warm", "--ignore", "colour"], "no label column that can be read: --ignore leaves none"),
    "unknown column to ignore": (ROWS, ["--ignore", "colur"], r"unknown column of labels\.csv 'colur'; did you mean 'colour'\?"),
    "ignored and named": (ROWS, ["--task", "warm", "--ignore", "colour"], "--ignore leaves label columns out where all of them"),
    "measurement": ([(f, w, 0.5 + n) for n, (f, w, _) in enumerate(ROWS)], NAMED, r"no classes, first 0\.5 .*regression"),
    "negative class": ([(f, w, n % 4 - 1) for n, (f, w, _) in enumerate(ROWS)], NAMED, "first -1 .*missing labels are empty"),
    "nan as text": ([(f, w, (1, 2, "nan")[n % 3]) for n, (f, w, _) in enumerate(ROWS)], NAMED, "first nan .*are empty cells"),
    "0 and -1": ([(f, n % 3 - 1, c) for n, (f, _, c) in enumerate(ROWS)], ["--task", "warm"], "'warm' .* holds both 0 and -1"),
    "short row": ([*ROWS[:3], ("x",), *ROWS[3:]], [], "line 5: 1 cells, expected 3"),
    "no rows": ([], [], "labels.csv is empty: it has no rows"),
    "too few images": (ROWS[:6], ["--task", "warm"], "are too few|nothing to learn"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_tables(name, images, tmp_path, refused):
    rows, options, message = REFUSED[name]
    width = len(rows[0]) if rows else 3
    header = ("photo", "split") if name == "only a split" else ("photo", "warm", "colour")[:width]
    path = table(tmp_path / "labels.csv", header, rows)
    labels = [] if name == "attribute" else ["--labels", path]
    options = [*options, "--labels", path] if name == "attribute" else options
    refused(
        lambda out, cache: comodulate(
            "fit", "--data", images, "--out", out, "--cache", cache, *labels, *SMALL, *SHORT, *options
        ),
        message,
    )


FILES_REFUSED = {
    "labels.csv": [
        (b"", "labels.csv is empty"),
        (b"\n\n  \n", "labels.csv is empty"),
        (pickle.dumps({"photo": ["a.png"]}), "is not text in UTF-8"),
        (
            pickle.dumps({"photo": ["a.png"]}, protocol=0),
            "has no column of paths|one column|not a table|cells, expected",
        ),
        ("photo,größe\na,1\n".encode("utf-16-le"), "is not text in UTF-8"),
        ("photo,größe\na,1\n".encode("latin-1"), "is not text in UTF-8 .*; save it as UTF-8, or as .xlsx"),
        (
            b"photo;warm\na.png;1;2\n",
            "one column, 'photo;warm'; cells seem to be separated by ';', but its rows have different",
        ),
        (b"photo,warm,warm\na.png,1,0\n", "several columns named 'warm'"),
        (b'photo,warm\n"a.png,1\n', "cannot be read as a table"),
        (
            b"a,b\nx,y\n",
            "has no column of paths to files in .*, where images are named as '.*--set image_column=NAME, of a, b",
        ),
        (b"image,b\nx.png,2\nu.png,1\n", r"2 of 2 images are not in .*; first 'x\.png'"),
        (b"image,b,split\nred/0.png,2,tran\n", "line 2: split 'tran' is unknown, expected train, test or validation"),
        (b"\0\x01,b\n1,2\n", "its first line holds control characters"),
    ],
    "labels.tsv": [(b"photo,warm\na.png\n", "one column, 'photo,warm'; cells seem to be separated by ','")],
    "labels.xlsx": [(b"PK noise", "cannot be read as xlsx"), (b"", "cannot be read as xlsx")],
    "labels.xls": [(b"", r"expected \.csv, \.tsv, \.parquet or \.xlsx; save it as \.xlsx")],
    "labels.parquet": [(b"PAR1 noise", "cannot be read as parquet"), (b"", "cannot be read as parquet")],
    "labels.pkl": [(pickle.dumps({"photo": ["a.png"]}), r"expected \.csv, \.tsv, \.parquet or \.xlsx")],
    "labels": [(b"photo,warm\n", r"expected \.csv, \.tsv, \.parquet or \.xlsx")],
}


@pytest.mark.parametrize(
    ("name", "content", "message"), [(n, *case) for n, cases in FILES_REFUSED.items() for case in cases]
)
def test_refused_files(name, content, message, images, tmp_path, refused):
    path = tmp_path / name
    path.write_bytes(content)
    refused(lambda out, cache: fit_there(images, out, cache, path), message)


def fit_there(images, out, cache, labels):
    return comodulate("fit", "--data", images, "--out", out, "--cache", cache, "--labels", labels, *SMALL, *SHORT)


def test_refused_places(images, data, tmp_path, refused):
    path = table(tmp_path / "labels.csv")
    refused(lambda out, cache: fit_there(images, out, cache, "nowhere.csv"), "no such labels file: nowhere.csv")
    refused(lambda out, cache: fit_there(images, out, cache, images), "is a folder, expected .csv")
    refused(
        lambda out, cache: fit_there("no/thing", out, cache, path), "with --labels, --data is the folder of the images"
    )
    nested = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"photo": FILES, "box": [[0, 1]] * len(FILES)}), nested)
    refused(
        lambda out, cache: fit_there(images, out, cache, nested),
        "column 'box' .* holds list, expected labels: one number",
    )


def test_only_what_can_be_chosen_from_is_found(data, refused):
    """Without any --task, a data set of several label columns says which there are."""
    refused(
        lambda out, cache: comodulate("fit", "--data", data, "--out", out, "--cache", cache, *SMALL),
        "give either --group .* holds the columns fine_label, coarse_label, warm",
    )


def test_nothing_is_unpickled(images, tmp_path, refused):
    """A pickle that would make a file is refused under every name, and makes none."""

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    for suffix in ("csv", "tsv", "parquet", "pkl", "pickle"):
        path = tmp_path / f"labels.{suffix}"
        path.write_bytes(pickle.dumps(Trap(), protocol=0))
        refused(lambda out, cache, path=path: fit_there(images, out, cache, path), "labels")
    assert not (tmp_path / "sprung").exists()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet='ab,;"\n\t01.\r\0é', max_size=80).map(lambda text: text.encode()))
def test_any_bytes_are_a_table_or_an_input_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        read = read_label_table(path)
    except InputError:
        return
    assert all(len(column) == len(read.lines) for column in read.columns.values())
