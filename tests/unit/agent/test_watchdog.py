"""systemd hears of the agent as long as its windows close, and no longer."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import SimpleNamespace

import pytest

from agent import windows as windows_module
from agent.windows import STUCK_SECONDS, Windows

WINDOW_SECONDS = 60.0


@pytest.fixture
async def systemd(tmp_path, monkeypatch):
    """A socket as systemd's, and the agent's windows; time is `now`."""
    path = tmp_path / "notify"
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    receiver.bind(str(path))
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("WATCHDOG_USEC", "20000")  # it wants to hear of us each 10 ms
    found = SimpleNamespace(receiver=receiver, now=1000.0)
    clock = SimpleNamespace(monotonic=lambda: found.now)
    monkeypatch.setattr(windows_module, "time", clock)
    found.windows = Windows(SimpleNamespace(window_seconds=WINDOW_SECONDS), {}, {}, {})
    task = asyncio.create_task(found.windows.feed_watchdog())
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    receiver.close()


async def _heard(systemd):
    async with asyncio.timeout(10):
        return await asyncio.get_running_loop().sock_recv(systemd.receiver, 100)


async def _told_stuck(caplog):
    async with asyncio.timeout(10):
        while "windows stuck" not in caplog.text:  # noqa: ASYNC110 - the log has no event
            await asyncio.sleep(0.005)


async def test_it_is_told_while_windows_close_in_time(systemd):
    assert await _heard(systemd) == b"WATCHDOG=1"
    systemd.now += WINDOW_SECONDS + STUCK_SECONDS - 1
    assert await _heard(systemd) == b"WATCHDOG=1"


async def test_it_is_told_nothing_more_once_a_window_is_stuck(systemd, caplog):
    caplog.set_level(logging.ERROR)
    systemd.now += WINDOW_SECONDS + STUCK_SECONDS
    await _told_stuck(caplog)
    while True:  # what was said before
        try:
            systemd.receiver.recv(100)
        except BlockingIOError:
            break
    caplog.clear()
    await _told_stuck(caplog)  # a further round
    with pytest.raises(BlockingIOError):
        systemd.receiver.recv(100)


async def test_it_is_told_again_when_windows_close_after_all(systemd, caplog):
    caplog.set_level(logging.ERROR)
    systemd.now += WINDOW_SECONDS + STUCK_SECONDS
    await _told_stuck(caplog)
    await systemd.windows.close()
    assert await _heard(systemd) == b"WATCHDOG=1"
