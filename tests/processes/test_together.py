"""Several processes do what one does: the same numbers to rounding, one voice, and an end for all when one fails."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric

import comodulation
from comodulation.errors import InputError
from comodulation.networks import ChannelDropout, Dropout, taking
from comodulation.networks.methods import METHODS, make_method
from comodulation.processes import Processes, Share
from comodulation.runs import fitting, make_config
from comodulation.tensors import read_tensors
from comodulation.training import LOST, PLACE, Place, launch
from comodulation.training.launching import _free_port
from support.command import GROUPED, SHORT, SMALL
from support.forked import Forked
from support.shared_training import CLASSES, main, results, small_head, trainings, tuned

STRICT = ["-W", "error", *(f"-Wignore::{name}Warning" for name in ("Deprecation", "PendingDeprecation", "Future"))]


# Where Fabric finds torchmetrics, which it asks for nothing but its version, importing it takes each process seconds.
LEAN = "import sys; sys.modules['torchmetrics'] = None\n"


def place(rank, number, port):
    """What torchrun tells a process of several machines, in its environment."""
    told = {"RANK": rank, "WORLD_SIZE": number, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1"}
    return {name: str(value) for name, value in {**told, "MASTER_PORT": port}.items()}


# ---- shares ----


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40))
def test_shares_are_all_rows_once_and_even(total, number):
    shares = [Processes(rank, number).share(total) for rank in range(number)]
    assert [row for share in shares for row in range(total)[share.rows]] == list(range(total))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert {share.total for share in shares} == {total}


@pytest.mark.parametrize(("layer", "size"), [(Dropout(0.4), (7,)), (ChannelDropout(0.4), (5, 3, 2))])
def test_dropout_of_a_share_is_the_rows_of_the_whole(layer, size):
    """The mask is that of torch's own layer for the whole batch, to the bit; outside of training, and after it, nothing is left."""
    whole = torch.randn(11, *size)
    usual = (torch.nn.Dropout if isinstance(layer, Dropout) else torch.nn.Dropout2d)(0.4)
    torch.manual_seed(3)
    expected = usual(whole)
    assert 0 < int((expected == 0).sum()) < expected.numel()
    for start, stop in ((0, 4), (4, 4), (4, 11)):
        torch.manual_seed(3)
        with taking(Share(start, stop, 11), torch.nn.Sequential(layer)):
            assert torch.equal(layer(whole[start:stop]), expected[start:stop])
            layer.eval()
            assert torch.equal(layer(whole[start:stop]), whole[start:stop])
            layer.train()
    torch.manual_seed(3)
    assert torch.equal(layer(whole), expected)


# ---- training ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every training in one process, and in three that went on with the interrupted one of that one: folders and results."""
    alone, together = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("together")
    for folder in (alone, together):
        (folder / "given").mkdir()
    fabric = Fabric(accelerator="cpu", devices=1)
    expected = {name: training(fabric) for name, training in trainings(alone).items()}
    shutil.copyfile(alone / "half.safetensors", together / "given" / "checkpoint.safetensors")
    started = [Forked(lambda: main(together), env=place(rank, 3, port)) for port in [_free_port()] for rank in range(3)]
    assert [(process.communicate(), process.returncode) for process in started] == [(("", ""), 0)] * 3
    return expected, together


def test_three_processes_learn_what_one_does(trained):
    """Every method, every way to compute gains, every kind of labels, dropout, weights; batches of which some have no row.

    In float64 the same to 1e-12, so that nothing but the order of sums can differ; in float32, after 100 steps, to 1e-5.
    """
    expected, folder = trained
    found = results(folder, 0)
    assert set(found) == {f"{name}: {key}" for name, tensors in expected.items() for key in tensors}
    for name, tensors in expected.items():
        tolerance = 1e-5 if name.startswith("float32") else 1e-12
        for key, tensor in tensors.items():
            torch.testing.assert_close(found[f"{name}: {key}"], tensor, rtol=tolerance, atol=tolerance)


def test_the_trainings_are_not_idle(trained):
    """What is compared has been learned: no method that learns anything is where it began."""
    expected, _ = trained
    learning = {
        name: kind
        for name, kind in METHODS.items()
        if not kind.one_process and name not in ("base", "class-mask", "local-mask")
    }
    for name, kind in learning.items():
        head = small_head(CLASSES, torch.float64, **kind.modulation)
        began = make_method(name, head, CLASSES).to(torch.float64).adapter_tensors()
        ended = expected[f"method {name}"]
        moved = [(ended[key] - began[key]).abs().max().item() for key in began if began[key].is_floating_point()]
        assert max(moved) > 0.01, name


