"""The HTTP transport: one connection a document, under the pace's deadline down to each read.

Headers, too, are read under it: a server that drips them would otherwise hold us for as long as it
likes. Redirects and the environment's proxies are followed as urllib does. Content is never
decoded, so a compression bomb stays as small as it came.
"""

from __future__ import annotations

import http.client
import io
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from agent.updater.pace import Pace, SlowTransferError
from agent.updater.transport import DownloadError, NotThereError, Stream
from shoal import __version__
from shoal.errors import UntrustedError

CHUNK_BYTES = 64 * 1024


class HttpTransport:
    """Documents below one base URL."""

    def __init__(self, base: str) -> None:
        if not base.startswith(("http://", "https://")):
            raise UntrustedError(f"{base}: expected http:// or https://", code="bad-url")
        self._base = base.rstrip("/")

    @property
    def name(self) -> str:
        """The base URL."""
        return self._base

    @contextmanager
    def open(self, path: str, start: int, pace: Pace) -> Iterator[Stream]:
        """GET a document, from `start` on if the server can."""
        url = f"{self._base}/{path}"
        response = _get(url, start, pace)
        with response:
            ranged = response.status == http.HTTPStatus.PARTIAL_CONTENT
            yield Stream(start if ranged else 0, _chunks(url, response))


def _get(url: str, start: int, pace: Pace) -> http.client.HTTPResponse:
    headers = {"accept-encoding": "identity", "user-agent": f"shoal-agent/{__version__}"}
    if start:
        headers["range"] = f"bytes={start}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http or https by then
    try:
        opener = urllib.request.build_opener(_Http(pace), _Https(pace))
        response: http.client.HTTPResponse = opener.open(request, timeout=pace.wait_seconds())
    except urllib.error.HTTPError as error:
        error.close()
        raise NotThereError(f"{url}: {error}", error.code) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _failed(error, f"{url}: {error}") from error
    return response


def _chunks(url: str, response: http.client.HTTPResponse) -> Iterator[bytes]:
    size = 0
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _failed(error, f"{url}: broke off after {size} bytes") from error
        if not chunk:
            if response.length:
                raise DownloadError(f"{url}: broke off {response.length} bytes before its end")
            return
        size += len(chunk)
        yield chunk


def _failed(error: Exception, sentence: str) -> DownloadError | SlowTransferError:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return reason if isinstance(reason, SlowTransferError) else DownloadError(sentence)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_HttpConnection, pace=self._pace), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_HttpsConnection, pace=self._pace), req)


class _HttpConnection(http.client.HTTPConnection):
    def __init__(self, *arguments: Any, pace: Pace, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pace = pace

    def connect(self) -> None:
        super().connect()
        self.sock = _Paced(self.sock, self._pace)


class _HttpsConnection(_HttpConnection, http.client.HTTPSConnection):
    """The same: what `super` connects is TLS here."""


class _Paced:
    """Stands for a socket in `http.client`, which reads only through `makefile`."""

    def __init__(self, sock: Any, pace: Pace) -> None:
        self._sock = sock
        self._pace = pace

    def makefile(self, mode: str, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_PacedReader(self._sock, self._pace))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _PacedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, pace: Pace) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._pace = pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        view = memoryview(buffer)
        self._sock.settimeout(self._pace.wait_seconds())
        try:
            size = self._raw.readinto(view[: self._pace.most(len(view))])
        except TimeoutError as error:
            raise self._pace.silent() from error
        self._pace.count(size or 0)
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()
