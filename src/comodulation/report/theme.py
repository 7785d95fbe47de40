"""What the package's pages share: colours for light and dark, the styles and scripts beside the code, hashes for a policy."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources

INK = "#444444"  # what figures draw text and axes with; the page replaces it by its own text colour
# Colours as (light, dark). Blue, vermilion and grey differ for every kind of colour vision; the shapes differ as well.
PALETTE = {
    "paper": ("#ffffff", "#15181d"),
    "card": ("#f6f7f9", "#1d2128"),
    "ink": ("#20242b", "#e4e7ec"),
    "soft": ("#565d68", "#a5adb9"),
    "line": ("#d9dde3", "#353b45"),
    "link": ("#0a5796", "#7cbcf5"),
    "holds": ("#0a5796", "#6cb4f2"),
    "fails": ("#a63a00", "#ff9d66"),
    "unknown": ("#565d68", "#b0b7c2"),
}


@cache
def asset(name: str) -> str:
    """Text of a file of the package, such as ``report/page.css``."""
    return resources.files("comodulation").joinpath(name).read_text("utf-8")


def styled(css: str) -> str:
    """A style with the palette as its variables."""
    both = "".join(f" --{name}: light-dark({light}, {dark});" for name, (light, dark) in PALETTE.items())
    return f":root {{ color-scheme: light dark;{both} }}\n{css}"


def source_hash(text: str) -> str:
    """The source expression by which a Content-Security-Policy allows this script or style and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
