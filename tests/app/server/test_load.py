"""The server under load and under clients that mean it ill: it goes on answering, within its memory, and ends in order."""

import contextlib
import io
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from support.memory import peak_memory
from support.server import Server
from support.synthetic import encode, picture

GOOD = encode(picture("red", 1))
SOON = 20  # seconds; on a machine with nothing else to do it is one
# The times that clients get, cut short; the descriptors of a small container.
SHORT = """
import resource
from comodulation.app.server import connections, uploads
connections.PATIENCE, uploads.GRACE_SECONDS = 1.0, 2
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
"""


@pytest.fixture(scope="module")
def server(run):
    server = Server(run, before=SHORT)
    yield server
    assert server.end() == (0, "", "")


@contextlib.contextmanager
def connections(server, number, sent):
    """So many connections that have sent the beginning of a request."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection((server.host, server.port), 60)) for _ in range(number)]
        for one in opened:
            with contextlib.suppress(OSError):  # some may have been refused already
                one.sendall(sent)
        yield opened


def head(length):
    return f"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()


def closed_within(connection, seconds):
    """Whether the server ends a connection, on which it may say something first."""
    ends = time.monotonic() + seconds
    connection.settimeout(seconds)
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(4096):
            if time.monotonic() > ends:
                return False
    return True


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        pytest.param(b"GET / HT", marks=pytest.mark.slow),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        pytest.param(head(10**6), marks=pytest.mark.slow),
        head(10**6) + GOOD[:100],
    ],
)
def test_clients_that_send_nothing_more_stop_nobody(server, sent):
    """More of them than there are connections, or descriptors: the next client is answered at once, and they are closed."""
    with connections(server, 120, sent) as slow:
        began = time.monotonic()
        assert server.post("/api/predict", GOOD).status == 200
        assert time.monotonic() - began < SOON
        assert all(closed_within(one, SOON) for one in slow)


def test_headers_that_never_end(server):
    """A byte now and then does not keep a connection open; nor does it after an answer."""
    for begins in (b"", b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with connections(server, 1, begins + b"GET / HTTP/1.1\r\nX-Slow: ") as (slow,):
            ends = time.monotonic() + SOON
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                while time.monotonic() < ends:
                    slow.sendall(b"a")
                    time.sleep(0.2)
            assert time.monotonic() < ends


def test_a_slow_upload_is_told_so(server):
    with connections(server, 1, head(10**6) + bytes(1000)) as (slow,):
        slow.settimeout(SOON)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := slow.recv(4096):  # head and content may come apart
                answer += part
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"the upload came at less than 32,768 bytes a second" in answer


def test_more_connections_than_there_may_be_are_answered_in_turn(server):
    """Whoever is sent away asks again, as browsers do, and is answered before long."""

    def status(_):
        for _ in range(50):
            with contextlib.suppress(ConnectionError):
                return server.ask("GET", "/api/health").status
            time.sleep(0.05)
        return "sent away"

    with ThreadPoolExecutor(60) as pool:
        assert list(pool.map(status, range(300))) == [200] * 300


def test_small_files_that_decode_large(server):
    """Six of 48 million pixels at once, 150 MB each: they are decoded one after the other, and none is kept."""
    file = io.BytesIO()
    Image.new("1", (8000, 6000)).save(file, "PNG")

    assert len(file.getvalue()) < 10**5
    assert server.post("/api/predict", file.getvalue()).status == 200
    once = peak_memory(server.process.pid)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: server.post("/api/predict", file.getvalue()).status, range(6)))
    assert answers == [200] * 6
    assert peak_memory(server.process.pid) - once < 150


def test_ctrl_c_lets_requests_be_answered(run):
    """What has been asked is answered, an upload that is on its way too; what does not come in keeps nobody."""
    server = Server(run, before="from comodulation.app.server import service; service.UPLOADING = 6.0")
    with connections(server, 2, head(len(GOOD)) + GOOD[:50]) as (good, silent), ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.post, "/api/mechanism?task=warm", GOOD) for _ in range(2)]
        time.sleep(0.2)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        good.sendall(GOOD[50:])
        assert good.recv(4096).startswith(b"HTTP/1.1 200")
        assert [answer.result().status for answer in asked] == [200] * 2
        status = server.process.wait(60)
        assert silent.recv(4096)[:12] in (b"HTTP/1.1 503", b"HTTP/1.1 408")
    assert (status, *server.process.communicate()) == (0, "", "")
