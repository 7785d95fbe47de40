"""The report of a study: what it says, that it is one file, and that unfinished studies have one too."""

import html
import json
import re
import shlex
import shutil
from dataclasses import replace

import pytest

from comodulation.studies.cells import CELLS
from comodulation.studies.paper.report import command_of
from comodulation.studies.paper.reproduction import ILLUSTRATION, STUDY
from comodulation.studies.paper.words import shown_name
from support.command import comodulate
from support.small_study import reproduce, small_study
from support.synthetic import snapshot

SECTIONS = (
    "The comparison named beforehand", "All methods, open readout", "What routing adds beyond mask and bias",
    "Options, and other regimes", "Calibration", "Mechanism", "By task", "Learning", "Failure signatures", "Searches",
    "Methods", "All comparisons",
)  # fmt: skip
FIGURES = {
    "accuracy", "differences_residual", "differences_base", "reliability", "confidence", "learning", "separability",
    "gains", "noise", "informativeness", "one_image", "gain_map",
}  # fmt: skip


@pytest.fixture(scope="module")
def page():
    return (small_study().out / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(small_study().out, tmp_path / "study")
    return tmp_path / "study"


def headings(page):
    return [re.sub(r"<[^>]*>", "", text).removesuffix("#").strip() for text in re.findall(r"<h2.*?</h2>", page)]


def test_every_section(page):
    """Verdicts first, then everything else once."""
    found = headings(page)
    assert found[0] == "Verdicts"
    for place, section in enumerate(SECTIONS):
        assert [h.startswith(section) for h in found].count(True) == 1, section
        if place:
            names = [next(i for i, h in enumerate(found) if h.startswith(s)) for s in SECTIONS[place - 1 : place + 1]]
            assert names[0] < names[1]
    small = small_study()
    for verdict in small.outcome.json["verdicts"]:
        assert f">{verdict['claim']}" in page
    for result in small.results:
        assert shown_name(result.name) in page or result.cell.row.get("images") or result.cell.row.get("distractors")


def test_every_figure(page):
    small = small_study()
    assert {path.stem for path in (small.out / "figures").glob("*.svg")} == FIGURES
    assert page.count("<figure") == len(FIGURES)


def test_nothing_from_elsewhere(page):
    """One file: no address that a browser would fetch, and a policy that forbids it."""
    assert "Content-Security-Policy" in page
    for address in re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page):
        assert address.startswith(("#", "data:")), address
    assert not re.search(r"url\((?!#|['\"]?(?:#|data:))", page)
    assert "@import" not in page


