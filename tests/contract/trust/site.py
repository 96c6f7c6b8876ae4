"""A web server of its own process that serves a folder, and misbehaves as `faults.json` says.

    python site.py FOLDER     # writes its port to FOLDER/port

A fault is {"path": prefix of the path, "kind": …}: drip, header-drip, endless, bomb, truncate,
no-range, status, silent. Every request is a line of `requests.log`.
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])


class Handler(BaseHTTPRequestHandler):
    """Serves a file; the first fault whose prefix fits changes how."""

    def do_GET(self) -> None:
        path = self.path.lstrip("/")
        asked = self.headers.get("range", "")
        with (FOLDER / "requests.log").open("a") as log:
            log.write(f"{path} {asked}\n")
        fault = self._fault(path)
        kind = fault.get("kind", "")
        if kind == "status":
            return self.send_error(fault["status"])
        file = FOLDER / "www" / fault.get("serve", path)
        if kind not in ("endless", "silent") and not file.is_file():
            return self.send_error(404)
        body = file.read_bytes() if file.is_file() else b""
        if kind:
            return getattr(self, "_" + kind.replace("-", "_"))(body, fault)
        return self._plain(body, asked)

    def _plain(self, body: bytes, asked: str) -> None:
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if start else 200)
        self.send_header("content-length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:])

    def _replace(self, body: bytes, fault: dict[str, Any]) -> None:
        self._plain(body, "")

    def _drip(self, body: bytes, fault: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        for number in range(len(body)):
            self.wfile.write(body[number : number + 1])
            time.sleep(fault["seconds"])

    def _header_drip(self, body: bytes, fault: dict[str, Any]) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\nx-drip: ")
        while True:
            self.wfile.write(b"a")
            time.sleep(fault["seconds"])

    def _silent(self, body: bytes, fault: dict[str, Any]) -> None:
        time.sleep(fault["seconds"])

    def _endless(self, body: bytes, fault: dict[str, Any]) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
        while True:
            self.wfile.write(b" " * 65536)

    def _bomb(self, body: bytes, fault: dict[str, Any]) -> None:
        packed = gzip.compress(bytes(fault["megabytes"] << 20))
        self.send_response(200)
        self.send_header("content-encoding", "gzip")
        self.send_header("content-length", str(len(packed)))
        self.end_headers()
        self.wfile.write(packed)

    def _truncate(self, body: bytes, fault: dict[str, Any]) -> None:
        start = int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("content-length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + fault["bytes"]])

    def _no_range(self, body: bytes, fault: dict[str, Any]) -> None:
        self._plain(body, "")

    def _fault(self, path: str) -> dict[str, Any]:
        try:
            faults = json.loads((FOLDER / "faults.json").read_text())
        except FileNotFoundError:
            return {}
        found: dict[str, Any] = next((one for one in faults if path.startswith(one["path"])), {})
        return found

    def log_message(self, *_: object) -> None:
        """The log is our own."""

    def handle(self) -> None:
        """A client that has had enough is no error."""
        try:
            super().handle()
        except OSError:
            self.close_connection = True


def main() -> None:
    """Serve until killed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    partial = FOLDER / "port.part"
    partial.write_text(str(server.server_port))
    partial.replace(FOLDER / "port")
    server.serve_forever()


if __name__ == "__main__":
    main()
