"""A self-contained HTML page: verdicts first, then sections of text, sortable tables and figures. One file, no network.

Whatever is shown is escaped; only the SVG of figures, which this package draws itself, is taken as it is. A
Content-Security-Policy forbids all loading and every script but the page's own, named by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

BROAD = 560  # pixels; a wider figure has a row to itself
INK = "#444444"  # what figures draw text and axes with; the page replaces it by its own text colour

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be told"

# Colours as (light, dark). Blue, vermilion and grey differ for every kind of colour vision; the shapes differ as well.
PALETTE = {
    "paper": ("#ffffff", "#15181d"),
    "card": ("#f6f7f9", "#1d2128"),
    "ink": ("#20242b", "#e4e7ec"),
    "soft": ("#565d68", "#a5adb9"),
    "line": ("#d9dde3", "#353b45"),
    "link": ("#0a5796", "#7cbcf5"),
    "holds": ("#0a5796", "#6cb4f2"),
    "fails": ("#a63a00", "#ff9d66"),
    "unknown": ("#565d68", "#b0b7c2"),
}

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


Block = Table | Figure | Text | Code | Details


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
        f"<title>{html.escape(title)}</title>\n<style>{_colours()}{_STYLE}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the content</a>\n'
        f'<header><button id="theme" type="button" hidden>Light / dark</button><h1 dir="auto">{html.escape(title)}</h1>'
        f'{f"""<p class="subtitle" dir="auto">{_inline(subtitle)}</p>""" if subtitle else ""}</header>\n'
        f'<main id="main">\n{_verdicts(verdicts)}\n{_contents(links)}\n{body}\n</main>\n{_facts(facts)}\n'
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )
    # File names that are not UTF-8 reach Python as lone surrogates, which no file can hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def themed(svg: str) -> str:
    """The drawing with `INK` replaced by currentColor, so that it follows the text colour of the page around it.

    >>> themed('<text style="fill: #444444">#444444</text>')
    '<text style="fill: currentColor">#444444</text>'
    """
    ink = re.compile(r"((?:fill|stroke|color)\s*[:=]\s*[\"']?\s*)" + INK + r"\b", re.IGNORECASE)
    return _in_tags(svg, lambda tag: ink.sub(r"\1currentColor", tag))


def _in_tags(svg: str, change: Callable[[str], str]) -> str:
    return re.sub(r"<[^!?][^>]*>", lambda tag: change(tag[0]), svg)


def _embedded(svg: str, prefix: str, title: str) -> str:
    """A stand-alone SVG made part of a page: ids and styles of its own, as wide as its place, a name."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"(<style[^>]*>)(.*?)(?=</style>)", lambda m: m[1] + _scoped(m[2], prefix), svg, flags=re.DOTALL)
    svg = _in_tags(themed(svg), lambda tag: _own_ids(tag, prefix))
    end = re.match(r"<svg[^>]*?(?=/?>)", svg)
    assert end is not None
    root, inside, limits = end[0], svg[end.end() :], ""
    if pixels := _pixels(svg):
        root = re.sub(r"\s(?:width|height)=\"[^\"]*\"", "", root)
        limits = f' style="min-width: {0.7 * pixels:.0f}px; max-width: {1.2 * pixels:.0f}px"'
    return f'{root} role="img" aria-label="{html.escape(title)}"{limits}{inside}'


def _pixels(svg: str) -> float | None:
    """The width that a drawing was made for, if it can have another."""
    size = re.search(r"<svg(?=[^>]*viewBox)[^>]*?\swidth=\"([\d.]+)(pt|px)?\"", svg)
    return float(size[1]) * (4 / 3 if size[2] == "pt" else 1) if size else None


def _own_ids(tag: str, prefix: str) -> str:
    """A tag whose ids and references to ids begin with the prefix, without namespaces, which HTML knows by itself."""
    tag = re.sub(r"(\sid=[\"'])", rf"\g<1>{prefix}-", tag)
    tag = re.sub(r"(\s(?:xlink:)?href=[\"']#|url\(\s*(?:[\"']|&quot;)?#)", rf"\g<1>{prefix}-", tag)
    return re.sub(r"\sxmlns(?::\w+)?=(?:\"[^\"]*\"|'[^']*')", "", tag)


def _scoped(style: str, prefix: str) -> str:
    """Style rules that reach no further than the figure of this prefix; matplotlib writes one, for `*`.

    >>> _scoped("*{stroke-linejoin: round}", "figure-1")
    '#figure-1 *{stroke-linejoin: round}'
    """
    rule = re.compile(r"([^{}]+)({[^{}]*})")
    return rule.sub(lambda m: ", ".join(f"#{prefix} {part.strip()}" for part in m[1].split(",")) + m[2], style)


