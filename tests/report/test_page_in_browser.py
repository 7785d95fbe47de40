"""The page in a real browser: sorting, theme, phone, contrast, and that nothing is loaded or complained about."""

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from comodulation.report.page import Figure, Section, Table, Text, render
from support.browser import CONTRAST
from support.pages import HOSTILE, drawing, realistic_page


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(realistic_page(), encoding="utf-8")
    return path


def small(tmp_path, columns, rows, **options):
    path = tmp_path / "small.html"
    path.write_text(render("t", "", {}, [], [Section("s", [Table(columns, rows, "c", **options)])]), encoding="utf-8")
    return path


def column(browser, place):
    return browser.run(
        f"[...document.querySelector('table').tBodies].at(-1).innerText.split('\\n').map(l => l.split('\\t')[{place}])"
    )


def click(browser, place):
    browser.run(f"document.querySelectorAll('th button')[{place}].click()")


ROWS = [["b", 10.0], ["a", 9.5], ["d", float("nan")], ["c", 9.5], ["e", None], ["f", float("-inf")], ["g", 1e-7]]


def test_sorting_by_click(browser, tmp_path):
    """Up, down, as given; equal values keep their order; what is missing stays last; the mean stays on top."""
    browser.open(small(tmp_path, ["task", "x"], ROWS, fixed=[["mean", 99.0]], formats={"x": ".1f"}))
    assert column(browser, 0) == list("badcefg")
    states = []
    for order in ("fgacbde", "bacgfde", "badcefg"):
        click(browser, 1)
        states.append(browser.run("document.querySelectorAll('th')[1].getAttribute('aria-sort')"))
        assert "".join(column(browser, 0)) == order
        assert browser.run("document.querySelector('.fixed').rows[0].cells[0].innerText") == "mean"
    assert states == ["ascending", "descending", None]
    click(browser, 1)
    click(browser, 0)
    assert "".join(column(browser, 0)) == "abcdefg"
    assert browser.run("document.querySelectorAll('[aria-sort]').length") == 1


def test_sorting_by_key_of_a_cell_and_by_words(browser, tmp_path):
    """A Cell sorts by its key, not its text; words as people sort them, with numbers inside in order."""
    from comodulation.report.page import Cell

    rows = [["task 10", Cell("9.1 ± 0.2", 9.1)], ["task 9", Cell("10.0 ± 0.1", 10.0)], ["Task 1", Cell("?", None)]]
    browser.open(small(tmp_path, ["task", "x"], rows))
    click(browser, 0)
    assert column(browser, 0) == ["Task 1", "task 9", "task 10"]
    click(browser, 1)
    assert column(browser, 1) == ["9.1 ± 0.2", "10.0 ± 0.1", "?"]


def test_sorting_by_keyboard(browser, tmp_path):
    """Tab reaches a column's button; Enter and space press it."""
    browser.open(small(tmp_path, ["task", "x"], ROWS))
    for _ in range(20):
        browser.press("Tab", 9)
        if browser.run("document.activeElement.innerText") == "x":
            break
    browser.press("Enter", 13)
    assert "".join(column(browser, 0)) == "fgacbde"
    browser.press(" ", 32)
    assert "".join(column(browser, 0)) == "bacgfde"
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_the_button(browser, page, scheme):
    """Background, text and figures change together."""
    state = """[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
        getComputedStyle(document.querySelector('figure text')).fill]"""
    light = ["rgb(255, 255, 255)", "rgb(32, 36, 43)", "rgb(32, 36, 43)"]
    dark = ["rgb(21, 24, 29)", "rgb(228, 231, 236)", "rgb(228, 231, 236)"]
    browser.open(page, scheme=scheme)
    first, second = (light, dark) if scheme == "light" else (dark, light)
    assert browser.run(state) == first
    assert (np.asarray(browser.screenshot()).mean() > 128) == (scheme == "light")
    browser.run("document.getElementById('theme').click()")
    assert browser.run(state) == second
    assert (np.asarray(browser.screenshot()).mean() > 128) == (scheme == "dark")
    browser.run("document.getElementById('theme').click()")
    assert browser.run(state) == first
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_all_text(browser, page, scheme):
    """WCAG AA: 4.5 for every text on its background, inside figures too."""
    browser.open(page, scheme=scheme)
    found = browser.run(CONTRAST)
    assert len(found) > 200
    assert found[0][0] >= 4.5, found[:5]


