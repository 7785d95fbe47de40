"""The server as a real process: answers, concurrency, wrong uploads, who may ask, and that nothing is written to disk."""

import asyncio
import io
import json
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.requests import Request

from comodulation.app.server.guard import host_name, is_local
from comodulation.app.server.service import Service
from comodulation.app.server.uploads import MAX_BYTES, Upload, UploadError, Uploads, read_body
from comodulation.errors import InputError
from comodulation.networks.methods import inspect
from comodulation.runs import Run
from support.command import comodulate, fit
from support.memory import peak_memory
from support.server import Server, forbid_writing, form
from support.synthetic import CLASSES, GROUP_NAMES, GROUPS, encode, picture


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Encoded images of every class, and files of them."""
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for number, name in enumerate(CLASSES):
        path = folder / f"{name}.png"
        path.write_bytes(encode(picture(name, 70 + number, 40)))
        paths.append(path)
    return paths


def close(found, expected, tolerance=1e-5):
    """Equal structures, numbers up to rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            close(found[key], expected[key], tolerance)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other, tolerance)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=tolerance, rel=tolerance)
    else:
        assert found == expected


def test_it_says_where_it_is_and_what_it_serves(server, run):
    assert server.address.startswith("http://127.0.0.1:")
    assert server.ready["run"] == str(run)
    assert server.ask("GET", "/api/health").json == {"status": "ok"}
    told, metrics = server.ask("GET", "/api/run").json, json.loads((run / "metrics.json").read_text())
    assert told["method"] == "comodulation"
    assert [task["name"] for task in told["tasks"]] == GROUP_NAMES
    assert told["tasks"][2]["classes"] == ["dark", "light"]
    assert told["metrics"]["accuracy"] == metrics["test"]["accuracy"]
    assert told["tasks"][0]["accuracy"] == metrics["test"]["tasks"]["warm"]["accuracy"]
    assert told["tasks"][0]["majority"] == metrics["test"]["tasks"]["warm"]["majority"]
    assert f"{metrics['temperature']:.2f}" in told["confidence"]
    assert told["modulator"]["sigma"] == 0.3


def test_predictions_are_those_of_the_command(server, run, images):
    """Raw bytes and a form, for all tasks and for two in another order: the numbers of `Run.predict`."""
    expected = [result["tasks"] for result in Run.open(run).predict(images, [])]
    for path, tasks in zip(images, expected, strict=True):
        body, kind = form(("image", path.read_bytes()))
        answers = [
            server.post("/api/predict", path.read_bytes()),
            server.post("/api/predict", body, Content_Type=kind),
            server.post("/api/predict?task=grey&task=warm", path.read_bytes()),
        ]
        assert [answer.status for answer in answers] == [200] * 3
        found = [answer.json["tasks"] for answer in answers]
        assert found[0] == found[1]
        assert list(found[2]) == ["grey", "warm"]
        close(found[2], {name: found[0][name] for name in ("grey", "warm")})
        assert {name: task["prediction"] for name, task in found[0].items()} == {
            name: task["prediction"] for name, task in tasks.items()
        }
        close(found[0], tasks)


