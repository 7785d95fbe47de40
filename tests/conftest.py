"""Tests run on one thread, without the network, and leave nothing behind: every cache is a folder that goes at the end."""

import atexit
import gc
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import cache as cache_of
from pathlib import Path
from typing import Any

# Before datasets, huggingface_hub, matplotlib or torch are imported: they read these once.
_CACHES = tempfile.mkdtemp(prefix="comodulation-tests-")
atexit.register(shutil.rmtree, _CACHES, ignore_errors=True)
os.environ.update(
    HF_HOME=f"{_CACHES}/huggingface",
    HF_DATASETS_CACHE=f"{_CACHES}/datasets",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    COMODULATION_CACHE=f"{_CACHES}/comodulation",
    MPLCONFIGDIR=f"{_CACHES}/matplotlib",
    MPLBACKEND="agg",
    # Threads that wait for one another sleep. By default they turn in circles, for seconds where other tests use the cores.
    OMP_WAIT_POLICY="PASSIVE",
)

# What pytest-xdist's workers make once between them; the process that starts them removes it.
if "COMODULATION_TESTS_SHARED" not in os.environ:
    os.environ["COMODULATION_TESTS_SHARED"] = tempfile.mkdtemp(prefix="comodulation-shared-")
    atexit.register(shutil.rmtree, os.environ["COMODULATION_TESTS_SHARED"], ignore_errors=True)

import pytest  # noqa: E402
import torch  # noqa: E402

# A shell's background jobs and some CI runners ignore Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The libraries' objects, half a million, stay as long as the process; Python would look through them hundreds of times.
gc.set_threshold(50_000, 20, 50)

# autograd begins here, before a library shows it devices for which it would have threads, which no fork survives.
torch.ones(1, requires_grad=True).sum().backward()

torch.set_num_threads(1)  # the tensors are small, and two threads only get in each other's way


# Files with few tests that take long. They begin first, so that at the end no process of pytest-xdist is left alone with one of
# them (it would begin with the files of most tests; the Makefile tells it to keep this order).
FIRST = (
    "test_together.py", "test_documentation.py", "test_pool.py", "test_faults.py", "test_sklearn.py", "test_reproduction.py",
    "test_export.py", "test_engines.py", "test_engine.py", "test_demo.py", "test_store.py", "test_service.py", "test_load.py",
    "test_table.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data set with its label columns and attributes, not to be changed."""
    from support.synthetic import with_attributes, write

    return write(tmp_path_factory.mktemp("data") / "small", with_attributes, changed="both")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features and layers that tests share, so that each is computed once; not to be damaged."""
    return tmp_path_factory.mktemp("cache") / "shared"


@pytest.fixture(scope="session")
def drawn_run(data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of comodulation on the small data set, with all figures, not to be changed."""
    from support.command import fit

    folder = tmp_path_factory.mktemp("runs") / "comodulation"
    outcome = fit(data, folder, cache)
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture(scope="session")
def run(drawn_run: Path) -> Path:
    """The run that tests ask for, where their module has no other one."""
    return drawn_run


@pytest.fixture(scope="session")
def served_places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Home, temporary and working folder of the server, empty."""
    folder = tmp_path_factory.mktemp("server")
    names = {name: folder / name for name in ("home", "tmp", "work")}
    for path in names.values():
        path.mkdir()
    return names


@pytest.fixture(scope="session")
def server(run: Path, served_places: dict[str, Path]) -> Iterator[Any]:
    """One server of that run for all tests that ask it. At the end: no byte on disk, and no error that it did not answer."""
    from support.server import Server
    from support.synthetic import snapshot

    before = snapshot(run, *served_places.values())
    environment = os.environ | {
        "HOME": str(served_places["home"]), "TMPDIR": str(served_places["tmp"]), "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    server = Server(run, started=True, env=environment, cwd=served_places["work"])
    yield server
    status, out, err = server.end()
    assert (status, out, err) == (0, "", "")
    assert snapshot(run, *served_places.values()) == before


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One headless browser for all pages; a page is opened with a window, scheme and record of complaints of its own."""
    from support.browser import CHROMIUM, Browser

    if CHROMIUM is None:
        # Reason: a page can only be tested in a browser, which pip cannot install. `.ci/run` installs one, so that CI skips
        # nothing; elsewhere the last lines of `make test` say what was skipped.
        pytest.skip("no chromium, chromium-browser or google-chrome on this machine")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def _leave_out_figures(patch: pytest.MonkeyPatch) -> None:
    from comodulation.runs import chosen, task_tables
    from comodulation.runs import page as run

    figures = (
        (run, "gains_figure"), (chosen, "losses_figure"), (task_tables, "confusion_figure"),
        (task_tables, "confidence_accuracy_figure"),
    )  # fmt: skip
    for module, name in figures:
        patch.setattr(module, name, lambda *values, **labels: None)
        patch.setattr(module, "svg", lambda figure: "<svg></svg>")


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without their figures, which take as long as all the rest of a small run."""
    _leave_out_figures(monkeypatch)


@pytest.fixture(scope="module")
def undrawn(drawn_run: Path) -> Iterator[None]:
    """``no_figures`` for a whole module, the runs that its tests share among them; that of the session is drawn before."""
    with pytest.MonkeyPatch.context() as patch:
        _leave_out_figures(patch)
        yield


@pytest.fixture
def no_study_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies without figures and calibration table, which take as long as training; what is written otherwise stays."""
    from comodulation.studies.paper import report

    monkeypatch.setattr(report, "draw_figures", lambda *arguments: {})
    monkeypatch.setattr(report, "calibration_rows", lambda *arguments: [])


@pytest.fixture(scope="session")
def quick_onnx() -> Iterator[None]:
    """ONNX's exporter reads the sources of 500 functions and asks for all operators of torch for each network: here once."""
    try:
        from torch.export import decomp_utils, exported_program
        from torch.onnx._internal._lazy_import import onnxscript_apis

        functions, operators = onnxscript_apis.get_torchlib_ops, exported_program._collect_all_valid_cia_ops
    except (ImportError, AttributeError):  # another version has other insides, and is only slower
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxscript_apis, "get_torchlib_ops", cache_of(functions))
        for module in (decomp_utils, exported_program):
            patch.setattr(module, "_collect_all_valid_cia_ops", cache_of(operators), raising=False)
        yield


def _never(*arguments, **options):
    pytest.fail("features were extracted before all arguments were checked")


@pytest.fixture
def refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Check that a command is refused before features are extracted, with one line that matches, and writes nothing."""
    from comodulation.runs import fitting
    from comodulation.runs import run as prediction
    from support.synthetic import snapshot

    monkeypatch.setattr(fitting, "extract", _never)
    monkeypatch.setattr(prediction, "extract", _never)
    place = tmp_path / "place"
    place.mkdir()

    def check(call, *patterns):
        before = snapshot(tmp_path, data)
        outcome = call(place / "runs" / "out", place / "cache")
        assert outcome.status == 2, outcome
        for pattern in patterns:
            assert re.search(pattern, outcome.line), outcome.line
        assert len(outcome.line) < 1000, outcome.line
        assert snapshot(tmp_path, data) == before
        return outcome

    return check
