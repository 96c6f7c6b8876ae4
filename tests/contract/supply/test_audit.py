"""`scripts/audit` against an advisory service of our own: clean, not clean, and not there."""

from __future__ import annotations

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytestmark = [pytest.mark.contract, pytest.mark.timeout(300)]

HASH = "--hash=sha256:" + "0" * 64
LOCK = (
    f"safe==1.0 \\\n    {HASH}\n"
    f"many==1.26 ; python_version < '3.12' \\\n    {HASH}\n"
    f"many==2.0 ; python_version >= '3.12' \\\n    {HASH}\n"
)


class Service(ThreadingHTTPServer):
    """Answers the OSV query; `many` 1.26 has a known vulnerability."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.status = [], 200

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1/query"


class Handler(BaseHTTPRequestHandler):
    """One query."""

    def do_POST(self):
        query = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = (query["package"]["name"], query["version"])
        self.server.asked.append(asked)
        vulnerability = {
            "id": "PYSEC-2026-1",
            "modified": "2026-01-01T00:00:00Z",
            "published": "2026-01-01T00:00:00Z",
            "summary": "It answers too much.",
            "affected": [
                {
                    "package": query["package"],
                    "versions": ["1.26"],
                    "ranges": [
                        {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.27"}]}
                    ],
                }
            ],
        }
        body = json.dumps({"vulns": [vulnerability]} if asked == ("many", "1.26") else {}).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def service():
    server = Service()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def audit(repository_root, tmp_path):
    """Runs the script on one lock."""

    def run(text, url):
        lock = tmp_path / "some.lock"
        lock.write_text(text)
        return subprocess.run(
            [repository_root / "scripts" / "audit", "--url", url, lock],
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip

    return run


def test_every_version_of_a_lock_is_asked_about_and_what_is_known_is_told(audit, service):
    found = audit(LOCK, service.url)
    assert found.returncode == 1, found.stderr
    assert found.stdout == "many 1.26 (some.lock): PYSEC-2026-1, fixed in 1.27\n"
    assert "3 packages asked about, 1 vulnerabilities" in found.stderr
    assert sorted(service.asked) == [("many", "1.26"), ("many", "2.0"), ("safe", "1.0")]


def test_a_lock_without_known_vulnerabilities_passes(audit, service):
    found = audit(LOCK.replace("1.26", "1.27"), service.url)
    assert (found.returncode, found.stdout) == (0, "")


def test_a_database_that_cannot_be_asked_is_one_sentence_and_an_exit_code_of_its_own(
    audit, service
):
    service.status = 503
    busy = audit(LOCK, service.url)
    closed = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = closed.server_address[1]
    closed.server_close()
    gone = audit(LOCK, f"http://127.0.0.1:{port}/v1/query")
    for one in (busy, gone):
        assert (one.returncode, one.stdout) == (3, "")
        sentence = one.stderr.splitlines()[-1]
        assert sentence.startswith("audit: the vulnerability database at http://127.0.0.1:")
        assert "could not be asked, so nothing is known:" in sentence
        assert "Traceback" not in one.stderr
