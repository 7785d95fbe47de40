"""Pieces of work on real nodes of Ray on this machine: whatever is killed, the result is that of one process, to the bit.

A cluster of two nodes takes a quarter of a minute to start, so all of these are slow.
"""

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray", reason="needs the extra cluster")

from comodulation.runs import stream_answers
from support.command import SMALL, comodulate
from support.ray_nodes import HERE, command, end, ended, environment, nodes, until
from support.studies import study_differences, study_words
from support.synthetic import write

pytestmark = pytest.mark.slow

ROWS, SHARD = 60_000, 1_000


@pytest.fixture(scope="module")
def there():
    """Two nodes that no test kills."""
    with nodes() as found:
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run on embeddings, what it is asked about, and its answers by one process."""
    folder = tmp_path_factory.mktemp("ray")
    rng = np.random.default_rng(0)
    known = rng.normal(size=(120, 6)).astype(np.float16)
    np.save(folder / "known.npy", known)
    np.save(folder / "asked.npy", rng.normal(size=(ROWS, 6)).astype(np.float16))
    lines = ["abc"[row[:3].argmax()] for row in known]
    (folder / "labels.csv").write_text("\n".join(["kind", *lines]) + "\n")
    words = ["--embeddings", folder / "known.npy", "--labels", folder / "labels.csv", "--method", "linear"]
    assert comodulate("fit", *words, "--out", folder / "run", "--cache", folder / "cache").status == 0
    stream_answers(folder / "run", [folder / "asked.npy"], folder / "alone", rows_per_shard=SHARD)
    return folder


def asking(place, out, address, *more):
    words = ["predict", place / "run", place / "asked.npy", "--out", out, "--rows-per-shard", SHARD]
    return command(*words, "--cluster", address, *more)


def parts(out):
    return {part.name: part.read_bytes() for part in out.glob("part-*.parquet")}


SCRIPT = """
import os, sys
from functools import partial
from pathlib import Path
from comodulation.errors import InputError, RunError
from comodulation.processes import cluster, run
from support.piece_worker import worker

def tried(pieces, **more):
    heard = []
    try:
        run(pieces, resources, partial(worker, "a"), heard.append, **more)
    except (InputError, RunError) as error:
        return f"{type(error).__name__}: {error}"
    return sorted((piece, process) for _, piece, process in heard)

lines = []
with cluster(sys.argv[1]) as resources:
    assert resources.workers == 2 and resources.cores == 1, resources
    found = tried(list(range(8)))
    lines.append(f"{[piece for piece, _ in found]} {os.getpid() in {process for _, process in found}}")
    for pieces in ([1, "input"], ["run"], ["bug"], ["kill", 1]):
        lines.append(tried(pieces))
    lines.append(tried([1], shared=[Path("/proc/self/cmdline")]))
    lines.append([piece for piece, _ in tried([1, 2])])
print(*lines, sep="\\n")
"""


def test_pieces_errors_and_a_process_that_is_killed(there, tmp_path):
    """Every piece once, in other processes; errors as on this machine; a piece that kills whatever runs it ends the run."""
    until(lambda: _cores(there) == 2)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", there.address],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0] == f"{sorted([*range(8), *range(8)])} False"
    assert lines[1] == "InputError: a column is missing"
    assert lines[2] == "RunError: the disk is full"
    assert lines[3].startswith("RunError: a worker on ")
    assert "KeyError: 'no such place'" in lines[3]
    assert lines[4].startswith("RunError: 5 processes were lost one after the other at one piece of work")
    assert lines[5].startswith("InputError: node ")
    assert "sees another /proc/self/cmdline: content" in lines[5]
    assert lines[6] == "[1, 1, 2, 2]"


def _cores(found):
    code = f"import ray; ray.init({found.address!r}, log_to_driver=False, logging_level='ERROR'); print(ray.cluster_resources())"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, cwd="/")
    return int(done.stdout.count("'CPU': 2.0")) * 2


def test_a_prediction_by_two_nodes_is_that_of_one_process(there, place, tmp_path):
    status, out, err = ended(asking(place, tmp_path / "out", there.address))
    assert status == 0, err
    assert f"{ROWS:,} embeddings answered, {ROWS // SHARD} files" in out
    assert parts(tmp_path / "out") == parts(place / "alone")


def test_features_in_shards_by_two_nodes_are_those_of_one_process(there, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(24):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / "photos" / f"{number:02d}.png")
    words = ["extract", tmp_path / "photos", *SMALL[:6], "--rows-per-shard", 4]
    alone, together = tmp_path / "alone", tmp_path / "together"
    for out, where in ((alone, []), (together, ["--cluster", there.address])):
        status, _, err = ended(command(*words, "--out", out, *where))
        assert status == 0, err
    assert len(parts(alone)) == 6
    assert parts(together) == parts(alone)


def test_a_prediction_goes_on_when_a_node_is_killed(place, tmp_path):
    out = tmp_path / "out"
    with nodes() as found:
        until(lambda: _cores(found) == 2)
        process = asking(place, out, found.address)
        until(lambda: len(parts(out)) > 2)
        end(found.others[0])
        assert process.poll() is None
        status, _, err = ended(process)
    assert status == 0, err
    assert parts(out) == parts(place / "alone")


def test_when_the_head_is_killed_the_same_command_goes_on(place, tmp_path):
    out = tmp_path / "out"
    with nodes() as found:
        process = asking(place, out, found.address)
        until(lambda: len(parts(out)) > 2)
        end(found.head)
        status, _, err = ended(process, 120)
        assert status == 1
        assert "the same command continues" in err
        there, before = parts(out), {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
        assert 2 < len(there) < ROWS // SHARD
        for one in found.others:
            end(one)
        found.start_head()
        status, _, err = ended(asking(place, out, found.address, "--resume"))
        assert status == 0, err
    assert parts(out) == parts(place / "alone")
    assert all((out / name).stat().st_mtime_ns == when for name, when in before.items())


def test_a_study_goes_on_when_a_node_is_killed(tmp_path):
    data = write(tmp_path / "data")
    words = study_words(data, tmp_path / "alone", tmp_path / "cache")
    assert comodulate(*words).status == 0
    words = study_words(data, tmp_path / "out", tmp_path / "other")
    at = words.index("--devices")
    del words[at : at + 2]
    with nodes() as found:
        until(lambda: _cores(found) == 2)
        process = command(*words, "--cluster", found.address)
        until(lambda: len(list((tmp_path / "out").glob("cells/*.json"))) > 1, 240)
        end(found.others[0])
        assert process.poll() is None
        status, _, err = ended(process, 400)
    assert status == 0, err
    assert study_differences(tmp_path / "out", tmp_path / "alone") == []


EXTRACTION = """
import sys, time
from functools import partial
from pathlib import Path
from comodulation.processes import cluster
from comodulation.data.features import extract_in_pieces
from support.slow_extraction import slow_source

