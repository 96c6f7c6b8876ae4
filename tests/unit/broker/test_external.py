"""A broker that the site runs: the controller only waits beside it."""

from __future__ import annotations

import asyncio

from controller.broker import ExternalBroker


async def test_watching_it_never_ends_as_that_would_end_the_controller():
    watching = asyncio.create_task(ExternalBroker("127.0.0.1", 1883).watch())
    done, _ = await asyncio.wait({watching}, timeout=0.05)
    assert not done
    watching.cancel()
    await asyncio.wait({watching})
    assert watching.cancelled()
