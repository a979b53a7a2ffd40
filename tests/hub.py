"""A hub for models on this machine: the part of the API of Hugging Face with which the RL Zoo uploads and downloads a run."""

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
    """A server that stores one repository in RAM."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.server_port}"


class Request(BaseHTTPRequestHandler):
    """A handler of one request to the hub's HTTP API."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Create the repository, or receive files."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.send_json({"url": f"{self.server.url}/me/model"})
        elif "/preupload/" in self.path:
            self.send_json(
                {"files": [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]}
            )
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.send_json({"commitOid": COMMIT, "commitUrl": f"{self.server.url}/me/model/commit/{COMMIT}"})
        else:
            self.send_json({"errors": [], "warnings": []})  # the validation of a model card

    def do_GET(self) -> None:
        """Send a file, or the list of files."""
        name = self.path.rpartition("/")[2]
        if "/resolve/" in self.path and name in self.server.files:
            self.send(200, self.server.files[name])
        elif "/revision/" in self.path:
            self.send_json({"id": "me/model", "sha": COMMIT, "siblings": []})
        elif "/tree/" in self.path:
            self.send_json([])
        else:
            self.send(404, b"")

    do_HEAD = do_GET

    def send_json(self, value: Any) -> None:
        """
        Send a response.

        :param value: the content, which is sent as JSON
        """
        self.send(200, json.dumps(value).encode())

    def send(self, code: int, body: bytes) -> None:
        """
        Send a response. For a HEAD request, the body is left out.

        :param code: the status code of HTTP
        :param body: the content
        """
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@contextlib.contextmanager
def serve_hub() -> Iterator[Hub]:
    """Run a hub until the context ends."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
