"""Labels as people have them: the same words mean the same in every kind of file, and cells with several labels are tasks."""

import csv
import json
import sys
import zipfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from comodulation.data.label_files import read_label_table
from comodulation.data.label_lists import lists_of_texts, lists_of_values
from comodulation.errors import InputError
from comodulation.runs import make_config, open_splits, read_family, read_labels
from support.command import SHORT, SMALL, comodulate
from support.mutations import is_refusal, refused_or
from support.synthetic import picture

ROWS = 40
FILES = [f"{row:02d}.png" for row in range(ROWS)]
CELLS = {
    "sold": [("", "yes", "No ", " TRUE", "false")[row % 5] for row in range(ROWS)],
    "worn": [("-1", "1", "", "1", "-1.0")[row % 5] for row in range(ROWS)],
    "size": [(" s", "m ", "l", "", "größe")[row % 5] for row in range(ROWS)],
    "number": [("2", "10", "", "2.0", "10")[row % 5] for row in range(ROWS)],
    "split": [("train", "Test")[row % 7 == 3] for row in range(ROWS)],
}
ANSWERS = {"sold": ("no", "yes"), "worn": ("no", "yes"), "size": ("größe", "l", "m", "s"), "number": ("2", "10")}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for row, file in enumerate(FILES):
        picture("red" if row % 2 else "blue", row, 16).save(folder / file)
    return folder


