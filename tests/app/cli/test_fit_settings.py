"""`fit --config FILE --set KEY=VALUE`: what wins over what, what the help lists, and what is refused."""

import re

import pytest
import typer

from comodulation.app.cli.commands import app
from comodulation.app.cli.fit_options import KEYS, LINES, OWN, configurations
from comodulation.errors import InputError
from comodulation.networks.methods import METHODS
from comodulation.runs import known_keys, read_config
from support.command import GROUPED, SHORT, SMALL, comodulate

pytestmark = pytest.mark.usefixtures("no_figures")
COMMAND = typer.main.get_command(app).commands["fit"]
NONE = dict.fromkeys((*OWN, *KEYS))
GIVEN = {**NONE, "data": "folder", "group": "coarse", "label": "fine"}
FILE = "data: folder\ngroup: coarse\nlabel: fine\nseed: 1\nhead: {dropout: 0.1, hidden: 8}\ntuning: {epochs: 7}\n"


@pytest.fixture
def file(tmp_path):
    (tmp_path / "run.yaml").write_text(FILE)
    return tmp_path / "run.yaml"


def one(*arguments):
    (config,) = configurations(*arguments)
    return config


# ---- what wins ----


def test_flags_win_over_settings_and_these_over_the_file(file):
    """Each value from the highest that gives it; what none of them gives has the defaults of a run."""
    config = one(file, ["seed=2", "head.dropout=0.2", "tuning.epochs=8"], {**NONE, "seed": 3, "epochs": 9}, [], [])
    assert (config.seed, config.tuning.epochs) == (3, 9)
    assert (config.head.dropout, config.head.hidden, config.head.encoder_channels) == (0.2, 8, 256)
    assert (config.data, config.method, config.backbone.image_size) == ("folder", "auto", None)
    assert one(file, ["seed=2"], NONE, [], []).seed == 2
    assert one(file, [], NONE, [], []).seed == 1


def test_a_flag_that_is_off_wins(file):
    file.write_text(FILE + "calibrate: true\n")
    assert one(file, ["calibrate=true"], {**NONE, "calibrate": False}, [], []).calibrate is False


def test_the_method_of_the_settings_and_that_of_the_file(file):
    file.write_text(FILE + "method: attention\n")
    assert one(file, [], NONE, [], []).method == "attention"
    assert one(file, ["method=ia3"], NONE, [], []).method == "ia3"
    found = configurations(file, ["method=ia3"], NONE, ["base", "comodulation"], [])
    assert [config.method for config in found] == ["base", "comodulation"]


def test_options_of_a_method(file):
    said = ["method=task-routing", "options.sharing=0.5"]
    assert one(file, said, NONE, [], []).options == {"sharing": 0.5}
    assert one(file, said, NONE, [], ["sharing=0.8"]).options == {"sharing": 0.8}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_on_the_file_of_another(name, tmp_path):
    """The configuration that `auto` has written, and a flag for another method: what that method would have had by itself."""
    from comodulation.runs import write_config

    (tmp_path / "config.yaml").write_text(write_config(one(None, [], GIVEN, ["auto"], [])))
    assert one(tmp_path / "config.yaml", [], NONE, [name], []) == one(None, [], GIVEN, [name], [])


# ---- what the help lists ----


def test_the_help_lists_every_key_once():
    """Each key of a configuration has a visible flag, or a line below them."""
    shown = {param.name for param in COMMAND.params if not getattr(param, "hidden", False)}
    flags = {key for name in shown for key in KEYS.get(name, (name,))}
    lines = [key for group in LINES.values() for key in group if key != "options.NAME"]
    assert len(lines) == len(set(lines))
    assert not flags & set(lines)
    assert {"options", "method"} | (flags & set(known_keys())) | set(lines) == set(known_keys())
    assert set(OWN) | {key for keys in KEYS.values() for key in keys} <= set(known_keys())


