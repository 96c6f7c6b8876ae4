"""Downloading against a real HTTP server that breaks off, lies, and ignores what it is asked."""

from __future__ import annotations

import functools
import hashlib
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.updater.download import SPARE_BYTES, digest_of, fetch_file
from agent.updater.pace import Limits
from agent.updater.web import CHUNK_BYTES, HttpTransport
from shoal.errors import ShoalError, UntrustedError

BODY = bytes(range(256)) * 1024  # four chunks
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Site:
    """What the server serves and how, and what it was asked."""

    body: bytes = BODY
    ranges: bool = True
    stop_after: int | None = None
    """Bytes after which the connection breaks."""
    promised: int | None = None
    """Content-Length, if it is not the truth; -1: none at all."""
    status: int = 200
    url: str = ""
    asked: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """Serves the site's body at any path."""

    def __init__(self, site: Site, *more):
        self.site = site
        super().__init__(*more)

    def do_GET(self):
        site = self.site
        asked = self.headers.get("range")
        site.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and site.ranges else 0
        body = site.body[start:]
        self.send_response(206 if start else site.status)
        promised = len(body) if site.promised is None else site.promised
        if promised >= 0:
            self.send_header("content-length", str(promised))
        self.end_headers()
        self.wfile.write(body[: site.stop_after])

    def log_message(self, *values):
        """Say nothing."""


@pytest.fixture
def site():
    """A running server."""
    site = Site()
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, site)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path):
    """Where files are kept."""
    path = tmp_path / "files"
    path.mkdir()
    return path


def _fetch(site, folder, on_bytes=lambda done: None) -> Path:
    return fetch_file([HttpTransport(site.url)], folder, SHA256, len(BODY), Limits(), on_bytes)


def _refused(site, folder) -> str:
    with pytest.raises(ShoalError) as caught:
        _fetch(site, folder)
    assert not (folder / SHA256).exists()
    return caught.value.code


def _part(folder) -> Path:
    return folder / f"{SHA256}.part"


def test_a_whole_file_arrives_read_only_under_its_hash(site, folder):
    told: list[int] = []
    path = _fetch(site, folder, told.append)
    assert path == folder / SHA256
    assert path.read_bytes() == BODY
    assert path.stat().st_mode & 0o777 == 0o400
    assert list(folder.iterdir()) == [path]
    assert told == sorted(told)
    assert told[-1] == len(BODY)


def test_a_file_that_is_there_is_not_asked_for_again(site, folder):
    path = _fetch(site, folder)
    assert _fetch(site, folder) == path
    assert site.asked == [None]


@pytest.mark.parametrize("damage", [b"", b"x", BODY[:-1] + b"x"])
def test_a_damaged_file_is_fetched_again(site, folder, damage):
    (folder / SHA256).write_bytes(damage)
    assert _fetch(site, folder).read_bytes() == BODY


@pytest.mark.parametrize("have", [1, CHUNK_BYTES, CHUNK_BYTES + 1, len(BODY) - 1])
def test_a_part_is_resumed_where_it_ends(site, folder, have):
    _part(folder).write_bytes(BODY[:have])
    told: list[int] = []
    assert _fetch(site, folder, told.append).read_bytes() == BODY
    assert site.asked == [f"bytes={have}-"]
    assert have < told[0] <= have + CHUNK_BYTES


def test_a_complete_part_needs_no_server(site, folder):
    _part(folder).write_bytes(BODY)
    assert _fetch(site, folder).read_bytes() == BODY
    assert site.asked == []


@pytest.mark.parametrize("have", [1, CHUNK_BYTES + 1, len(BODY) - 1])
def test_a_server_that_ignores_the_range_is_taken_from_the_beginning(site, folder, have):
    site.ranges = False
    _part(folder).write_bytes(BODY[:have])
    told: list[int] = []
    assert _fetch(site, folder, told.append).read_bytes() == BODY
    assert told[0] <= CHUNK_BYTES
    assert told[-1] == len(BODY)


def test_a_part_longer_than_the_file_is_begun_again(site, folder):
    _part(folder).write_bytes(BODY + b"more")
    assert _fetch(site, folder).read_bytes() == BODY
    assert site.asked == [None]


@pytest.mark.parametrize("have", [0, 1000])
def test_wrong_bytes_are_refused_and_begun_again_next_time(site, folder, have):
    _part(folder).write_bytes(b"x" * have)
    site.body = b"y" * len(BODY)
    assert _refused(site, folder) == "digest-mismatch"
    assert _part(folder).stat().st_size == 0
    site.body = BODY
    assert _fetch(site, folder).read_bytes() == BODY


