"""What docs/security.md promises: no call in any file that runs what it reads, and paths that are made to do harm do none."""

import ast
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from comodulation.app.server import uploads
from comodulation.data import folder_splits, label_table_splits, read_label_table
from comodulation.data.features import Backbone, BackboneSettings
from comodulation.data.sets import open_celeba
from comodulation.errors import InputError
from comodulation.files import read_bounded, read_json
from comodulation.runs import Run, make_config, parse_yaml, read_config, shared_folder, write_config
from comodulation.tensors import read_tensors
from support.mutations import bounded
from support.synthetic import encode, picture

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for name in ("src", "benchmarks", "docs") for path in (ROOT / name).rglob("*.py"))

# ---- what the code may not call ----

FORBIDDEN_MODULES = {
    "pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "jsonpickle", "pandas",
    "tarfile", "xmlrpc", "telnetlib", "ftplib", "imp",
}  # fmt: skip
FORBIDDEN_BUILTINS = {"eval", "exec", "compile", "__import__", "input"}
FORBIDDEN_CALLS = {
    "os.system", "os.popen", "tempfile.mktemp", "shutil.unpack_archive", "torch.hub.load", "torch.jit.load",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.unsafe_load_all", "datasets.load_from_disk",
}  # fmt: skip
FORBIDDEN_METHODS = {"extractall", "extract_archive", "read_pickle", "to_pickle", "unsafe_load", "full_load"}
UNSAFE_LOADERS = {"Loader", "UnsafeLoader", "FullLoader", "CLoader", "CFullLoader", "CUnsafeLoader"}


def dotted(node):
    """`a.b.c` as text, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def imported(tree):
    """What names of a file stand for: `np` for numpy, `load` for torch.load."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                found[name.asname or name.name.partition(".")[0]] = (
                    name.name if name.asname else name.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for name in node.names:
                found[name.asname or name.name] = f"{node.module}.{name.name}"
    return found


def findings(text):
    """Lines of a file that read what can run, each with the reason."""
    tree = ast.parse(text)
    names = imported(tree)
    found = []

    def is_true(value):
        return isinstance(value, ast.Constant) and value.value is True

    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [name.name for name in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [(node.lineno, name) for name in modules if name.partition(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.Attribute) and node.attr in UNSAFE_LOADERS and dotted(node).startswith("yaml."):
            found.append((node.lineno, dotted(node)))
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        first, _, rest = called.partition(".")
        called = names.get(first, first) + (f".{rest}" if rest else "")
        options = {option.arg: option.value for option in node.keywords}
        if called in FORBIDDEN_BUILTINS and first not in names:
            found.append((node.lineno, called))
        if called in FORBIDDEN_CALLS or (isinstance(node.func, ast.Attribute) and node.func.attr in FORBIDDEN_METHODS):
            found.append((node.lineno, called or node.func.attr))
        if called in ("torch.load", "torch.serialization.load") and not is_true(options.get("weights_only")):
            found.append((node.lineno, "torch.load without weights_only=True"))
        if "allow_pickle" in options and not (
            isinstance(options["allow_pickle"], ast.Constant) and options["allow_pickle"].value is False
        ):
            found.append((node.lineno, f"{called} with allow_pickle"))
        if "trust_remote_code" in options:
            found.append((node.lineno, f"{called} with trust_remote_code"))
        if "shell" in options and not (isinstance(options["shell"], ast.Constant) and options["shell"].value is False):
            found.append((node.lineno, f"{called} with a shell"))
    return found


def test_the_package_writes_nothing_that_must_be_unpickled():
    assert [path for path in SOURCES if "src" in path.parts and "torch.save" in path.read_text()] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_runs_what_it_reads(path):
    assert findings(path.read_text()) == []


UNSAFE = [
    "import pickle", "from pickle import loads", "import dill as d", "from joblib import load", "import torch\ntorch.load('x')",
    "from torch import load\nload('x')", "import torch as t\nt.load('x', weights_only=False)",
    "import torch\ntorch.load('x', None, w)",
    "import numpy as np\nnp.load('x', allow_pickle=True)", "import numpy\nnumpy.load('x', allow_pickle=flag)",
    "import yaml\nyaml.load(x, Loader=yaml.Loader)", "from yaml import load\nload(x)", "import yaml\nyaml.unsafe_load(x)",
    "import yaml\nL = yaml.FullLoader", "eval('1')", "exec(x)", "compile(x, 'a', 'exec')",
    "import subprocess\nsubprocess.run(x, shell=True)",
    "from subprocess import run as r\nr(x, shell=flag)", "import os\nos.system(x)", "from os import popen\npopen(x)",
    "import tempfile\ntempfile.mktemp()", "from tempfile import mktemp\nmktemp()", "archive.extractall(x)", "import tarfile",
    "import shutil\nshutil.unpack_archive(x)", "import marshal, json", "def f():\n    import shelve",
    "import torch\ntorch.hub.load('a/b', 'c')",
    "f(x, trust_remote_code=True)",
]  # fmt: skip


@pytest.mark.parametrize("text", UNSAFE)
def test_the_search_finds_what_it_is_for(text):
    assert len(findings(text)) >= 1


def test_the_search_leaves_the_rest_alone():
    safe = "import torch, re\nre.compile('a')\nmodel.eval()\ntorch.load('x', weights_only=True)\ntorch.compile(model)"
    assert findings(safe) == []
    assert len(SOURCES) > 80


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system ['x']", "!!python/name:os.system", "a: !!python/tuple [1]", "!x 1"]
)
def test_yaml_makes_plain_values_only(text):
    with pytest.raises(Exception, match="could not determine a constructor"):
        parse_yaml(text)


# ---- paths ----


def special_files(folder):
    """By name, what is no regular file, or is one elsewhere."""
    folder.mkdir(exist_ok=True)
    os.mkfifo(folder / "pipe")
    (folder / "device").symlink_to("/dev/zero")
    (folder / "terminal").symlink_to("/dev/tty")
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "nowhere").symlink_to(folder / "gone")
    bound = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket may have a hundred characters
    try:
        bound.bind("socket")
    finally:
        os.chdir(here)
        bound.close()
    return ("pipe", "device", "terminal", "folder", "loop", "nowhere", "socket")


