"""Addresses of a cluster's head: their form, and whether anything answers there."""

from __future__ import annotations

import socket

from ..errors import InputError, brief

# At which the other nodes of an allocation reach this one, where Ray would choose another network.
HEAD_ADDRESS = "COMODULATION_HEAD_ADDRESS"
ANSWERS = 5.0  # seconds for the head of a cluster to take a call


def parsed(address: str) -> tuple[str, int]:
    """Host and port. Raises InputError for what is no HOST:PORT."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise InputError(
            f"--cluster {brief(address)} is no address; expected HOST:PORT of the head of a Ray cluster, local, or slurm"
        )
    return host, int(port)


def answers(address: str) -> str | None:
    """Why nobody takes a call at HOST:PORT; None where somebody does."""
    try:
        socket.create_connection(parsed(address), ANSWERS).close()
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return None
