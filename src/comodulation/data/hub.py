"""The Hugging Face hub, if it can be reached; if not, an error says at once what is missing, not after a minute of retries."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from ..errors import InputError, reason_of

TIMEOUT = 5.0  # seconds
REACHING = 30.0  # seconds for a hub's answer about one file


@contextlib.contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Turn what goes wrong between here and the hub into one line.

    Raises:
        InputError: the hub cannot be reached, is switched off (HF_HUB_OFFLINE), or refuses; the name is none.
    """
    from huggingface_hub import errors
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # What the hub's library speaks through depends on its version, and has errors of its own.
        foreign = type(error).__module__.startswith(("httpx", "requests"))
        if not foreign and not isinstance(
            error, (errors.HfHubHTTPError, errors.HFValidationError, OSError, ValueError)
        ):
            raise
        raise InputError(f"{repo_id!r} on the hub: {reason_of(error)}") from error


@contextlib.contextmanager
def hub_or_offline() -> Iterator[None]:
    """Work in the hub's offline mode (its local cache alone) while the hub cannot be reached, and without its warnings."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, logging

    logging.set_verbosity_error()
    # `datasets` keeps a copy of the switch.
    places: list[Any] = [constants, *filter(None, [sys.modules.get("datasets.config")])]
    before = [place.HF_HUB_OFFLINE for place in places]
    if not any(before):
        try:
            get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
        except Exception:  # requests or httpx, by version, each with errors of its own
            for place in places:
                place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
