"""Tables of thousands of columns: time that grows with the columns, not with their square."""

import random
import time

import datasets
import pytest
from packaging.version import Version

from comodulation.data import summarize, summary_table, warnings_of
from comodulation.runs import make_config, open_splits
from comodulation.runs.dataset import deal_images, learnable_columns, read_family, read_labels
from support.synthetic import encode, picture

ROWS = 36
WORDS = [("no", "yes"), ("red", "green", "blue")]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for row in range(ROWS):
        (folder / f"{row}.png").write_bytes(encode(picture("red", row, 8)))
    return folder


def table(path, number):
    """Columns of no and yes, of words, and a constant one."""
    drawn = random.Random(0)
    columns = [[drawn.choice(WORDS[place % 2]) for _ in range(ROWS)] for place in range(number)]
    header = ["file", *(f"column{place}" for place in range(number)), "constant"]
    lines = [[f"{row}.png", *(column[row] for column in columns), "same"] for row in range(ROWS)]
    path.write_text("".join(",".join(line) + "\n" for line in [header, *lines]))
    return path


def seconds(images, path):
    """Processor time of all that ``fit`` does with a table before it looks at a picture, and the number of its tasks."""
    began = time.process_time()
    config = make_config({"data": str(images), "labels": str(path)})
    splits = open_splits(config, ["train"], ["test"])
    names, left_out = learnable_columns(config, splits["train"])
    family = read_family(config, splits["train"], names)
    labelled = {name: read_labels(config, split, family) for name, split in splits.items()}
    train = labelled["train"]
    found = summarize(family, train.examples, len(train.split))
    deal_images(config, family, train.examples)
    assert "constant" in left_out
    assert summary_table(found, {"train": len(train.split)}).endswith(f"... and {len(names) - 40} more tasks")
    warnings_of(found)
    assert len(train.split.fingerprint) == 64
    return time.process_time() - began, family.num_tasks


@pytest.mark.skipif(
    Version(datasets.__version__) < Version("5.2"),
    reason="datasets before 5.2 takes the square of the columns for each copy",
)
@pytest.mark.parametrize("number", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_ten_times_as_many_columns(number, images, tmp_path):
    seconds(images, table(tmp_path / "first.csv", 50))  # imports
    few, tasks = seconds(images, table(tmp_path / "few.csv", number))
    assert tasks == number
    many, tasks = seconds(images, table(tmp_path / "many.csv", 10 * number))
    assert tasks == 10 * number
    assert many < 30 * max(few, 0.05)  # ten times as many columns; with their square it would be a hundred times