def test_a_grid_of_the_modulator_comes_with_one_request(server, run, images):
    """61 values by default; each is what a request for it alone gives, and what `inspect` gives."""
    content = images[3].read_bytes()
    seen = server.post("/api/mechanism?task=cool", content).json
    m = seen["modulator"]
    assert m["deviations"] == pytest.approx(np.linspace(-3, 3, 61))
    assert (len(m["coupling"]), np.shape(m["factors"])) == (16, (61, 16))
    assert (np.shape(m["decoder_activity"]), np.shape(m["probabilities"])) == ((61, 8), (61, 6))
    close(seen["answer"], server.post("/api/predict?task=cool", content).json["tasks"]["cool"])
    assert {name for name, own in zip(m["outputs"], m["own"], strict=True) if own} == set(GROUPS["cool"])
    alone = server.post("/api/mechanism?task=cool&modulator=-1.5&modulator=2&neurons=3", content).json["modulator"]
    assert alone["neurons"] == m["neurons"][:3]
    for place, row in enumerate((15, 50)):
        close(alone["factors"][place], m["factors"][row])
        close(alone["decoder_activity"][place], m["decoder_activity"][row][:3])
        shared = [name for name in alone["outputs"] if name in m["outputs"]]
        assert len(shared) >= 4
        for name in shared:
            here, there = alone["outputs"].index(name), m["outputs"].index(name)
            assert alone["probabilities"][place][here] == pytest.approx(m["probabilities"][row][there], abs=1e-5)
    service = Service(Run.open(run))
    image = Image.open(io.BytesIO(content)).convert("RGB")
    features, sample = service._features(service.prepare(image))
    direct = inspect(service.method, features, 1, torch.tensor([2.0]), sample, service.temperature or 1.0)
    close(alone["factors"][1], direct.modulated.factors[0].tolist())
    close(seen["decoder_gains"], direct.decoder_gains.tolist())
    names = [CLASSES.index(name) for name in alone["outputs"]]
    close(alone["probabilities"][1], direct.modulated.probabilities[0, names].tolist())


def test_concurrent_requests_get_the_answers_of_sequential_ones(server, images):
    """Eight threads, 64 requests of three kinds in a mixed order: the same bytes as one after the other."""
    kinds = ["/api/predict", "/api/predict?task=warm", "/api/mechanism?task=grey"]
    wanted = [(kind, path.read_bytes()) for path in images for kind in kinds]
    alone = [server.post(*request).body for request in wanted]
    assert len(set(alone)) == len(alone)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(wanted)), 3))[:64]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda place: server.post(*wanted[place]), order))
    assert [answer.status for answer in together] == [200] * 64
    assert [answer.body for answer in together] == [alone[place] for place in order]


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(side):
    """A PNG of a few kilobytes that claims side x side pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )


GOOD = encode(picture("red", 1))
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n/f (x) (w) file def\n"


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 400, "empty body"),
        (b"not an image at all", 415, "not an image that can be read; expected PNG, JPEG"),
        (POSTSCRIPT, 415, "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not an image"),
        (GOOD[: len(GOOD) // 2], 400, "unreadable image: the upload"),
        (GOOD[:30], 415, "not an image"),
        (bomb(60_000), 413, "pixels"),
        (bomb(8_000), 413, "8,000 x 8,000 pixels; 50,000,000 is the limit"),
        (bomb(700), 400, "unreadable image"),
        (bytes(MAX_BYTES + 1), 413, "larger than 20,971,520 bytes"),
        (GOOD + bytes(MAX_BYTES + 1 - len(GOOD)), 413, "larger than"),
    ],
    ids=["empty", "text", "postscript", "svg", "truncated", "header-only", "bomb", "large", "cut", "zeros", "padded"],
)
@pytest.mark.parametrize("path", ["/api/predict", "/api/mechanism?task=warm"])
def test_wrong_uploads(server, path, content, status, message):
    answer = server.post(path, content)
    assert message in answer.error
    assert answer.status == status


def test_the_largest_upload_that_is_allowed(server):
    """Trailing bytes are no part of a PNG: a file of exactly the limit is answered."""
    assert server.post("/api/predict", GOOD + bytes(MAX_BYTES - len(GOOD))).status == 200


@pytest.mark.parametrize("length", ["declared", "chunked"])
def test_a_hundred_megabytes_are_never_held(server, length):
    """Refused with an answer that the sender can read; the server's memory does not grow by them."""
    server.post("/api/predict", bytes(MAX_BYTES + 1))
    before = peak_memory(server.process.pid)
    part = bytes(2**20)
    headers = {"Content_Length": str(100 * 2**20)} if length == "declared" else {}
    answer = server.post("/api/predict", (part for _ in range(100)), **headers)
    assert answer.status == 413
    assert "larger than 20,971,520 bytes" in answer.error
    assert peak_memory(server.process.pid) - before < 50
    assert server.post("/api/predict", GOOD).status == 200


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ((("picture", GOOD),), None, "must have one field, 'image', got 'picture'"),
        ((("image", GOOD), ("task", b"warm")), None, "got 'image', 'task'; tasks and values go into the address"),
        ((("image", GOOD), ("image", GOOD)), None, "got 'image', 'image'"),
        ((("image", b""),), None, "field 'image' is empty"),
        ((), None, "got none"),
        ((("image", GOOD),), "multipart/form-data", "without a boundary"),
        ((("image", GOOD),), "multipart/form-data; boundary=other", "not a multipart form"),
    ],
)
def test_wrong_forms(server, fields, kind, message):
    body, own = form(*fields)
    answer = server.post("/api/predict", body, Content_Type=kind or own)
    assert message in answer.error
    assert answer.status == 400