KINDS = ("pipe", "device", "terminal", "folder", "loop", "nowhere", "socket")
READERS = {
    "labels.csv": read_label_table, "labels.parquet": read_label_table, "config.yaml": read_config, "a.json": read_json,
    "a.safetensors": read_tensors,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
def test_files_that_are_none(name, kind, tmp_path):
    """No reader waits for a pipe, reads a device without end, or follows a link for ever."""
    assert kind in special_files(tmp_path / "special")
    path = tmp_path / name
    path.symlink_to(tmp_path / "special" / kind)
    with bounded(5), pytest.raises(InputError) as error:
        READERS[name](path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "/".join(["x"] * 3000), "", "\udcff", "a/../../b"])
@pytest.mark.parametrize("name", READERS)
def test_paths_that_cannot_be(name, path, tmp_path):
    suffix = Path(name).suffix
    with pytest.raises((InputError, OSError)):
        READERS[name](tmp_path / f"{path}{suffix}")


def test_a_file_that_grows_is_read_to_its_limit(tmp_path):
    """Its size is what was read, not what was said before."""
    assert len(read_bounded(Path("/proc/self/status"), 2**20)) > 0  # which says 0 bytes
    with pytest.raises(ValueError, match="limit"):
        read_bounded(Path("/proc/self/status"), 10)
    (tmp_path / "a").write_bytes(bytes(100))
    assert len(read_bounded(tmp_path / "a", 100)) == 100
    with pytest.raises(ValueError, match="it has 100 bytes, at most 99 are read"):
        read_bounded(tmp_path / "a", 99)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(encode(picture("red", number, 8)))
    (tmp_path / "secret.png").write_bytes(encode(picture("blue", 0, 8)))
    return folder


HOSTILE_CELLS = {
    "up": "../secret.png", "up and down": "x/../../secret.png", "absolute": "{outside}", "device": "/dev/zero",
    "password": "/etc/passwd", "home": "~/secret.png", "long": "x" * 5000, "deep": "/".join(["x"] * 900), "nothing": ".",
    "address": "file:///etc/passwd",
    "chained": "zip://a.png::x.zip", "remote": "http://localhost:9/a.png", "pipe": "pipe.png", "device behind a link": "device.png",
    "a folder": "folder.png", "a folder's end": "0.png/",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("name", HOSTILE_CELLS)
def test_hostile_paths_in_label_tables(name, kind, images, tmp_path):
    """An image is a regular file below the folder of the images, or the table is refused before anything is opened."""
    os.mkfifo(images / "pipe.png")
    (images / "device.png").symlink_to("/dev/zero")
    (images / "folder.png").mkdir()
    cell = HOSTILE_CELLS[name].format(outside=tmp_path / "secret.png")
    rows = [("0.png", "1"), ("1.png", "0"), (cell, "1")]
    path = tmp_path / f"labels.{kind}"
    if kind == "csv":
        path.write_text("image,warm\n" + "".join(f"{file},{label}\n" for file, label in rows))
    else:
        pq.write_table(pa.table({"image": [file for file, _ in rows], "warm": [label for _, label in rows]}), path)
    with bounded(5), pytest.raises(InputError, match=r"outside the folder|images are not in|is listed twice") as error:
        label_table_splits(str(path), str(images), "image")
    assert len(str(error.value)) < 2000


def test_hostile_image_folders(images, tmp_path):
    """What is no regular file is no image; links to files are followed, since people link data rather than copy them."""
    data = tmp_path / "sorted"
    for name in ("red", "blue"):
        (data / name).mkdir(parents=True)
        shutil.copy(images / "0.png", data / name / "good.png")
    os.mkfifo(data / "red" / "pipe.png")
    (data / "red" / "device.png").symlink_to("/dev/zero")
    (data / "red" / "loop").symlink_to(data / "red")
    (data / "blue" / "linked.png").symlink_to(images / "1.png")
    with bounded(10):
        splits = folder_splits(str(data))
        found = [cell["path"] for split in splits.values() for cell in split.table["image"]]
        assert sorted(Path(path).name for path in found) == ["good.png", "good.png", "linked.png"]
        for split in splits.values():
            for row in range(len(split)):
                assert split.image(row).size == (8, 8)


def test_hostile_names_in_the_lists_of_celeba(tmp_path):
    """Names are looked for among the files of the image folder, never joined to a path that could lead elsewhere."""
    from support import celeba_layout

    folder = celeba_layout.write(tmp_path / "faces", 12)
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("000001.jpg", "../list_attr_celeba.txt"))
    with pytest.raises(InputError, match=r"1 of the 12 images of .* are not in .*img_align_celeba \(first: \.\./list"):
        open_celeba(str(folder))


