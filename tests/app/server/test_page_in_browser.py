"""The served page in a real browser: an image is chosen and dropped, a task is clicked, the modulator is moved."""

import json
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest

from support.browser import CONTRAST
from support.command import fit
from support.server import Server
from support.synthetic import GROUPS, encode, picture


class Page:
    """The page of a server in a browser, driven by real input events."""

    def __init__(self, browser, server):
        self.browser, self.server, self.run = browser, server, browser.run

    def open(self, **window):
        self.browser.open(SimpleNamespace(as_uri=lambda: self.server.address), **window)
        self.wait("document.getElementById('title').textContent.includes('tasks')")

    def wait(self, condition):
        ends = time.monotonic() + 20
        while not self.run(condition):
            assert time.monotonic() < ends, (condition, self.run("document.body.innerText"))
            time.sleep(0.02)

    def choose(self, path):
        """What the file dialogue does when a person picks a file."""
        root = self.browser.call("DOM.getDocument")["root"]["nodeId"]
        node = self.browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.browser.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def centre(self, selector):
        return self.run(
            f"(() => {{ const node = document.querySelector({selector!r}); node.scrollIntoView({{ block: 'center' }});"
            "const box = node.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )

    def drop(self, path, selector="#drop"):
        x, y = self.centre(selector)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.browser.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def mouse(self, kind, x, y):
        self.browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def click(self, selector):
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, *self.centre(selector))

    def text(self, selector):
        return self.run(f"document.querySelector({selector!r})?.innerText")

    def shown(self, selector):
        return self.run(f"document.querySelector({selector!r})?.checkVisibility() ?? false")

    def requests(self):
        """Addresses asked for since the page was opened, without the server's own name, and pictures made by the page."""
        self.run("0")  # events that are on their way come with the answer
        urls = [event["params"]["request"]["url"] for event in self.browser.seen("Network.requestWillBeSent")]
        return [url.removeprefix(self.server.address) for url in urls if not url.startswith(("blob:", "data:"))]

    def complaints(self):
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return self.browser.seen(*kinds)

    def bars(self):
        """Names, percentages and widths of the answer under the modulator."""
        return self.run(
            "[...document.querySelectorAll('#bars li')].map(li => [li.querySelector('.said').textContent,"
            "li.querySelector('.percent').textContent, parseFloat(li.querySelector('.fill').style.width)])"
        )

    def moving(self):
        """Everything that must move with the modulator, as one value each."""
        return self.run(
            "[document.getElementById('value').textContent, document.getElementById('bars').innerText,"
            "document.querySelector('#factors .up').getAttribute('d'), document.querySelector('#factors .reading').innerText,"
            "[...document.querySelectorAll('.many .top')].map(node => node.textContent).join(),"
            "[...document.querySelectorAll('.many .dot')].map(node => node.style.top).join()]"
        )

    def still(self):
        """What must not."""
        return self.run(
            "['#coupling', '#decoder-gains'].map(id => document.querySelector(id + ' svg').innerHTML"
            "+ document.querySelector(id).innerText)"
        )


@pytest.fixture(scope="module")
def page(browser, server):
    return Page(browser, server)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name in ("red", "green"):
        (folder / f"{name}.png").write_bytes(encode(picture(name, 5, 48)))
    (folder / "notes.txt").write_text("no image")
    (folder / "large.png").write_bytes(bytes(21 * 2**20))
    return folder


def answered(page):
    page.wait("document.getElementById('mechanism').checkVisibility()")


