"""The image of a request, raw or as a multipart field, read into memory within limits. Nothing is spooled to disk.

A framework's own form parser writes uploads above some size to a temporary file; here the body stays in memory, which the
limit on its size makes affordable.
"""

from __future__ import annotations

import asyncio
import io

from fastapi import Request
from PIL import Image
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from .data.source import decode_image
from .errors import InputError, brief

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000  # 150 MB once decoded
READ_SECONDS = 60
DRAINED = 512 * 2**20  # of a body that is too large, read and thrown away so that the sender gets to read the answer
FIELD = "image"
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


class UploadError(InputError):
    """A request that carries no usable image; ``status`` is the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read_image(request: Request) -> Image.Image:
    """The RGB image that a request carries. Raises UploadError for anything else."""
    kind = request.headers.get("content-type", "")
    body = await read_body(request)
    if kind.partition(";")[0].strip().lower() == "multipart/form-data":
        body = multipart_image(body, kind)
    return await asyncio.to_thread(open_image, body)


async def read_body(request: Request, limit: int = MAX_BYTES, seconds: float = READ_SECONDS) -> bytes:
    """The body of a request, of which no more than ``limit`` bytes are ever held.

    Raises:
        UploadError: a body that is empty, too large, too slow or cut off.
    """
    too_large = UploadError(413, f"the upload is larger than {limit:,} bytes, which is the limit")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit and request.headers.get("expect"):
        raise too_large  # the sender waits for leave to send
    body, received = bytearray(), 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                received += len(chunk)
                if received > limit:
                    body.clear()
                else:
                    body += chunk
                if received > DRAINED:
                    break
    except TimeoutError:
        raise UploadError(408, f"the upload took longer than {seconds:g} seconds") from None
    except ClientDisconnect:
        raise UploadError(400, "the upload was cut off") from None
    if received > limit:
        raise too_large
    if not body:
        raise UploadError(400, "no image: the request has an empty body; send the bytes of an image file")
    return bytes(body)


def multipart_image(body: bytes, content_type: str) -> bytes:
    """The one field of a multipart form, which must be named ``image``. Raises UploadError for any other form."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise UploadError(400, "a multipart form without a boundary in its Content-Type")
    parts: list[tuple[bytearray, bytearray]] = []  # headers and content of each
    whole: list[bool] = []

    def begin() -> None:
        parts.append((bytearray(), bytearray()))

    def header(data: bytes, start: int, end: int) -> None:
        parts[-1][0].extend(data[start:end])

    def content(data: bytes, start: int, end: int) -> None:
        parts[-1][1].extend(data[start:end])

    try:
        MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_value": header,
                "on_header_end": lambda: parts[-1][0].extend(b"\n"),
                "on_part_data": content,
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


def open_image(content: bytes) -> Image.Image:
    """Decode an uploaded file to RGB.

    Raises:
        UploadError: not an image of the known formats, too many pixels (found in its header, before anything is decoded), or
            damaged.
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
    try:
        return decode_image(content, "the upload")
    except InputError as error:
        raise UploadError(400, str(error)) from error
