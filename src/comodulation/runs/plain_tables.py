"""Tables as files: csv and parquet, written whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..files import write_bytes


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table as csv."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns, *rows])
    write_bytes(path, text.getvalue().encode("utf-8", "replace"))


def write_parquet(path: Path, table: Any) -> None:
    """A ``pyarrow.Table`` as parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(path, sink.getvalue().to_pybytes())


def utf8(name: str) -> str:
    """A file's name as UTF-8 can hold it: what is not UTF-8 in it becomes a question mark."""
    return name.encode("utf-8", "replace").decode()
