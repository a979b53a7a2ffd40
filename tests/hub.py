"""A hub for models on this machine: what the RL Zoo asks of Hugging Face when it pushes a run and loads it back."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """Keeps one repository in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        """Where it can be reached."""
        return f"http://127.0.0.1:{self.server_port}"


class Request(BaseHTTPRequestHandler):
    """One request to the hub's HTTP API."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Create the repository, or take files."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.answer({"url": f"{self.server.url}/me/model"})
        elif "/preupload/" in self.path:
            self.answer(
                {"files": [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]}
            )
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitOid": COMMIT, "commitUrl": f"{self.server.url}/me/model/commit/{COMMIT}"})
        else:
            self.answer({"errors": [], "warnings": []})  # of the model card

    def do_GET(self) -> None:
        """Give a file, or what there is of them."""
        name = self.path.rpartition("/")[2]
        if "/resolve/" in self.path and name in self.server.files:
            self.send(200, self.server.files[name])
        elif "/revision/" in self.path:
            self.answer({"id": "me/model", "sha": COMMIT, "siblings": []})
        elif "/tree/" in self.path:
            self.answer([])
        else:
            self.send(404, b"")

    do_HEAD = do_GET

    def answer(self, value: Any) -> None:
        """
        :param value: what to send as JSON
        """
        self.send(200, json.dumps(value).encode())

    def send(self, code: int, body: bytes) -> None:
        """
        :param code: of HTTP
        :param body: what to send, unless only its length is asked for
        """
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serve_hub() -> Iterator[Hub]:
    """:return: a hub, which serves until the context ends"""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