def test_all_processes_end_with_the_same_bits(trained):
    _, folder = trained
    first = results(folder, 0)
    for rank in (1, 2):
        found = results(folder, rank)
        assert set(found) == set(first)
        for name, tensor in first.items():
            assert torch.equal(found[name], tensor), name


def test_checkpoints_do_not_know_how_many_wrote_them(trained, tmp_path):
    """Two epochs in three processes and two in one end where four in one end; the other way round is among the trainings."""
    expected, folder = trained
    shutil.copyfile(folder / "half.safetensors", tmp_path / "checkpoint.safetensors")
    found = tuned(Fabric(accelerator="cpu", devices=1), "ia3", epochs=4, checkpoint=tmp_path / "checkpoint.safetensors")
    for key, tensor in expected["interrupted"].items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-12, atol=1e-12)


# ---- the launcher ----


def script(first, other=None):
    """A command of which process 0 does one thing and every other another."""
    code = "import os, signal, sys, time\nif os.environ['RANK'] == '0':\n    {}\nelse:\n    {}"
    return [sys.executable, "-S", "-c", code.format(first, other or first)]


WAITS = "time.sleep(60)"
SAYS = "print('{0}', file=sys.stderr); sys.exit({1})"


@pytest.mark.parametrize(
    ("first", "other", "status", "said"),
    [
        ("pass", None, 0, ""),
        ("print('done')", "print('not shown'); print('nor this', file=sys.stderr)", 0, ""),
        (SAYS.format("error: mine", 2), SAYS.format("error: mine", 2), 2, "error: mine\n"),
        (SAYS.format("error: mine", 1), f"sys.exit({LOST})", 1, "error: mine\n"),
        (f"sys.exit({LOST})", SAYS.format("error: yours", 2), 2, "error: yours\n"),
        ("os.kill(os.getpid(), 9)", f"sys.exit({LOST})", 1, "process 1 of 2 was ended by SIGKILL"),
        (f"sys.exit({LOST})", "os.kill(os.getpid(), 9)", 1, "process 2 of 2 was ended by SIGKILL"),
    ],
)  # fmt: skip
def test_all_end_with_one_status_and_one_message(first, other, status, said, capfd):
    assert launch(2, script(first, other)) == status
    out, err = capfd.readouterr()
    assert out == ("done\n" if "done" in first else "")
    assert said in err
    assert err.count("\n") == (1 if said else 0)


def test_a_failure_ends_those_that_do_not_notice(capfd, monkeypatch):
    """Two of three wait for what will never come: they are ended, and the exit status is that of the one that failed."""
    monkeypatch.setattr("comodulation.training.launching.GRACE", 0.3)
    began = time.monotonic()
    assert (
        launch(3, script(WAITS, f"time.sleep(60 * (os.environ['RANK'] == '1')); {SAYS.format('error: third', 2)}")) == 2
    )
    assert capfd.readouterr().err == "error: third\n"
    assert time.monotonic() - began < 30


