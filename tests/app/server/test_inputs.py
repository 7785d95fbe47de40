"""A server of runs on texts and embeddings: what a request holds, and what is refused."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("transformers")

from comodulation.app.server.service import Service
from comodulation.app.server.uploads import UploadError, read_embedding, read_text
from comodulation.errors import InputError
from comodulation.runs import Run
from support.command import comodulate
from support.server import Server
from support.texts import write_encoder, write_texts

pytestmark = pytest.mark.usefixtures("undrawn")

JSON = "application/json"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("served")
    write_texts(place / "t.csv", 120)
    write_encoder(place / "encoder")
    outcome = comodulate(
        "fit", "--data", place / "t.csv", "--text", "text", "--backbone", place / "encoder", "--quality", "fast",
        "--method", "linear", "--out", place / "run", "--cache", place / "cache",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    return place


@pytest.fixture(scope="module")
def server(place):
    server = Server(place / "run", cwd=place)
    yield server
    assert server.end() == (0, "", "")


def test_texts(place, server):
    """The text itself, or a field of JSON: the answers of `Run.predict`, in any language."""
    told = server.ask("GET", "/api/run").json
    assert (told["input"], told["backbone"], told["image_size"]) == ("text", str(place / "encoder"), None)
    for text in ("we see rain", "Größe 数字 🎉"):
        (expected,) = Run.open(place / "run").predict([text])
        plain = server.post("/api/predict", text.encode())
        wrapped = server.post("/api/predict", json.dumps({"text": text}).encode(), Content_Type=JSON)
        assert plain.json["tasks"] == wrapped.json["tasks"] == expected["tasks"]
    seen = server.post("/api/mechanism?task=topic", b"rain").json
    assert seen["answer"] == server.post("/api/predict", b"rain").json["tasks"]["topic"]
    for body, said in (
        (b"", "no text: the request has an empty body"),
        (b"\xff", "not text in UTF-8"),
        (b"  ", "is missing"),
    ):
        refused = server.post("/api/predict", body)
        assert refused.status == 400
        assert said in refused.json["error"]
    page = server.ask("GET", "/").body.decode()
    assert '<textarea id="words"' in page


def test_embeddings(tmp_path):
    """A list of numbers as JSON, alone or as a field: what the run answers to them."""
    numbers = np.random.default_rng(0).normal(size=(90, 4)).astype(np.float32)
    np.save(tmp_path / "v.npy", numbers)
    (tmp_path / "l.csv").write_text("up\n" + "".join(f"{int(row[0] > 0)}\n" for row in numbers))
    outcome = comodulate(
        "fit", "--embeddings", tmp_path / "v.npy", "--labels", tmp_path / "l.csv", "--quality", "fast", "--method", "linear",
        "--out", tmp_path / "run", "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    service = Service(Run.open(tmp_path / "run"))
    assert service.describe()["input"] == "embedding"
    body = json.dumps(numbers[0].tolist()).encode()
    given = read_embedding(body, JSON)
    np.testing.assert_array_equal(given, read_embedding(json.dumps({"embedding": numbers[0].tolist()}).encode(), JSON))
    (expected,) = service.run.predict(numbers[:1])
    found = service.predict(service.prepare(given), [])["tasks"]
    assert found["up"]["confidence"] == pytest.approx(expected["tasks"]["up"]["confidence"], abs=1e-6)
    with pytest.raises(InputError, match=r"has the shape \(3,\), expected \(4,\)"):
        service.prepare(read_embedding(b"[1, 2, 3]", JSON))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"noise", "not JSON"),
        (b'{"vector": [1]}', "expected a list of numbers as JSON"),
        (b'["a"]', "expected a list of numbers as JSON"),
        (b"[[1], [2, 3]]", "expected a list of numbers as JSON"),
        (b"[1, NaN]", "holds NaN at place 1"),
        (b"[1, 1e99]", "too large for float32"),
        (b"[true]", "expected a list of numbers"),
        (b"[" * 5000, "not JSON"),
    ],
)
def test_wrong_embeddings(body, said):
    with pytest.raises(UploadError) as error:
        read_embedding(body, JSON)
    assert error.value.status == 400
    assert said in str(error.value)


@pytest.mark.parametrize("body", [b"{}", b'{"text": 3}', b"noise"])
def test_wrong_texts(body):
    with pytest.raises(UploadError):
        read_text(body, JSON)
    assert read_text(b'{"text": "a"}', "text/plain") == '{"text": "a"}'


def test_the_page_takes_a_text(server, browser):
    """A text is written and sent; the answers to all tasks come, and how one comes about. Nothing asks for an image."""
    browser.open(SimpleNamespace(as_uri=lambda: server.address))
    _wait(browser, "document.getElementById('title').textContent.includes('tasks')")
    assert browser.run("document.getElementById('drop').checkVisibility()") is False
    assert browser.run("document.getElementById('writing').textContent") == "Write a text"
    browser.run("document.getElementById('words').value = 'we see rain and wind'")
    browser.run("document.querySelector('#write button').click()")
    _wait(browser, "document.querySelectorAll('#tasks button').length === 2")
    _wait(browser, "!document.getElementById('mechanism').hidden")
    assert "weather" in browser.run("document.getElementById('tasks').textContent")
    browser.run("document.getElementById('words').value = '  '")
    browser.run("document.querySelector('#write button').click()")
    _wait(browser, "document.getElementById('error').textContent.includes('is missing')")
    assert not browser.seen("Runtime.exceptionThrown")


def _wait(browser, condition):
    ends = time.monotonic() + 60
    while not browser.run(condition):
        assert time.monotonic() < ends, (condition, browser.run("document.body.innerText"))
        time.sleep(0.05)
