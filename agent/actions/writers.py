"""What the queued actions write to: a SQLite table, a file of JSON lines, a webhook."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import sqlite3
import ssl
import uuid
from pathlib import Path
from urllib.parse import SplitResult

from agent.actions.queued import Stopping, WriteError, rows_of
from agent.ports import Answers
from shoal.addresses import shown

BACKOFF_SECONDS = (0.5, 60.0)
RETRYABLE_STATUS = {408, 425, 429}


class SqliteWriter:
    """Appends to table `predictions(id, time_ms, model, version, label, outputs)` of a file."""

    def __init__(self, path: Path, max_rows: int) -> None:
        self._path = path
        self._max_rows = max_rows
        self._connection: sqlite3.Connection | None = None

    def write(self, batch: list[Answers], stopping: Stopping) -> None:
        """Write a batch in one transaction; beyond `max_rows` the oldest rows go."""
        rows = [
            (ms, one.model, one.version, label, json.dumps(dict(zip(one.names, v, strict=True))))
            for one in batch
            for ms, v, label in zip(
                one.times_ms, one.values, one.labels or [""] * len(one.times_ms), strict=True
            )
        ]
        try:
            connection = self._connection = self._connection or self._open()
            with connection:
                connection.executemany(
                    "INSERT INTO predictions (time_ms, model, version, label, outputs)"
                    " VALUES (?, ?, ?, ?, ?)",
                    rows,
                )
                connection.execute(
                    "DELETE FROM predictions WHERE id <= (SELECT MAX(id) FROM predictions) - ?",
                    (self._max_rows,),
                )
        except sqlite3.Error as error:
            self.close()  # a disk that comes back is opened anew
            raise WriteError(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5.0)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS predictions (id INTEGER PRIMARY KEY, time_ms INTEGER,"
            " model TEXT, version TEXT, label TEXT, outputs TEXT)"
        )
        return connection


class FileWriter:
    """Appends JSON lines; a full file is renamed to `*.1`, `*.1` to `*.2`, up to `keep`."""

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep

    def write(self, batch: list[Answers], stopping: Stopping) -> None:
        """Append one line a row."""
        text = "".join(json.dumps(row) + "\n" for row in rows_of(batch))
        try:
            if self._path.exists() and self._path.stat().st_size >= self._max_bytes:
                self._rotate()
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise WriteError(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Nothing is held open."""

    def _rotate(self) -> None:
        names = [self._path, *(Path(f"{self._path}.{n}") for n in range(1, self._keep + 1))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)
        if not self._keep:
            self._path.unlink()


class WebhookWriter:
    """POSTs `{"rows": [...]}`; retries with back-off what may work later.

    Each batch has an `Idempotency-Key` that stays the same over its retries. A refusal (4xx) is
    not retried. Redirects are not followed.
    """

    def __init__(
        self, url: SplitResult, timeout_seconds: float, max_tries: int, token_file: str
    ) -> None:
        self._url = url
        self._timeout = timeout_seconds
        self._max_tries = max_tries
        self._token_file = token_file

    def write(self, batch: list[Answers], stopping: Stopping) -> None:
        """Send one batch."""
        body = json.dumps({"rows": rows_of(batch)}).encode()
        key = uuid.uuid4().hex
        delay = BACKOFF_SECONDS[0]
        for attempt in range(1, self._max_tries + 1):
            words, again = self._try(body, key)
            if not words:
                return
            if not again or attempt == self._max_tries or stopping.is_set():
                raise WriteError(f"{shown(self._url.geturl())}: {words} (try {attempt})")
            stopping.wait(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay = min(delay * 2, BACKOFF_SECONDS[1])

    def close(self) -> None:
        """Connections are made anew for each batch."""

    def _try(self, body: bytes, key: str) -> tuple[str, bool]:
        """("", …) when it was taken, else why not, and whether it may be tried again."""
        connection = self._connect()
        try:
            headers = {"Content-Type": "application/json", "Idempotency-Key": key}
            if self._token_file:
                token = Path(self._token_file).read_text(encoding="ascii").strip()
                headers["Authorization"] = f"Bearer {token}"
            target = self._url.path or "/"
            if self._url.query:
                target += f"?{self._url.query}"
            connection.request("POST", target, body, headers)
            response = connection.getresponse()
            response.read(4096)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return repr(error), True
        finally:
            connection.close()
        if 200 <= response.status < 300:
            return "", False
        again = response.status >= 500 or response.status in RETRYABLE_STATUS
        return f"answered {response.status} {response.reason}", again

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)
