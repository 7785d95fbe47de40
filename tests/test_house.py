"""The house: rooms use one another by their interfaces, and nothing runs in a circle. That no import runs upwards, import-linter
checks (pyproject.toml).

A room is a folder. Its interface is what its ``__init__.pyi`` names. A room inside another one is a part of it: it may take files
of the outer one directly.
"""

from __future__ import annotations

import ast
from pathlib import Path

import grimp
import pytest

import comodulation

PACKAGE = Path(comodulation.__file__).parent
ROOMS = sorted(str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)


@pytest.fixture(scope="module")
def arrows():
    """(file, file that it imports), by dotted names."""
    graph = grimp.build_graph("comodulation", cache_dir=None)
    return [(one, other) for one in graph.modules for other in graph.find_modules_directly_imported_by(one)]


def room_of(module):
    return module if (PACKAGE.parent / module.replace(".", "/")).is_dir() else module.rpartition(".")[0]


def test_the_root_holds_few_files():
    """What does not belong to a room: eleven rooms and eight files, these among them."""
    assert sum(path.suffix == ".py" for path in PACKAGE.iterdir()) <= 8
    assert sum((path / "__init__.py").exists() for path in PACKAGE.iterdir()) <= 11


def test_rooms_are_used_by_their_interface(arrows):
    """A file of a room is imported by the room itself and by the rooms inside it; all others import the room."""
    inner = [
        (one, other)
        for one, other in arrows
        if other != room_of(other)
        and room_of(other) != "comodulation"
        and not f"{one}.".startswith(f"{room_of(other)}.")
    ]
    assert not inner


def test_no_circles(arrows):
    """Taking away files that import nothing that is left ends with none."""
    left = set(arrows)
    while leaves := {other for _, other in left} - {one for one, _ in left}:
        left = {(one, other) for one, other in left if other not in leaves}
    assert not left


@pytest.mark.parametrize("room", ROOMS)
def test_an_interface_has_what_it_names(room):
    """Everything an ``__init__.pyi`` names is there, sorted, and none hides a file of the same name."""
    stub = PACKAGE / room / "__init__.pyi"
    module = __import__(f"comodulation.{room.replace('/', '.')}", fromlist=["x"])
    if not stub.exists():
        assert not hasattr(module, "__all__")
        return
    named = [
        alias.name
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(module.__all__) == sorted(named)
    for name in named:
        getattr(module, name)
        assert not (stub.parent / f"{name}.py").exists(), name
