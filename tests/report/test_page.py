"""The structure of the page: what is escaped, what is an id, what a table and a figure are made of."""

import base64
import hashlib
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from comodulation.report.embedded_svg import themed
from comodulation.report.page import Cell, Code, Details, Figure, Section, Table, Text, Verdict, render
from comodulation.report.theme import INK, PALETTE
from support.pages import HOSTILE, drawing, realistic_page


class Parsed(HTMLParser):
    """Elements as (tag, attributes, own text), and whether every element that was opened was closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, page):
        super().__init__()
        self.elements, self.stack = [], []
        self.feed(page)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        element = (tag, dict(attributes), [])
        self.elements.append(element)
        if tag not in self.VOID:
            self.stack.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))

    def handle_endtag(self, tag):
        assert self.stack.pop()[0] == tag

    def handle_data(self, data):
        for element in self.stack:
            element[2].append(data)

    def all(self, tag, **wanted):
        return [
            (attributes, "".join(text).strip())
            for name, attributes, text in self.elements
            if name == tag and all(attributes.get(key.rstrip("_")) == value for key, value in wanted.items())
        ]


@pytest.fixture(scope="module")
def page():
    return realistic_page()


@pytest.fixture(scope="module")
def parsed(page):
    return Parsed(page)


def one(*blocks):
    return render("t", "", {}, [], [Section("s", blocks)])


def test_the_page_opens_with_the_verdicts(page, parsed):
    """Title, then a card for each claim with its word, numbers and shape; only then contents, tables, figures, facts."""
    places = [page.index(text) for text in ("<h1", 'class="cards"', "<nav", "<table", "<figure", "<footer")]
    assert places == sorted(places)
    words = [text for _, text in parsed.all("strong") if text in ("holds", "does not hold", "cannot be told")]
    assert words == ["holds", "does not hold", "cannot be told", "holds"]
    assert ({"class": "counts"}, "Of 4 claims: 2 hold, 1 does not hold, 1 cannot be told.") in parsed.all("p")
    assert [text for _, text in parsed.all("dd")][:4] == ["+0.6 points", "[+0.2, +1.0], 95 %", "0.004", "20 seeds"]
    icons = re.findall(r'<svg viewBox="0 0 24 24" aria-hidden="true">(.*?)</svg>', page)
    assert len(set(icons)) == 3
    assert (
        "effect" not in render("t", "", {}, [Verdict("a", "b", "holds")], []).split("</style>")[1].split("<script>")[0]
    )


def test_an_unknown_verdict_is_refused():
    with pytest.raises(ValueError, match="'holds', 'does not hold', 'cannot be told', not 'maybe'"):
        Verdict("a", "b", "maybe")


def test_the_first_line_is_the_doctype(page):
    assert page.startswith("<!doctype html>\n<html")


def test_language_landmarks_and_names(parsed):
    assert parsed.all("html")[0][0]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert len(parsed.all(landmark)) == 1
    ids = {attributes["id"] for _, attributes, _ in parsed.elements if "id" in attributes}
    links = [attributes["href"] for attributes, _ in parsed.all("a")]
    assert all(link[0] == "#" and link[1:] in ids for link in links)
    assert all(attributes["aria-labelledby"] in ids for attributes, _ in parsed.all("section"))
    assert len(parsed.all("caption")) == len(parsed.all("table")) == 1
    figures = parsed.all("svg", role="img")
    assert [attributes["aria-label"] for attributes, _ in figures] == ["Images and accuracy", "Methods", "Task by task"]


def test_nothing_is_loaded(page, parsed):
    """No address anywhere, not even of a namespace; a policy that names the one script."""
    assert "://" not in page
    assert not re.search(r"\bsrc\s*=|@import|<link|<iframe|<form", page)
    policy = parsed.all("meta", **{"http-equiv": "Content-Security-Policy"})[0][0]["content"]
    assert "default-src 'none'" in policy
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy


@pytest.mark.parametrize("path_text", [False, True])
def test_ids_of_equal_figures_do_not_collide(path_text):
    """Ids, and clip paths, markers and glyphs that refer to them, belong to one figure each."""
    text = drawing(path_text=path_text)
    page = one(*(Figure(text, "c", "t") for _ in range(3)))
    parsed = Parsed(page)
    ids = [attributes["id"] for _, attributes, _ in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    parts = page.split("<figure ")[1:]
    for number, part in enumerate(parts, 1):
        references = re.findall(r'(?:href="#|url\(#)([^")]+)', part.split("</figure>")[0])
        assert len(references) > 10
        assert all(name.startswith(f"figure-{number}-") and name in ids for name in references)
        assert f"#figure-{number} *{{" in part


def test_figures_fill_their_place(page):
    root = re.search(r'<svg[^>]*aria-label="Methods"[^>]*>', page)[0]
    assert "viewBox" in root
    assert not re.search(r"\s(width|height)=", root)
    assert "min-width: 571px; max-width: 979px" in root
    assert "<metadata" not in page
    assert one(Figure("<svg></svg>", "c", "t")).count('<svg role="img" aria-label="t"></svg>') == 1


def test_figures_share_a_row_unless_they_are_broad_or_apart():
    broad, narrow = Figure(drawing("lines"), "c", "t"), Figure(drawing("plain"), "c", "t")
    parsed = Parsed(one(narrow, narrow, broad, Text("between"), narrow))
    assert len(parsed.all("div", class_="figures")) == 2
    assert [attributes.get("class") for attributes, _ in parsed.all("figure")] == [None, None, "broad", None]


def test_themed_changes_the_ink_and_nothing_else():
    """Whatever way a colour is written; not words, ids, other colours."""
    svg = (
        '<svg><text id="#444444" style="fill: #444444; stroke:#444444">fill: #444444</text><path stroke="#444444" '
        'fill=\'#444444\'/><path style="fill: #4444445"/><path fill="#123456"/></svg>'
    )
    expected = (
        '<svg><text id="#444444" style="fill: currentColor; stroke:currentColor">fill: #444444</text><path '
        'stroke="currentColor" fill=\'currentColor\'/><path style="fill: #4444445"/><path fill="#123456"/></svg>'
    )
    assert themed(svg) == expected
    assert themed(expected) == expected
    own = drawing("scatter")
    assert INK in own
    assert INK not in themed(own)
    assert themed(own).replace("currentColor", INK) == own


def test_the_gains_figure_follows_the_theme():
    """No background, and no ink but the page's own."""
    from comodulation.report.gain_figures import gains_figure, svg

    gains = np.exp(np.random.default_rng(0).normal(size=(3, 8)))
    text = svg(gains_figure(gains, gains, ["a", "b", "c"], title="gains"))
    texts = re.findall(r"<text[^>]*>", text)
    assert len(texts) > 8
    assert all("fill: #444444" in tag for tag in texts)
    assert "fill: #ffffff" not in text


