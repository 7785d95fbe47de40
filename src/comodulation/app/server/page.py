"""The page that `comodulate serve` shows: one file with its style and script, which loads nothing but the server's own API.

Everything that the slider shows comes with one request per image and task; the script draws and computes nothing of the network.
"""

from __future__ import annotations

from ...report import asset, source_hash, styled


def page() -> str:
    """The page as HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n<title>comodulation</title>\n'
        f"<style>{_style()}</style>\n</head>\n<body>\n{asset('app/server/page.html')}"
        f"<script>{asset('app/server/page.js')}</script>\n</body>\n</html>\n"
    )


def page_policy() -> str:
    """The Content-Security-Policy it is served with: its own script and style by their hashes, and the server's own API."""
    return (
        f"default-src 'none'; script-src {source_hash(asset('app/server/page.js'))}; style-src {source_hash(_style())}; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _style() -> str:
    return styled(asset("app/server/page.css"))
