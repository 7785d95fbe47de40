"""The configuration of a run: what it accepts, how it is kept, and that nothing it may hold is anything but refused."""

from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from comodulation.data.features import BackboneSettings
from comodulation.errors import InputError, brief, choose, first_difference
from comodulation.mathematics import Modulation
from comodulation.runs.config import MAX_SEED, make_config, read_config, write_config
from comodulation.training import TrainingSettings

CLASSES = {"data": "folder", "group": "coarse", "label": "fine"}
BINARY = {"data": "folder", "attributes": ["smiling", "young"]}


@pytest.mark.parametrize(
    "values",
    [
        CLASSES,
        BINARY,
        {"data": "folder"},
        {"data": "folder", "labels": "labels.csv", "tasks": ["age", "smiling"], "balance": "classes"},
        {**CLASSES, "readout": "restricted", "method": "attention", "seed": MAX_SEED, "test_split": "val"},
        {
            **CLASSES,
            "backbone": BackboneSettings("resnet10t", "random", 64, -2, 0),
            "head": {"residual": False, "kernel_size": 1},
            "controller": {"hidden": (8, 4), "activation": "gelu"},
            "modulation": Modulation(std=0.6, link="rectified", level="input", training_encoder="none"),
            "pretraining": TrainingSettings(epochs=3, learning_rate=0.1 + 0.2),
            "tuning": replace(TrainingSettings(), patience=2),
        },
    ],
)
def test_what_is_written_is_read(values, tmp_path):
    """Every value survives YAML exactly, floats included."""
    config = make_config(values)
    (tmp_path / "config.yaml").write_text(write_config(config))
    assert read_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "data: Field required"),
        ({**CLASSES, "tasks": ["a"]}, "give either --group and --label .* or --attribute .* or label columns"),
        ({**BINARY, "labels": "a.csv"}, "give either --group and --label .* or --attribute .* or label columns"),
        ({"data": "x", "tasks": ["a", "a"]}, "a task is given twice: a, a"),
        ({"data": "x", "tasks": ["a"], "readout": "open"}, "the open readout is not for label columns"),
        ({"data": "x", "labels": "a.csv", "method": "class-mask"}, "method 'class-mask' is for tasks of kind classes"),
        ({**BINARY, "balance": "class"}, r"unknown balance 'class'; did you mean 'classes'\?"),
        ({**CLASSES, **BINARY}, "give either --group and --label .* or --attribute"),
        ({"data": "x", "group": "g"}, "need both --group and --label"),
        ({"data": "x", "attributes": ["a", "a"]}, "an attribute is given twice: a, a"),
        ({**BINARY, "method": "class-mask"}, "method 'class-mask' is for tasks of kind classes"),
        ({**CLASSES, "method": "comodulatoin"}, r"unknown method 'comodulatoin'; did you mean 'comodulation'\?"),
        ({**CLASSES, "protocol": "tables"}, r"unknown protocol 'tables'; did you mean 'table'\?"),
        (
            {**CLASSES, "backbone": {"output": "vectr"}},
            r"unknown output 'vectr'; did you mean 'vector'\? known: map, vector",
        ),
        ({**CLASSES, "readout": "opne"}, r"unknown readout 'opne'; did you mean 'open'\?"),
        ({**CLASSES, "precision": "float16"}, r"unknown precision 'float16'; did you mean 'bfloat16'\?"),
        ({**CLASSES, "seed": -1}, r"seed: .* greater than or equal to 0 \(given: -1\)"),
        ({**CLASSES, "seed": MAX_SEED + 1}, rf"seed: .* less than or equal to {MAX_SEED}"),
        ({**CLASSES, "seed": 1.5}, r"seed: .*integer.*\(given: 1.5\)"),
        ({**CLASSES, "validation_fraction": 0.5}, r"validation_fraction: .* less than 0.5"),
        ({**CLASSES, "test_split": "train"}, "the test split must be another than the training split 'train'"),
        ({**CLASSES, "metod": "x"}, r"unknown option 'metod'; did you mean 'method'\?"),
        (
            {**CLASSES, "backbone": {"img_size": 3}},
            r"unknown option of backbone 'img_size'; did you mean 'image_size'\?",
        ),
        ({**CLASSES, "head": {"residal": 1}}, r"unknown option of head 'residal'; did you mean 'residual'\?"),
        ({**CLASSES, "embeddings": {"colum": "x"}}, r"unknown option of embeddings 'colum'; did you mean 'column'\?"),
        (
            {**CLASSES, "text": {"column": "x", "colum": "y"}},
            r"unknown option of text 'colum'; did you mean 'column'\?",
        ),
        ({**CLASSES, "backbone": {"image_size": 8}}, "image size 8 is out of range, expected 16 to 1024 pixels"),
        ({**CLASSES, "head": {"kernel_size": 2}}, "head: kernel_size must be odd, got 2"),
        (
            {**CLASSES, "head": {"encoder_channels": 0}},
            "head: encoder_channels must be a whole number from 1 to 65536, got 0",
        ),
        ({**CLASSES, "head": {"dropout": 1.0}}, "head: dropout must be at least 0 and below 1, got 1.0"),
        ({**CLASSES, "controller": {"hidden": [8, 0]}}, r"controller.hidden.1: .* \(given: 0\)"),
        ({**CLASSES, "controller": {"activation": "rleu"}}, r"unknown activation 'rleu'; did you mean 'relu'\?"),
        ({**CLASSES, "modulation": {"std": 0}}, "std must be a positive finite number, got 0"),
        ({**CLASSES, "modulation": {"std": float("nan")}}, "std must be a positive finite number, got nan"),
        ({**CLASSES, "modulation": {"beta": float("inf")}}, "beta"),
        (
            {**CLASSES, "modulation": {"link": "exp"}},
            r"unknown link 'exp'; did you mean 'exponential'\?|unknown link 'exp'",
        ),
        ({**CLASSES, "tuning": {"epochs": 0}}, "epochs 0 is out of range"),
        ({**CLASSES, "tuning": {"learning_rate": float("nan")}}, "learning_rate nan is out of range"),
        ({**CLASSES, "tuning": 3}, "tuning: "),
    ],
)
def test_what_is_refused(values, message):
    with pytest.raises(InputError, match=message) as error:
        make_config(values)
    assert "\n" not in str(error.value)
    assert "pydantic" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"3", b"- a", b"\xff\xfe\x00", b"a: [", b"data: 2001-99-99", b"data: !!int x", b"data: !!bool x",
        b"data: !!timestamp x", b"data: !!python/object/apply:os.getcwd []", b"[" * 5000, b"? {a: b}\n: c", b"&a [*a]",
        b"data: &a {b: *a}", b"1: 2", b"data: x\n\x00", b"{data: x, group: g, label: l, 3: 4}",
    ],
)  # fmt: skip
def test_files_that_are_no_configuration(content, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"config\.yaml"):
        read_config(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "config.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path)


VALID = yaml.safe_dump(make_config(CLASSES).model_dump(mode="json"))
WORDS = st.sampled_from(
    ["~", "-1", ".nan", ".inf", "1e999", "[]", "{}", "yes", "''", "'x'", "99999999999", "!!int x", "*a", "0o8"]
)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_edited_configuration_reads_or_is_refused(tmp_path_factory, data):
    """A configuration with a line replaced, removed or cut: a configuration that survives writing, or one InputError."""
    lines = VALID.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        key = lines[place].split(":")[0]
        lines[place] = data.draw(st.just("") | WORDS.map(lambda word, key=key: f"{key}: {word}") | st.text(max_size=8))
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    try:
        config = read_config(path)
    except InputError:
        return
    path.write_text(write_config(config))
    assert read_config(path) == config


# ---- what errors say ----


def test_choose_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown kind 'aple'; did you mean 'apple'\? known: apple, pear$"):
        choose("aple", ["apple", "pear"], "kind")
    with pytest.raises(InputError, match=r"unknown kind 'zzz'; known: apple, pear$"):
        choose("zzz", ["apple", "pear"], "kind")
    with pytest.raises(InputError, match=r"\(100 in all\)$"):
        choose("zzz", [f"name{number}" for number in range(100)], "kind")
    with pytest.raises(InputError) as error:
        choose("x" * 10_000, ["apple"], "kind")
    assert len(str(error.value)) < 200


def test_brief_and_first_difference():
    assert brief([1, 2]) == "[1, 2]"
    assert len(brief("x" * 100)) == 62
    assert first_difference({"a": 1}, {"a": 1}) is None
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 2}}) == ("a.b", 1, 2)
    assert first_difference({"a": {}}, {"a": {"b": None, "c": 2}}) == ("a.c", None, 2)
    assert first_difference({"a": 1, "b": 2}, {"a": 1}) == ("b", 2, None)


def test_layers_of_earlier_versions_begin_as_they_did():
    """Their files name every size and no start; what is written now names both, and is read as it is."""
    written = make_config({"data": "d", "method": "attention"}).model_dump(mode="json")
    assert make_config(written).head == make_config({"data": "d", "method": "attention"}).head
    assert written["head"].pop("start") == "probe"
    assert make_config(written).head.start == "random"


def test_sizes_are_refused_where_the_features_say_them():
    with pytest.raises(InputError, match="head: hidden is not for layers that begin at the probe"):
        make_config({"data": "d", "method": "attention", "head": {"start": "probe", "hidden": 64}})
    with pytest.raises(InputError, match="did you mean 'probe'"):
        make_config({"data": "d", "method": "attention", "head": {"start": "prob"}})
