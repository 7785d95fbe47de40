"""Images and requests of any kind: an RGB image of the size its file says, or a refusal; no request is answered with a failure."""

import asyncio
import io
import json
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from comodulation.app.server import (
    FORMATS,
    LOCAL_NAMES,
    MAX_PIXELS,
    Guarded,
    Service,
    UploadError,
    make_app,
    multipart_image,
    open_image,
)
from comodulation.data.pictures import BadImageError, decode_image
from comodulation.runs import Run
from support.mutations import ABSURD, damaged, few_or_hundreds, few_or_many, hunt, is_refusal, refused_or
from support.server import form
from support.synthetic import encode, picture

SMALL = picture("red", 0, 12)


def saved(image, kind, **options):
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, colour=2, depth=8, rows=b"", extra=b""):
    """A PNG of any declared size, whatever its rows are."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


EXIF = Image.Exif()
EXIF[0x0112], EXIF[0x010E] = 6, "x" * 1000

VALID = {
    **{kind: saved(SMALL, kind) for kind in FORMATS},
    "CMYK": saved(SMALL.convert("CMYK"), "JPEG"),
    "16 bit": saved(Image.fromarray(np.full((12, 12), 40_000, np.uint16)), "PNG"),
    "32 bit float": saved(Image.fromarray(np.full((12, 12), 0.5, np.float32)), "TIFF"),
    "1 bit": saved(SMALL.convert("1"), "PNG"),
    "palette with transparency": saved(SMALL.convert("P"), "PNG", transparency=3),
    "grey with alpha": saved(SMALL.convert("LA"), "PNG"),
    "YCbCr": saved(SMALL.convert("YCbCr"), "JPEG"),
    "animated": saved(SMALL, "GIF", save_all=True, append_images=[picture("blue", 1, 12)] * 3),
    "animated PNG": saved(SMALL, "PNG", save_all=True, append_images=[picture("blue", 1, 12)] * 3),
    "animated WebP": saved(SMALL, "WEBP", save_all=True, append_images=[picture("blue", 1, 12)] * 3),
    "EXIF": saved(SMALL, "JPEG", exif=EXIF),
    "progressive": saved(SMALL, "JPEG", progressive=True),
    "interlaced TIFF": saved(SMALL, "TIFF", compression="tiff_deflate"),
}  # fmt: skip


@pytest.mark.parametrize("name", VALID)
def test_valid_images_of_every_kind(name):
    """All are read as RGB of their own size, from a data set as from an upload."""
    for image in (decode_image(VALID[name], "here"), open_image(VALID[name])):
        assert (image.mode, image.size) == ("RGB", (12, 12))


@few_or_many
def test_damaged_images(cases):
    def check(content):
        for read in (lambda: decode_image(content, "here"), lambda: open_image(content)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a reader's remarks about a damaged file
                image = refused_or(read)
            if not is_refusal(image):
                assert image.mode == "RGB"
                assert np.asarray(image).shape == (image.size[1], image.size[0], 3)

    hunt(cases, check, st.sampled_from(sorted(VALID)).flatmap(lambda name: damaged(VALID[name])))


def tiff(width, height):
    """A TIFF of a few bytes that declares any size."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, height),
            (279, 4, min(2**32 - 1, width * height))]  # fmt: skip
    return (
        b"II*\0"
        + struct.pack("<I", 8)
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
    )


BOMBS = {
    "PNG of terabytes": png(2**31 - 1, 2**31 - 1),
    "PNG of a gigabyte": png(30_000, 30_000, rows=bytes(90_001) * 10),
    "PNG just beyond the limit": png(MAX_PIXELS // 100 + 1, 100, 0, rows=bytes(MAX_PIXELS // 100 + 2) * 100),
    "PNG without pixels": png(0, 0),
    "PNG of a line": png(2**31 - 1, 1),
    "PNG with a text of a gigabyte": png(
        4, 4, rows=bytes(13) * 4, extra=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**27)))
    ),
    "TIFF of gigabytes": tiff(100_000, 100_000),
    "GIF of gigabytes": b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
    "BMP of gigabytes": b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "WebP of gigabytes": b"RIFF\x1a\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\xff" * 2,
    "JPEG of gigabytes": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\0\xff\xd9",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_images_that_claim_too_much(name):
    """Refused by what their headers say: no memory is taken for pixels that may not be there. Uploads have a lower limit."""
    readers = [open_image, *([] if "limit" in name else [lambda content: decode_image(content, "here")])]
    refusals = []
    hunt(1, lambda _: refusals.extend(refused_or(lambda r=r: r(BOMBS[name])) for r in readers), st.just(0))
    assert [type(refusal) for refusal in refusals] == [UploadError, BadImageError][: len(readers)]


