"""A hub on this machine: the few routes that uploading and downloading a repository need, its files in memory."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the hub holds, and what it was asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.sizes: dict[str, int] = {}  # of files, where the hub is to lie about them
        self.endpoint = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content for a request."""
        self.requests.append(f"{method} {path}")
        parts = path.split("?")[0].strip("/").split("/")
        if parts[:3] == ["api", "repos", "create"]:
            name = f"someone/{json.loads(body)['name']}"
            self.repositories.setdefault(name, {})
            return self.json({"url": f"{self.endpoint}/{name}"})
        if parts[:2] == ["api", "validate-yaml"]:
            return self.json({"errors": [], "warnings": []})
        if parts[:2] == ["api", "models"] and "preupload" in parts:
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for f in json.loads(body)["files"]]  # fmt: skip
            return self.json({"files": files})
        if parts[:2] == ["api", "models"] and "commit" in parts:
            name = "/".join(parts[2:4])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.endpoint}/{name}/commit/{COMMIT}"
            return self.json({"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None})
        if parts[:2] == ["api", "models"]:
            name = "/".join(parts[2:4])
            return self.json({"id": name, "sha": COMMIT, "siblings": []})
        if "resolve" in parts:
            return self.file(method, "/".join(parts[: parts.index("resolve")]), parts[-1])
        return 404, {}, b""

    def file(self, method: str, name: str, file: str) -> tuple[int, dict[str, str], bytes]:
        if name not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if file not in self.repositories[name]:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        content = self.repositories[name][file]
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if method == "HEAD" and file in self.sizes:
            headers["Content-Length"] = str(self.sizes[file])
        return 200, headers, content

    def json(self, value: Any) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """A hub at a free port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) if self.command == "POST" else b""
            status, headers, content = hub.answer(self.command, self.path, body)
            self.send_response(status)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_POST = do_HEAD = respond

        def log_message(self, *arguments: object) -> None:
            """Requests are kept, not printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
