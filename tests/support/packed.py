"""Parquet and safetensors files taken apart and put together again, for tests that damage them."""

from __future__ import annotations

import json
import struct


def packed(header, data):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def unpacked(content):
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = {key: json.loads(value) for key, value in header.get("__metadata__", {}).items()}
    return header, content[8 + size :]


def repacked(header, data):
    """A file of a header whose metadata are values; where they are no dictionary any more, as they are."""
    if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
        fields = {key: json.dumps(value) for key, value in header["__metadata__"].items()}
        header = {**header, "__metadata__": fields}
    return packed(header, data)