with cluster(sys.argv[1]) as resources:
    extract_in_pieces({"train": "torch"}, Path(sys.argv[2]), resources, slow_source, lambda *told: print(*told, flush=True), [])
"""


def test_an_extraction_goes_on_when_a_node_is_killed(tmp_path):
    """The files of the cache are those of one process."""
    from comodulation.data.features import extract
    from support.slow_extraction import slow_source

    source = slow_source(0)
    extract(source.encoder, source.splits["train"], tmp_path / "alone")
    (tmp_path / "script.py").write_text(EXTRACTION)
    with nodes() as found:
        until(lambda: _cores(found) == 2)
        process = subprocess.Popen(
            [sys.executable, tmp_path / "script.py", found.address, tmp_path / "cache"], env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        until(lambda: len(list(tmp_path.glob("cache/features/*/journal-*.jsonl"))) == 2)
        end(found.others[0])
        status, _, err = ended(process)
    assert status == 0, err
    caches = [{p.name: p.read_bytes() for p in tmp_path.glob(f"{name}/features/*/*")} for name in ("alone", "cache")]
    assert caches[0] == caches[1]


def test_methods_of_a_fit_on_two_nodes(there, tmp_path):
    """Each is the run that one process makes."""
    data = write(tmp_path / "data")
    words = ["fit", "--data", data, "--group", "coarse_label", "--label", "fine_label", "--backbone", "test_resnet"]
    words += [
        "--weights",
        "random",
        "--image-size",
        "32",
        "--channels",
        "16",
        "--epochs",
        "2",
        "--pretraining-epochs",
        "2",
    ]
    words += ["--method", "attention", "--method", "ia3", "--json"]
    alone = comodulate(*words, "--out", tmp_path / "alone", "--cache", tmp_path / "cache")
    assert alone.status == 0, alone.err
    status, _, err = ended(
        command(*words, "--out", tmp_path / "out", "--cache", tmp_path / "other", "--cluster", there.address)
    )
    assert status == 0, err
    for method in ("attention", "ia3"):
        for name in ("adapter.safetensors", "head.safetensors", "predictions.parquet"):
            one, other = (tmp_path / folder / method / name for folder in ("alone", "out"))
            assert one.read_bytes() == other.read_bytes(), (method, name)


def test_a_node_with_other_code_is_named(place, tmp_path):
    """And nothing is lost: without it, the same command goes on."""
    shutil.copytree(HERE / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "src" / "comodulation" / "errors.py", "a") as file:
        file.write("# another release\n")
    with nodes(1) as found:
        found.add(PYTHONPATH=str(tmp_path / "src"))
        until(lambda: _cores(found) == 2)
        status, _, err = ended(asking(place, tmp_path / "out", found.address))
        assert status == 2
        assert "has other sources of comodulation" in err
        end(found.others[0])
        status, _, err = ended(asking(place, tmp_path / "out", found.address, "--resume"))
        assert status == 0, err
    assert parts(tmp_path / "out") == parts(place / "alone")


SRUN = """#!/bin/sh
for last; do :; done
export SLURM_CPUS_ON_NODE=1
exec sh -c "$last --node-ip-address 127.0.0.9"
"""


def test_an_allocation_of_slurm(place, tmp_path):
    """Its nodes are started by a program of the name srun, and are gone at the end."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN)
    srun.chmod(srun.stat().st_mode | stat.S_IXUSR)
    allocation = {
        "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "1", "SLURMD_NODENAME": "first",
        "COMODULATION_HEAD_ADDRESS": "127.0.0.2", "PATH": f"{srun.parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    words = ["predict", place / "run", place / "asked.npy", "--out", tmp_path / "out", "--rows-per-shard", SHARD]
    status, _, err = ended(command(*words, "--cluster", "slurm", **allocation))
    assert status == 0, err
    assert parts(tmp_path / "out") == parts(place / "alone")
    time.sleep(1)
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"127.0.0.9" in path.read_bytes()]
    assert left == []