def test_forms_that_are_cut_off(server):
    body, kind = form(("image", GOOD))
    for length in (len(body) - 8, len(body) // 2, 20):
        assert "multipart form" in server.post("/api/predict", body[:length], Content_Type=kind).error


def test_form_contents_survive_to_the_byte(server):
    """Line ends, dashes and things like the boundary inside an image are the image's own."""
    tricky = GOOD + b"\r\n--b0un\r\n\r\n--\n--b0und-not\r\r\n"
    body, kind = form(("image", tricky), boundary="b0undary")
    assert server.post("/api/predict", body, Content_Type=kind).json == server.post("/api/predict", tricky).json


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/api/predict?task=wram", 400, "unknown task 'wram'; did you mean 'warm'?"),
        ("/api/predict?tsk=warm", 400, "unknown query parameter 'tsk'; did you mean 'task'?"),
        ("/api/mechanism", 400, "give one task in the address, as ?task=...; got 0"),
        ("/api/mechanism?task=warm&task=cool", 400, "got 2"),
        ("/api/mechanism?task=", 400, "unknown task ''"),
        ("/api/mechanism?task=warm&modulator=high", 400, "modulator must be a number, got 'high'"),
        ("/api/mechanism?task=warm&modulator=nan", 400, "from -6 to 6 standard deviations, got nan"),
        ("/api/mechanism?task=warm&modulator=1e9", 400, "got 1e+09"),
        ("/api/mechanism?task=warm" + "&modulator=1" * 202, 400, "at most 201 values"),
        ("/api/mechanism?task=warm&neurons=17", 400, "neurons must be a whole number from 1 to 16, got 17"),
        ("/api/mechanism?task=warm&neurons=1.5", 400, "got 1.5"),
        ("/api/predicts", 404, "known: /, /api/health"),
        ("/api/run", 405, "Method Not Allowed"),
        ("/../../etc/passwd", 404, "known"),
    ],
)
def test_wrong_questions(server, path, status, message):
    answer = server.post(path, GOOD)
    assert message in answer.error
    assert answer.status == status


def test_who_may_ask(server):
    """By the names of this machine only, whatever the port; a page of another site is refused even by the right name."""
    port = server.port
    for host in ("localhost", f"localhost:{port}", "127.0.0.1:1", "[::1]:80", "LOCALHOST"):
        assert server.ask("GET", "/api/run", Host=host).status == 200
    for host in (
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "10.0.0.1",
        "localhost@evil",
        "[::1",
    ):
        for path in ("/", "/api/run", "/nowhere"):
            answer = server.ask("GET", path, Host=host)
            assert answer.status == 403
            assert "localhost only" in answer.error
    own = {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}
    assert server.post("/api/predict", GOOD, **own).status == 200
    for origin in ("http://evil.example", "null", "http://localhost:1", "http://[", ""):
        assert server.post("/api/predict", GOOD, Host=own["Host"], Origin=origin).status == 403


