"""Watching the certificate: it is renewed when two thirds of its life are over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path

from agent.access import BrokerAccess, load_broker
from agent.clock import Clock
from agent.reporter import Reporter
from shoal.errors import ShoalError

log = logging.getLogger("agent.identity")

LOOK_SECONDS = 3600.0
SHARES = (0.62, 0.70)
"""Devices that were enrolled together do not renew together."""
RETRY_SHARE = 0.01
RETRY_SECONDS = (1.0, 3600.0)
TIMEOUT_SECONDS = 120.0
MAX_WORDS_BYTES = 4096


class Renewal:
    """Runs `agent.renewal` in time, and has the link connect again with what it brought."""

    def __init__(
        self,
        config: Path,
        state_dir: Path,
        clock: Clock,
        reporter: Reporter,
        on_renewed: Callable[[], None],
    ) -> None:
        self._config = config
        self._state_dir = state_dir
        self._clock = clock
        self._reporter = reporter
        self._on_renewed = on_renewed
        self._told = ""

    async def run(self) -> None:
        """Look, renew, and look again for ever."""
        share = random.uniform(*SHARES)  # noqa: S311 - jitter
        pause = 0.0
        while True:
            await asyncio.sleep(pause)
            pause = await self._look(share)

    async def _look(self, share: float) -> float:
        """Renew if it is time; return after how many seconds to look again."""
        try:
            access = load_broker(self._state_dir)
        except ShoalError:
            return LOOK_SECONDS  # the link says so
        left = (access.renew_ms(share) - self._clock.now_ms()) / 1000
        if left > 0:
            return min(left, LOOK_SECONDS)
        code, sentence = await self._renew()
        if code:
            self._tell(code, sentence)
            life = (access.not_after_ms - access.not_before_ms) / 1000
            return min(max(RETRY_SHARE * life, RETRY_SECONDS[0]), RETRY_SECONDS[1])
        self._told = ""
        log.info("certificate renewed")
        self._reporter.event("agent", "certificate-renewed", _until(load_broker(self._state_dir)))
        self._on_renewed()
        return 0.0

    async def _renew(self) -> tuple[str, str]:
        """Run the process; ("", "") when it has brought a certificate."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent.renewal", "--config", str(self._config),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                _, words = await process.communicate()
        except TimeoutError:
            return "renewal-failed", f"no certificate within {TIMEOUT_SECONDS:g} s"
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode == 0:
            return "", ""
        last = words[-MAX_WORDS_BYTES:].decode("utf-8", "replace").strip().rpartition("\n")[2]
        code, _, sentence = last.partition(": ")
        return code[:80] or "renewal-failed", sentence or f"exit code {process.returncode}"

    def _tell(self, code: str, sentence: str) -> None:
        """Log each failure; send an event once a kind."""
        log.warning("certificate not renewed code=%s error=%r", code, sentence)
        if code != self._told:
            self._told = code
            self._reporter.event("agent", "renewal-failed", sentence, severity="warning")


def _until(access: BrokerAccess) -> str:
    days = (access.not_after_ms - access.not_before_ms) / 86_400_000
    return f"a new certificate for {days:.3g} days"
