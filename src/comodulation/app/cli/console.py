"""Progress on the terminal, on standard error, so that standard output stays the result's."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ...errors import printable
from ...training import Epoch

LINE = 10.0  # seconds between lines of a prediction, where there is no bar


class ConsoleProgress:
    """Bars for extraction and training; on a terminal that is not one, a line per split and epoch."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False), console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.known: dict[str, TaskID] = {}
        self.began: tuple[float, int] | None = None  # of rows: when, and how many there were
        self.said = (0.0, 0)

    def __enter__(self) -> ConsoleProgress:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def message(self, text: str) -> None:
        lines = "\n".join(printable(line) for line in text.split("\n"))  # names of columns and classes are data
        self.console.print(lines, highlight=False, markup=False, soft_wrap=True)

    def extraction(self, split: str, done: int, total: int) -> None:
        self._update(f"features, {split}", done, total, "")
        if not self.console.is_terminal and (done == total or done % (20 * 512) == 0):
            self.message(f"features, {split}: {done}/{total}")

    def epoch(self, phase: str, epoch: Epoch) -> None:
        note = f"loss {epoch.loss:.3f}  validation accuracy {100 * epoch.validation['accuracy']:.1f}%"
        self._update(phase, epoch.number, epoch.epochs, note)
        if not self.console.is_terminal:
            left = f"{epoch.seconds_left:.0f} s left"
            self.message(f"{phase}: epoch {epoch.number}/{epoch.epochs}  {note}  {left}")

    def rows(self, done: int, total: int, what: str = "predicted") -> None:
        """Rows of a prediction, or ``what`` else is done; where there is no bar, a line every ten seconds."""
        self._update(what, done, total, "")
        now = time.monotonic()
        if self.began is None:
            self.began = self.said = now, done
        elif not self.console.is_terminal and (now > self.said[0] + LINE or done == total) and done > self.began[1]:
            self.said = now, done
            rate = (done - self.began[1]) / max(now - self.began[0], 1e-9)
            self.message(f"{what} {done:,} of {total:,}, {rate:,.0f} a second, {(total - done) / rate:.0f} s left")

    def _update(self, name: str, done: int, total: int, note: str) -> None:
        name = printable(name)
        if name not in self.known:
            self.known[name] = self.bars.add_task(name, total=total, note=note)
        self.bars.update(self.known[name], completed=done, total=total, note=note)