@pytest.mark.parametrize("field", ["data", "labels"])
@pytest.mark.parametrize("value", ["~/x", "~root/x", "/x", "../x", "a/../../x"])
def test_shared_runs_name_no_place_outside(field, value, run, tmp_path):
    """A tilde leads to a home folder, and is resolved as late as the data are opened."""
    folder = Run.open(run).save_pretrained(tmp_path / "shared")
    config = read_config(folder / "config.yaml")
    changes = {field: value} | ({"group": None, "label": None, "readout": "restricted"} if field == "labels" else {})
    (folder / "config.yaml").write_text(write_config(make_config({**config.model_dump(), **changes})))
    with pytest.raises(InputError, match=f"names {field} .*; a shared run names no place outside its folder"):
        shared_folder.check_shared(folder)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "socket"])
@pytest.mark.parametrize("name", [*shared_folder.FILES, *shared_folder.OPTIONAL])
def test_special_files_in_shared_runs(name, kind, run, tmp_path):
    folder = Run.open(run).save_pretrained(tmp_path / "shared")
    special_files(tmp_path / "special")
    (folder / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to(tmp_path / "special" / kind)
    with bounded(5), pytest.raises(InputError, match=r"leads outside its folder|is not a file"):
        Run.from_pretrained(folder)


@pytest.mark.parametrize("name", ["hf-hub:a/b", "hf_hub:a/b", "local-dir:/tmp/x", "timm/resnet18", "../x", "/x"])
def test_backbones_are_known_names(name):
    """timm itself would fetch a configuration and weights from an address, or read them from a folder."""
    with pytest.raises(InputError, match="unknown backbone"):
        Backbone(BackboneSettings(name, "random", 32))


def test_no_limit_of_another_library_is_lifted():
    """Pillow's guard against decompression bombs, and against texts that unpack to more than they say, stay as they are."""
    assert uploads.MAX_PIXELS < Image.MAX_IMAGE_PIXELS
    assert Image.MAX_IMAGE_PIXELS == 1024 * 1024 * 1024 // 4 // 3
    assert PngImagePlugin.MAX_TEXT_MEMORY <= 64 * 2**20
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


# ---- code in the working folder ----

STARTS = {
    "devices": "import sys\nfrom comodulation.training.launching import launch\n"
    "launch(2, [sys.executable, '-m', 'json.tool', 'none.json'])",
    "studies": "from functools import partial\nfrom comodulation.processes import Resources, run\n"
    "from support.piece_worker import worker\n"
    "if __name__ == '__main__': run([1, 2], Resources(2), partial(worker, 'x'), lambda event: None)",
}


@pytest.mark.parametrize("kind", STARTS)
def test_processes_run_no_code_from_the_working_folder(kind, tmp_path):
    """Files by the names of modules lie among somebody's data; the command itself is a script of another folder, as installed."""
    work, scripts, ran = tmp_path / "work", tmp_path / "scripts", tmp_path / "ran"
    work.mkdir()
    scripts.mkdir()
    for name in ("json", "pickle", "multiprocessing"):
        (work / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write('{name} ')")
    (scripts / "start.py").write_text(STARTS[kind])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def start(*words):
        done = subprocess.run([sys.executable, *words], cwd=work, env=environment, capture_output=True, timeout=120)
        assert b"ModuleNotFoundError" not in done.stderr

    start(scripts / "start.py")
    assert not ran.exists()
    start("-c", "import json")  # the control: such a file is run where Python looks there
    assert ran.read_text() == "json "
