"""Modules of 0.1.0 are found under the names they had, with a warning that says the new one."""

import importlib
import subprocess
import sys

import pytest

import comodulation
from comodulation.data import pictures


@pytest.mark.parametrize(
    ("old", "name"),
    [
        ("backbone", "BackboneSettings"), ("cli.commands", "app"), ("cli", "main"), ("deployment", "export_run"),
        ("gains", "decoder_gains"),
        ("gains", "gauss_hermite"), ("head", "ComodulatedHead"), ("serving", "stored_temperature"), ("methods", "METHODS"),
        ("analysis.noise", "subspace_share"), ("features", "extract"), ("statistics", "paired_difference"),
    ],
)  # fmt: skip
def test_old_names(old, name):
    for module in [key for key in sys.modules if key == f"comodulation.{old}"]:
        del sys.modules[module]
    with pytest.warns(DeprecationWarning, match=rf"comodulation\.{old} is comodulation\.[a-z._]+ now"):
        module = importlib.import_module(f"comodulation.{old}")
    assert getattr(module, name)


@pytest.mark.parametrize("name", ["BadImageError", "decode_image"])
def test_what_has_moved_within_a_room_is_found_where_it_was(name):
    """Public code imports both from here."""
    assert getattr(importlib.import_module("comodulation.data.source"), name) is getattr(pictures, name)


def test_nothing_else_is_found():
    with pytest.raises(ModuleNotFoundError, match=r"comodulation\.nothing"):
        importlib.import_module("comodulation.nothing")


@pytest.mark.parametrize("place", ["comodulation", "comodulation.cli"])
def test_the_command_line_as_a_module(place):
    done = subprocess.run([sys.executable, "-m", place, "--version"], capture_output=True, text=True)
    assert done.stdout.split()[-1] == comodulation.__version__
    assert done.returncode == 0
