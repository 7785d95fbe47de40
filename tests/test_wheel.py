"""A wheel, built and installed without the checkout: it holds the whole package, and fits and reports from where it lies."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

CHECKOUT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(*command, **options):
    done = subprocess.run([sys.executable, *map(str, command)], text=True, capture_output=True, timeout=300, **options)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, because a build writes beside its sources."""
    copy, out = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, copy)
    shutil.copytree(CHECKOUT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    run("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out, copy)
    (path,) = out.iterdir()
    return path


def test_it_holds_every_file_of_the_package(wheel):
    """Pages, styles and tables too, which setuptools takes only where pyproject.toml names them; and no test."""
    source = CHECKOUT / "src"
    files = {str(path.relative_to(source)) for path in (source / "comodulation").rglob("*") if path.is_file()}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {name for name in files if not name.endswith(".pyc")}


def test_it_fits_and_reports_alone(wheel, tmp_path):
    site, work = tmp_path / "site", tmp_path / "work"
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel)
    work.mkdir()
    # Found before the checkout, which may be installed too.
    here = {"cwd": work, "env": os.environ | {"PYTHONPATH": str(site)}}
    assert run("-c", "import comodulation; print(comodulation.__file__)", **here).startswith(str(site))

    numbers = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    np.save(work / "vectors.npy", numbers)
    rows = [f"{row},{'left' if one < 0 else 'right'}" for row, one in enumerate(numbers[:, 0])]
    (work / "labels.csv").write_text("\n".join(["row,side", *rows]) + "\n")
    run(
        "-m", "comodulation", "fit", "--embeddings", "vectors.npy", "--labels", "labels.csv", "--method", "linear",
        "--out", "run", "--cache", "cache", **here,
    )  # fmt: skip
    page = work / "run" / "report.html"
    first = page.read_text()
    page.unlink()
    assert run("-m", "comodulation", "report", "run", **here).strip() == "run/report.html"
    for text in (first, page.read_text()):
        assert "<svg" in text
        assert "logistic regression" in text
