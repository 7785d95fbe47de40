"""A self-contained HTML page: verdicts first, then sections of text, sortable tables and figures. One file, no network.

What a page holds is here, and how values are shown and sorted; its HTML is in ``page.html``. Whatever is shown is escaped; only the
SVG of figures, which this package draws itself, is taken as it is. A Content-Security-Policy forbids all loading and every script
but the page's own, named by its hash.
"""

from __future__ import annotations

import base64
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from numbers import Integral, Real
from typing import TYPE_CHECKING

from .embedded_svg import embedded, pixels_of
from .theme import asset, source_hash, styled

if TYPE_CHECKING:
    from jinja2 import Template

BROAD = 560  # pixels; a wider figure has a row to itself

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be told"

_PLURAL = {HOLDS: "hold", FAILS: "do not hold", UNKNOWN: "cannot be told"}
_KINDS = {HOLDS: "holds", FAILS: "fails", UNKNOWN: "unknown"}


@dataclass(frozen=True)
class Verdict:
    """What was found about one claim; empty fields are left out.

    Attributes:
        claim: its short name. statement: the claim as a sentence. verdict: "holds", "does not hold", "cannot be told".
        effect, interval, p, n: as they are to be shown. note: what a reader must know besides.

    Raises:
        ValueError: another verdict.
    """

    claim: str
    statement: str
    verdict: str
    effect: str = ""
    interval: str = ""
    p: str = ""
    n: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in _KINDS:
            raise ValueError(f"a verdict is one of {', '.join(map(repr, _KINDS))}, not {self.verdict!r}")

    @property
    def kind(self) -> str:
        """The verdict in one word."""
        return _KINDS[self.verdict]


@dataclass(frozen=True)
class Cell:
    """A cell that shows `text` and is sorted by `sort`: ``Cell("79.1 ± 0.2", 79.1)``. None and nan sort last."""

    text: str
    sort: float | str | None