def test_every_answer_has_security_headers(server):
    """Errors too. The page may load nothing but what it brings, and talk to its own server only."""
    answers = [server.ask("GET", path) for path in ("/", "/api/run", "/nowhere", "/api/predict")]
    answers.append(server.post("/api/predict", b"x"))
    for answer in [*answers, server.ask("GET", "/", Host="evil.example")]:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
    policy = answers[0].headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "http" not in answers[0].body.decode().replace("http://www.w3.org/2000/svg", "")


def test_a_body_that_stops_coming():
    """The server waits for so long, and no longer."""

    async def receive():
        await asyncio.sleep(60)

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(UploadError, match=r"longer than 0\.05 seconds") as caught:
        asyncio.run(read_body(request, "image", Upload(), Uploads(), seconds=0.05))
    assert caught.value.status == 408


def test_a_sender_that_goes_away_leaves_the_server_well(server):
    """Half a request, then the connection is cut; the next one is answered."""
    with socket.create_connection((server.host, server.port)) as connection:
        connection.sendall(
            b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n" + GOOD[:100]
        )
    assert server.post("/api/predict", GOOD).status == 200


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are set on Linux only")
def test_the_limit_under_which_the_server_runs_does_stop_writing(tmp_path):
    """Control: a process under that limit cannot write a byte to disk, to a nameless temporary file either."""
    code = (
        "import tempfile; tempfile.gettempdir(); print(flush=True); input()\n"
        "file = tempfile.SpooledTemporaryFile(max_size=10); file.write(bytes(11)); file.flush()"
    )
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    for limited in (False, True):
        with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, text=True, **pipes) as process:
            process.stdout.readline()
            if limited:
                forbid_writing(process.pid)
            err = process.communicate("\n", timeout=300)[1]
        assert (process.returncode != 0, "File too large" in err) == (limited, limited)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ending_it_while_it_is_being_asked(run, number):
    """Ctrl-C is the usual end: status 0 and not a word. With --allow-remote, names do not matter."""
    server = Server(run, "--allow-remote", "--seed", "3")
    try:
        assert server.ask("GET", "/api/run", Host="gpu.example").status == 200
        with socket.create_connection((server.host, server.port)) as idle, ThreadPoolExecutor(2) as pool:
            idle.sendall(b"GET / HTTP/1.1\r\n")
            asked = [pool.submit(server.post, "/api/mechanism?task=warm", GOOD, Host="gpu.example") for _ in range(2)]
            assert [answer.result().status for answer in asked] == [200, 200]
            status, out, err = server.end(number)
    finally:
        server.process.kill()
    assert status == (0 if number == signal.SIGINT else -number)
    assert (out, err) == ("", "")


