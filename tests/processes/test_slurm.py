"""What goes wrong where a cluster is started in a SLURM allocation is said in the words of what went wrong.

Programs stand in for Ray and for srun; with the real Ray it is in test_ray.py.
"""

import stat
import sys
import time

import pytest

from comodulation.errors import RunError
from comodulation.processes import slurm

HEAD = """
import socket, sys, time
listening = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
time.sleep(60)
"""


@pytest.fixture
def allocation(monkeypatch, tmp_path):
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\necho step created\necho srun: error: Unable to create step >&2\nexit 1\n")
    srun.chmod(srun.stat().st_mode | stat.S_IXUSR)
    for name, value in {
        "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", slurm.HEAD_ADDRESS: "127.0.0.1", "PATH": f"{tmp_path}:/usr/bin:/bin",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


def test_a_head_that_does_not_start(allocation, monkeypatch):
    monkeypatch.setattr(slurm, "_RAY", [sys.executable, "-c", "print('a'); raise SystemExit('no room in /dev/shm')"])
    with (
        pytest.raises(RunError, match=r"does not start at 127\.0\.0\.1:\d+: no room in /dev/shm"),
        slurm.ray_in_allocation(),
    ):
        pass


def test_a_step_that_ends(allocation, monkeypatch):
    """Known at once, and not after minutes of waiting for its nodes."""
    monkeypatch.setattr(slurm, "_RAY", [sys.executable, "-c", HEAD])
    with slurm.ray_in_allocation() as (_, nodes, ended):
        ends = time.monotonic() + 20
        while (said := ended()) is None and time.monotonic() < ends:
            time.sleep(0.02)
    assert (nodes, said) == (2, "srun: error: Unable to create step")


def test_nodes_that_cannot_come_any_more_are_not_waited_for(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs the extra cluster")
    from comodulation.processes import clusters

    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}, {"Alive": False}])
    with pytest.raises(RunError, match=r"1 of 2 nodes have joined, and srun has ended: no step"):
        clusters._await_nodes(2, lambda: "no step")
    monkeypatch.setattr(clusters, "COMING", -1.0)
    with pytest.raises(RunError, match="reach this one at its address, or give them another one with COMODULATION_"):
        clusters._await_nodes(2, lambda: None)


def test_what_ray_tells_is_never_on_standard_output(monkeypatch, capsys):
    """Not either while it ends: the news of a process that was killed may come as late as that. Standard output is the result's."""
    ray = pytest.importorskip("ray", reason="needs the extra cluster")
    from comodulation.processes import clusters

    monkeypatch.setattr(clusters, "answers", lambda address: None)
    monkeypatch.setattr(ray, "init", lambda **options: print("a node was found"))
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "shutdown", lambda: print("a worker was killed"))
    with clusters.cluster("127.0.0.1:6379") as resources:
        print("a worker has died")
    print("the result")
    assert resources.workers == 2
    assert capsys.readouterr().out == "the result\n"
