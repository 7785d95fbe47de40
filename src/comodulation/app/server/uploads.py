"""The input of a request, of an image raw or as a multipart field, read into memory within limits. Nothing is spooled to disk.

Forms are read with python-multipart and not with Starlette's form parser, which is built on it: Starlette's decodes a field without
a file name as text, which loses the bytes of an image, and accepts a form that is cut off.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import anyio.to_thread
import numpy as np
from fastapi import Request
from PIL import Image
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from ...data import Texts, Vectors, decode_image
from ...errors import InputError, brief

T = TypeVar("T")

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000  # 150 MB once decoded
LARGE_PIXELS = 8_000_000  # images above it are decoded one at a time
DECODERS = 2  # the others: so many
READ_SECONDS, GRACE_SECONDS = 60, 5
PACE = 2**15  # bytes a second; a body that comes slower is given up after the grace
ROOM = 256 * 2**20  # bytes of bodies that are held at once
DRAINED = 512 * 2**20  # of a body that is too large, read and thrown away so that the sender gets to read the answer
FIELD = "image"
EXPECTED = {
    "image": "the bytes of an image file",
    "text": 'the text in UTF-8, or {"text": ...} as application/json',
    "embedding": 'a list of numbers as JSON, or {"embedding": ...}',
}
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


class UploadError(InputError):
    """A request that carries no usable input; ``status`` is the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Upload:
    """The body of one request while it is held.

    Attributes:
        received: bytes that have come. held: of them, in memory.
        deadline: of reading; None before and after. ended: whether it had to make room.
    """

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.received = self.held = 0
        self.deadline: asyncio.Timeout | None = None
        self.ended = False

    @property
    def pace(self) -> float:
        """Bytes a second so far."""
        return self.received / max(time.monotonic() - self.began, 1e-3)

    def end(self) -> None:
        """Stop reading it."""
        if self.deadline is not None and not self.ended:
            self.ended = True
            self.deadline.reschedule(-math.inf)


class Uploads:
    """Bodies that are read and images that are decoded at once, within bounds of memory.

    Where the room for bodies is used up, the slowest of them is given up. Reading takes no turn of its own, so that clients who
    send slowly, or not at all, keep nobody waiting.
    """

    def __init__(self) -> None:
        self.active: set[Upload] = set()
        self._decoders = anyio.CapacityLimiter(DECODERS)
        # One thread: glibc keeps what a thread has freed for that thread, and another one would ask for as much again.
        self._large = ThreadPoolExecutor(1)

    async def prepared(self, request: Request, what: str, prepare: Callable[[Any], T]) -> T:
        """What ``prepare`` makes of the input that a request carries: of an RGB image, a text, or the numbers of an embedding.

        It is called by the thread that has decoded the input, which lets 150 MB of an image go before the next one is decoded.

        Args:
            request: whose body it is. what: an ``image``, a ``text`` or an ``embedding``. prepare: part of the decoding.

        Raises:
            UploadError: it carries none.
        """
        kind = request.headers.get("content-type", "")
        upload = Upload()
        self.active.add(upload)
        try:
            body = await read_body(request, what, upload, self)
            if what in READERS:
                async with self._decoders:
                    return await asyncio.to_thread(lambda: prepare(READERS[what](body, kind)))
            if kind.partition(";")[0].strip().lower() == "multipart/form-data":
                body = multipart_image(body, kind)
            width, height = await anyio.to_thread.run_sync(image_size, body, limiter=self._decoders)
            if width * height > LARGE_PIXELS:
                return await asyncio.get_running_loop().run_in_executor(self._large, lambda: prepare(open_image(body)))
            async with self._decoders:
                return await asyncio.to_thread(lambda: prepare(open_image(body)))
        finally:
            self.active.discard(upload)

    def make_room(self) -> None:
        """Give up the slowest bodies that are being read, until what is held fits."""
        while sum(upload.held for upload in self.active) > ROOM:
            reading = [one for one in self.active if one.held and one.deadline is not None and not one.ended]
            if not reading:
                return
            slowest = min(reading, key=lambda one: one.pace)
            slowest.end()
            slowest.held = 0  # it goes before anything else is read

    def end(self) -> None:
        """Give up all bodies that are still being read."""
        for upload in self.active:
            upload.end()


async def read_body(
    request: Request, what: str, upload: Upload, uploads: Uploads, *, seconds: float = READ_SECONDS
) -> bytes:
    """The body of a request, of which no more than ``MAX_BYTES`` are ever held.

    Args:
        request: whose body it is. what: is expected.
        upload: counts what is held of it. uploads: all that are held.
        seconds: in which it must have come; also, after a grace, it must keep a pace of 32 KiB a second.

    Raises:
        UploadError: a body that is empty, too large, too slow or cut off, or that had to make room for others.
    """
    too_large = UploadError(413, f"the upload is larger than {MAX_BYTES:,} bytes, which is the limit")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BYTES and request.headers.get("expect"):
        raise too_large  # the sender waits for leave to send
    try:
        body = await _received(request, upload, uploads, seconds)
    except TimeoutError:
        if upload.ended:
            raise UploadError(503, "the server has too many uploads at hand, or is ending; try again later") from None
        if time.monotonic() - upload.began < seconds:
            raise UploadError(408, f"the upload came at less than {PACE:,} bytes a second") from None
        raise UploadError(408, f"the upload took longer than {seconds:g} seconds") from None
    except ClientDisconnect:
        raise UploadError(400, "the upload was cut off") from None
    finally:
        upload.deadline = None
    if upload.received > MAX_BYTES:
        raise too_large
    if not body:
        raise UploadError(400, f"no {what}: the request has an empty body; send {EXPECTED[what]}")
    return bytes(body)


