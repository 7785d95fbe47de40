"""Configurations and command lines of any kind: accepted and valid, or one line and exit status 2."""

import io
import json
import sys
from unittest.mock import patch

import pytest
import typer
import yaml
from hypothesis import strategies as st

from comodulation.app.cli.commands import app
from comodulation.app.cli.exits import run
from comodulation.errors import InputError, brief, choose, one_line
from comodulation.runs.config import MAX_CONFIG, RunConfig, make_config, read_config, write_config
from support.mutations import ABSURD, bounded, changed, damaged, few_or_many, hunt, is_refusal, refused_or

GOOD = make_config(
    {
        "data": "photos", "group": "coarse", "label": "fine", "method": "task-routing", "options": {"sharing": 0.8},
        "backbone": {"name": "test_resnet", "weights": "random", "image_size": 32}, "controller": {"hidden": [8]},
    }
)  # fmt: skip


def check_valid(config):
    """What is accepted is a configuration that is read again as it is written."""
    assert isinstance(config, RunConfig)
    assert make_config(yaml.safe_load(write_config(config))) == config or "nan" in write_config(config)


@few_or_many
def test_damaged_configuration_files(cases, tmp_path):
    path = tmp_path / "config.yaml"

    def check(content):
        path.write_bytes(content)
        config = refused_or(lambda: read_config(path))
        if not is_refusal(config):
            check_valid(config)

    hunt(cases, check, damaged(write_config(GOOD).encode()))


@few_or_many
def test_configurations_of_any_values(cases, tmp_path):
    path = tmp_path / "config.yaml"

    def check(values):
        config = refused_or(lambda: make_config(values))
        if not is_refusal(config):
            check_valid(config)
        path.write_text(json.dumps(values))  # of which YAML is a superset
        refused_or(lambda: read_config(path))

    hunt(cases, check, changed(GOOD.model_dump(mode="json")))


SLOW_TEXTS = {
    "deep": "[" * (MAX_CONFIG - 1),
    "deep keys": "? " * 200_000,
    "aliases of aliases": "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 90)),
    "many values": "tasks: [" + "a, " * 1_300_000 + "]",
    "many keys": "".join(f"k{n}: 1\n" for n in range(300_000)),
    "many documents": "---\n" * 800_000,
    "a number to base 60": "seed: 1" + ":1" * 2_000_000,
    "a number of many digits": "seed: " + "9" * 4_000_000,
    "a number of few digits too many": "seed: 0x" + "f" * 8_000,
    "many directives": "".join(f"%TAG !e{n}! tag:x,2000:\n" for n in range(100_000)) + "---\ndata: x\n",
    "one long name": "data: x\nmethod: " + "a" * 4_000_000,
    "lines of a text": "data: |\n" + "  x\n" * 1_000_000,
    "blank": " " * 4_000_000,
}


@pytest.mark.parametrize("name", SLOW_TEXTS)
def test_texts_that_take_long_are_refused_soon(name, tmp_path):
    """Of at most 4 MiB: each would take minutes, all memory or the process, were it made into values."""
    path = tmp_path / "config.yaml"
    path.write_text(SLOW_TEXTS[name])
    found = []
    hunt(1, lambda _: found.append(refused_or(lambda: read_config(path))), st.just(0))
    assert is_refusal(found[0])


def test_messages_are_one_line_of_bounded_length():
    """Of values that cannot be shown, too: numbers of many digits, lone surrogates, codes that move the cursor."""
    for value in (10**5000, "\ud800", "\x1b[2J", "a\nb", "x" * 10**6, [["y" * 10**6]], {"\x07": 1}):
        line = str(InputError(f"unknown: {brief(value)}"))
        assert line.isprintable()
        assert len(line) < 100
        assert str(InputError(value if isinstance(value, str) else "")).isprintable()
    assert len(one_line("\x1b" * 10**6)) < 10_000
    with bounded(2), pytest.raises(InputError, match="unknown name"):
        choose("ab" * 10**6, ["ab", "b" * 1000], "name")


# ---- command lines ----


def options_of(verb):
    """Names of a verb's options, and whether each takes a value."""
    command = typer.main.get_command(app).commands[verb]
    return [(name, not getattr(option, "is_flag", False)) for option in command.params for name in option.opts]


VALUES = st.one_of(
    st.sampled_from(
        [str(value) for value in ABSURD if (value is not None and not isinstance(value, int)) or value in (0, -1)]
    ),
    st.sampled_from(["--", "-", "--help", "-h", "=", "a=b", "a=", "=b", "\udcff", "1e3", "0x10", "1_000", "@x"]),
    st.text(max_size=12),
).filter(
    lambda value: "\0" not in value and value != "/"
)  # no system passes on the one; the other is searched for images


def refuse(*given, **options):
    raise InputError("not here")


@pytest.mark.parametrize("cases", [8, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("verb", sorted(typer.main.get_command(app).commands))
def test_any_command_line(verb, cases, tmp_path, monkeypatch):
    """Options in any number and order, with any values; of files that are not there, so that nothing starts to work."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMODULATION_CACHE", str(tmp_path / "cache"))
    for works_without_files in ("comodulation.studies.run_demo", "comodulation.neuro.population_study"):
        monkeypatch.setattr(works_without_files, refuse)

    def check(arguments, before):
        argv = ["comodulate", *before, verb]
        for (name, takes), value, joined in arguments:
            argv += (
                [f"{name}={value}"]
                if takes and joined and name.startswith("--")
                else [name, value]
                if takes
                else [name]
            )
        status, out, err = run_at_a_terminal(argv)
        assert status in (0, 1, 2), (status, err)
        assert status == 0 or err.count("\n") <= 1, err
        assert "Traceback" not in err
        assert status != 0 or out, argv  # help

    hunt(
        cases, check,
        st.lists(st.tuples(st.sampled_from(options_of(verb)), VALUES, st.booleans()), max_size=6),
        st.one_of(st.just([]), st.just([]), st.just([]), st.lists(VALUES, max_size=1)),
    )  # fmt: skip


def run_at_a_terminal(argv):
    """The command with streams that encode as a terminal's do: strictly on standard output."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    with patch.object(sys, "argv", argv), patch.object(sys, "stdout", out), patch.object(sys, "stderr", err):
        status = run(app)
        out.flush()
        err.flush()
    return status, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()
