"""A self-contained HTML page: verdicts first, then sections of text, sortable tables and figures. One file, no network.

Whatever is shown is escaped; only the SVG of figures, which this package draws itself, is taken as it is. A
Content-Security-Policy forbids all loading and every script but the page's own, named by its hash. f-strings and not jinja2: most
of this file decides how typed values are shown and sorted, and templates would need all of that as filters.
"""

from __future__ import annotations

import base64
import html
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

from .embedded_svg import embedded, pixels_of
from .theme import asset, source_hash, styled

BROAD = 560  # pixels; a wider figure has a row to itself

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be told"

_PLURAL = {HOLDS: "hold", FAILS: "do not hold", UNKNOWN: "cannot be told"}
_KINDS = {HOLDS: "holds", FAILS: "fails", UNKNOWN: "unknown"}
_SHAPES = {
    HOLDS: '<circle cx="12" cy="12" r="11"/><path d="M7 12.5l3.5 3.5L17 9"/>',
    FAILS: '<rect x="2" y="2" width="20" height="20"/><path d="M8 8l8 8M16 8l-8 8"/>',
    UNKNOWN: '<path d="M12 0L24 12 12 24 0 12z"/><path class="mark" d="M7 12h10"/>',
}


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


@dataclass(frozen=True)
class Figure:
    """An SVG drawing, transparent, with text and axes in `INK`; the caption says how to read it."""

    svg: str
    caption: str
    title: str


@dataclass(frozen=True)
class Text:
    """Paragraphs between blank lines, lists of lines that begin with "- ", ``**bold**`` and code in backticks."""

    text: str


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
    numbers = itertools.count(1)
    body = "".join(
        f'<section aria-labelledby="{anchor}">{_heading(anchor, section.title)}{_blocks(section.blocks, numbers)}</section>'
        for anchor, section in zip(anchors, sections, strict=True)
    )
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{html.escape(title)}</title>\n<style>{styled(asset('report/page.css'))}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the content</a>\n'
        f'<header><button id="theme" type="button" hidden>Light / dark</button><h1 dir="auto">{html.escape(title)}</h1>'
        f'{f"""<p class="subtitle" dir="auto">{_inline(subtitle)}</p>""" if subtitle else ""}</header>\n'
        f'<main id="main">\n{_verdicts(verdicts)}\n{_contents(links)}\n{body}\n</main>\n{_facts(facts)}\n'
        f"<script>{asset('report/page.js')}</script>\n</body>\n</html>\n"
    )
    # File names that are not UTF-8 reach Python as lone surrogates, which no file can hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def _figure(figure: Figure, number: int) -> str:
    name = f"figure-{number}"
    drawing = embedded(figure.svg, name, figure.title)
    kind = ' class="broad"' if (pixels_of(figure.svg) or 0) > BROAD else ""
    return (
        f'<figure id="{name}"{kind}><div class="wide" tabindex="0" role="group" aria-label="{html.escape(figure.title)}">{drawing}'
        f'</div><figcaption dir="auto"><strong>{html.escape(figure.title)}.</strong> {_inline(figure.caption)}</figcaption>'
        "</figure>"
    )


def _table(table: Table) -> str:
    numeric = [
        all(_is_number(row[place]) for row in (*table.rows, *table.fixed)) for place in range(len(table.columns))
    ]
    head = "".join(
        f'<th scope="col"{_align(right)}><button type="button" disabled><bdi>{html.escape(name)}</bdi></button></th>'
        for name, right in zip(table.columns, numeric, strict=True)
    )

    def lines(rows: Sequence[Sequence[object]]) -> str:
        return "".join(
            "<tr>"
            + "".join(
                _cell(value, table.formats.get(name), place == 0, right)
                for place, (value, name, right) in enumerate(zip(row, table.columns, numeric, strict=True))
            )
            + "</tr>"
            for row in rows
        )

    fixed = f'<tbody class="fixed">{lines(table.fixed)}</tbody>' if table.fixed else ""
    return (
        '<div class="wide" tabindex="0" role="group" aria-label="Table"><table>'
        f'<caption><span dir="auto">{_inline(table.caption)}</span></caption><thead><tr>{head}</tr></thead>'
        f"{fixed}<tbody>{lines(table.rows)}</tbody></table></div>"
    )


def _is_number(value: object) -> bool:
    """Whether a cell belongs to a column of numbers, which is set flush right."""
    if isinstance(value, Cell):
        return not isinstance(value.sort, str)
    return value is None or (isinstance(value, Real) and not isinstance(value, bool))


def _align(right: bool) -> str:
    return ' class="number"' if right else ""


def _cell(value: object, spec: str | None, first: bool, right: bool) -> str:
    text, key = _shown(value, spec)
    sort = "" if key is None else f' data-sort="{html.escape(key)}"'
    tag, scope, direction = ("th", ' scope="row"', "") if first else ("td", "", "")
    if not right:
        direction = ' dir="auto"'
    return f"<{tag}{scope}{_align(right)}{direction}{sort}>{html.escape(text)}</{tag}>"


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


