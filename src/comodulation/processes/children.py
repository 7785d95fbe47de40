"""Python processes that this process starts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # a Python that is started with it finds no module in the folder it is started in


@contextlib.contextmanager
def safe_children() -> Iterator[None]:
    """While it holds, every Python that this process starts, by whichever library, runs no code from the working folder.

    ``python -m`` and ``python -c``, by which children are started, look for modules in the working folder first: a file of the
    name ``yaml.py`` among someone's data would be run.
    """
    before = {name: os.environ.get(name) for name in SAFE_PATH}
    os.environ.update(SAFE_PATH)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