def test_cells():
    """Numbers by their format and flush right, words as they are; keys that sort by value, and empty ones for nothing."""
    rows = [
        ["a", 0.5, 1234, Cell("79.1 ± 0.2", 79.1), None, True],
        ["b", np.float32(0.25), np.int64(7), Cell("–", None), math.nan, False],
        ["c", -math.inf, 0, Cell("x", math.nan), 1e-9, "word"],
    ]
    parsed = Parsed(one(Table(list("tpnmzw"), rows, "c", formats={"p": ".1%", "z": ".1e"})))
    cells = [(text, attributes.get("data-sort")) for attributes, text in parsed.all("td")]
    assert cells == [
        ("50.0%", "0.5"), ("1,234", "1234"), ("79.1 ± 0.2", "79.1"), ("–", ""), ("yes", None),
        ("25.0%", "0.25"), ("7", "7"), ("–", ""), ("–", ""), ("no", None),
        ("−∞", "-Infinity"), ("0", "0"), ("x", ""), ("1.0e-09", "1e-09"), ("word", None),
    ]  # fmt: skip
    heads = parsed.all("th", scope="col")
    assert [attributes.get("class") for attributes, _ in heads] == [None, "number", "number", "number", "number", None]
    assert [text for _, text in parsed.all("th", scope="row")] == ["a", "b", "c"]
    assert len(parsed.all("button")) == 7


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="a row of 1 cells in a table of 2 columns"):
        Table(["a", "b"], [["x"]], "c")
    with pytest.raises(ValueError, match="lacks: z"):
        Table(["a", "b"], [], "c", formats={"z": ".1f"})


