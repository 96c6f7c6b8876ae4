"""Roles of the TUF repository: how long each is valid, how large it may be, when to warn."""

from __future__ import annotations

from datetime import timedelta

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
ROLES = (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)
OFFLINE = (ROOT, TARGETS)
ONLINE = (SNAPSHOT, TIMESTAMP)
DIRECTOR = "director"
"""No TUF role: its keys stand in a target (`shoal.protocol.targets`)."""

BIN_PREFIX = "bin"
DEFAULT_BIN_BITS = 7
"""2^7 bins; with 5,000 releases a device fetches least (decision record 0031)."""

VALID = {
    ROOT: timedelta(days=365),
    TARGETS: timedelta(days=90),  # and every bin
    SNAPSHOT: timedelta(days=7),
    TIMESTAMP: timedelta(days=1),
}
SLACK = timedelta(days=1)
"""Clocks of signers may be ahead of the controller's by so much."""

WARN = {ROOT: timedelta(days=60), TARGETS: timedelta(days=21)}
"""So long before an offline role ends, people are told."""

MAX_BYTES = {ROOT: 64 * 1024, TARGETS: 1024 * 1024, SNAPSHOT: 64 * 1024, TIMESTAMP: 16 * 1024}
"""What clients read at most; bins as targets."""

ISSUED = "x-issued"
"""Extra signed field of timestamp metadata: when it was signed, the fleet's signed time."""


def kind_of(role: str) -> str:
    """The role whose limits hold for `role`: bins are as targets.

    >>> kind_of("bin-3f"), kind_of("root")
    ('targets', 'root')
    """
    return role if role in ROLES else TARGETS