READERS = (open_image, lambda content: decode_image(content, "here"))
FOREIGN = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) print\n%%EOF\n",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><image href='/etc/passwd'/></svg>",
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "PDF": b"%PDF-1.4\n",
    "FITS": b"SIMPLE  =                    T" + b" " * 2850,
    "a table": b"PAR1",
    "text": b"1,2,3\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_that_are_no_pictures(name, monkeypatch):
    """No interpreter is started for them: Pillow hands PostScript to Ghostscript."""
    import subprocess

    monkeypatch.setattr(subprocess, "Popen", lambda *given, **options: pytest.fail("a process was started"))
    monkeypatch.setattr(subprocess, "check_call", lambda *given, **options: pytest.fail("a process was started"))
    for read in READERS:
        assert is_refusal(refused_or(lambda read=read: read(FOREIGN[name])))


# ---- forms and requests ----


@few_or_many
def test_damaged_forms(cases):
    body, kind = form(("image", encode(SMALL)))

    def check(content, changed_kind):
        found = refused_or(lambda: multipart_image(content, changed_kind))
        assert is_refusal(found) or (isinstance(found, bytes) and found)

    kinds = st.one_of(
        st.just(kind), damaged(kind.encode()).map(lambda text: text.decode("latin-1")),
        st.sampled_from(["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'a' * 5000}"]),
    )  # fmt: skip
    assert multipart_image(body, kind) == encode(SMALL)
    hunt(cases, check, st.one_of(st.just(body), damaged(body)), kinds)


def ask(app, method, path, query, headers, chunks):
    """One request as a server hands it on; status and body of the answer."""
    waiting = [{"type": "http.request", "body": part, "more_body": True} for part in chunks]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})
    sent = []

    async def receive():
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path,
        "raw_path": path.encode("utf-8", "replace"), "query_string": query, "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert sent, scope
    assert sent[0]["type"] == "http.response.start"
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


WORDS = st.one_of(
    st.sampled_from([str(value) for value in ABSURD if not isinstance(value, int) or value in (0, -1)]), st.text(max_size=10),
    st.sampled_from(["warm", "cool", "0", "3", "6.0001", "1e400"]),
)  # fmt: skip


@few_or_hundreds
@pytest.mark.parametrize("remote", [False, True])
def test_any_request(remote, cases, run):
    """Any method, path, query, header and body: an answer, or a refusal of one sentence; never the server's failure."""
    from urllib.parse import quote

    service = Service(Run.open(run))
    app = Guarded(make_app(service), None if remote else frozenset(LOCAL_NAMES))
    body, kind = form(("image", encode(SMALL)))

    def check(method, path, query, headers, content, split):
        text = "&".join(f"{quote(name, errors='replace')}={quote(value, errors='replace')}" for name, value in query)
        pairs = [(name, value.encode("latin-1", "replace")) for name, value in headers.items()]
        status, answer = ask(app, method, path, text.encode(), pairs, [content[:split], content[split:]])
        assert status < 500, (status, answer[:300])
        if status >= 400 and answer and method != "HEAD":
            message = json.loads(answer)["error"]
            assert "\n" not in message
            assert "Traceback" not in message

    hosts = st.one_of(
        st.sampled_from(
            ["localhost:8000", "127.0.0.1", "[::1]:8000", "[::1", "evil.example", "", "localhost:x", "a@localhost"]
        ),
        WORDS,
    )
    kinds = st.one_of(st.just(kind), st.sampled_from(["image/png", "multipart/form-data", "a" * 5000]), WORDS)
    headers = st.fixed_dictionaries(
        {b"host": hosts},
        optional={
            b"content-type": kinds,
            b"content-length": WORDS,
            b"origin": hosts,
            b"expect": WORDS,
            b"cookie": WORDS,
        },
    )
    paths = st.one_of(
        st.sampled_from(["/", "/api/run", "/api/health", "/api/predict", "/api/mechanism", "/api/mechanism"]),
        WORDS.map(lambda word: f"/{word}".replace("\ud800", "")),
    )
    names = st.sampled_from(["task", "modulator", "neurons", "x"])
    query = st.one_of(
        st.lists(st.tuples(names, WORDS), max_size=4),
        st.just([("task", "warm"), ("modulator", "0.5")]),
        st.just([("task", "warm")]),
    )
    hunt(
        4 * cases, check, st.sampled_from(["GET", "POST", "POST", "POST", "HEAD", "PUT", "OPTIONS", "X"]), paths, query, headers,
        st.one_of(st.just(body), st.just(encode(SMALL)), damaged(body), damaged(encode(SMALL)), st.just(b"")), st.integers(0, 300),
    )  # fmt: skip