def test_the_defaults_that_lines_name_are_those_of_a_run():
    """A default in brackets, of the keys that have a number or a word."""
    values = one(None, [], GIVEN, ["comodulation"], []).model_dump(mode="json")
    checked = 0
    for key, line in (item for group in LINES.values() for item in group.items()):
        if found := re.search(r"\[([-\w.]+)\]$", line):
            *section, name = key.split(".")
            value = (values[section[0]] if section else values).get(name)
            if found[1] not in ("none", "full"):
                assert found[1] == (f"{value:g}" if type(value) in (int, float) else str(value).lower()), key
                checked += 1
            else:
                assert value in (None, [])
    assert checked > 30


def test_the_help_is_in_groups():
    text = comodulate("fit", "--help").out
    titles = re.findall(r"^(\w[^\n]*):$", text, re.M)
    groups = ["Data", "Encoder", "Method", "Training", "Output"]
    assert titles == [
        *groups,
        "Options",
        *(f"{name}: keys without a flag, for --set KEY=VALUE and --config" for name in groups[:4]),
    ]
    assert len([param for param in COMMAND.params if not getattr(param, "hidden", False)]) <= 30
    assert "--sigma" not in text


# ---- the command ----


def test_a_run_is_made_again_from_its_own_file(run, cache, tmp_path):
    """Nothing but the file and a new folder: the same configuration and adapter, and the cache is as it was."""
    again = comodulate("fit", "--config", run / "config.yaml", "--out", tmp_path / "again", "--cache", cache)
    assert again.status == 0, again.err
    assert read_config(tmp_path / "again" / "config.yaml") == read_config(run / "config.yaml")
    assert (tmp_path / "again" / "adapter.safetensors").read_bytes() == (run / "adapter.safetensors").read_bytes()


def test_methods_that_read_different_features_share_a_map(data, cache, tmp_path):
    words = [word for name in ("linear", "attention") for word in ("--method", name)]
    outcome = comodulate(
        "fit", "--data", data, "--out", tmp_path / "run", "--cache", cache, *GROUPED, *SMALL, *SHORT[:-2], *words
    )
    assert outcome.status == 0, outcome.err
    for name in ("linear", "attention"):
        assert read_config(tmp_path / "run" / name / "config.yaml").backbone.output == "map"


REFUSED = {
    "no such file": (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read as YAML: No such file"),
    "unknown key": (
        ["--set", "head.dropuot=0.1"],
        r"unknown key of the configuration 'head.dropuot'; did you mean 'head.dro",
    ),
    "not KEY=VALUE": (["--set", "seed"], "--set 'seed' is not KEY=VALUE"),
    "another kind of value": (["--set", "seed=many"], r"seed: .*integer.* \(given: 'many'\)"),
    "out of range": (["--set", "head.dropout=1"], "head: dropout must be at least 0 and below 1, got 1"),
    "unknown method": (["--set", "method=atention"], r"unknown method 'atention'; did you mean 'attention'\?"),
    "option of no method": (["--set", "options.sharng=1", "--set", "method=task-routing"], "did you mean 'sharing'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, tmp_path):
    words, message = REFUSED[name]
    outcome = comodulate("fit", "--data", "x", "--out", tmp_path / "run", "--cache", tmp_path / "cache", *words)
    assert outcome.status == 2
    assert re.search(message, outcome.line), outcome.line
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_wrong_is_named(file, tmp_path):
    file.write_text("data: x\nhaed: {dropout: 0.1}\n")
    with pytest.raises(InputError, match=r"run\.yaml: unknown key of the configuration 'haed'; did you mean 'head"):
        one(file, [], NONE, [], [])
    file.write_text("data: x\nhead: {dropuot: 0.1}\n")
    with pytest.raises(InputError, match=r"run\.yaml: unknown key of the configuration 'head\.dropuot'; did you mean"):
        one(file, [], NONE, [], [])