@pytest.mark.parametrize("width", [320, 360, 390, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(browser, page, width):
    """Wide tables and figures scroll in their own boxes, with the row's name in sight."""
    browser.open(page, width=width, height=780)
    assert browser.run("innerWidth") == width
    assert browser.run("document.documentElement.scrollWidth") <= width
    if width == 360:
        assert browser.run("[...document.querySelectorAll('.wide')].every(box => box.scrollWidth > box.clientWidth)")
        edges = "(() => { const box = document.querySelector('.wide'), name = box.querySelector('tbody th'); box.scrollLeft = 200;"
        edges += "return [box.scrollLeft, name.getBoundingClientRect().left - box.getBoundingClientRect().left]; })()"
        assert browser.run(edges) == [200, 0]


def test_what_is_cut_off_says_so(browser, page):
    """On a phone tables and figures fade at the edge where there is more, with a line below, until they are scrolled there."""
    state = """[...document.querySelectorAll('.wide')].map(box => [box.scrollWidth > box.clientWidth + 1,
        box.nextElementSibling.matches('.hint') && box.nextElementSibling.checkVisibility(),
        getComputedStyle(box).maskImage !== 'none'])"""
    browser.open(page, width=360, height=780)
    assert browser.run(state) == [[True, True, True]] * 4
    browser.run("document.querySelector('.wide').scrollLeft = 10_000")
    browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")
    assert browser.run(state)[0] == [True, True, False]  # nothing more to the right
    browser.open(page, width=1280)
    assert all(hint == fades == wider for wider, hint, fades in browser.run(state))
    assert [False, False, False] in browser.run(state)


def test_names_that_try_to_be_code(browser, tmp_path):
    """Markup, quotes, control characters and right-to-left text are shown, never run, and do not turn their neighbours."""
    rows = [[name, 1.0] for name in HOSTILE]
    path = tmp_path / "hostile.html"
    figure = Figure(drawing("plain"), HOSTILE[0], HOSTILE[1])
    section = Section(
        HOSTILE[0], [Table([HOSTILE[1], HOSTILE[0]], rows, HOSTILE[1]), Text("\n\n".join(HOSTILE)), figure]
    )
    path.write_text(render(HOSTILE[0], HOSTILE[1], {HOSTILE[0]: HOSTILE[1]}, [], [section]), encoding="utf-8")
    browser.open(path, width=360)
    assert browser.run("document.title") == HOSTILE[0]
    assert browser.run("window.hacked") is None
    assert browser.run("document.querySelectorAll('script').length") == 1
    shown = browser.run("[...document.querySelectorAll('tbody th')].map(cell => cell.textContent)")
    assert shown == [name.encode("utf-8", "replace").decode() for name in HOSTILE]
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert browser.complaints() == []


def test_the_policy_stops_what_a_page_could_load(browser, page, tmp_path):
    """Control: without the policy the same page does load the picture and run the script."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        added = f'<img src="{address}/picture.png"><script>window.hacked = 1</script></body>'
        text = page.read_text(encoding="utf-8").replace("</body>", added)
        copy = tmp_path / "copy.html"
        copy.write_text(text, encoding="utf-8")
        browser.open(copy)
        assert browser.run("window.hacked") is None
        time.sleep(0.2)
        assert asked == []
        assert browser.complaints()
        copy.write_text(text.replace("Content-Security-Policy", "nothing"), encoding="utf-8")
        browser.open(copy)
        assert browser.run("window.hacked") == 1
        assert asked == ["/picture.png"]
    finally:
        server.shutdown()
        server.server_close()


def test_without_javascript(browser, page):
    """All content is there; what could not work is not offered."""
    browser.open(page, javascript=False)
    assert browser.complaints() == []
    document = browser.call("DOM.getDocument")["root"]["nodeId"]

    def count(selector):
        return len(browser.call("DOM.querySelectorAll", nodeId=document, selector=selector)["nodeIds"])

    assert count("th button:enabled") == 0
    assert count("#theme[hidden]") == 1
    assert count("tbody:not(.fixed) tr") == 15