def _blocks(blocks: Sequence[Block], numbers: Iterator[int]) -> str:
    """HTML of the blocks; figures that follow each other share rows where the window is wide enough."""
    parts = []
    for figures, group in itertools.groupby(blocks, lambda block: isinstance(block, Figure)):
        part = "\n".join(_block(block, numbers) for block in group)
        parts.append(f'<div class="figures">{part}</div>' if figures else part)
    return "\n".join(parts)


def _block(block: Block, numbers: Iterator[int]) -> str:
    match block:
        case Table():
            return _table(block)
        case Figure():
            return _figure(block, next(numbers))
        case Text():
            return _text(block.text)
        case Code():
            return f'<pre tabindex="0"><code>{html.escape(block.text)}</code></pre>'
        case Pictures():
            return _pictures(block)
        case Details():
            return (
                f"<details><summary><bdi>{html.escape(block.title)}</bdi></summary>"
                f"{_blocks(block.blocks, numbers)}</details>"
            )


def _pictures(block: Pictures) -> str:
    items = "".join(f"<li>{_picture(picture)}</li>" for picture in block.pictures)
    return f'<p class="said" dir="auto">{_inline(block.caption)}</p><ul class="pictures">{items}</ul>'


def _picture(picture: Picture) -> str:
    lines = "".join(f"<span><bdi>{html.escape(line)}</bdi></span>" for line in picture.lines)
    image = ""
    if picture.jpeg is not None:
        source = f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}"
        image = f'<img src="{source}" alt="{html.escape(picture.title)}">'
    return f"{image}<div><strong><bdi>{html.escape(picture.title)}</bdi></strong>{lines}</div>"


def _text(text: str) -> str:
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    return "".join(
        "<ul>" + "".join(f'<li dir="auto">{_inline(line[2:])}</li>' for line in part.splitlines()) + "</ul>"
        if all(line.startswith("- ") for line in part.splitlines())
        else f'<p dir="auto">{_inline(part)}</p>'
        for part in paragraphs
    )


def _inline(text: str) -> str:
    """Escaped text with code in backticks and bold in double stars."""
    pieces = re.split(r"`([^`\n]+)`", html.escape(text))
    return "".join(
        f"<code>{piece}</code>" if place % 2 else re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", piece)
        for place, piece in enumerate(pieces)
    )


def _anchors(titles: Sequence[str]) -> list[str]:
    """An id for each heading, the words of its title, different for all."""
    anchors: list[str] = []
    for title in titles:
        stem = "section-" + (re.sub(r"\W+", "-", title.lower()).strip("-") or "untitled")
        names = (stem, *(f"{stem}-{number}" for number in range(2, len(titles) + 2)))
        anchors.append(next(name for name in names if name not in anchors))
    return anchors


def _heading(anchor: str, title: str) -> str:
    return f'<h2 id="{anchor}" dir="auto">{html.escape(title)} <a class="anchor" href="#{anchor}" aria-label="Link">#</a></h2>'


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return ""
    counts = Counter(verdict.verdict for verdict in verdicts)
    summary = ", ".join(
        f"{counts[word]} {word if counts[word] == 1 else _PLURAL[word]}" for word in _KINDS if counts[word]
    )
    cards = "".join(_card(verdict, f"claim-{place + 1}") for place, verdict in enumerate(verdicts))
    return (
        f'<section aria-labelledby="verdicts">{_heading("verdicts", "Verdicts")}'
        f'<p class="counts">Of {len(verdicts)} claim{"s" if len(verdicts) > 1 else ""}: {summary}.</p>'
        f'<div class="cards">{cards}</div></section>'
    )


def _card(verdict: Verdict, anchor: str) -> str:
    numbers = (("effect", verdict.effect), ("interval", verdict.interval), ("p", verdict.p), ("n", verdict.n))
    terms = "".join(
        f"<div><dt>{name}</dt><dd><bdi>{html.escape(value)}</bdi></dd></div>" for name, value in numbers if value
    )
    note = f'<p class="note" dir="auto">{_inline(verdict.note)}</p>' if verdict.note else ""
    return (
        f'<article id="{anchor}" class="card {_KINDS[verdict.verdict]}" aria-labelledby="{anchor}-name">'
        f'<p class="verdict"><svg viewBox="0 0 24 24" aria-hidden="true">{_SHAPES[verdict.verdict]}</svg>'
        f'<strong>{verdict.verdict}</strong></p><h3 id="{anchor}-name" dir="auto">{html.escape(verdict.claim)}</h3>'
        f'<p class="statement" dir="auto">{_inline(verdict.statement)}</p><dl>{terms}</dl>{note}</article>'
    )


def _contents(links: Sequence[tuple[str, str]]) -> str:
    items = "".join(f'<li><a href="#{anchor}"><bdi>{html.escape(title)}</bdi></a></li>' for anchor, title in links)
    return f'<nav aria-label="Contents"><ul>{items}</ul></nav>'


def _facts(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    rows = "".join(
        f'<div><dt>{html.escape(name)}</dt><dd dir="auto">{html.escape(value)}</dd></div>'
        for name, value in facts.items()
    )
    return f"<footer>{_heading('facts', 'How this was made')}<dl>{rows}</dl></footer>"


def _policy() -> str:
    """No loading from anywhere, and no script but the page's own."""
    return (
        f"default-src 'none'; script-src {source_hash(asset('report/page.js'))}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
