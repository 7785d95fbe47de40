"""The Hugging Face hub where it can be reached; where not, what is missing is said at once and not after a minute of retries."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

TIMEOUT = 5.0  # seconds


@contextlib.contextmanager
def hub_or_offline() -> Iterator[None]:
    """Work in the hub's offline mode (its local cache alone) while the hub cannot be reached, and without its warnings."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, logging

    logging.set_verbosity_error()
    # `datasets` keeps a copy of the switch.
    places: list[Any] = [constants] + [sys.modules[name] for name in ("datasets.config",) if name in sys.modules]
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