def test_a_part_that_went_bad_is_replaced_at_once(site, folder):
    _part(folder).write_bytes(b"x" * 1000)
    assert _fetch(site, folder).read_bytes() == BODY
    assert site.asked == ["bytes=1000-", None]


def test_what_one_server_spoils_another_makes_good(site, folder):
    """A cache nearby lies in the first bytes and breaks off; the next server has to begin anew."""
    _part(folder).write_bytes(b"lies")
    servers = [HttpTransport("http://127.0.0.1:1"), HttpTransport(site.url)]
    assert fetch_file(servers, folder, SHA256, len(BODY), Limits()).read_bytes() == BODY


def test_two_updaters_that_want_one_file_take_turns(site, folder):
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: _fetch(site, folder), range(4)))
    assert {path.read_bytes() for path in paths} == {BODY}
    assert site.asked == [None]


@pytest.mark.parametrize("promised", [None, -1])
@pytest.mark.parametrize("have", [0, 1000])
def test_more_bytes_than_expected_are_refused_and_not_kept(site, folder, promised, have):
    _part(folder).write_bytes(BODY[:have])
    site.body = BODY + b"x"
    site.promised = promised
    assert _refused(site, folder) == "too-large"
    assert _part(folder).stat().st_size == 0
    site.body = BODY
    assert _fetch(site, folder).read_bytes() == BODY


@pytest.mark.parametrize("promised", [None, -1, len(BODY)])
def test_fewer_bytes_than_expected_are_kept_and_resumed(site, folder, promised):
    site.body = BODY[:-10]
    site.promised = promised
    assert _refused(site, folder) == "download-failed"
    assert _part(folder).read_bytes() == BODY[:-10]
    site.body, site.promised = BODY, None
    assert _fetch(site, folder).read_bytes() == BODY
    assert site.asked[-1] == f"bytes={len(BODY) - 10}-"


def test_a_connection_that_keeps_breaking_gets_there_in_the_end(site, folder):
    site.stop_after = 100_000
    site_calls = 0
    while not (folder / SHA256).exists():
        site_calls += 1
        assert site_calls < 5
        try:
            _fetch(site, folder)
        except ShoalError as error:
            assert error.code == "download-failed"  # noqa: PT017 - the last attempt succeeds
    assert site_calls == 3
    assert (folder / SHA256).read_bytes() == BODY


@pytest.mark.parametrize("status", [404, 416, 500, 503])
def test_a_refusing_server_leaves_the_part_for_later(site, folder, status):
    site.status = status
    site.ranges = False
    _part(folder).write_bytes(BODY[:10])
    assert _refused(site, folder) == "download-failed"
    assert _part(folder).read_bytes() == BODY[:10]


def test_nobody_listening_is_a_failed_download(folder):
    with pytest.raises(ShoalError) as caught:
        fetch_file([HttpTransport("http://127.0.0.1:1")], folder, SHA256, len(BODY), Limits())
    assert caught.value.code == "download-failed"


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://x/y", "/etc/hostname", ""])
def test_other_schemes_are_refused(url):
    with pytest.raises(UntrustedError) as caught:
        HttpTransport(url)
    assert caught.value.code == "bad-url"


def test_an_empty_file_needs_no_server(folder):
    sha256 = hashlib.sha256(b"").hexdigest()
    path = fetch_file([], folder, sha256, 0, Limits())
    assert path.read_bytes() == b""
    assert digest_of(path) == sha256


def test_a_full_disk_is_said_before_anything_is_asked(site, folder, monkeypatch):
    usage = SimpleNamespace(free=len(BODY) + SPARE_BYTES - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert _refused(site, folder) == "disk-full"
    assert site.asked == []
    _part(folder).write_bytes(BODY[:1])  # what is there already need not fit again
    assert _fetch(site, folder).read_bytes() == BODY


def test_a_power_cut_before_the_rename_is_survived(site, folder, monkeypatch):
    def cut(self, target):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        with pytest.raises(OSError, match="power cut"):
            _fetch(site, folder)
    assert _part(folder).stat().st_mode & 0o200, "a part that cannot be written is never resumed"
    assert _fetch(site, folder).read_bytes() == BODY
    assert site.asked == [None]