def text(path, columns, separator=",", encoding="utf-8"):
    with open(path, "w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


def number(cell):
    return None if not cell else int(float(cell))


def excel(path, columns, *sheets):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [list(columns), *zip(*columns.values(), strict=True)]:
        book.active.append([None if cell == "" else cell for cell in row])
    for name in sheets:
        book.create_sheet(name)["A1"] = "more"
    book.save(path)
    return path


def parquet(path, columns):
    pq.write_table(
        pa.table({name: [None if cell == "" else cell for cell in own] for name, own in columns.items()}), path
    )
    return path


COLUMNS = {"photo": FILES, **CELLS}
TYPED = {**COLUMNS, "worn": list(map(number, CELLS["worn"])), "number": list(map(number, CELLS["number"]))}
TYPED["sold"] = [{"": None, "yes": True, "No ": False, " TRUE": True, "false": False}[cell] for cell in CELLS["sold"]]
KINDS = {
    "csv": lambda path: text(path / "a.csv", COLUMNS),
    "csv, byte order mark": lambda path: text(path / "a.csv", COLUMNS, encoding="utf-8-sig"),
    "csv of semicolons": lambda path: text(path / "a.csv", COLUMNS, ";"),
    "csv of semicolons and decimal commas": lambda path: text(
        path / "a.csv", {**COLUMNS, "number": [cell.replace(".", ",") for cell in CELLS["number"]]}, ";"
    ),
    "csv of tabs": lambda path: text(path / "a.csv", COLUMNS, "\t"),
    "tsv of commas": lambda path: text(path / "a.tsv", COLUMNS),
    "tsv in UTF-16, as Excel writes it": lambda path: text(path / "a.tsv", COLUMNS, "\t", "utf-16"),
    "parquet of words": lambda path: parquet(path / "a.parquet", COLUMNS),
    "parquet of values": lambda path: parquet(path / "a.parquet", TYPED),
    "xlsx of words": lambda path: excel(path / "a.xlsx", COLUMNS),
    "xlsx of values": lambda path: excel(path / "a.xlsx", TYPED),
}


def read(images, tasks=(), **given):
    """The family, and of each image the answers by task."""
    config = make_config({"data": str(images), "tasks": list(tasks), **given})
    splits = open_splits(config, ["train"], ["test"])
    family = read_family(
        config, splits["train"], tasks or (tuple(splits["train"].label_columns) if "labels" in given else ())
    )
    found = {}
    for split in splits.values():
        own = read_labels(config, split, family).examples
        names = split.names(str(images))
        for image, task, target in zip(own.image.tolist(), own.task.tolist(), own.target.tolist(), strict=True):
            found[names[image] or FILES[image], family.tasks[task]] = family.targets[target]
    return family, found


EXPECTED = {
    (file, task): word
    for task, words in {
        "sold": {" TRUE": "yes", "yes": "yes", "No ": "no", "false": "no"}, "worn": {"1": "yes", "-1": "no", "-1.0": "no"},
        "size": {" s": "s", "m ": "m", "l": "l", "größe": "größe"}, "number": {"2": "2", "2.0": "2", "10": "10"},
    }.items()
    for file, cell in zip(FILES, CELLS[task], strict=True)
    if (word := words.get(cell))
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_words_mean_the_same_in_every_file(kind, images, tmp_path):
    family, found = read(images, labels=str(KINDS[kind](tmp_path)))
    assert {name: family.answers(task) for task, name in enumerate(family.tasks)} == ANSWERS
    assert found == EXPECTED


@pytest.mark.parametrize("kind", ["metadata.csv", "semicolons", "tabs", "parquet", "ClassLabel"])
def test_and_in_a_data_set(kind, tmp_path):
    """What `datasets` reads, metadata and tables, by the rules of a table of labels."""
    columns = {name: cells for name, cells in TYPED.items() if name != "split"}
    if kind in ("parquet", "ClassLabel"):
        rows = {
            name: [None if cell == "" else cell for cell in cells] for name, cells in columns.items() if name != "photo"
        }
        features = {"image": datasets.Image(), "sold": datasets.Value("bool"), "worn": datasets.Value("int64")}
        features |= {"size": datasets.Value("string"), "number": datasets.Value("float64")}
        if kind == "ClassLabel":
            features["size"] = datasets.ClassLabel(names=["s", "m", "größe", "l"])
            rows["size"] = [cell and cell.strip() for cell in rows["size"]]
        rows["image"] = [picture("red", row, 16) for row in range(ROWS)]
        datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(tmp_path / "train.parquet")
    else:
        for row, file in enumerate(FILES):
            picture("red", row, 16).save(tmp_path / file)
        named = {"file_name": FILES, **{name: CELLS[name] for name in ANSWERS}}
        text(tmp_path / "metadata.csv", named, {"semicolons": ";", "tabs": "\t"}.get(kind, ","))
    family, found = read(tmp_path, ANSWERS)
    answers = {name: family.answers(task) for task, name in enumerate(family.tasks)}
    assert {name: sorted(own) for name, own in answers.items()} == {name: sorted(own) for name, own in ANSWERS.items()}
    assert found == EXPECTED


def test_only_an_empty_cell_is_missing_everywhere(tmp_path):
    """The loader of `datasets` takes NA and null for gaps, which may be the name of a class."""
    cells = [("NA", "null", "", "a")[row % 4] for row in range(ROWS)]
    for row, file in enumerate(FILES):
        picture("red", row, 16).save(tmp_path / file)
    text(tmp_path / "metadata.csv", {"file_name": FILES, "country": cells})
    assert read(tmp_path, ["country"])[0].answers(0) == ("NA", "a", "null")


def test_numbers_to_be_predicted_are_refused_in_these_words(images, tmp_path):
    for path in (
        text(tmp_path / "a.csv", {"photo": FILES, "price": [f"{row},5" for row in range(ROWS)]}, ";"),
        parquet(tmp_path / "a.parquet", {"photo": FILES, "price": [row + 0.5 for row in range(ROWS)]}),
        excel(tmp_path / "a.xlsx", {"photo": FILES, "price": [row + 0.5 for row in range(ROWS)]}),
    ):
        with pytest.raises(
            InputError, match=r"'price' .* first 0\.5 \((line|row) \d\); to predict numbers \(regression\) is not"
        ):
            read(images, ["price"], labels=str(path))


# ---- several labels in a cell ----

TAGS = [
    (("night", "rain"), ("night",), (), ("rain", "sea shore"), None, ("sea shore", "night"))[row % 6]
    for row in range(ROWS)
]
LISTS = {
    "semicolons": lambda cell: "" if not cell else "; ".join(cell),
    "bars": lambda cell: "" if not cell else "|".join(cell),
    "JSON": lambda cell: "" if cell is None else json.dumps(cell),
    "Python": lambda cell: "" if cell is None else repr(list(cell)),
    "NumPy": lambda cell: "" if cell is None else repr(list(cell)).replace(",", ""),
}


def expected_tags(kind):
    """An empty text is missing; a list without anything in it says no to each label."""
    empty = kind in ("semicolons", "bars")
    return {
        (file, f"tags={label}"): ("no", "yes")[label in cell]
        for file, cell in zip(FILES, TAGS, strict=True)
        for label in ("night", "rain", "sea shore")
        if cell is not None and (cell or not empty)
    }


@pytest.mark.parametrize("kind", [*LISTS, "parquet", "xlsx"])
def test_several_labels_in_a_cell_are_a_task_each(kind, images, tmp_path):
    if kind == "parquet":
        path = parquet(
            tmp_path / "a.parquet", {"photo": FILES, "tags": [cell and list(cell) for cell in TAGS[:-1]] + [["night"]]}
        )
        pq.write_table(
            pa.table({"photo": FILES, "tags": [None if cell is None else list(cell) for cell in TAGS]}), path
        )
    elif kind == "xlsx":
        path = excel(tmp_path / "a.xlsx", {"photo": FILES, "tags": [LISTS["JSON"](cell) for cell in TAGS]})
    else:
        path = text(tmp_path / "a.csv", {"photo": FILES, "tags": [LISTS[kind](cell) for cell in TAGS]})
    for tasks in ((), ("tags",)):
        family, found = read(images, tasks, labels=str(path))
        assert (family.kind, family.tasks) == ("binary", ("tags=night", "tags=rain", "tags=sea shore"))
        assert found == expected_tags(kind)
    split = open_splits(make_config({"data": str(images), "labels": str(path)}), ["train"])["train"]
    assert any(
        "several labels in a cell: each of its 3 labels is a task of no and yes, such as 'tags=night'" in n
        for n in split.notes
    )
    assert read(images, ["tags=rain"], labels=str(path))[0].tasks == ("tags=rain",)
    with pytest.raises(InputError, match=r"unknown label of 'tags' 'rainy'; did you mean 'rain'\?"):
        read(images, ["tags=rainy"], labels=str(path))


@pytest.mark.parametrize("kind", ["list", "ClassLabel", "words"])
def test_several_labels_in_a_cell_of_a_data_set(kind, tmp_path):
    """The labels are those of all splits; one that a split never has is answered with no there, not missing."""
    names = ["night", "rain", "sea shore"]
    features = {"list": datasets.List(datasets.Value("string")), "ClassLabel": datasets.List(datasets.ClassLabel(names=names)),
                "words": datasets.Value("string")}[kind]  # fmt: skip
    for split in ("train", "test"):
        cells = [cell if split == "train" else cell and [one for one in cell if one != "rain"] for cell in TAGS]
        if kind == "ClassLabel":
            cells = [None if cell is None else [names.index(one) for one in cell] for cell in cells]
        elif kind == "words":
            cells = [None if cell is None else ";".join(cell) for cell in cells]
        datasets.Dataset.from_dict(
            {"image": [picture("red", row, 16) for row in range(ROWS)], "tags": cells},
            features=datasets.Features({"image": datasets.Image(), "tags": features}),
        ).to_parquet(tmp_path / f"{split}.parquet")
    for tasks in ([], ["tags"]):
        config = make_config(
            {"data": str(tmp_path), "tasks": tasks} if tasks else {"data": str(tmp_path), "tasks": ["tags"]}
        )
        splits = open_splits(config, ["train"], ["test"])
        family = read_family(config, splits["train"])
        assert family.tasks == tuple(f"tags={name}" for name in names)
        train, test = (read_labels(config, splits[name], family).columns for name in ("train", "test"))
        assert [column.tolist() for column in train] == [
            [-1 if cell is None or (kind == "words" and not cell) else int(name in cell) for cell in TAGS]
            for name in names
        ]
        assert set(test[1].tolist()) == {0, -1}
    # What a run with these tasks reads of other data.
    answers = {f"tags={name}": ("no", "yes") for name in names}
    alone = open_splits(config, ["test"], answers=answers)["test"]
    assert [column.tolist() for column in read_labels(config, alone, family).columns] == [
        column.tolist() for column in test
    ]


@pytest.mark.parametrize(
    "cells",
    [
        ["red", "blue", None], ["[a", "b]"], ["a;b", "c;d"], ["Tops, other", "Shoes, other"], [f"a {n};b {n}" for n in range(30)],
        [f"nice {n};good" for n in range(40)], ["[1.5, 2]", "[1]"], ["[1, 2]", "[3, 4]"], ["[[1], [2]]", "[[1]]"], ["{'a': 1}"],
        ["[" * 5000 + "]" * 5000], [None], ["[a b]", "['a']"],
    ],
)  # fmt: skip
def test_what_is_no_list_of_labels(cells):
    """Sentences, boxes, vectors, names with a comma: one label, or none."""
    assert lists_of_texts(cells) is None


def test_lists_that_are_no_labels():
    assert lists_of_values([["a"], None, []]) == [{"a"}, None, frozenset()]
    assert lists_of_values([["a", None, " "], [1.0]]) == [{"a"}, {"1"}]
    for cells in ([[1, 2], [3, 4]], [[0.5]], [["a", ["b"]]], [{"a": 1}], ["ab"]):
        assert lists_of_values(cells) is None


def test_labels_that_are_rare_are_left_out_and_said(images, tmp_path):
    path = text(tmp_path / "a.csv", {"photo": FILES, "tags": ["a;once", *(["a;b", "b"] * ROWS)[: ROWS - 1]]})
    config = make_config({"data": str(images), "labels": str(path)})
    split = open_splits(config, ["train"])["train"]
    assert split.label_columns == ["tags=a", "tags=b"]
    assert "left out: 1 labels of column 'tags'" in split.notes[-1]
    both = {"photo": FILES, "tags": ["a;b", "b;c"] * 20, "tags=a": [0, 1] * 20}
    with pytest.raises(InputError, match="two columns would be named 'tags=a'"):
        open_splits(make_config({"data": str(images), "labels": str(text(tmp_path / "b.csv", both))}), ["train"])


@pytest.mark.usefixtures("no_figures")
def test_a_run_whose_tasks_are_labels_of_lists(images, tmp_path):
    """From fit to evaluate on a table with other labels: what a cell does not name is no."""
    tags = [(["red"] if row % 2 else ["blue"]) + (["late"] if row % 3 == 0 else []) for row in range(ROWS)]
    path = text(tmp_path / "a.csv", {"photo": FILES, "tags": [";".join(own) for own in tags]})
    common = ["--data", images, "--cache", tmp_path / "cache"]
    done = comodulate(
        "fit", *common, "--labels", path, "--out", tmp_path / "run", *SMALL, *SHORT[:-2], "--method", "linear"
    )
    assert done.status == 0, done.err
    assert "each of its 3 labels is a task of no and yes" in done.err
    other = text(
        tmp_path / "b.csv", {"photo": FILES, "tags": ["new;late" if row % 2 else "new" for row in range(ROWS)]}
    )
    found = comodulate("evaluate", tmp_path / "run", *common, "--labels", other, "--json")
    assert found.status == 0, found.err
    assert set(found.json["tasks"]) == {"tags=blue", "tags=late", "tags=red"}
    answer = comodulate("predict", tmp_path / "run", images / FILES[0], "--json").json["images"][0]["tasks"]
    assert set(answer["tags=red"]["probabilities"]) == {"no", "yes"}


# ---- spreadsheets ----


def test_one_sheet_is_read_and_the_others_are_said(tmp_path):
    path = excel(tmp_path / "a.xlsx", {"photo": FILES, "size": CELLS["size"]}, "notes", "old")
    (said,) = read_label_table(path).notes
    assert said.endswith("the sheet 'Sheet' is read, and not 'notes', 'old'")


def test_errors_and_formulas_without_values_are_no_labels(images, tmp_path):
    """Nothing is computed here: a formula has the value that a spreadsheet has left beside it, or none."""
    columns = {"photo": FILES, "size": ["s", "m"] * 20, "a": ["=1+1"] * ROWS, "b": ["#DIV/0!", "x"] * 20}
    path = excel(tmp_path / "a.xlsx", columns)
    table = read_label_table(path)
    assert list(table.columns) == ["photo", "size"]
    assert "a formula without a value in cell C2" in table.unread["a"]
    assert "the error #DIV/0! in cell D2" in table.unread["b"]
    with pytest.raises(InputError, match=r"column 'a' .* holds a formula without a value"):
        read(images, ["a"], labels=str(path))


def test_spreadsheets_that_cannot_be_used(tmp_path, monkeypatch):
    openpyxl = pytest.importorskip("openpyxl")
    path = excel(tmp_path / "a.xlsx", {"photo": FILES, "size": CELLS["size"]})
    book = openpyxl.load_workbook(path)
    book.active.merge_cells("B2:B5")
    book.save(tmp_path / "merged.xlsx")
    with pytest.raises(InputError, match=r"sheet 'Sheet' has merged cells, B2:B5; unmerge them"):
        read_label_table(tmp_path / "merged.xlsx")
    openpyxl.Workbook().save(tmp_path / "empty.xlsx")
    with pytest.raises(InputError, match="is empty"):
        read_label_table(tmp_path / "empty.xlsx")
    monkeypatch.setattr("comodulation.data.spreadsheets.MAX_UNPACKED", 9000)
    with pytest.raises(InputError, match=r"it unpacks to .* bytes, at most 9000 are read"):
        read_label_table(path)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"needs the package openpyxl \(pip install 'comodulation\[excel\]'\)"):
        read_label_table(path)


@pytest.mark.parametrize("name", ["entities of entities", "two cells far apart"])
def test_spreadsheets_that_claim_too_much(name, tmp_path):
    """A kilobyte that stands for gigabytes of text, or of cells."""
    source = excel(tmp_path / "a.xlsx", {"photo": FILES, "size": CELLS["size"]})
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 11))
    rows = {
        "entities of entities": '<row r="1"><c r="A1" t="inlineStr"><is><t>&a10;</t></is></c></row>',
        "two cells far apart": '<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>',
    }[name]
    sheet = (
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "lol">{entities}]>'
        f'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{rows}</sheetData></worksheet>'
    )
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "b.xlsx", "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, sheet if member.endswith("sheet1.xml") else old.read(member))
    with pytest.raises(InputError, match=r"cannot be read as xlsx: (Unable to read|it has more than 16,777,216 cells)"):
        read_label_table(tmp_path / "b.xlsx")


def test_a_damaged_spreadsheet_is_refused(tmp_path):
    content = excel(tmp_path / "a.xlsx", {"photo": FILES, "size": CELLS["size"]}).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 8):
            damaged[place] = rng.integers(256)
        (tmp_path / "b.xlsx").write_bytes(damaged[: rng.integers(100, len(content))] if rng.random() < 0.3 else damaged)
        found = refused_or(lambda: read_label_table(tmp_path / "b.xlsx"))
        assert is_refusal(found) or found.lines
