"""Telling systemd that the service is ready and alive; nothing happens outside systemd.

Source: sd_notify(3). The socket is a datagram socket named by NOTIFY_SOCKET.
"""

from __future__ import annotations

import os
import socket


def notify(message: str) -> None:
    """Send e.g. READY=1, WATCHDOG=1 or STOPPING=1."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(message.encode(), address)
        except OSError:
            return  # systemd will notice by its own timeout


def watchdog_seconds() -> float:
    """How often systemd wants to hear of us: half its limit; 0 without a watchdog."""
    try:
        return int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    except ValueError:
        return 0.0
