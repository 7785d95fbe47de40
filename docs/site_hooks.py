"""What the site does to the pages while it is built: formulas become MathML, links out of the folder become plain text.

The pages are written for three readers: the repository's browser (which renders ``$...$`` and follows ``../src``), the site
(which must do without a network, so without a script that draws formulas), and an editor. MathML needs no script.
"""

from __future__ import annotations

import html
import posixpath
import re
import unicodedata
from typing import Any

from latex2mathml.converter import convert

MARKED = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)
NUMBER = re.compile(r"\\tag\{(.*?)\}")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s]+)\)")
# What the converter leaves as it is, and what says the same.
SAME = {r"\Big\langle": r"\Big⟨", r"\Big\rangle": r"\Big⟩"}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files that are in the repository and not on the site become their text."""
    folder = posixpath.dirname(page.file.src_uri)

    def outside(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        return link[1] if target.startswith("..") else link[0]

    return LINK.sub(outside, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Formulas as MathML."""
    return MARKED.sub(lambda found: formula(found[2], block=found[1] == "div"), html)


def formula(marked: str, *, block: bool) -> str:
    r"""MathML of a formula as arithmatex marks it: escaped, between ``\(`` and ``\)`` or ``\[`` and ``\]``."""
    latex = html.unescape(marked).strip()[2:-2].strip()
    number = NUMBER.search(latex)
    latex = NUMBER.sub("", latex)
    for old, new in SAME.items():
        latex = latex.replace(old, new)
    if not block:
        return plain_letters(convert(latex))
    label = f'<span class="number">({html.escape(number[1])})</span>' if number else ""
    return f'<div class="formula">{plain_letters(convert(latex, display="block"))}{label}</div>'


def plain_letters(mathml: str) -> str:
    """Letters of another shape (E of an expectation) as characters of their own: browsers' MathML has no attribute for them."""

    def letter(found: re.Match[str]) -> str:
        kind, which = found[1].upper(), found[2]
        for name in (f"MATHEMATICAL {kind} CAPITAL {which}", f"{kind} CAPITAL {which}"):
            try:
                return f"<mi>{unicodedata.lookup(name)}</mi>"
            except KeyError:
                continue
        return found[0]

    return re.sub(r'<mi mathvariant="(double-struck|script)">([A-Z])</mi>', letter, mathml)