def test_places_are_those_of_torchrun():
    shown = "import json, os; print(json.dumps(dict(os.environ)))"
    out = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python", sys.executable, "-S", "-c", shown],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    environment = json.loads(out)
    assert set(PLACE) <= set(environment)
    assert Place.of_environment(environment) == Place(0, 1, 1)
    told = {**environment, "RANK": "5", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2"}
    assert Place.of_environment(told) == Place(5, 6, 2)
    assert Place.of_environment({"RANK": "1", "WORLD_SIZE": "2"}) == Place()  # some schedulers say so much of any job
    for wrong in ({"LOCAL_WORLD_SIZE": "4"}, {"RANK": "6"}, {"RANK": "-1"}, {"WORLD_SIZE": "many"}):
        with pytest.raises(InputError, match=r"must"):
            Place.of_environment({**told, **wrong})


LOOP = """
import os, pathlib, sys, time
from comodulation.training.launching import follow_launcher, launch
if "RANK" not in os.environ:
    print("status", launch(2, [sys.executable, *sys.argv]), flush=True)
    sys.exit()
follow_launcher()
pathlib.Path(sys.argv[1], os.environ["RANK"]).write_text(str(os.getpid()))
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("stopped in order", flush=True)
    sys.exit(1)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_launcher(number, tmp_path):
    """Ctrl-C comes to the first process alone, once; however the launcher ends, so do all."""
    (tmp_path / "loop.py").write_text(LOOP)
    (tmp_path / "ids").mkdir()
    words = [sys.executable, str(tmp_path / "loop.py"), str(tmp_path / "ids")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ends = time.monotonic() + 60
        while len(ids := [path.read_text() for path in (tmp_path / "ids").iterdir()]) < 2 or "" in ids:
            assert time.monotonic() < ends
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert err == ""
    assert out == ("stopped in order\nstatus 1\n" if number == signal.SIGINT else "")
    while any(alive(int(one)) for one in ids):
        assert time.monotonic() < ends
        time.sleep(0.02)


def alive(number: int) -> bool:
    """Whether a process runs; one that has ended and is waited for by no one does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


LOSES = """
import os, signal, torch
from comodulation.training.fabric import joined
from comodulation.training.launching import leave_lost
from comodulation.processes import LostProcess, Processes
with joined() as fabric:
    processes = Processes.of(fabric)
    processes.wait()
    if not processes.first:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        processes.sum(torch.ones(3))
    except LostProcess:
        leave_lost()
"""


def test_a_process_that_is_killed_is_missed_at_once(capfd):
    assert launch(2, [sys.executable, *STRICT, "-c", LEAN + LOSES]) == 1
    assert (
        capfd.readouterr().err
        == "error: process 2 of 2 was ended by SIGKILL; the same command with --resume continues\n"
    )


# ---- company ----

MEETS = """
import os, signal, sys, time
from comodulation.training import meeting
meeting.JOINING, meeting.SILENCE, meeting.FIRST_WORD, meeting.BEAT = silence, silence, 0.5, 0.2
from comodulation.errors import InputError, RunError
rank = int(os.environ["RANK"])
try:
    with meeting.company({"head": {"hidden": 8}, "rate": 0.1 + rank * (how == "rate")}) as others:
        print("met", flush=True)
        if how == "stops" and rank:
            os.kill(os.getpid(), signal.SIGSTOP)
        if how == "fails" and rank:
            raise InputError("mine")
        others.same("data", {"images": 3 + rank * (how == "data")})
        if how == "late":
            time.sleep(2 * rank)
        others.same("end", 1)
    print("done", flush=True)
except (InputError, RunError) as error:
    print(type(error).__name__, error, file=sys.stderr, flush=True)
    sys.exit(2)
"""


def test_processes_compare_the_code_of_the_whole_package():
    """Of the files in rooms beside that of training, too."""
    from comodulation.training.meeting import code_in_use

    package = Path(comodulation.__file__).parent
    whole = b"".join(path.read_bytes() for path in sorted(package.rglob("*.py")))
    assert code_in_use()["comodulation"] == hashlib.sha256(whole).hexdigest()[:16]


def meeting(how, ranks=(0, 1), patience=20.0, silence=4.0):
    """Processes as torchrun starts them, without anyone who watches them: exit status and both streams of each.

    Once the first has ended, the other gets ``patience`` seconds.
    """
    port = _free_port()
    started = [
        Forked(lambda: exec(MEETS, {"how": how, "silence": silence}), env=place(rank, 2, port)) for rank in ranks
    ]
    ended = []
    for process in started:
        try:
            ended.append((*process.communicate(120 if not ended else patience), process.returncode))
        except subprocess.TimeoutExpired:  # one that was stopped
            process.kill()
            ended.append((*process.communicate(), None))
    return ended


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("rate", "InputError process 2 of 2 was given another rate: 1.1, the first process 0.1; start all of them with the same"),
        ("data", "InputError process 2 of 2 was given another images: 4, the first process 3; "),
    ],
)  # fmt: skip
def test_processes_that_were_given_other_settings_are_all_refused(how, said):
    for out, err, status in meeting(how):
        assert out == ("" if how == "rate" else "met\n")
        assert said in err  # behind a line that says for whom it waited, where that took a second
        assert status == 2


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_does_not_come_is_waited_for_by_name_and_not_for_ever(rank):
    ((out, err, status),) = meeting("waits", (rank,), silence=1.0)
    assert (out, status) == ("", 2)
    other = f"process {2 - rank} of 2"
    assert err.startswith(f"waiting for {other}")
    assert f"RunError waited 1 s for {other}, which" in err.splitlines()[-1]


def test_a_process_that_falls_silent_is_given_up():
    first, stopped = meeting("stops", patience=1.0, silence=2.0)
    assert (first[0], first[2]) == ("met\n", 1)
    assert "waiting for process 2 of 2" in first[1]
    assert first[1].splitlines()[-1].startswith("error: nothing has been heard of process 2 of 2 for 2 s; ")
    assert stopped[2] is None