def _figure(figure: Figure, number: int) -> str:
    name = f"figure-{number}"
    drawing = _embedded(figure.svg, name, figure.title)
    kind = ' class="broad"' if (_pixels(figure.svg) or 0) > BROAD else ""
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
        case Details():
            return (
                f"<details><summary><bdi>{html.escape(block.title)}</bdi></summary>"
                f"{_blocks(block.blocks, numbers)}</details>"
            )


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


def _colours() -> str:
    both = "".join(f" --{name}: light-dark({light}, {dark});" for name, (light, dark) in PALETTE.items())
    return f":root {{ color-scheme: light dark;{both} }}"


_STYLE = """
:root[data-theme=light] { color-scheme: light; }
:root[data-theme=dark] { color-scheme: dark; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0 auto; max-width: 66rem; padding: 3.5rem 1.5rem 5rem; background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: clamp(1.75rem, 1.3rem + 2vw, 2.5rem); line-height: 1.15; letter-spacing: -.02em; margin: 0; }
h2 { font-size: 1.4rem; line-height: 1.25; letter-spacing: -.01em; margin: 4rem 0 1rem; }
h1, h2, h3, dd, th, td, summary, .statement { unicode-bidi: isolate; overflow-wrap: anywhere; }
p, ul { max-width: 44rem; margin: 0 0 1rem; }
a { color: var(--link); text-underline-offset: .2em; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .875em; }
pre { overflow-x: auto; padding: 1rem 1.25rem; margin: 1rem 0; background: var(--card); border-radius: 8px; line-height: 1.5; }
dl { margin: 0; } dt { color: var(--soft); font-size: .8125rem; } dd { margin: 0; }
.subtitle { color: var(--soft); font-size: 1.1875rem; margin: .75rem 0 0; }
.skip { position: absolute; left: -100vw; } .skip:focus { left: 1rem; top: 1rem; }
.anchor { opacity: 0; text-decoration: none; font-weight: 400; } h2:hover .anchor, .anchor:focus { opacity: 1; }
#theme { float: right; margin: 0 0 1rem 1.5rem; padding: .35rem .8rem; font: inherit; font-size: .8125rem; color: var(--soft);
  background: none; border: 1px solid var(--line); border-radius: 99px; cursor: pointer; }
#theme:hover { color: var(--ink); border-color: var(--soft); }
.counts { color: var(--soft); }
.cards { display: grid; column-gap: 1.25rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--width)), 1fr));
  --width: 19rem; }
.cards:has(> :nth-child(2):last-child, > :nth-child(4):last-child) { --width: 25rem; }
.card { background: var(--card); border-radius: 10px; border-top: 4px solid var(--own); padding: 1.25rem 1.4rem 1.4rem;
  display: grid; grid-row: span 5; grid-template: subgrid / minmax(0, 1fr); margin-bottom: 1.25rem; min-width: 0; }
.holds { --own: var(--holds); } .fails { --own: var(--fails); } .unknown { --own: var(--unknown); }
.card h3 { font-size: 1.0625rem; line-height: 1.3; margin: 0 0 .35rem; }
.card .statement { margin: 0 0 1.1rem; }
.card dl { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: .6rem 1rem; align-content: start;
  font-variant-numeric: tabular-nums; }
.card dd { font-weight: 600; line-height: 1.35; text-wrap: balance; }
.card .note { margin: 1rem 0 0; padding-top: .75rem; border-top: 1px solid var(--line); font-size: .875rem; line-height: 1.5;
  color: var(--soft); }
.verdict { display: flex; align-items: center; gap: .5rem; color: var(--own); margin: 0 0 .7rem; }
.verdict svg { width: 1.2rem; height: 1.2rem; flex: none; fill: var(--own); }
.verdict svg path:last-child { fill: none; stroke: var(--card); stroke-width: 3; }
nav { margin: 2.5rem 0 0; padding: .9rem 0; border-block: 1px solid var(--line); font-size: .9375rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .3rem 1.75rem; list-style: none; margin: 0; padding: 0; max-width: none; }
nav a { text-decoration: none; } nav a:hover { text-decoration: underline; }
.wide { overflow-x: auto; margin: 1.5rem 0 0; }
section > .wide, details > .wide { margin-bottom: 2.5rem; }
table { border-collapse: separate; border-spacing: 0; min-width: min(100%, 40rem); font-variant-numeric: tabular-nums;
  font-size: .9375rem; line-height: 1.4; }
caption { text-align: start; padding: 0 0 .9rem; }
caption span { display: block; position: sticky; left: 0; width: fit-content; max-width: min(44rem, calc(100vw - 3rem)); }
caption, figcaption { color: var(--soft); font-size: .9375rem; line-height: 1.5; }
caption strong, figcaption strong { color: var(--ink); }
th, td { padding: .45rem 1rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: baseline;
  background: var(--paper); }
thead th { border-bottom: 2px solid var(--soft); padding-block: 0; white-space: nowrap; }
tbody th { font-weight: 500; min-width: min(9.5rem, 40vw); }
tr > :first-child { position: sticky; left: 0; z-index: 1; padding-left: 0; max-width: min(22rem, 45vw); }
.number { text-align: right; white-space: nowrap; }
.fixed > tr > * { font-weight: 650; } .fixed > tr:last-child > * { border-bottom: 1px solid var(--soft); }
tbody tr:hover > * { background: var(--card); }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: .5rem 0; cursor: pointer;
  position: relative; }
th button:disabled { cursor: text; }
th button:enabled::after { content: "↕"; position: absolute; left: calc(100% + .1rem); font-weight: 400; color: var(--soft);
  opacity: .55; }
th button:hover::after { opacity: 1; }
th[aria-sort=ascending] button::after { content: "↑"; opacity: 1; color: var(--link); font-weight: 700; }
th[aria-sort=descending] button::after { content: "↓"; opacity: 1; color: var(--link); font-weight: 700; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 3rem 2.5rem;
  margin: 2rem 0 3rem; }
figure { margin: 0; min-width: 0; } figure .wide { margin: 0; } .broad { grid-column: 1 / -1; }
figure svg { display: block; width: 100%; height: auto; color: var(--ink); }
figcaption { margin-top: .75rem; max-width: 44rem; }
details { margin: 1.5rem 0; border-top: 1px solid var(--line); padding-top: .75rem; }
summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 4rem; border-top: 1px solid var(--line); } footer h2 { margin-top: 2rem; font-size: 1.1rem; }
footer div { display: grid; grid-template-columns: 8rem minmax(0, 1fr); gap: 1rem; padding: .2rem 0; font-size: .9375rem; }
footer dt { font-size: inherit; }
@media (max-width: 34rem) {
  body { padding: 2rem 1.1rem 3rem; font-size: 1rem; } h2 { margin-top: 3rem; } th, td { padding-inline: .7rem; }
  caption span { max-width: calc(100vw - 2.2rem); }
  #theme:not([hidden]) { display: block; float: none; margin: 0 0 1.5rem auto; }
  footer div { grid-template-columns: 1fr; gap: 0; padding: .3rem 0; }
}
@media print {
  :root, :root[data-theme] { color-scheme: light; } body { padding: 0; max-width: none; font-size: 10pt; }
  #theme, nav, .skip, .anchor, th button::after { display: none !important; }
  .card, figure, tr { break-inside: avoid; } h2, caption { break-after: avoid; } .card { border: 1px solid var(--own); }
  .wide, pre { overflow: visible; } pre { white-space: pre-wrap; } figure svg { min-width: 0 !important; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""

_SCRIPT = """
"use strict";
const root = document.documentElement, theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
});
const words = new Intl.Collator(undefined, { numeric: true });
const key = cell => {
  const text = cell.dataset.sort ?? cell.textContent.trim();
  const missing = text === "" || text.toLowerCase() === "nan";
  return { text, number: Number(text), rank: missing ? 2 : Number.isNaN(Number(text)) ? 1 : 0 };
};
const compare = (a, b) => a.number === b.number ? 0 : a.rank === 0 ? a.number - b.number : words.compare(a.text, b.text);
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[table.tBodies.length - 1], given = [...body.rows], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button.disabled = false;
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const order = before === "ascending" ? "descending" : before === "descending" ? null : "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      if (order) head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const keyed = [...body.rows].map(row => [key(row.cells[column]), row]);
      keyed.sort(([a], [b]) => a.rank !== b.rank ? a.rank - b.rank : a.rank === 2 ? 0 : sign * compare(a, b));
      body.append(...(order ? keyed.map(([, row]) => row) : given));
    });
  });
}
"""


def _policy() -> str:
    """No loading from anywhere, and no script but the page's own."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
