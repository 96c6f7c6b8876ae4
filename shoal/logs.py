"""How every program logs: lines on standard error, INFO unless SHOAL_LOG_LEVEL says another level.

A log is shown to many more people than may see a secret: no message holds a token, a password, a
key, or a body that might, at any level.
"""

from __future__ import annotations

import logging
import os
import sys

VARIABLE = "SHOAL_LOG_LEVEL"
LEVELS = ("debug", "info", "warning", "error")


def default_level() -> str:
    """The level that was asked for, as `logging` names it; another word counts as INFO."""
    found = os.environ.get(VARIABLE, "info").lower()
    return (found if found in LEVELS else "info").upper()


def begin() -> None:
    """Start logging in this process."""
    logging.basicConfig(
        level=default_level(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    if os.environ.get(VARIABLE, "info").lower() not in LEVELS:
        expected = f"expected one of {', '.join(LEVELS)}"
        print(f"{VARIABLE}: {expected}, got {os.environ[VARIABLE]!r}", file=sys.stderr)
