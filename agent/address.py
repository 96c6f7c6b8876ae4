"""Network addresses as people write them."""

from __future__ import annotations

from shoal.errors import InvalidInputError


def split_address(text: str) -> tuple[str, int]:
    """(host, port) of `host:port`, or `InvalidInputError`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise InvalidInputError(f"address {text!r}: expected host:port")
    return host.strip("[]"), int(port)
