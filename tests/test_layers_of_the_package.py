"""CONTRIBUTING.md names every file and folder of the package in an order in which each uses only those above it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "comodulation"


def named():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    listed = re.search(r"only files above it in this order:(.*?)\.\s", text, re.DOTALL)
    assert listed
    return re.findall(r"\w+", listed[1])


def used_by(file):
    """Top-level names of the package that a file imports anywhere, but for what type checkers alone read."""
    tree, level = ast.parse(file.read_text()), len(file.relative_to(PACKAGE).parts)
    conditions = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    unread = {
        child for node in conditions if ast.unparse(node.test) == "TYPE_CHECKING" for child in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == level and node not in unread:
            yield from [node.module.split(".")[0]] if node.module else (alias.name for alias in node.names)


def test_each_uses_only_those_above_it():
    order = named()
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert sorted(order) == sorted(there - {"__init__"})
    for place, name in enumerate(order):
        files = [PACKAGE / f"{name}.py"] if (PACKAGE / f"{name}.py").exists() else (PACKAGE / name).rglob("*.py")
        for file in files:
            below = {used for used in used_by(file) if used in order[place + 1 :]}
            assert not below, (file.name, below)
