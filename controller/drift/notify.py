"""Sends alerts to a webhook: each beginning once, tried again with growing pauses for a day."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import urllib.request
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select, update

from controller.config import AlertSettings
from controller.database import reading, writing
from controller.schema import alerts

log = logging.getLogger("controller.alerts")

TIMEOUT_SECONDS = 5.0
GIVE_UP_MS = 86_400_000
FIRST_PAUSE_MS = 5_000
LONGEST_PAUSE_MS = 600_000
BATCH = 20
_TOLD = (
    "id", "scope", "subject", "model", "family", "field", "kind", "sentence", "evidence",
    "started_ms", "opened_ms",
)  # fmt: skip


class Notifier:
    """Does nothing without an address."""

    def __init__(self, engine: Engine, settings: AlertSettings) -> None:
        self._engine = engine
        self._url = settings.webhook_url
        self._secret_file = settings.webhook_secret_file

    def work(self, now_ms: int) -> int:
        """Send what is due; return how many were delivered."""
        if not self._url:
            return 0
        with reading(self._engine) as connection:
            query = select(alerts).where(
                alerts.c.notified_ms.is_(None), alerts.c.opened_ms > now_ms - GIVE_UP_MS
            )
            waiting = connection.execute(query.order_by(alerts.c.id).limit(BATCH)).mappings().all()
        sent = 0
        for row in waiting:
            if now_ms >= row["opened_ms"] + pause_ms(row["notify_attempts"]):
                sent += self._send(dict(row), now_ms)
        return sent

    def _send(self, row: dict[str, Any], now_ms: int) -> bool:
        values: dict[str, Any] = {"notify_attempts": row["notify_attempts"] + 1}
        try:
            self._post({name: row[name] for name in _TOLD})
            values["notified_ms"] = now_ms
        except (OSError, ValueError) as error:
            log.warning("event=webhook-failed alert=%d error=%r", row["id"], str(error))
        with writing(self._engine) as connection:
            connection.execute(update(alerts).where(alerts.c.id == row["id"]).values(**values))
        return "notified_ms" in values

    def _post(self, alert: dict[str, Any]) -> None:
        body = json.dumps({"event": "alert", "alert": alert}).encode()
        headers = {"content-type": "application/json", "user-agent": "shoal-controller"}
        if self._secret_file:
            secret = Path(self._secret_file).read_bytes().strip()
            digest = hmac.new(secret, body, hashlib.sha256).hexdigest()
            headers["x-shoal-signature"] = f"sha256={digest}"
        if not self._url.startswith(("http://", "https://")):
            raise ValueError("alerts.webhook_url: expected http:// or https://")
        request = urllib.request.Request(self._url, body, headers)  # noqa: S310 - checked above
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310
            pass


def pause_ms(attempts: int) -> int:
    """How long after its opening an alert is tried for the next time."""
    return sum(min(FIRST_PAUSE_MS * 2**i, LONGEST_PAUSE_MS) for i in range(min(attempts, 200)))
