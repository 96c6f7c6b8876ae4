"""Passing blocks between updaters and the broker; nobody here looks into them.

Only a transfer that an updater of ours has begun is listened to, and no more is held for it than
`MAX_WAITING_BYTES`: what is dropped is asked for again.
"""

from __future__ import annotations

from collections.abc import Callable

Deliver = Callable[[str, bytes], None]


class Blocks:
    """Who waits for which transfer. `publish` says whether the link took a request."""

    def __init__(self, publish: Callable[[bytes], bool]) -> None:
        self._publish = publish
        self._waiting: dict[str, Deliver] = {}

    def ask(self, transfer: str, payload: bytes, deliver: Deliver) -> None:
        """Pass a request on; blocks go to `deliver`, an empty one when there is no link."""
        self._waiting[transfer] = deliver
        if not self._publish(payload):
            deliver(transfer, b"")

    def arrived(self, transfer: str, payload: bytes) -> None:
        """A message came on `blocks/<transfer>`."""
        deliver = self._waiting.get(transfer)
        if deliver is not None and payload:
            deliver(transfer, payload)

    def forget(self, deliver: Deliver) -> None:
        """Whoever waited is gone."""
        self._waiting = {k: one for k, one in self._waiting.items() if one != deliver}
