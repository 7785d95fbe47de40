"""The table of answers that `predict` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .plain_tables import utf8, write_csv, write_parquet

COLUMNS = ("task", "prediction", "confidence", "error")  # behind the input's own name


class PredictionsTable:
    """Answers as a table with the columns ``COLUMNS``: a row for each input and task, and one for each input that failed.

    Args:
        path: *.csv or *.parquet, not there yet.
        what: an input is called; the first column is called so.

    Raises:
        InputError: another ending, or a file that is there: known before anything is predicted.
    """

    def __init__(self, path: Path, what: str = "image") -> None:
        if path.suffix not in (".csv", ".parquet"):
            raise InputError(
                f"cannot tell the format of {path.name!r}; expected a name that ends with .csv or .parquet"
            )
        if path.exists():
            raise InputError(f"{path} is there already; remove it or choose another --out")
        if not path.absolute().parent.is_dir():
            raise InputError(f"no such folder: {path.absolute().parent}")
        self.path, self.what = path, what
        self.rows: list[tuple[str, str | None, str | None, float | None, str | None]] = []

    def add(self, result: dict[str, Any]) -> None:
        """The answers for one input, as ``Run.predict`` gives them."""
        for task, answer in result["tasks"].items():
            self.rows.append((utf8(result[self.what]), task, answer["prediction"], answer["confidence"], None))

    def write(self, bad: Sequence[dict[str, str]]) -> None:
        """Write the file, whole or not at all, with the inputs that failed at its end.

        Raises:
            RunError: it cannot be written.
        """
        rows = self.rows + [(utf8(each[self.what]), None, None, None, utf8(each["error"])) for each in bad]
        names = [self.what, *COLUMNS]
        if self.path.suffix == ".csv":
            write_csv(self.path, names, rows)
            return
        import pyarrow as pa

        types = (pa.string(), pa.string(), pa.string(), pa.float64(), pa.string())
        columns = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), types, strict=True)]
        write_parquet(self.path, pa.table(columns, names=names))