def test_text():
    parsed = Parsed(
        one(Text("One **bold**,\nstill one `a**b**`.\n\n- first\n- second\n\n3 < 4 ** 5 ** `"), Code("<a>\n  b"))
    )
    assert [text for _, text in parsed.all("p")] == ["One bold,\nstill one a**b**.", "3 < 4  5  `"]
    assert [text for _, text in parsed.all("li")][-2:] == ["first", "second"]
    assert ({}, "a**b**") in parsed.all("code")
    assert parsed.all("pre")[0][1] == "<a>\n  b"


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_the_names_are(name):
    """In every place that takes a name: the same elements as with a harmless one, and the name to be read."""

    def build(name):
        blocks = [
            Table([name, "x"], [[name, Cell(name, name)]], name, formats={name: ".1f"}), Text(name), Code(name),
            Figure("<svg></svg>", name, name), Details(name, [Text(name)]),
        ]  # fmt: skip
        verdict = Verdict(name, name, "holds", name, name, name, name, name)
        return render(name, name, {name: name}, [verdict], [Section(name, blocks), Section(name, [])])

    def shape(page):
        kinds = [(tag, sorted(attributes)) for tag, attributes, _ in Parsed(page).elements]
        return [kind for kind in kinds if kind[0] not in ("code", "strong")]

    page = build(name)
    assert shape(page) == shape(build("harmless"))
    shown = name.encode("utf-8", "replace").decode()
    assert Parsed(page).all("h1")[0][1] == shown
    assert Parsed(page).all("td")[0] == ({"dir": "auto", "data-sort": shown}, shown)


def test_equal_titles_have_different_anchors():
    parsed = Parsed(render("t", "", {}, [], [Section(title, []) for title in ("A b", "a-b", "?!", "", "ü 1")]))
    ids = [attributes["id"] for attributes, _ in parsed.all("h2")]
    assert ids == ["section-a-b", "section-a-b-2", "section-untitled", "section-untitled-2", "section-ü-1"]


def test_the_same_content_gives_the_same_bytes(page):
    assert realistic_page() == page


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("theme", [0, 1])
def test_contrast_of_the_palette(theme):
    """WCAG AA, on the page and on a card."""
    for back in ("paper", "card"):
        for ink in ("ink", "soft", "link", "holds", "fails", "unknown"):
            low, high = sorted(luminance(PALETTE[name][theme]) for name in (back, ink))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (back, ink)


# What is left of linear RGB without one kind of cone: Viénot, Brettel and Mollon (1999), equations for dichromats.
DICHROMATS = {
    "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
}


def lab(colour, sight):
    """CIELAB of a colour as this reader sees it."""
    linear = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]] @ (sight @ linear).clip(0, 1)
    root = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("sight", DICHROMATS.values(), ids=DICHROMATS)
def test_colours_of_verdicts_without_red_or_green_cones(theme, sight):
    """Any two verdicts are 20 units of CIELAB apart or more; about 2 can just be told."""
    colours = [lab(PALETTE[name][theme], np.array(sight)) for name in ("holds", "fails", "unknown")]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(colours[a] - colours[b]) >= 20