async def _received(request: Request, upload: Upload, uploads: Uploads, seconds: float) -> bytearray:
    """What comes of a body; nothing of one that is too large. Raises TimeoutError, ClientDisconnect."""
    body, begins = bytearray(), asyncio.get_running_loop().time()
    async with asyncio.timeout(min(seconds, GRACE_SECONDS)) as upload.deadline:
        async for chunk in request.stream():
            upload.received += len(chunk)
            if upload.received > DRAINED:
                break
            if upload.received > MAX_BYTES:
                body.clear()
            else:
                body += chunk
            upload.held = len(body)
            if not upload.ended:
                upload.deadline.reschedule(begins + min(seconds, GRACE_SECONDS + upload.received / PACE))
            uploads.make_room()
    return body


def multipart_image(body: bytes, content_type: str) -> bytes:
    """The one field of a multipart form, which must be named ``image``. Raises UploadError for any other form."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise UploadError(400, "a multipart form without a boundary in its Content-Type")
    parts: list[tuple[bytearray, bytearray]] = []  # headers and content of each
    whole: list[bool] = []
    try:
        MultipartParser(
            boundary,
            {
                "on_part_begin": lambda: parts.append((bytearray(), bytearray())),
                "on_header_value": lambda data, start, end: parts[-1][0].extend(data[start:end]),
                "on_header_end": lambda: parts[-1][0].extend(b"\n"),
                "on_part_data": lambda data, start, end: parts[-1][1].extend(data[start:end]),
                "on_end": lambda: whole.append(True),
            },
        ).write(body)
    except FormParserError as error:
        raise UploadError(400, f"not a multipart form: {str(error).splitlines()[0]}") from error
    if not whole:
        raise UploadError(400, "the multipart form is cut off: it has no closing boundary")
    names = [_field_name(bytes(headers)) for headers, _ in parts]
    if names != [FIELD]:
        found = ", ".join(map(brief, names[:5])) or "none"
        raise UploadError(
            400,
            f"a form must have one field, {FIELD!r}, got {found}; tasks and values go into the address, as ?task=NAME",
        )
    if not parts[0][1]:
        raise UploadError(400, f"no image: the form's field {FIELD!r} is empty")
    return bytes(parts[0][1])


def _field_name(headers: bytes) -> str:
    for value in headers.splitlines():
        kind, options = parse_options_header(value)
        if kind == b"form-data":
            return options.get(b"name", b"").decode("utf-8", "replace")
    return ""


def read_text(body: bytes, kind: str) -> str:
    """The text of a request: its body, or the field ``text`` of a JSON object. Raises UploadError for anything else."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise UploadError(400, f"not text in UTF-8: {error.reason} at byte {error.start}") from error
    if kind.partition(";")[0].strip().lower() == "application/json":
        found = _field(text, "text")
        if not isinstance(found, str):
            raise UploadError(400, f"expected {EXPECTED['text']}, got {brief(found)}")
        text = found
    try:
        return Texts((text,)).read(0, "the text")
    except InputError as error:
        raise UploadError(400, str(error)) from error


def read_embedding(body: bytes, kind: str) -> np.ndarray:
    """The numbers of a request, a list or the field ``embedding`` of a JSON object. Raises UploadError for anything else."""
    try:
        values = np.asarray(_field(body.decode("utf-8", "replace"), "embedding"))
        if values.dtype.kind not in "iuf" or values.ndim not in (1, 3):
            raise ValueError
        return Vectors(values[None]).read(0, "the embedding")
    except UploadError:
        raise
    except (ValueError, RecursionError) as error:
        said = (
            str(error) if isinstance(error, InputError) else f"expected {EXPECTED['embedding']}, got {brief(body[:64])}"
        )
        raise UploadError(400, said) from error


def _field(text: str, name: str) -> Any:
    """A value of JSON, or this field of it. Raises UploadError for what is no JSON."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UploadError(400, f"not JSON: expected {EXPECTED[name]}") from error
    return found.get(name) if isinstance(found, dict) else found


READERS: dict[str, Callable[[bytes, str], Any]] = {"text": read_text, "embedding": read_embedding}


def image_size(content: bytes) -> tuple[int, int]:
    """Width and height of an uploaded image by its header, before anything is decoded.

    Raises:
        UploadError: not an image of the known formats, or too many pixels.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise UploadError(413, f"the image has too many pixels; {MAX_PIXELS:,} is the limit") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them into
        raise UploadError(415, f"not an image that can be read; expected {', '.join(FORMATS)}") from error
    if width * height > MAX_PIXELS:
        raise UploadError(413, f"the image has {width:,} x {height:,} pixels; {MAX_PIXELS:,} is the limit")
    return width, height


def open_image(content: bytes) -> Image.Image:
    """Decode an uploaded file to RGB. Raises UploadError as ``image_size``, and for a file that is damaged."""
    image_size(content)
    try:
        return decode_image(content, "the upload")
    except InputError as error:
        raise UploadError(400, str(error)) from error