def test_what_is_refused_before_anything_is_served(run, tmp_path):
    """One line, exit status 2: a port in use, addresses beyond this machine, folders that are no runs."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = comodulate("serve", run, "--port", port)
    assert outcome.status == 2
    assert f"cannot serve on 127.0.0.1, port {port}: address already in use; choose another --port" in outcome.line
    for arguments, message in (
        (("--host", "0.0.0.0"), "'0.0.0.0' would let other machines in, without any password; give --allow-remote"),
        (("--host", "::"), "--allow-remote"),
        (("--host", "example.org"), "--allow-remote"),
        (("--port", "65536"), "--port must be 0 (any free one) to 65535, got 65536"),
        (("--port", "-1"), "got -1"),
        (("--host", "127.0.0.1.invalid", "--allow-remote"), "cannot serve on 127.0.0.1.invalid"),
        (("--seed", "-1", "--port", "0"), "seed -1 is out of range"),
    ):
        outcome = comodulate("serve", run, *arguments)
        assert outcome.status == 2
        assert message in outcome.line
    outcome = comodulate("serve", tmp_path, "--port", "0")
    assert outcome.status == 2
    assert "is not a run folder" in outcome.line


def test_addresses_of_this_machine():
    assert all(map(is_local, ("localhost", "127.0.0.1", "127.8.9.1", "::1", "LocalHost")))
    assert not any(map(is_local, ("0.0.0.0", "::", "10.0.0.1", "localhost.evil", "", "127.1.evil")))
    assert host_name("user@localhost:80") == "localhost"


def test_without_the_packages_it_needs(run, tmp_path):
    """The extra is named, in one line."""
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError(\"No module named 'fastapi'\", name='fastapi')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from comodulation.app.cli.entry import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "serve", str(run)], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 2
    assert ended.stderr == "error: serve needs fastapi: pip install 'comodulation[serve]'\n"


def red():
    return Image.open(io.BytesIO(GOOD)).convert("RGB")


def test_the_validation_temperature_scales_confidence(run, tmp_path):
    """A run that stores one: confidence is the softmax of log-probabilities over it, the order of answers stays."""
    results = []
    for temperature in (1.0, 2.0, 1e6):
        folder = tmp_path / str(temperature)
        shutil.copytree(run, folder)
        metrics = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps({**metrics, "temperature": temperature}))
        service = Service(Run.open(folder))
        results.append(
            (service.predict(service.prepare(red()), []), service.mechanism(service.prepare(red()), "warm", [0.0], 1))
        )
    plain, warm, absurd = results
    assert (plain[0]["temperature"], warm[0]["temperature"]) == (1.0, 2.0)
    assert absurd[0]["temperature"] is None  # not what a fit writes: not believed
    close(absurd[0]["tasks"], plain[0]["tasks"])
    for name, answer in plain[0]["tasks"].items():
        tempered = warm[0]["tasks"][name]
        assert tempered["prediction"] == answer["prediction"]
        assert tempered["confidence"] < answer["confidence"]
        own, other = (list(a["probabilities"].values()) for a in (answer, tempered))
        assert other[0] / other[1] == pytest.approx((own[0] / own[1]) ** 0.5, rel=1e-4)  # of logits over 2
    close(warm[1]["answer"], warm[0]["tasks"]["warm"])


@pytest.mark.parametrize(
    ("method", "encoder", "decoder"), [("attention", True, False), ("ia3", True, True), ("class-mask", False, False)]
)
def test_methods_without_a_modulator(data, cache, tmp_path, no_figures, method, encoder, decoder):
    """No slider's worth of numbers, gains where there are any; what cannot be JSON is left out."""
    assert fit(data, tmp_path / "run", cache, "--method", method, "--epochs", 1).status == 0
    service = Service(Run.open(tmp_path / "run"))
    assert service.describe()["modulator"] is None
    seen = service.mechanism(service.prepare(red()), "warm", [0.0], 8)
    assert seen["modulator"] is None
    assert (seen["encoder_gains"] is not None, seen["decoder_gains"] is not None) == (encoder, decoder)
    close(seen["answer"], service.predict(service.prepare(red()), ["warm"])["tasks"]["warm"])
    json.dumps(seen, allow_nan=False)


def test_a_stochastic_encoder_and_binary_tasks(data, cache, tmp_path, no_figures):
    """The noise is that of `Run.predict`: it belongs to the image's content, wherever it comes from."""
    options = ("--encoder", "stochastic", "--training-encoder", "gain", "--epochs", 2)
    labels = ["--attribute", "warm", "--attribute", "cool"]
    assert fit(data, tmp_path / "run", cache, *options, labels=labels).status == 0
    run = Run.open(tmp_path / "run")
    (tmp_path / "red.png").write_bytes(GOOD)
    service = Service(run)
    close(service.predict(service.prepare(red()), [])["tasks"], run.predict([tmp_path / "red.png"], [])[0]["tasks"])
    seen = service.mechanism(service.prepare(red()), "cool", [-1.0, 1.0], 8)["modulator"]
    assert sorted(seen["outputs"]) == ["no", "yes"]
    assert np.sum(seen["probabilities"], 1) == pytest.approx([1, 1], abs=1e-5)
    with pytest.raises(InputError, match="did you mean 'cool'"):
        service.predict(service.prepare(red()), ["col"])