@dataclass(frozen=True)
class Table:
    """A table that readers can sort by any column.

    Attributes:
        columns: their names. The first column names the row.
        rows: of str, numbers, bool, None or Cell, as many as there are columns.
        caption: what it shows and how to read it; ``**bold**`` and code in backticks.
        formats: column to format specification of its numbers (".3f", ".1%", ","); "," and ".4g" where none is given.
        fixed: rows of the same kind that stay above the others however those are sorted, such as a mean.

    Raises:
        ValueError: a row of another length, a format of an unknown column.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str
    formats: Mapping[str, str] = field(default_factory=dict)
    fixed: Sequence[Sequence[object]] = ()

    def __post_init__(self) -> None:
        for row in (*self.fixed, *self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(self.columns)} columns: {list(row)}")
        if unknown := set(self.formats) - set(self.columns):
            raise ValueError(f"formats of columns that the table lacks: {', '.join(sorted(unknown))}")

    @property
    def numeric(self) -> list[bool]:
        """Whether each column is of numbers, which are set flush right."""
        rows = (*self.rows, *self.fixed)
        return [all(_is_number(row[place]) for row in rows) for place in range(len(self.columns))]


@dataclass(frozen=True)
class Figure:
    """An SVG drawing, transparent, with text and axes in `INK`; the caption says how to read it."""

    svg: str
    caption: str
    title: str

    @property
    def broad(self) -> bool:
        """Whether it has a row to itself."""
        return (pixels_of(self.svg) or 0) > BROAD


@dataclass(frozen=True)
class Text:
    """Paragraphs between blank lines, lists of lines that begin with "- ", ``**bold**`` and code in backticks."""

    text: str

    @property
    def paragraphs(self) -> list[str | list[str]]:
        """Each as it is, or, of a list, its lines."""
        parts = [part.strip() for part in re.split(r"\n\s*\n", self.text) if part.strip()]
        return [
            [line[2:] for line in part.splitlines()]
            if all(line.startswith("- ") for line in part.splitlines())
            else part
            for part in parts
        ]


@dataclass(frozen=True)
class Code:
    """Text as it is, in a fixed-width font."""

    text: str


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away until the reader opens them."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Picture:
    """A small picture, its name and what is said of it.

    Attributes:
        jpeg: its bytes, shown at most 96 pixels wide and high; None where there is none to show.
        title: its name. lines: what is said of it, a line each.
    """

    jpeg: bytes | None
    title: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Pictures:
    """Small pictures beside each other, held by the page itself; the caption says what they are."""

    pictures: Sequence[Picture]
    caption: str


Block = Table | Figure | Text | Code | Details | Pictures


@dataclass(frozen=True)
class Section:
    """A heading, listed in the contents, and what follows it."""

    title: str
    blocks: Sequence[Block]


def render(
    title: str, subtitle: str, facts: Mapping[str, str], verdicts: Sequence[Verdict], sections: Sequence[Section]
) -> str:
    """The page: title, verdicts, contents, sections, and at the end the facts about how it was made.

    Args:
        facts: name to value, such as command, commit, date, machine, data.
    """
    anchors = _anchors([section.title for section in sections])
    links = [(anchor, section.title) for anchor, section in zip(anchors, sections, strict=True)]
    if verdicts:
        links.insert(0, ("verdicts", "Verdicts"))
    if facts:
        links.append(("facts", "How this was made"))
    page = _template().render(
        title=title, subtitle=subtitle, facts=facts, verdicts=verdicts, links=links, sections=zip(anchors, sections, strict=True),
        number=itertools.count(1).__next__, style=styled(asset("report/page.css")), script=asset("report/page.js"),
    )  # fmt: skip
    # File names that are not UTF-8 reach Python as lone surrogates, which no file can hold.
    return page.encode("utf-8", "replace").decode("utf-8")


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined  # with the first page, and not at the start of a command

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {
        "base64": lambda content: base64.b64encode(content).decode(),
        "counted": _counted,
        "embedded": embedded,
        "in_rows": _in_rows,
        "kind": lambda block: type(block).__name__,
        "marked": _marked,
        "shown": _shown,
        "source_hash": source_hash,
    }
    return environment.from_string(asset("report/page.html"))


def _anchors(titles: Sequence[str]) -> list[str]:
    """An id for each heading, the words of its title, different for all."""
    anchors: list[str] = []
    for title in titles:
        stem = "section-" + (re.sub(r"\W+", "-", title.lower()).strip("-") or "untitled")
        names = (stem, *(f"{stem}-{number}" for number in range(2, len(titles) + 2)))
        anchors.append(next(name for name in names if name not in anchors))
    return anchors


def _counted(verdicts: Sequence[Verdict]) -> str:
    """How many claims have each verdict.

    >>> _counted([Verdict("a", "", FAILS), Verdict("b", "", HOLDS), Verdict("c", "", HOLDS)])
    '2 hold, 1 does not hold'
    """
    counts = Counter(verdict.verdict for verdict in verdicts)
    return ", ".join(
        f"{counts[word]} {word if counts[word] == 1 else _PLURAL[word]}" for word in _KINDS if counts[word]
    )


def _marked(text: str) -> Iterator[tuple[str, str]]:
    """Pieces of a text, each after the name of its element: code in backticks, bold in double stars, none for the rest.

    >>> list(_marked("take **one**, `a**b**`"))
    [('', 'take '), ('strong', 'one'), ('', ', '), ('code', 'a**b**'), ('', '')]
    """
    for place, piece in enumerate(re.split(r"`([^`\n]+)`", text)):
        if place % 2:
            yield "code", piece
        else:
            yield from zip(itertools.cycle(("", "strong")), re.split(r"\*\*(.+?)\*\*", piece), strict=False)


def _in_rows(blocks: Sequence[Block]) -> list[tuple[bool, list[Block]]]:
    """Blocks in groups of those that follow each other, figures or others, each after whether it is of figures."""
    return [(figures, list(group)) for figures, group in itertools.groupby(blocks, lambda one: isinstance(one, Figure))]


def _shown(value: object, spec: str | None) -> tuple[str, str | None]:
    """Text of a cell, and the key it is sorted by where that is not the text; the key of what is missing is empty."""
    if isinstance(value, Cell):
        return value.text, value.sort if isinstance(value.sort, str) else _shown(value.sort, None)[1]
    if value is None:
        return "–", ""
    if isinstance(value, bool):
        return ("yes" if value else "no"), None
    if isinstance(value, Integral):
        return format(int(value), spec or ","), str(int(value))
    if isinstance(value, Real):
        number = float(value)
        if math.isnan(number):
            return "–", ""
        if math.isinf(number):
            return ("∞", "Infinity") if number > 0 else ("−∞", "-Infinity")
        return format(number, spec or ".4g"), repr(number)
    return str(value), None


def _is_number(value: object) -> bool:
    """Whether a cell may stand in a column of numbers."""
    if isinstance(value, Cell):
        return not isinstance(value.sort, str)
    return value is None or (isinstance(value, Real) and not isinstance(value, bool))
