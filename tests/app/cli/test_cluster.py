"""What `--cluster` refuses: one line that says what was given and what to do, before anything is computed."""

import importlib.util

import pytest

from comodulation.processes import cluster
from support.command import comodulate

QUIET = "127.0.0.1:9"  # the port of a service that throws away what it is sent: nobody has it


@pytest.fixture(autouse=True)
def no_allocation(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.mark.parametrize(
    ("address", "pattern"),
    [
        (QUIET, f"no cluster at {QUIET}: Connection refused; start its head there"),
        ("127.0.0.1", r"--cluster '127.0.0.1' is no address; expected HOST:PORT"),
        ("ray://127.0.0.1:10001", "is no address; expected HOST:PORT"),
        ("127.0.0.1:70000", "is no address; expected HOST:PORT"),
        ("lokal", "is no address; expected HOST:PORT of the head of a Ray cluster, local, or slurm"),
        ("slurm", "there is no SLURM allocation here; run the command inside sbatch or salloc"),
    ],
)
@pytest.mark.parametrize("verb", ["predict", "extract", "fit", "study", "reproduce"])
def test_no_such_address(verb, address, pattern, run, data, tmp_path, refused):
    if importlib.util.find_spec("ray") is None and address in (QUIET, "slurm"):
        pattern = f"--cluster {address} needs ray: pip install 'comodulation.cluster.'"

    def call(out, cache):
        words = {
            "predict": [run, data],
            "extract": [data],
            "fit": ["--data", data, "--group", "coarse_label", "--label", "fine_label", "--cache", cache],
            "study": ["controller", "--data", data, "--cache", cache],
            "reproduce": ["cifar100", "--data", data, "--cache", cache],
        }[verb]
        return comodulate(verb, *words, "--out", out, "--cluster", address)

    refused(call, pattern)


def test_without_ray_it_says_how_to_have_it(monkeypatch, refused, run, data):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else found(name, *rest))
    refused(
        lambda out, cache: comodulate("predict", run, data, "--out", out, "--cluster", QUIET),
        rf"--cluster {QUIET} needs ray: pip install 'comodulation\[cluster\]'$",
    )


@pytest.mark.parametrize("verb", ["fit", "study", "reproduce"])
def test_two_places_at_once(verb, data, refused):
    def call(out, cache):
        first = [] if verb == "fit" else ["controller" if verb == "study" else "cifar100"]
        return comodulate(verb, *first, "--data", data, "--out", out, "--devices", 2, "--cluster", "local")

    refused(call, "give either --devices, processes of this machine, or --cluster")


def test_local_is_this_machine():
    with cluster("local") as here:
        assert (here.cluster, here.workers >= 1) == (None, True)
    with cluster(None, 3) as here:
        assert here.workers == 3