def test_a_process_that_fails_is_missed_by_one_that_waits():
    first, failed = meeting("fails")
    *waited, reason = failed[1].splitlines()  # on a busy machine, it had to wait for the other
    assert (reason, failed[2]) == ("InputError mine", 2)
    assert all(line.startswith("waiting for process 1 of 2") for line in waited)
    assert first[1].splitlines()[-1].startswith("error: process 2 of 2 has ended; ")
    assert first[2] == 1


def test_a_process_that_is_late_but_alive_is_waited_for():
    assert [(out, status) for out, _, status in meeting("late")] == [("met\ndone\n", 0)] * 2


# ---- the command ----


def command(data, out, cache, *options):
    words = [
        "-m",
        "comodulation",
        "fit",
        "--data",
        data,
        "--out",
        out,
        "--cache",
        cache,
        *GROUPED,
        *SMALL,
        *SHORT,
    ]
    return [*STRICT, *(str(word) for word in [*words, *options])]


def same_to_rounding(folder, reference):
    """Whether two runs agree but for the last bits of what was learned, with the same files."""
    assert {path.name for path in folder.iterdir()} == {path.name for path in reference.iterdir()}
    assert (folder / "config.yaml").read_bytes() == (reference / "config.yaml").read_bytes()
    for name in ("head.safetensors", "adapter.safetensors"):
        found, expected = (read_tensors(path / name)[0] for path in (folder, reference))
        assert set(found) == set(expected)
        for key, tensor in expected.items():
            torch.testing.assert_close(
                found[key], tensor, rtol=1e-5, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
            )
    numbers, expected = (json.loads((path / "metrics.json").read_text())["test"] for path in (folder, reference))
    assert numbers["nll"] == pytest.approx(expected["nll"], abs=1e-5)


def test_fit_on_two_devices(data, run, tmp_path):
    """The run of one process to rounding; the first process alone speaks; what is finished is not done again."""
    words = [sys.executable, *command(data, tmp_path / "run", tmp_path / "cache", "--devices", 2, "--json")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [Path(one["folder"]) for one in json.loads(done.stdout)["runs"]] == [tmp_path / "run"]
    assert done.stderr.count("comodulation: epoch 3/3") == done.stderr.count("pretraining: epoch 3/3") == 1
    assert "distributed" not in done.stderr
    same_to_rounding(tmp_path / "run", run)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "gradient-aggregation"], "method 'gradient-aggregation' trains in one process: .*leave --devices out"),
        (["--devices", "3"], "--devices 3 is out of range, expected 2, as many as were started on this machine"),
    ],
)  # fmt: skip
def test_what_several_processes_cannot_do(options, said, data, refused, monkeypatch):
    from support.command import fit

    for name, value in zip(PLACE, ("0", "2", "0", "2", "127.0.0.1", "1"), strict=True):
        monkeypatch.setenv(name, value)
    refused(lambda out, cache: fit(data, out, cache, *options), said)


def test_batch_normalisation_trains_in_one_process(tmp_path, monkeypatch):
    """Its option is one of the configuration, and is called by that name."""
    for name, value in zip(PLACE, ("0", "2", "0", "2", "127.0.0.1", "1"), strict=True):
        monkeypatch.setenv(name, value)
    settings = {"method": "attention", "head": {"batch_norm": True}}
    config = make_config({"data": "made", "group": "g", "label": "l", **settings})
    with pytest.raises(InputError, match=r"trains in one process: .*; leave --devices or head.batch_norm out$"):
        fitting.fit([config], tmp_path / "run", tmp_path / "cache")


@pytest.mark.parametrize("number", [0, -1])
def test_a_number_of_devices_that_is_none(number, data, refused):
    from support.command import fit

    refused(lambda out, cache: fit(data, out, cache, "--devices", number), f"--devices {number} is out of range")


@pytest.mark.slow
def test_torchrun_on_two_hosts(data, run, tmp_path):
    """Two agents, as on two machines, with one process each on a shared folder."""
    from comodulation.training.launching import _free_port

    agent = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
    agent += ["--rdzv-id", "test", "--rdzv-endpoint", f"127.0.0.1:{_free_port()}"]
    fit_words = command(data, tmp_path / "run", tmp_path / "cache", "--json")
    words = [sys.executable, *agent, *fit_words[fit_words.index("-m") :]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    hosts = [subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [host.communicate(timeout=300)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0]
    (spoken,) = [output for output in outputs if output]
    assert json.loads(spoken)["runs"]
    same_to_rounding(tmp_path / "run", run)
