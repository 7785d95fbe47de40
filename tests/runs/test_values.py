"""Settings under dotted keys, and the defaults that the command line and Python share."""

import pytest
import yaml

from comodulation.data.features import BackboneSettings
from comodulation.errors import InputError
from comodulation.networks.methods import METHODS
from comodulation.runs import fit, known_keys, make_config, of_method, parse_setting, with_settings
from comodulation.runs.config import RunConfig, read_config, write_config

CLASSES = {"data": "folder", "group": "coarse", "label": "fine"}


def leaves(values, above=""):
    """Dotted keys of nested values, and the values."""
    found = {}
    for name, value in values.items():
        inner = isinstance(value, dict) and name != "options"
        found |= leaves(value, f"{above}{name}.") if inner else {f"{above}{name}": value}
    return found


def test_known_keys_are_those_that_a_file_holds():
    """In the file's order: each key that is written can be set, and no other."""
    assert known_keys() == list(leaves(yaml.safe_load(write_config(make_config(CLASSES)))))


def test_every_value_of_a_file_can_be_set_by_its_key():
    """All leaves of a configuration, set one by one on nothing, make the same configuration."""
    config = make_config({**CLASSES, "method": "attention", "head": {"dropout": 0.1}, "controller": {"hidden": [8]}})
    values = leaves(config.model_dump(mode="json"))
    said = [parse_setting(f"{key}={yaml.safe_dump(value, default_flow_style=True)}") for key, value in values.items()]
    assert make_config(with_settings({}, dict(said))) == config


def test_settings_are_laid_over_values_that_stay_as_they_are():
    values = {"seed": 1, "head": {"dropout": 0.1, "hidden": 8}}
    found = with_settings(values, {"head.dropout": 0.3, "tuning.epochs": 2, "options.sharing": 0.5})
    assert found == {
        "seed": 1, "head": {"dropout": 0.3, "hidden": 8}, "tuning": {"epochs": 2}, "options": {"sharing": 0.5}
    }  # fmt: skip
    assert values == {"seed": 1, "head": {"dropout": 0.1, "hidden": 8}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed", "--set 'seed' is not KEY=VALUE"),
        ("=3", "--set '=3' is not KEY=VALUE"),
        ("sed=3", r"unknown key of the configuration 'sed'; did you mean 'seed'\?"),
        ("head.dropuot=0.1", r"unknown key of the configuration 'head.dropuot'; did you mean 'head.dropout'\?"),
        ("dropout=0.1", r"did you mean 'head.dropout'\?"),
        ("head={}", r"unknown key of the configuration 'head'; did you mean 'head\."),
        ("tasks=[a", "--set tasks: '.a' cannot be read as YAML: "),
        ("tasks=*a", r"--set tasks: '\*a' cannot be read as YAML: it holds an alias"),
        ("seed=!!python/object/apply:os.getcwd []", "--set seed: .* cannot be read as YAML: "),
        ("tasks=" + "[" * 5000, "--set tasks: .* cannot be read as YAML: "),
    ],
)
def test_settings_that_are_refused(text, message):
    with pytest.raises(InputError, match=message) as error:
        parse_setting(text)
    assert "\n" not in str(error.value)


def test_a_section_that_is_none():
    with pytest.raises(InputError, match="head: expected a section of keys, got 3"):
        with_settings({"head": 3}, {"head.dropout": 0.1})


@pytest.mark.parametrize("name", METHODS)
def test_another_method_on_the_values_of_a_run_is_as_if_it_had_been_fitted(name):
    """What the first method decided is decided anew; what the user set stays."""
    usual = {**CLASSES, "modulation": {"std": 0.5}}
    run = make_config({**usual, "method": "auto"}).model_dump(mode="json")
    assert make_config(of_method(run, name)) == make_config({**usual, "method": name})
    set_by_user = make_config({**usual, "method": "auto", "tuning": {"learning_rate": 0.031}}).model_dump(mode="json")
    assert make_config(of_method(set_by_user, name)).tuning.learning_rate == 0.031


# ---- defaults ----