def test_from_an_image_to_the_modulator(page, files):
    """The whole way: choose a file, see all tasks, click one, move the slider by keyboard and by mouse, go back."""
    page.open()
    assert not page.shown("#mechanism")
    page.choose(files / "red.png")
    answered(page)
    expected = page.server.post("/api/predict", (files / "red.png").read_bytes()).json["tasks"]
    listed = page.run("[...document.querySelectorAll('#tasks button')].map(b => [b.value, b.innerText])")
    assert sorted(name for name, _ in listed) == sorted(expected)
    for name, text in listed:
        assert expected[name]["prediction"] in text
        assert f"{100 * expected[name]['confidence']:.1f}%" in text
    assert page.run("document.getElementById('preview').naturalWidth") == 48

    page.click('#tasks button[value="grey"]')
    page.wait("document.getElementById('task').textContent === 'grey'")
    assert page.run("[...document.querySelectorAll('#tasks [aria-pressed=true]')].map(b => b.value)") == ["grey"]
    asked = page.requests()
    before, still = page.moving(), page.still()
    assert before[0].startswith("0 σ")

    page.click("#slider")  # its middle: focus, and no change
    assert page.moving() == before
    for _ in range(12):
        page.browser.press("ArrowRight", 39)
    after = page.moving()
    assert after[0] == "+1.2 σ (m = +0.36)"
    assert all(one != other for one, other in zip(before, after, strict=True))
    assert page.still() == still

    alone = page.server.post("/api/mechanism?task=grey&modulator=1.2", (files / "red.png").read_bytes()).json[
        "modulator"
    ]
    chances = dict(zip(alone["outputs"], alone["probabilities"][0], strict=True))
    for name, percent, width in page.bars():
        if name in chances:
            assert percent == f"{100 * chances[name]:.1f}%" or abs(100 * chances[name] - float(percent[:-1])) < 0.051
            assert width == pytest.approx(100 * chances[name], abs=0.01)
    neuron = int(np.argmax(alone["coupling"]))
    assert f"Neuron {neuron}: ×{alone['factors'][0][neuron]:.2f}" in page.text("#factors .reading")

    page.browser.press("Home", 36)
    assert page.moving()[0].startswith("−3.0 σ")
    x, y = page.centre("#slider")
    box = "document.getElementById('slider').getBoundingClientRect()"
    left, width = page.run(f"[{box}.x, {box}.width]")
    page.mouse("mousePressed", left + 8, y)
    page.mouse("mouseMoved", x, y)
    page.mouse("mouseMoved", left + width - 2, y)
    page.mouse("mouseReleased", left + width - 2, y)
    assert page.moving()[0].startswith("+3.0 σ")
    page.click("#reset")
    assert page.moving() == before
    assert page.requests() == asked  # the slider asked for nothing
    assert page.complaints() == []


def test_dropping_an_image(page, files):
    """On its place or beside it; another image replaces the first; the page stays."""
    page.open()
    page.drop(files / "green.png")
    answered(page)
    first = page.text("#tasks")
    page.drop(files / "red.png", "#mechanism h2")
    page.wait(f"document.getElementById('tasks').innerText !== {first!r}")
    assert page.requests().count("api/predict") == 2
    assert page.complaints() == []


def test_the_task_stays_chosen_for_the_next_image(page, files):
    page.open()
    page.choose(files / "red.png")
    answered(page)
    page.click('#tasks button[value="cool"]')
    page.wait("document.getElementById('task').textContent === 'cool'")
    chosen = page.requests().count("api/mechanism?task=cool")
    page.choose(files / "green.png")
    page.wait("document.getElementById('status').textContent.startsWith('cool: ')")
    ends = time.monotonic() + 20
    while page.requests().count("api/mechanism?task=cool") == chosen:
        assert time.monotonic() < ends
    assert page.text("#task") == "cool"