def test_no_nan_and_no_place_of_this_machine(page):
    """Outside of tables, whose cells say nan where a number is not defined."""
    text = re.sub(r"<svg.*?</svg>|<style.*?</style>|<script.*?</script>|<td.*?</td>", "", page, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", " ", text)
    assert not re.search(r"\bnan\b", text), re.findall(r".{60}\bnan\b.{60}", text)[:5]
    assert str(small_study().out.parent) not in page


def test_the_command(page):
    """What is printed as the command is one that gives this study."""
    small = small_study()
    command = command_of(small.study, "study")
    assert command in html.unescape(page)
    assert command == (
        "comodulate reproduce cifar100 --data data --seeds 2 --seed 0 --trials 2 --backbone test_resnet --image-size 32 "
        "--weights random --channels 16 --epochs 2 --pretraining-epochs 2 --out study"
    )


def test_the_command_of_rows_that_are_named_with_their_options():
    """As a shell takes it apart, it names the same rows."""
    rows = ("attention", "paper level=task")
    words = shlex.split(command_of(replace(small_study().study, methods=rows), "my study"))
    assert [words[place + 1] for place, word in enumerate(words) if word == "--method"] == list(rows)
    assert words[-2:] == ["--out", "my study"]


def test_the_text(page):
    """A table of methods by variant, verdicts with their numbers, and where the files are."""
    text = small_study().outcome.json["text"]
    lines = text.splitlines()
    assert lines[0] == f"Comodulation on CIFAR-100: {len(small_study().results)} cells, 2 seeds"
    assert len([line for line in lines if line.startswith("  comodulation ")]) == 2
    assert lines[-1].endswith("report.html, cells.csv, comparisons.csv, calibration.csv, results.json, figures/")


def test_the_report_again(copy):
    """The same files from the same cells, of another folder's name too."""
    small = small_study()
    (copy / "report.html").unlink()
    shutil.rmtree(copy / "figures")
    outcome = comodulate("report", copy, "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["verdicts"] == small.outcome.json["verdicts"]
    for name in ("cells.csv", "comparisons.csv", "calibration.csv"):
        assert (copy / name).read_bytes() == (small.out / name).read_bytes()
    first = re.sub(r"<dt[^>]*>commit</dt>.*?</dd>", "", (small.out / "report.html").read_text())
    assert re.sub(r"<dt[^>]*>commit</dt>.*?</dd>", "", (copy / "report.html").read_text()) == first
    for path in (copy / "figures").iterdir():
        assert path.read_bytes() == (small.out / "figures" / path.name).read_bytes(), path.name


def keep(folder, wanted):
    """Remove the cells that are not wanted."""
    for result in small_study().results:
        if not wanted(result.cell):
            for path in (folder / CELLS).glob(f"{result.cell.key}.*"):
                path.unlink()


PARTIAL = {
    "one cell": lambda c: (c.variant, c.readout, c.row.label, c.seed) == ("residual", "open", "attention", 0),
    "one seed": lambda c: c.seed == 0 and c.readout == "open" and c.variant == "residual" and not c.row.options,
    "seeds that differ": lambda c: (c.row.label == "comodulation") == (c.seed == 0) and not c.row.options,
    "only rows with options": lambda c: c.row.get("task_bias") or c.row.get("images"),
    "only the restricted readout": lambda c: c.readout == "restricted" and c.variant == "base",
}


@pytest.mark.parametrize("name", PARTIAL)
def test_a_study_of_which_a_part_is_finished(name, copy):
    """Whatever is there has its tables; no verdict from fewer than two seeds."""
    keep(copy, PARTIAL[name])
    (copy / ILLUSTRATION).unlink()
    outcome = comodulate("report", copy, "--json")
    assert outcome.status == 0, outcome.err
    assert outcome.json["cells"] == len(list((copy / CELLS).glob("*.json")))
    assert all(v["verdict"] == "cannot be told" for v in outcome.json["verdicts"])
    page = (copy / "report.html").read_text()
    assert headings(page)[0] == "Verdicts"
    assert "nothing to compare yet" in page
    assert "n" not in outcome.json["primary"]
    if name == "one cell":
        assert (copy / "cells.csv").read_text().count("\n") == 2


def test_other_folders_of_the_same_study(copy, tmp_path, no_study_figures):
    """Side by side, by backbone and size; another study is refused."""
    other = tmp_path / "other"
    shutil.copytree(copy, other)
    study = json.loads((other / STUDY).read_text())
    study["config"]["backbone"]["image_size"] = 64
    (other / STUDY).write_text(json.dumps(study))
    keep(copy, lambda c: not c.row.options)
    (copy / ILLUSTRATION).unlink()
    outcome = comodulate("report", copy, "--also", other)
    assert outcome.status == 0, outcome.err
    page = (copy / "report.html").read_text()
    assert "Over what it holds" in headings(page)
    assert "test_resnet at 32 px" in page
    assert "test_resnet at 64 px" in page
    study["name"] = "attributes"
    (other / STUDY).write_text(json.dumps(study))
    before = snapshot(copy)
    for place, message in (
        (other, "is a study of attributes, expected one of cifar100"),
        (tmp_path, "is not a study: it has no study.json"),
        (tmp_path / "nowhere", "is not a study"),
    ):
        outcome = comodulate("report", copy, "--also", place)
        assert outcome.status == 2, place
        assert message in outcome.line or "no finished cell" in outcome.line
        assert snapshot(copy) == before


def test_folders_without_a_report(tmp_path, copy):
    """Not a study, a file, a study without a finished cell: one line, status 2, nothing written."""
    (tmp_path / "file").write_text("x")
    shutil.rmtree(copy / CELLS)
    before = snapshot(tmp_path)
    for place, message in (
        (tmp_path / "nowhere", "is not a study: it has no study.json; `comodulate reproduce` makes one"),
        (tmp_path / "file", "is not a study"),
        (tmp_path, "is not a study"),
        (copy, "has no finished cell yet; run `comodulate reproduce` again"),
    ):
        outcome = comodulate("report", place)
        assert outcome.status == 2
        assert message in outcome.line
    assert snapshot(tmp_path) == before


def test_a_folder_that_cannot_be_written_to(copy, monkeypatch, no_study_figures):
    """One line, status 1, and the cells are as they were."""
    import os

    before = snapshot(copy / CELLS)
    real = os.fsync

    def full(descriptor):
        real(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    outcome = comodulate("report", copy)
    assert outcome.status == 1
    assert "No space left on device" in outcome.line
    assert snapshot(copy / CELLS) == before


def test_names_for_readers():
    assert shown_name("comodulation") == "comodulation"
    assert shown_name("ia3 task_bias=True") == "IA3 style (with task bias)"
    assert shown_name("comodulation link=rectified images=25") == "comodulation (rectified link, images 25)"
    assert shown_name("decoder-gains") == "decoder gains, learned"


# ---- in a browser ----


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_the_page_in_a_browser(width, scheme, browser):
    """Nothing to complain about, nothing loaded, nothing wider than the window, the verdicts first."""
    browser.open(small_study().out / "report.html", width=width, height=780, scheme=scheme)
    assert browser.complaints() == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelector('h2').innerText").startswith("Verdicts")
    cards = browser.run("[...document.querySelectorAll('article.card')].map(card => card.getBoundingClientRect().top)")
    assert len(cards) == 9
    rest = browser.run("[...document.querySelectorAll('table, figure')].map(box => box.getBoundingClientRect().top)")
    assert max(cards) < min(rest)
    assert browser.run("document.querySelectorAll('figure svg').length") == len(FIGURES)
    ids = browser.run("[...document.querySelectorAll('[id]')].map(node => node.id)")
    assert len(ids) == len(set(ids))
    links = browser.run("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href').slice(1))")
    assert set(links) <= set(ids)


def test_reproduce_prints_the_same_as_report(copy, no_study_figures):
    """Without --json, the text; on a finished study the two verbs end alike."""
    small = small_study()
    one = reproduce("cifar100", small.data, copy, small.cache)
    two = comodulate("report", copy)
    assert one.out == two.out
    assert one.out.rstrip("\n") == small.outcome.json["text"].replace(str(small.out), str(copy))
