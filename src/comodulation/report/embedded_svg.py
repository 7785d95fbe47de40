"""A drawing made part of a page: in the page's text colour, with ids and styles of its own."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

from .theme import INK


def themed(svg: str) -> str:
    """The drawing with `INK` replaced by currentColor, so that it follows the text colour of the page around it.

    >>> themed('<text style="fill: #444444">#444444</text>')
    '<text style="fill: currentColor">#444444</text>'
    """
    ink = re.compile(r"((?:fill|stroke|color)\s*[:=]\s*[\"']?\s*)" + INK + r"\b", re.IGNORECASE)
    return _in_tags(svg, lambda tag: ink.sub(r"\1currentColor", tag))


def _in_tags(svg: str, change: Callable[[str], str]) -> str:
    return re.sub(r"<[^!?][^>]*>", lambda tag: change(tag[0]), svg)


def embedded(svg: str, prefix: str, title: str) -> str:
    """A stand-alone SVG made part of a page: ids and styles of its own, as wide as its place, a name."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"(<style[^>]*>)(.*?)(?=</style>)", lambda m: m[1] + _scoped(m[2], prefix), svg, flags=re.DOTALL)
    svg = _in_tags(themed(svg), lambda tag: _own_ids(tag, prefix))
    end = re.match(r"<svg[^>]*?(?=/?>)", svg)
    assert end is not None
    root, inside, limits = end[0], svg[end.end() :], ""
    if pixels := pixels_of(svg):
        root = re.sub(r"\s(?:width|height)=\"[^\"]*\"", "", root)
        limits = f' style="min-width: {0.7 * pixels:.0f}px; max-width: {1.2 * pixels:.0f}px"'
    return f'{root} role="img" aria-label="{html.escape(title)}"{limits}{inside}'


def pixels_of(svg: str) -> float | None:
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
