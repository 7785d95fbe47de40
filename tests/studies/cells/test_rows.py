"""Rows: what their labels say, what is refused, and where their options go."""

import pytest

from comodulation.errors import InputError
from comodulation.mathematics import Modulation
from comodulation.networks.methods import METHODS
from comodulation.runs import RunConfig
from comodulation.studies.cells.rows import Cell, Row
from comodulation.studies.paper import attributes_plan, cifar100_plan

ROWS = list(
    dict.fromkeys(row for plan in (cifar100_plan(), attributes_plan()) for rows in plan.rows.values() for row in rows)
)
CONFIG = RunConfig(data="x", group="a", label="b")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_a_label_is_its_row(row):
    """Both ways, with values of the same type; and every row is a valid configuration."""
    again = Row.parse(row.label)
    assert again == row
    assert [type(value) for _, value in again.options] == [type(value) for _, value in row.options]
    assert again.label == row.label == f"{row.method} {row.described}".strip()
    config = row.configure(CONFIG, {})
    assert RunConfig.model_validate(config.model_dump()) == config


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("comodulaton", r"unknown method 'comodulaton'; did you mean 'comodulation'\?"),
        ("comodulation btea=0.5", r"unknown option of 'comodulation'; 'btea'; did you mean 'beta'\?"),
        ("attention aggregator=mgda", "unknown option of 'attention'; 'aggregator'"),
        ("attention learning_rate=1", "unknown option of 'attention'; 'learning_rate'"),
        ("", "unknown method ''"),
    ],
)
def test_unknown_names(label, message):
    with pytest.raises(InputError, match=message):
        Row.parse(label)


def test_values():
    row = Row.parse("comodulation num_samples=4 beta=0.5 link=rectified task_bias=True after_gain=False")
    assert [value for _, value in row.options] == [4, 0.5, "rectified", True, False]


def test_changing_rows():
    row = Row.parse("attention task_bias=True images=25")
    assert row.without("images") == Row.parse("attention task_bias=True")
    assert row.without("images").adding(images=25) == row
    assert (row.get("images"), row.get("distractors"), row.get("distractors", 0)) == (25, None, 0)


def test_options_go_where_they_belong():
    row = Row.parse("comodulation link=rectified num_samples=4 task_bias=True hidden=64 images=25")
    config = row.configure(CONFIG, {"learning_rate": 0.2, "weight_decay": 0.01, "beta": 0.7})
    assert config.method == "comodulation"
    assert config.task_bias is True
    assert config.options == {}
    assert config.modulation == Modulation(link="rectified", num_samples=4, beta=0.7)
    assert (config.tuning.learning_rate, config.tuning.weight_decay) == (0.2, 0.01)
    assert config.tuning.epochs == CONFIG.tuning.epochs
    assert config.controller.hidden == (64,)
    assert config.head == CONFIG.head
    assert config.pretraining == CONFIG.pretraining


def test_options_of_the_method():
    config = Row.parse("gradient-aggregation aggregator=mgda").configure(CONFIG, {"learning_rate": 1e-4})
    assert config.options == {"aggregator": "mgda"}
    config = Row.parse("task-routing").configure(CONFIG, {"sharing": 0.5})
    assert config.options == {"sharing": 0.5}
    config = Row.parse("fine-tuning").configure(CONFIG, {"gain_rate": 20.0, "beta": 1.1})
    assert config.options == {"gain_rate": 20.0}


def test_the_rows_own_options_win():
    """Over what was searched; and a search for one method says nothing to another."""
    config = Row.parse("comodulation beta=0.5").configure(CONFIG, {"beta": 1.2, "learning_rate": 0.3})
    assert (config.modulation.beta, config.tuning.learning_rate) == (0.5, 0.3)


@pytest.mark.parametrize("name", METHODS)
def test_without_settings_a_method_has_its_own_learning_rate(name):
    config = Row(name).configure(CONFIG, {})
    assert config.tuning.learning_rate == METHODS[name].default_learning_rate
    assert (config.task_bias, config.options, config.controller.hidden) == (False, {}, ())


def test_keys_of_cells_differ():
    cells = [
        Cell(variant, readout, row, seed)
        for variant in ("residual", "base")
        for readout in ("open", "restricted")
        for row in ROWS
        for seed in range(3)
    ]
    assert len({cell.key for cell in cells}) == len(cells)


def test_keys_of_cells_stay():
    """They name files of studies that are finished."""
    assert Cell("residual", "open", Row("comodulation"), 0).key == "comodulation-010852ee4cf07184"
    assert Cell("base", "restricted", Row.parse("attention task_bias=True"), 12).key == "attention-651ba16ff3d36ea6"