@pytest.mark.parametrize(
    ("name", "message"), [("notes.txt", "not an image that can be read"), ("large.png", "This file has 21 MiB; 20 MiB")]
)
def test_a_wrong_file_is_said_and_changes_nothing(page, files, name, message):
    """The next good one clears the message."""
    page.open()
    page.choose(files / "red.png")
    answered(page)
    before = page.text("main")
    page.drop(files / name)
    page.wait("document.getElementById('error').checkVisibility()")
    assert message in page.text("#error")
    assert page.text("main") == before
    page.choose(files / "green.png")
    page.wait("!document.getElementById('error').checkVisibility()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(page, files, scheme):
    """WCAG AA on every text, in both schemes; the button turns the scheme over."""
    page.open(scheme=scheme)
    page.choose(files / "red.png")
    answered(page)
    found = page.run(CONTRAST)
    assert len(found) > 40
    assert found[0][0] >= 4.5, found[:5]
    assert (np.asarray(page.browser.screenshot()).mean() > 128) == (scheme == "light")
    page.click("#theme")
    assert (np.asarray(page.browser.screenshot()).mean() > 128) == (scheme == "dark")
    assert page.run(CONTRAST)[0][0] >= 4.5


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(page, files, width):
    page.open(width=width, height=780)
    page.choose(files / "red.png")
    answered(page)
    assert page.run("innerWidth") == width
    assert page.run("document.documentElement.scrollWidth") <= width
    overlapping = """[...document.querySelectorAll('#bars li, #tasks button')].filter(row => {
        const [name, percent] = ['.said', '.percent'].map(part => row.querySelector(part).getBoundingClientRect());
        return name.right > percent.left + 1 && name.bottom > percent.top + 1 && name.top < percent.bottom - 1; }).length"""
    assert page.run(overlapping) == 0


def test_it_works_by_keyboard_alone(page, files):
    """Everything that can be done is reached by Tab, has a name, and shows where the focus is."""
    page.open()
    page.choose(files / "red.png")
    answered(page)
    reached = []
    for _ in range(12):
        page.browser.press("Tab", 9)
        reached.append(page.run("(() => { const n = document.activeElement; return n.id || n.value; })()"))
        if reached[-1] == "warm":
            page.browser.press("Enter", 13)
    assert {"theme", "file", "warm", "cool", "grey", "slider", "reset"} <= set(reached)
    page.wait("document.getElementById('task').textContent === 'warm'")
    named = page.run(
        "[...document.querySelectorAll('input, button')].every(n => n.ariaLabel || n.labels?.length || n.innerText)"
    )
    assert named


def test_classes_that_are_whole_numbers_keep_their_order(page):
    """A script lists such keys of an object first and in their own order: the likeliest six are still those shown."""
    page.open()
    chances = {"12": 0.3, "7": 0.25, "b": 0.2, "3": 0.1, "100": 0.08, "a": 0.04, "1": 0.02, "0": 0.01}
    answer = {"prediction": "12", "confidence": 0.3, "probabilities": chances}
    seen = {"task": "warm", "answer": answer, "modulator": None, "encoder_gains": None, "decoder_gains": None}
    page.run(f"(state.seen = JSON.parse({json.dumps(json.dumps(seen))}), build(), 0)")
    assert [name for name, _, _ in page.bars()] == ["12", "7", "b", "3", "100", "a"]
    assert page.bars()[0][1] == "30.0%"


def test_the_page_lists_a_tasks_own_classes_only(page, files):
    page.open()
    page.choose(files / "red.png")
    answered(page)
    for name, classes in GROUPS.items():
        page.click(f'#tasks button[value="{name}"]')
        page.wait(f"document.getElementById('task').textContent === {name!r}")
        assert {shown for shown, _, _ in page.bars()} == set(classes)
        listed = page.text(f'#tasks button[value="{name}"] .said')
        assert listed in classes or listed.endswith("(of another task)")
    rows = page.run("[...document.querySelectorAll('#measured tbody tr')].map(row => row.cells.length)")
    assert rows == [6] * len(GROUPS)


def test_methods_without_a_modulator_have_no_slider(browser, data, cache, tmp_path, no_figures, files):
    """Their gains are shown; the prediction is the run's."""
    assert fit(data, tmp_path / "run", cache, "--method", "attention", "--epochs", 1).status == 0
    server = Server(tmp_path / "run")
    try:
        page = Page(browser, server)
        page.open()
        page.choose(files / "red.png")
        answered(page)
        assert not page.shown("#control")
        assert not page.shown("#slider-note")
        assert page.shown("#encoder-gains")
        assert page.run("document.querySelectorAll('.chart').length") == 1
        assert re.search(r"highest ×\d+\.\d+, lowest ×\d+\.\d+", page.text("#encoder-gains"))
        task = page.text("#task")
        answer = server.post(f"/api/predict?task={task}", (files / "red.png").read_bytes()).json["tasks"][task]
        for name, percent, _ in page.bars():
            assert percent == f"{100 * answer['probabilities'][name]:.1f}%"
        assert page.complaints() == []
        server.end()
        page.choose(files / "green.png")
        page.wait("document.getElementById('error').checkVisibility()")
        assert "does not answer" in page.text("#error")
    finally:
        server.process.kill()
