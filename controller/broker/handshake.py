"""One MQTT 3.1.1 login, to see that a broker is up and knows an account.

It needs no MQTT client: one short packet out, four bytes back.

>>> connect_packet("a", "secret").hex()
'101800044d51545404c2000a0001610001610006736563726574'
"""

from __future__ import annotations

import asyncio
import struct

ACCEPTED = 0
UNREACHABLE = -1

_CLEAN_WITH_LOGIN = 0xC2
_KEEPALIVE_SECONDS = 10
_DISCONNECT = b"\xe0\x00"


def connect_packet(name: str, password: str) -> bytes:
    """A CONNECT of a clean session whose client id is its user name."""
    body = b"\x00\x04MQTT\x04" + struct.pack(">BH", _CLEAN_WITH_LOGIN, _KEEPALIVE_SECONDS)
    for text in (name, name, password):
        body += struct.pack(">H", len(text)) + text.encode("ascii")
    if len(body) < 128:
        return bytes((0x10, len(body))) + body
    return bytes((0x10, len(body) % 128 | 0x80, len(body) // 128)) + body


async def log_in(host: str, port: int, name: str, password: str, seconds: float) -> int:
    """Log in and out; return the CONNACK's code (0 accepted), or -1 if there was none."""
    try:
        async with asyncio.timeout(seconds):
            return await _log_in(host, port, connect_packet(name, password))
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return UNREACHABLE


async def _log_in(host: str, port: int, packet: bytes) -> int:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(packet)
        answer = await reader.readexactly(4)
        writer.write(_DISCONNECT)
        return answer[3] if answer[:2] == b"\x20\x02" else UNREACHABLE
    finally:
        writer.close()