def test_python_has_the_defaults_of_the_command_line():
    config = RunConfig(**CLASSES)
    assert (config.method, config.backbone.image_size, config.backbone.output) == ("auto", None, "vector")
    layers = RunConfig(**CLASSES, method="attention")
    assert (layers.backbone.output, layers.tuning.learning_rate) == ("map", METHODS["attention"].default_learning_rate)
    assert (layers.head.start, layers.head.kernel_size, layers.pretraining.learning_rate) == ("probe", 1, 1e-3)
    sized = RunConfig(**CLASSES, method="attention", head={"encoder_channels": 64})
    assert (sized.head.start, sized.head.kernel_size, sized.pretraining.learning_rate) == ("random", 3, 1.5e-3)


def test_a_mapping_leaves_defaults_and_an_object_is_taken_as_it_is():
    config = RunConfig(**CLASSES, backbone={"name": "resnet18"}, pretraining={"epochs": 3}, tuning={"epochs": 2})
    assert config.backbone == BackboneSettings("resnet18", image_size=None, output="vector")
    assert (config.pretraining.epochs, config.pretraining.weight_decay) == (3, 0.05)
    assert RunConfig(**CLASSES, backbone=BackboneSettings()).backbone.image_size == 128


FIRST_RELEASE = """\
data: folder
train_split: train
test_split: test
image_column: null
group: coarse
label: fine
attributes: []
labels: null
tasks: []
ignore: []
balance: none
readout: open
method: comodulation
task_bias: false
options: {}
seed: 0
split_seed: null
precision: float32
skip_bad: false
validation_fraction: 0.1
disjoint_halves: true
backbone: {name: efficientnet-lite0, weights: pretrained, image_size: 128, layer: -1, feature_size: 2}
head: {encoder_channels: 256, decoder_channels: 256, residual: true, kernel_size: 3, hidden: 256, dropout: 0.2,
  feature_dropout: 0.3, encoder_skip: 1.0, decoder_skip: 1.0, batch_norm: false, depth: 1}
controller: {hidden: [], embedding_size: 32, activation: relu, rank: null, task_vectors: null}
modulation: {std: 0.3, estimator: derivative, normalizer: relative, link: exponential, level: task, beta: 1.0,
  encoder: gain, training_encoder: null, after_gain: false, num_nodes: 5, num_samples: 16}
pretraining: {epochs: 10, learning_rate: 0.0015, batch_size: 256, weight_decay: 0.1, warmup: 0.3, patience: 0}
tuning: {epochs: 10, learning_rate: 0.12, batch_size: 256, weight_decay: 0.0, warmup: 0.3, patience: 0}
"""


def test_a_configuration_of_the_first_release_is_what_it_was(tmp_path):
    """What it says stays, and what it does not know is as that release did it: a map of 128 px."""
    path = tmp_path / "config.yaml"
    path.write_text(FIRST_RELEASE)
    config = read_config(path)
    stored, read = leaves(yaml.safe_load(FIRST_RELEASE)), leaves(config.model_dump(mode="json"))
    assert stored == {key: read[key] for key in stored}
    assert (config.backbone.output, config.protocol, config.quality) == ("map", None, "default")


# ---- several at once ----


def told(configs, tmp_path):
    with pytest.raises(InputError) as error:
        fit(configs, tmp_path / "run", tmp_path / "cache")
    assert not (tmp_path / "run").exists()
    return str(error.value)


def test_configurations_that_cannot_be_fitted_together(tmp_path):
    one, other = (make_config({**CLASSES, "method": name}) for name in ("auto", "attention"))
    assert "at least one" in told([], tmp_path)
    assert told([one, one], tmp_path).startswith("method 'auto' is given twice")
    seeds = [one, make_config({**CLASSES, "method": "attention", "seed": 1})]
    assert told(seeds, tmp_path) == "methods that are fitted together share seed, got 0 and 1"
    data = [other, make_config({**CLASSES, "data": "elsewhere"})]
    assert told(data, tmp_path) == "methods that are fitted together share data, got 'folder' and 'elsewhere'"
